"""Ensembles on real tables and pictures: Ayatori's of one run, and the rivals', all tested on the same rows.

A cell is one side on one data set with one seed, in a fresh process. It is appended to the JSON lines of
``--out``; cells that are there are not run again, so that a long table is collected in pieces. ``--table``
prints what is there: means over seeds as Markdown, and who has the lower log loss (RMSE) how often.

One run of Ayatori makes all its ensembles; ``ayatori`` is the one that it chose by out-of-fold scores, and
the seconds are those of the whole run. Of the networks of the folds, ``single`` is the one with the best
score on its own fold, ``luckiest`` the one with the best score on the test, which nobody can know beforehand,
and ``typical`` is the mean of their scores.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import pandas as pd
from common import fresh_process, versions
from ensemble_data import DATA, Task, read_task
from ensemble_rivals import RIVALS, threads

SINGLES = ("typical", "single", "luckiest")
KINDS = ("mean", "bagging", "boosting", "stacking", "greedy")
SECOND = "linear network"
# a word in the name of a line of the leaderboard tells its kind; the first that fits
WORDS = {"greedy": "greedy", "stack": "stacking", "boost": "boosting", "bag": "bagging", "mean": "mean"}
EPSILON = float(np.finfo(np.float32).eps)
LOSSES = ("log_loss", "rmse")
Cell = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a cell")
    parser.add_argument("--sides", nargs="+", choices=["ayatori", *RIVALS], default=["ayatori", *RIVALS])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, help="at most so many, test and all")
    parser.add_argument(
        "--epochs", type=int, default=0, help="of every network; 0 = as each side thinks best"
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of Ayatori's; a file each"
    )
    parser.add_argument(
        "--preset", choices=("quick", "good", "best"), default="good", help="of Ayatori's; a file each"
    )
    parser.add_argument("--threads", type=int, default=1, help="cores that each side may use")
    parser.add_argument("--tables", type=Path, default=Path("tables"), help="folder of the CSV files")
    parser.add_argument(
        "--fashion", type=Path, default=Path("fashion-mnist"), help="folder of the idx.gz files"
    )
    parser.add_argument("--autogluon", default=sys.executable, help="Python that has AutoGluon")
    parser.add_argument(
        "--table", action="store_true", help="print the table of what is there, and run nothing"
    )
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        side, data, seed = options.cell
        print("\n" + json.dumps(measure(side, data, int(seed), options)))
    elif options.table:
        print(report(flat(read_cells(options.out, options.rows))))
    else:
        raise SystemExit(collect(options))


def collect(options: argparse.Namespace) -> int:
    """Run the cells that are missing, all data sets and sides of the first seed first; how many failed."""
    there = {key(cell) for cell in read_cells(options.out, options.rows)}
    failed = 0
    for seed in options.seeds:
        for data in options.data:
            for side in options.sides:
                if not takes(side, data) or (side, data, seed) in there:
                    continue
                python = options.autogluon if side == "autogluon" else sys.executable
                arguments = ("--cell", side, data, str(seed))
                try:
                    cell = fresh_process(*arguments, threads=options.threads, python=python)
                except SystemExit as failure:  # the others need not suffer
                    print(failure, file=sys.stderr)
                    failed += 1
                    continue
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(cell) + "\n")
                print(f"{side}, {data}, seed {seed}: {cell['scores']}", file=sys.stderr, flush=True)
    return failed


def takes(side: str, data: str) -> bool:
    """Whether a side can do a data set."""
    source, rival = DATA[data], RIVALS.get(side)
    return rival is None or ((rival.pictures or not source.pictures) and (rival.values or not source.values))


def key(cell: Cell) -> tuple[str, str, int]:
    return cell["side"], cell["data"], cell["seed"]


def read_cells(path: Path, rows: int | None) -> list[Cell]:
    """The cells with this cap of rows; of one that was run several times, the last."""
    if not path.exists():
        return []
    cells = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return list({key(cell): cell for cell in cells if cell["rows"] == rows}.values())


def measure(side: str, data: str, seed: int, options: argparse.Namespace) -> Cell:
    """One cell: scores on the test, and what it cost from the arrays to there. Imports are not timed."""
    folders = {"tables": options.tables, "fashion": options.fashion}
    task = read_task(data, seed, folders, options.rows, options.epochs)
    more: Cell = {}
    importlib.import_module("ayatori.run" if side == "ayatori" else RIVALS[side].library)
    if "torch" in sys.modules or side == "autogluon":
        # optimisers import it when the first is made, which takes seconds
        importlib.import_module("torch._dynamo")
    load, before, start = os.getloadavg()[0], cpu_seconds(), time.perf_counter()
    if side == "ayatori":
        more = ayatori(task, tuple(options.kinds), options.preset)
    else:
        values = RIVALS[side].side(task)
    cost = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - before}
    if side != "ayatori":
        more = {"scores": scores(task.y[task.test], values, bool(task.classes))}
    train, test = int((~task.test).sum()), int(task.test.sum())
    facts = {"rows": options.rows, "train": train, "test": test, "threads": threads(), "load": round(load, 1)}
    return {"side": side, "data": data, "seed": seed, **more, **cost, **facts, "versions": versions()}


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def scores(truth: np.ndarray, values: np.ndarray, classes: bool) -> dict[str, float]:
    """Accuracy and log loss of probabilities (t, classes); R2 and RMSE of values (t,)."""
    if not np.isfinite(values).all():
        raise ValueError("predictions must be finite")
    if classes:
        own = values[np.arange(len(truth)), truth].clip(EPSILON, 1 - EPSILON)
        right = values.argmax(axis=1) == truth
        return {"accuracy": float(right.mean()), "log_loss": float(-np.log(own).mean())}
    squares = float(((values - truth) ** 2).mean())
    return {"r2": 1 - squares / float(truth.var()), "rmse": squares**0.5}


def ayatori(
    task: Task, kinds: tuple[str, ...] = KINDS, preset: Literal["quick", "good", "best"] = "good"
) -> Cell:
    """The ensembles of one run: its leaderboard, the scores of the chosen one and of each single network."""
    from ayatori import run
    from ayatori.recipe import (
        DataRecipe,
        EnsembleRecipe,
        EvaluateRecipe,
        ExploreRecipe,
        PlanRecipe,
        Recipe,
        TrainRecipe,
    )

    with tempfile.TemporaryDirectory() as folder:
        path, test = write(task, Path(folder))
        recipe = Recipe(
            data=DataRecipe(task="classification" if task.classes else "regression"),
            plan=PlanRecipe(test=test),
            explore=ExploreRecipe(look=False),
            train=TrainRecipe(device="cpu", epochs=task.epochs),
            ensemble=EnsembleRecipe(kinds=kinds),
            evaluate=EvaluateRecipe(baselines=()),
            preset=preset,
            seed=task.seed,
        )
        result = run(path, recipe)
    entries = [
        {"name": entry.name, "split": entry.split, "network": entry.network, "seconds": dict(entry.seconds)}
        | {"scores": {name: entry.scores[name].value for name in known(entry.scores)}}
        for entry in result.leaderboard
    ]
    chosen = next(
        entry["scores"] for entry in entries if entry["split"] == "test" and entry["name"] == result.chosen
    )
    return {"scores": chosen, "chosen": result.chosen, "entries": entries, "singles": singles(result)}


def known(figures: Any) -> list[str]:
    return [name for name in ("accuracy", "log_loss", "r2", "rmse") if name in figures]


def write(task: Task, folder: Path) -> tuple[str, str]:
    """The files that a user would have: rows to learn from, and the rows of the test."""
    paths = []
    for name, rows in (("train", ~task.test), ("test", task.test)):
        if isinstance(task.x, np.ndarray):
            np.savez(folder / f"{name}.npz", X=task.x[rows], y=task.labels[rows])
        else:
            frame = task.x[rows].assign(**{"the target": task.labels[rows]})
            frame.to_csv(folder / f"{name}.csv", index=False)
        paths.append(str(folder / f"{name}.{'npz' if task.pictures else 'csv'}"))
    return paths[0], paths[1]


def singles(result: Any) -> list[dict[str, dict[str, float]]]:
    """Scores of each fold's network: on its own fold, and on the test."""
    from ayatori.records import SCORE

    plan, data, said = result.plan, result.dataset, result.predictions.values
    found = []
    for member, column in enumerate(plan.columns):
        if column.kind == "fold" and column.net == plan.columns[0].net:
            parts = {"out_of_fold": plan.rows(member, SCORE), "test": np.flatnonzero(plan.sealed)}
            found.append({name: own_scores(data, said[member], rows) for name, rows in parts.items()})
    return found


def own_scores(data: Any, said: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    if data.classes:
        return scores(data.labels[rows], said[rows], True)
    return scores(data.labels[rows].reshape(-1), said[rows].reshape(-1), False)


def flat(cells: Sequence[Cell]) -> pd.DataFrame:
    """A line for each side and each of Ayatori's kinds: data, seed, side, loss, accuracy, seconds, cpu."""
    lines: list[Cell] = []
    for cell in cells:
        whole = {"seconds": cell["seconds"], "cpu": cell["cpu_seconds"]}
        said = [(cell["side"], cell["scores"], whole)]
        tested = [entry for entry in cell.get("entries", []) if entry["split"] == "test" and entry["network"]]
        # a stack's second network is no ensemble of the run's own
        tested = [entry for entry in tested if not entry["name"].startswith(SECOND)]
        for entry in tested:
            if kind := next((kind for word, kind in WORDS.items() if word in entry["name"]), ""):
                said.append((kind, entry["scores"], {"seconds": sum(entry["seconds"].values())}))
        if cell.get("singles"):
            each = cell["singles"]
            said.append(("single", min(each, key=lambda one: loss(one["out_of_fold"]))["test"], {}))
            tests = [one["test"] for one in each]
            said.append(("luckiest", min(tests, key=loss), {}))
            said.append(("typical", {name: fmean(one[name] for one in tests) for name in tests[0]}, {}))
        for side, figures, cost in said:
            right = figures.get("accuracy", figures.get("r2"))
            place = {"data": cell["data"], "seed": cell["seed"], "side": side}
            lines.append({**place, "loss": loss(figures), "accuracy": right, **cost})
    return pd.DataFrame(lines)


def loss(figures: dict[str, float]) -> float:
    return next(figures[name] for name in LOSSES if name in figures)


def report(frame: pd.DataFrame) -> str:
    """The table of each figure, means over seeds, and the counts."""
    if frame.empty:
        return "no cells yet"
    titles = {
        "loss": "log loss (RMSE of diamonds)",
        "accuracy": "accuracy (R2 of diamonds)",
        "cpu": "processor seconds of the whole run",
        "seconds": "seconds by the clock; of a kind, those of its own members",
    }
    parts = [f"{title}\n\n{markdown(frame, figure)}" for figure, title in titles.items()]
    compared = [*counts(frame, "ayatori", (*SINGLES, *RIVALS)), *counts(frame, "mean", tuple(RIVALS))]
    return "\n\n".join([*parts, "\n".join(compared)])


def markdown(frame: pd.DataFrame, figure: str) -> str:
    """Data sets by sides; the lowest loss of a line is bold."""
    order = [*SINGLES, *KINDS, "ayatori", *RIVALS]
    wide = frame.dropna(subset=figure).pivot_table(
        index="data", columns="side", values=figure, aggfunc="mean"
    )
    wide = wide.reindex(index=[name for name in DATA if name in wide.index])
    wide = wide[[name for name in order if name in wide.columns]]
    seeds = frame.groupby("data").seed.nunique()
    lines = [f"| data | seeds | {' | '.join(wide.columns)} |", "|" + " --- |" * (2 + len(wide.columns))]
    digits = {"loss": 4, "accuracy": 4}.get(figure, 0)
    for name, row in wide.iterrows():
        best = row.drop("luckiest", errors="ignore").min() if figure == "loss" else None
        shown = ["" if np.isnan(value) else f"{value:,.{digits}f}" for value in row]
        bold = [f"**{text}**" if value == best else text for text, value in zip(shown, row, strict=True)]
        lines.append(f"| {name} | {seeds[name]} | {' | '.join(bold)} |")
    return "\n".join(lines)


def counts(frame: pd.DataFrame, ours: str, others: Sequence[str]) -> list[str]:
    """On how many data sets ``ours`` has the lower loss, in the mean of the seeds both have; and its cost."""
    name_of = {"ayatori": "the ensemble that ayatori chose", "mean": "ayatori's mean of the folds"}
    lines = []
    for other in others:
        both = paired(frame, ours, other)
        if both.empty:
            continue
        lower = int((both.loss < both.loss_other).sum())
        line = f"- {name_of[ours]} against {other}: lower loss on {lower} of {len(both)} data sets"
        equal = int((both.loss == both.loss_other).sum())
        line += f", equal on {equal}" if equal else ""
        for name, unit in (("cpu", "processor seconds"), ("seconds", "seconds by the clock")):
            if both[[name, f"{name}_other"]].notna().all(axis=None):
                ratio = both[name] / both[f"{name}_other"]
                fast = int((ratio <= 0.2).sum())
                line += f"; {np.exp(np.log(ratio).mean()):.2f} of its {unit} (at most 0.20 on {fast})"
        lines.append(line)
    return lines


def paired(frame: pd.DataFrame, ours: str, theirs: str) -> pd.DataFrame:
    """A line for each data set: the means of both sides over the seeds that both have."""
    own, other = (frame[frame.side == side].drop(columns="side") for side in (ours, theirs))
    return own.merge(other, on=["data", "seed"], suffixes=("", "_other")).groupby("data").mean()


if __name__ == "__main__":
    main()
