"""What the terminal shows while a run goes: calm lines, a bar with the time left, the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ayatori.errors import plain
from ayatori.records import Epoch, Look
from ayatori.run import Event, Result

EVERY = 15.0  # seconds between lines where there is no terminal
WIDE = 110  # columns of a file or a pipe
LABELS = {
    "explore": "look",
    "read": "read",
    "plan": "plan",
    "embed": "embed",
    "advise": "source",
    "augment": "augment",
    "train": "train",
    "boost": "boost",
    "rivals": "compare",
    "score": "score",
}
SPLITS = {"out_of_fold": "held-out rows", "test": "sealed test"}
SHOWN = {
    "classification": ("accuracy", "log_loss"),
    "multilabel": ("exact_match", "macro_f1"),
    "regression": ("rmse", "r2"),
}


def terminal() -> Console:
    """Where lines are printed; without a terminal there is room for long names."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


class Terminal:
    """Is told events (see ``run.Event``) and prints them; without a terminal, plain lines."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = terminal()
        self.quiet = quiet
        self.stage = ""
        self.best: dict[int, Epoch] = {}
        self.last: dict[int, Epoch] = {}
        self.spoke = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description:<9}", style="dim"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task: Any = None

    def __enter__(self) -> Terminal:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        if event.epoch is not None:
            self._epoch(event.epoch)
        if event.share is not None:
            self._bar(event.stage, event.share, event.text)
        elif event.text:
            self._line(event.stage, event.text)

    def _line(self, stage: str, text: str) -> None:
        if self.quiet:
            return
        label = LABELS.get(stage, stage) if stage != self.stage else ""
        self.stage = stage
        line = Text.assemble((f"{label:<9} ", "cyan"), plain(text))
        self.console.print(line, soft_wrap=True)

    def _bar(self, stage: str, share: float, note: str) -> None:
        if self.task is None or self.task[0] != stage:
            if self.task is not None:
                self.progress.remove_task(self.task[1])
            self.task = (stage, self.progress.add_task(LABELS.get(stage, stage), total=1.0, note=""))
        if stage == "train":
            note = self._losses()
        self.progress.update(self.task[1], completed=share, note=note)
        if not self.console.is_terminal and not self.quiet and time.monotonic() - self.spoke > EVERY:
            self.spoke = time.monotonic()
            self._line(stage, f"{share:4.0%}  {note}".rstrip())

    def _epoch(self, line: Epoch) -> None:
        self.last[line.member] = line
        best = self.best.get(line.member)
        if best is None or line.stop_loss < best.stop_loss:
            self.best[line.member] = line
        if line.note:
            self._line("train", f"network {line.member}, epoch {line.epoch}: {line.note}")

    def _losses(self) -> str:
        if not self.last:
            return ""
        stop = sum(line.stop_loss for line in self.last.values()) / len(self.last)
        learned = sum(line.train_loss for line in self.last.values()) / len(self.last)
        epoch = max(line.epoch for line in self.last.values())
        best = sorted(line.epoch for line in self.best.values())[len(self.best) // 2]
        return f"epoch {epoch}  loss {learned:.3f}, on stop rows {stop:.3f}, lowest at epoch {best}"

    def summary(self, result: Result, page: Path, answer: Mapping[str, Any]) -> None:
        """The leaderboard, the answer as the page gives it, and where everything is."""
        self.progress.stop()
        if not self.quiet:
            self.console.print()
        for split in SPLITS:
            if any(entry.split == split for entry in result.leaderboard):
                self.console.print(leaderboard_table(result, split))
                self.console.print()
        self.console.print(plain(answer["headline"]), style="bold", markup=False, soft_wrap=True)
        self.console.print(plain(answer["text"]), markup=False, soft_wrap=True)
        self.console.print(plain(f"Next: {answer['next']}"), markup=False, soft_wrap=True)
        self.console.print()
        self.console.print(Text.assemble("page  ", (plain(str(page)), "bold")), soft_wrap=True)
        if result.folder is not None:
            self.console.print(
                Text(plain(f"use   ayatori predict {quote(str(result.folder))} NEW_DATA -o predictions.csv")),
                soft_wrap=True,
            )

    def look(self, look: Look, page: Path) -> None:
        """The verdict, what it rests on, what is odd, and where the page is."""
        self.progress.stop()
        if not self.quiet:
            self.console.print()
            self.console.print(ruler_table(look.facts))
            self.console.print()
            for sentence in look.facts["audit"]["sentences"]:
                self.console.print(plain(f"· {sentence}"), soft_wrap=True, markup=False)
        for sentence in look_sentences(look.facts):
            self.console.print(plain(sentence), soft_wrap=True, markup=False)
        self.console.print(Text.assemble("page  ", (plain(str(page)), "bold")), soft_wrap=True)


def look_sentences(facts: Mapping[str, Any]) -> list[str]:
    """The verdict in a sentence, and the cheapest next step."""
    said = facts["verdict"]
    return [f"{said['word']}: {said['sentence']}", said["next"]]


def ruler_table(facts: Mapping[str, Any]) -> Table:
    """Chance, quick models, what to expect, and what the data allow, one under the other."""
    ruler = facts["ruler"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{facts['metric']}, {facts['development']:,} rows", no_wrap=True, min_width=36)
    table.add_column("", justify="right")
    table.add_column("90 %", style="dim", no_wrap=True)
    if ruler["chance"] is not None:
        table.add_row("chance", figure(ruler["chance"]), "")
    for probe in facts["probes"]:
        table.add_row(
            probe["name"], figure(probe["value"]), f"{figure(probe['low'])} – {figure(probe['high'])}"
        )
    for name, title in (("expected", "a network trained now"), ("ceiling", "the best these data allow")):
        if ruler[name] is not None:
            low, middle, high = ruler[name]
            table.add_row(title, figure(middle), f"{figure(low)} – {figure(high)}", style="bold")
    if ruler["target"] is not None:
        table.add_row("your target", figure(ruler["target"]), "")
    return table


def leaderboard_table(result: Result, split: str) -> Table:
    """One split's lines: name, the main figure with its interval, a second figure, seconds of training."""
    first, second = SHOWN[result.dataset.task]
    entries = [entry for entry in result.leaderboard if entry.split == split]
    rows = max(score.n for entry in entries for score in entry.scores.values())
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{SPLITS[split]}, {rows:,} rows", overflow="fold", min_width=30)
    table.add_column(first.replace("_", " "), justify="right", no_wrap=True, min_width=len(first))
    table.add_column("95 %", style="dim", no_wrap=True, min_width=15)
    table.add_column(second.replace("_", " "), justify="right", no_wrap=True, min_width=len(second))
    table.add_column("train", justify="right", style="dim", no_wrap=True, min_width=6)
    for entry in entries:
        main, other = entry.scores.get(first), entry.scores.get(second)
        table.add_row(
            Text(plain(entry.name)),
            figure(main.value) if main else "",
            f"{figure(main.low)} – {figure(main.high)}" if main else "",
            figure(other.value) if other else "",
            f"{entry.seconds.get('train', 0.0):.0f} s",
            style="bold" if entry.name == result.chosen else "",
        )
    return table


def runs_table(lines: list[dict[str, Any]]) -> Table:
    """The runs of a folder, one a line."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", overflow="fold", min_width=14)
    table.add_column("data", overflow="fold", min_width=12)
    table.add_column("rows", justify="right")
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("95 %", style="dim", no_wrap=True)
    table.add_column("time", justify="right", style="dim", no_wrap=True)
    for line in lines:
        if not line["done"]:
            table.add_row(Text(plain(line["run"])), "not finished", style="dim")
            continue
        score = line["score"]
        table.add_row(
            Text(plain(line["run"])),
            Text(plain(line["data"])),
            f"{line['rows']:,}",
            f"{line['metric'].replace('_', ' ')} {figure(score['value'])}" if score else "",
            f"{figure(score['low'])} – {figure(score['high'])}" if score else "",
            f"{line['seconds']:.0f} s",
        )
    return table


def compared_table(board: Mapping[str, Any], task: str) -> Table:
    """Runs on the rows of one split that all share: two figures, and the difference to the first run."""
    shown = [name for name in SHOWN[task] if name in board["lines"][0]["scores"]]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{SPLITS[board['split']]}, {board['rows']:,} rows", overflow="fold", min_width=16)
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True, min_width=len(name))
    table.add_column("difference", justify="right", no_wrap=True, min_width=10)
    table.add_column("95 %", style="dim", no_wrap=True, min_width=17)
    table.add_column("p", justify="right", no_wrap=True, min_width=5)
    for line in board["lines"]:
        gap = line.get("paired") or {}
        table.add_row(
            Text(plain(f"{Path(line['run']).name}: {line['name']}")),
            *(figure(line["scores"][name]["value"]) if name in line["scores"] else "" for name in shown),
            f"{gap['difference']:+.4f}" if gap else "",
            f"{gap['low']:+.4f} – {gap['high']:+.4f}" if gap else "",
            f"{gap['p']:.2g}" if gap else "",
        )
    return table


def figure(value: float) -> str:
    """Four digits that matter.

    >>> figure(0.98512), figure(1234.5), figure(0.00001234)
    ('0.9851', '1234', '1.234e-05')
    """
    if 0.001 <= abs(value) < 10 or value == 0:
        return f"{value:.4f}"
    return f"{value:.4g}"
