"""Stage 9j. A folder of runs -> the list of them; runs on the same data -> their differences, row by row."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.evaluate import score
from ayatori.evaluate.compare import lower_loss, paired
from ayatori.evaluate.metrics import LOWER, MAIN
from ayatori.log import flat
from ayatori.records import AyatoriError
from ayatori.report.answer import main_figure
from ayatori.report.lines import chosen_line, held_out_line
from ayatori.report.look import environment
from ayatori.report.members import read_json
from ayatori.report.mistakes import label_table, read_predictions, value_table
from ayatori.report.words import TITLES, plural

LEAST = 2  # rows that two runs must share
COLUMNS = {
    "classification": ("accuracy", "balanced_accuracy", "log_loss", "ece"),
    "multilabel": ("accuracy", "exact_match", "macro_f1", "log_loss"),
    "regression": ("mae", "rmse", "r2"),
}


def list_runs(folder: str | Path) -> list[dict[str, Any]]:
    """A line for each run in ``folder``, oldest first: its data, what was chosen, its figure, its time.

    Raises AyatoriError where there is no run.
    """
    folder = Path(folder)
    paths = [path.parent for path in folder.glob("*/recipe.toml")] if folder.is_dir() else []
    if not paths:
        raise AyatoriError(f"'{folder}' must be a folder with runs in it, however there is none")
    return [_line(path) for path in sorted(paths, key=lambda path: (path / "recipe.toml").stat().st_mtime)]


def _line(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"run": path.name, "done": (path / "DONE").is_file()}
    if not found["done"]:
        return found
    result, data = read_json(path / "result.json"), read_json(path / "data.json")
    line = chosen_line(result["leaderboard"], result["chosen"])
    metric = main_figure(result["task"], line) if line else ""
    return found | {
        "data": Path(data["source"]).name or data["kind"],
        "rows": data["rows"],
        "chosen": result["chosen"],
        "split": line["split"] if line else "",
        "metric": metric,
        "score": line["scores"][metric] if line and metric else None,
        "seconds": result["seconds"]["total"],
    }


def compare_runs(paths: Sequence[str | Path]) -> dict[str, Any]:
    """What was chosen in each run, on the rows that all of them were judged by; differences to the first.

    Test rows and held-out rows apart: a row counts where every run has an honest prediction of the same kind.

    Raises AyatoriError where there are not two finished runs on the same data.
    """
    runs = [Path(path) for path in paths]
    if len(runs) < 2:
        raise AyatoriError(f"there must be two runs to compare, however: {len(runs)}")
    for run in runs:
        if not (run / "DONE").is_file():
            raise AyatoriError(f"'{run}' must be a finished run, however it has no DONE")
    results = [read_json(run / "result.json") for run in runs]
    prints = [read_json(run / "data.json")["fingerprint"] for run in runs]
    for run, result, mark in zip(runs, results, prints, strict=True):
        if mark != prints[0] or result["task"] != results[0]["task"]:
            raise AyatoriError(
                f"runs must be on the same data to be compared, however '{run}' read other data than "
                f"'{runs[0]}'"
            )
    boards = [_board(runs, results, split) for split in ("test", "out_of_fold")]
    found = {
        "task": results[0]["task"],
        "fingerprint": prints[0],
        "boards": [board for board in boards if board],
        "differ": differing(runs),
    }
    if not found["boards"]:
        raise AyatoriError("runs must have been judged by some of the same rows, however there are none")
    return found


def differing(runs: Sequence[Path]) -> dict[str, list[Any]]:
    """Settings of the recipes that are not the same in all runs: name -> the value of each."""
    recipes = [flat(tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))) for run in runs]
    names = dict.fromkeys(name for settings in recipes for name in settings)
    values = {name: [settings.get(name, "") for settings in recipes] for name in names}
    return {name: own for name, own in values.items() if any(value != own[0] for value in own)}


def write_comparison(paths: Sequence[str | Path], path: str | Path) -> Path:
    """The page of ``compare_runs``; ``path`` must be new."""
    from ayatori.store import RunFolder, new_file

    path = new_file(path)
    page = environment().get_template("compare.html.j2").render(**comparison_facts(paths))
    RunFolder(path.parent).write_text(path.name, page)
    return path


def comparison_facts(paths: Sequence[str | Path]) -> dict[str, Any]:
    """All that the page of a comparison says."""
    found = compare_runs(paths)
    names = _short_names([str(Path(path)) for path in paths])
    boards = []
    for board in found["boards"]:
        first = board["lines"][0]["scores"]
        metric = "mae" if "mae" in first else "rmse" if "rmse" in first else "accuracy"
        entries = [
            {"paired": {}, **line, "run": name, "network": True, "chosen": place == 0, "blind": False}
            for place, (name, line) in enumerate(zip(names, board["lines"], strict=True))
        ]
        columns = [[key, TITLES[key]] for key in COLUMNS[found["task"]] if key in first]
        boards.append(
            {
                "title": {"test": "sealed test", "out_of_fold": "held-out rows"}[board["split"]],
                "label": TITLES[metric],
                "rows": board["rows"],
                "metric": metric,
                "lower": metric in LOWER,
                "entries": entries,
                "columns": columns,
            }
        )
    headline, text = _in_words(boards[0])
    return {
        "headline": headline,
        "text": text,
        "task": found["task"],
        "data": Path(read_json(Path(paths[0]) / "data.json")["source"]).name or "data in memory",
        "fingerprint": found["fingerprint"],
        "runs": names,
        "boards": boards,
        "differ": [
            [name, [_shown(value) for value in values]]
            for name, values in found["differ"].items()
            if name != "engine.why"
        ],
    }


def _in_words(board: Mapping[str, Any]) -> tuple[str, str]:
    """Which run is best on these rows, and whether that may be chance."""
    first, *others = board["entries"]
    best = max(others, key=lambda entry: entry["paired"]["difference"])
    gap = best["paired"]
    if gap["low"] > 0:
        headline, text = f"{best['run']} does better than {first['run']}.", "That is more than chance"
    elif all(entry["paired"]["high"] < 0 for entry in others):
        than = others[0]["run"] if len(others) == 1 else "all others"
        headline, text = f"{first['run']} does better than {than}.", "That is more than chance"
    else:
        return "No difference that chance could not make.", (
            f"On {plural(board['rows'], 'row')} that all were judged by, the intervals of the differences to "
            f"{first['run']} reach over zero. More rows, or runs with more repeats, would tell more."
        )
    return (
        headline,
        f"{text}: the 95 % interval of the difference on {plural(board['rows'], 'row')} leaves out zero.",
    )


def _short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or the whole where two would be the same."""
    names = [Path(path).name or path for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _board(runs: Sequence[Path], results: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any] | None:
    """One split: every run's figures on the rows that all share, and its difference to the first run."""
    tables, names = [], []
    for run, result in zip(runs, results, strict=True):
        entries = result["leaderboard"]
        own = chosen_line(entries, result["chosen"]) if split == "test" else None
        entry = own if split == "test" else held_out_line(entries, result["chosen"])
        if entry is None or entry["split"] != split:
            return None
        names.append(entry["name"])
        tables.append(read_predictions(run / "predictions.parquet", entry["name"], split).set_index("row"))
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index)
    if len(shared) < LEAST:
        return None
    task, classes = results[0]["task"], list(results[0]["classes"])
    seen = [_values(table.loc[shared], task, classes) for table in tables]
    truth, first, said = seen[0]
    lines: list[dict[str, Any]] = []
    for run, name, (_, values, told) in zip(runs, names, seen, strict=True):
        figures = score(truth, values, task, classes, decided=told)
        scores = {key: vars(figure) for key, figure in figures.items()}
        line: dict[str, Any] = {"run": str(run), "name": name, "scores": scores}
        if lines:
            line["paired"] = paired(truth, told, said, task) | lower_loss(truth, values, first, task)
        lines.append(line)
    return {"split": split, "rows": len(shared), "criterion": MAIN[task], "lines": lines}


def _values(table: pd.DataFrame, task: str, classes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, what is predicted (n, c), and (n, c) whose largest is what is said."""
    if task == "regression":
        truth, values, _ = value_table(table, ())
        return truth, values, values
    values = table[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    if task == "multilabel":
        told = label_table(table["said"], classes) if "said" in table else values
        return label_table(table["true"], classes), values, told
    known = pd.Index(classes)
    told = values
    if "said" in table:
        told = np.eye(len(classes))[known.get_indexer(table["said"].astype(str))]
    return known.get_indexer(table["true"].astype(str)), values, told
