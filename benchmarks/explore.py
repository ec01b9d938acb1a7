"""Whether what ``ayatori explore`` says before training is true.

    known       its ceiling beside the Bayes error of made data (truth.py), and Cover-Hart beside both
    reach       what the default run reaches on real tasks (tasks.py); ``real`` needs it
    fit         calibration.json: from other made data, and from these real tasks
    real        the expected interval beside that, calibrated with the data set left out
    shuffled    how often shuffled labels are called "no class structure"
    planted     wrong labels, exact and near duplicates that were planted: how many are found
    cold        seconds and peak memory of a fresh command, from 1 000 to 1 000 000 rows

All but ``planted`` add a JSON line per case to ``--lines``, and go on where that ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import truth
from calibrate import FLOOR, bounds_of, fitted, said
from common import AYATORI, machine, say
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from tasks import Task, add_places, fashion, photos, tasks

import ayatori
from ayatori.data.twins import find_twins
from ayatori.evaluate.baselines import NAMES
from ayatori.explore.bounds import _ceiling
from ayatori.explore.features import representations
from ayatori.explore.verdict import FEWEST
from ayatori.recipe import EvaluateRecipe, ExploreRecipe, PlanRecipe, Recipe, change
from ayatori.records import Dataset

ALL = Recipe(
    plan=PlanRecipe(test=0.0), explore=ExploreRecipe(maps=False), evaluate=EvaluateRecipe(baselines=())
)
Line = dict[str, Any]
Change = Callable[..., np.ndarray]  # a picture (c, s, s) uint8 and a generator -> the picture, changed


def each(path: Path, cases: Iterable[tuple[str, Callable[[], Line]]]) -> list[Line]:
    """The line of every case: read where it is there already, else made and added."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    known = {line["case"]: line for line in map(json.loads, text.splitlines())}
    found = []
    for name, make in cases:
        if name not in known:
            start = time.perf_counter()
            known[name] = {"case": name, **make(), "seconds": round(time.perf_counter() - start, 2)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[name]) + "\n")
            print(known[name]["seconds"], name, file=sys.stderr)
        found.append(known[name])
    return found


def explored(dataset: Dataset, **options: Any) -> Line:
    """The content of explore.json, without maps where it can do without."""
    return dict(ayatori.explore(dataset, recipe=ALL, **options).facts)


# --- what the default run reaches


def reach(options: argparse.Namespace) -> Line:
    cases = [(task.name, partial(reached, task)) for task in tasks(options)]
    lines = each(options.lines, cases[: options.most])
    return {"tasks": len(lines), "data_sets": len({line["data_set"] for line in lines})}


def reached(task: Task) -> Line:
    """The out-of-fold score of the default run's one network."""
    dataset = task.load()
    result = ayatori.run(dataset, change(ALL, "explore", look=False))
    metric = "r2" if dataset.task == "regression" else "accuracy"
    entry = next(one for one in result.leaderboard if one.network and one.split == "out_of_fold")
    score = entry.scores[metric]
    return {
        "data_set": task.data_set,
        "rows": len(dataset),
        "classes": len(dataset.classes),
        "metric": metric,
        "entry": entry.name,
        "value": score.value,
        "low": score.low,
        "high": score.high,
    }


# --- real data


def real(options: argparse.Namespace) -> Line:
    """Every task that ``reach`` has a figure for: what is expected beside it."""
    both = told_and_reached(options)
    groups = np.array([line["group"] for line in both])
    for group in np.unique(groups):
        lines = fitted("expected", [line for line in both if line["group"] != group])
        for line in both:
            if line["group"] == group:
                ratios = np.exp(said(lines, line["features"]))
                some = (line["features"]["error"] + FLOOR) * ratios - FLOOR
                line["expected"] = [1 - error for error in some[::-1]]
    return {"all": beside_reached(both), "classes": beside_reached([b for b in both if b["classes"]])}


def told_and_reached(options: argparse.Namespace) -> list[Line]:
    told = {line["case"]: line for line in map(json.loads, options.reached.read_text("utf-8").splitlines())}
    chosen = [task for task in tasks(options) if task.name in told][: options.most]
    lines = each(options.lines, [(task.name, partial(looked, task)) for task in chosen])
    more = (
        {"wanted": 1 - told[line["case"]]["value"], "group": group_of(told[line["case"]])} for line in lines
    )
    return [{**told[line["case"]], **line, **extra} for line, extra in zip(lines, more, strict=True)]


def group_of(line: Line) -> str:
    """What is left out together: diamonds as classes and as numbers are one data set."""
    return str(line["data_set"].split(",")[0])


def fit(options: argparse.Namespace) -> Line:
    """calibration.json anew: the ceiling from the cells of part "fit", the expected score from real tasks."""
    cells = [(cell, n) for n in options.rows for cell in truth.cells("fit")]
    cases = [(f"{cell.name}, {n} rows", partial(beside_truth, cell, n)) for cell, n in cells]
    lines = each(options.cells, cases[: options.most])
    # a cell's sizes, and tenths of the cells, are left out together
    made = [
        {**line, "wanted": line["truth"], "group": place % len(truth.cells("fit")) % 10}
        for place, line in enumerate(lines)
    ]
    found = {"ceiling": fitted("ceiling", made), "expected": fitted("expected", told_and_reached(options))}
    options.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return {
        "cells": len(made),
        **{kind: {side: len(found[kind][side]["weights"]) for side in found[kind]} for kind in found},
    }


def noise_of(line: Line) -> float:
    """What ``explore`` adds to both sides of the ceiling for the sampling error of what was measured."""
    error, rows = line["features"]["error"], line["rows"]
    return float(1.645 * np.sqrt(max(error * (1 - error), 1 / rows) / rows))


def looked(task: Task) -> Line:
    """What the probes find before training, and the rules that it must beat."""
    dataset = task.load()
    found = bounds_of(dataset)
    line = {
        "features": found.features,
        "task": dataset.task,
        "probes": {one["name"]: one["value"] for one in found.probes},
        "error": 1 - found.score,
        "p": found.p,
    }
    if dataset.task == "classification":
        points = representations(dataset, np.arange(len(dataset)))
        line["snoopy"] = 1 - min(
            cover_hart(nearest_error(one.values, dataset.labels), len(dataset.classes)) for one in points
        )
    return line


def beside_reached(lines: list[Line]) -> Line:
    """Coverage of the interval and mean error of each rule, in points; R2 below -0.5 counts as -0.5."""
    given = [line for line in lines if line["features"]["rows"] >= np.log10(FEWEST)]
    held = [line["expected"][0] <= line["value"] <= line["expected"][2] for line in given]
    missed = [line["case"] for line, inside in zip(given, held, strict=True) if not inside]
    rules: dict[str, Callable[[Line], float | None]] = {
        "expected": lambda line: line["expected"][1],
        "linear probe": lambda line: line["probes"].get(NAMES["linear"][line["task"]]),
        "snoopy": lambda line: line.get("snoopy"),
    }
    errors = {}
    for name, rule in rules.items():
        off = [abs(max(said, -0.5) - line["value"]) for line in given if (said := rule(line)) is not None]
        errors[name] = {"tasks": len(off), "mean_off": float(np.mean(off)) * 100 if off else None}
    return {
        "tasks": len(lines),
        "data_sets": len({group_of(line) for line in given}),
        "given": len(given),
        "covered": float(np.mean(held)),
        "missed": missed,
        "median_width": float(np.median([line["expected"][2] - line["expected"][0] for line in given])) * 100,
        "errors": errors,
    }


# --- known truth


def known(options: argparse.Namespace) -> Line:
    cells = truth.cells("measure")[:: options.step]
    cases = [
        (f"{cell.name}, {n} rows", partial(beside_truth, cell, n)) for n in options.rows for cell in cells
    ]
    lines = each(options.lines, cases[: options.most])
    return {str(n): coverage([line for line in lines if line["rows"] == n]) for n in options.rows}


def beside_truth(cell: truth.Cell, n: int) -> Line:
    """Bayes error, and what the probes and the nearest row say; all in error."""
    x, y, error = truth.draw(cell, n)
    found = bounds_of(ayatori.load(x, y=np.char.add("c", y.astype(str))))
    near = nearest_error(x, y)
    return {
        "cell": cell.seed,
        "family": cell.family,
        "noise": cell.noise,
        "classes": cell.classes,
        "dimensions": cell.dimensions,
        "rows": n,
        "truth": error,
        "features": found.features,
        "nearest": near,
        "cover_hart": cover_hart(near, cell.classes),
        "p": found.p,
    }


def nearest_error(x: np.ndarray, y: np.ndarray) -> float:
    """Error of the nearest other row, in standardised columns."""
    spread = x.std(axis=0)
    points = ((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float64)
    places = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points).kneighbors(points)[1]
    own = np.arange(len(x))
    other = np.where(places[:, 0] == own, places[:, 1], places[:, 0])  # a duplicate may come before the row
    return float((y[other] != y).mean())


def cover_hart(error: float, classes: int) -> float:
    """The Bayes error that an error of one nearest neighbour speaks for (Cover & Hart 1967), as in Snoopy."""
    most = (classes - 1) / classes
    return most * (1 - np.sqrt(max(0.0, 1 - error / most)))


def coverage(lines: list[Line]) -> Line:
    """Shares of covered truths, and how far off the points are, in points of accuracy."""
    said = np.array([_ceiling(line["features"], line["features"]["error"], line["rows"]) for line in lines])
    low, point, high = 1 - said[:, 2], 1 - said[:, 1], 1 - said[:, 0]
    true, near = (np.array([line[key] for line in lines]) for key in ("truth", "cover_hart"))
    off = {"point": np.abs(point - true) * 100, "cover_hart": np.abs(near - true) * 100}
    inside = (low <= true) & (true <= high)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for line, held in zip(lines, inside, strict=True):
        for kind in (line["family"], f"noise {line['noise']}", f"{line['classes']} classes"):
            kinds[kind].append(bool(held))
    parity = np.array([line["family"] == "parity" and line["noise"] == "clean" for line in lines])
    mean = {key: float(values.mean()) for key, values in off.items()}
    return {
        "cells": len(lines),
        "covered": float(inside.mean()),
        "covered_by_kind": {name: f"{sum(held)} of {len(held)}" for name, held in kinds.items()},
        "missed": [line["case"] for line, held in zip(lines, inside, strict=True) if not held],
        "median_width": float(np.median(high - low)) * 100,
        "median_off": {key: float(np.median(values)) for key, values in off.items()},
        "mean_off": mean,
        "ratio_of_means": mean["point"] / mean["cover_hart"],
        "clean_parity": {"cells": int(parity.sum()), "0.9 out of reach": int((low[parity] > 0.1).sum())},
    }


# --- labels that mean nothing


def shuffled(options: argparse.Namespace) -> Line:
    """Four kinds of data in turn, each with labels of its own drawing order.

    The gate was chosen while seeds 0 to 86 were seen; ``--first 1000`` gives others.
    """
    kinds = [cell for cell in truth.cells("measure") if cell.noise == "clean"][2:40:12]
    cases = [
        (f"shuffle {n}", partial(one_shuffle, kinds[n % len(kinds)], n))
        for n in range(options.first, options.first + (options.most or 200))
    ]
    lines = each(options.lines, cases)
    words: dict[str, int] = defaultdict(int)
    for line in lines:
        words[line["word"]] += 1
    return {"shuffles": len(lines), "words": words, "share": words["no class structure"] / len(lines)}


def one_shuffle(cell: truth.Cell, number: int, rows: int = 600) -> Line:
    x, y, _ = truth.draw(cell, rows, number)
    labels = np.random.default_rng([9, number]).permutation(y)
    facts = explored(ayatori.load(x, y=np.char.add("c", labels.astype(str))))
    return {"data": cell.name, "word": facts["verdict"]["word"], "p": facts["structure"]["p"]}


# --- planted faults


def planted(options: argparse.Namespace) -> Line:
    found: Line = {
        "flipped": [flipped(seed) for seed in range(3)],
        "leaked": leaked(),
        "near_rows": near_rows(),
    }
    places = {"fashion": options.fashion and fashion, "pictures": options.pictures and photos}
    for name, read in places.items():
        if read:
            pixels, labels = read(getattr(options, name))
            for rows, (what, change) in itertools.product(options.rows, CHANGES.items()):
                found[f"{name}, {rows} rows, {what}"] = near_pictures(pixels, labels, change, rows)
    return found


def flipped(seed: int, rows: int = 2000, rate: float = 0.05) -> Line:
    """Five per cent wrong labels on classes that can be told apart: recall and precision of the suspects."""
    cell = truth.Cell("gauss", 5, 20, 900 + seed, error=0.005)
    x, y, _ = truth.draw(cell, rows)
    rng = np.random.default_rng([5, seed])
    wrong = rng.choice(rows, round(rate * rows), replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, cell.classes, len(wrong))) % cell.classes
    look = ayatori.explore(ayatori.load(x, y=np.char.add("c", y.astype(str))), recipe=ALL)
    return {"error": truth.truth(cell), **found_of(wrong, look.suspects["row"])}


def found_of(planted: Iterable[Any], found: Iterable[Any]) -> Line:
    """Share of what was planted that was found, and share of what was found that was planted."""
    right = set(planted) & set(found)
    return {
        "recall": len(right) / len(set(planted)),
        "precision": len(right) / max(1, len(set(found))),
        "planted": len(set(planted)),
        "found": len(set(found)),
    }


def twins_found(dataset: Dataset, pairs: list[tuple[int, int]]) -> Line:
    """Planted pairs of rows among all pairs that the audit names; a group of three is three pairs."""
    found = ayatori.explore(dataset, recipe=ALL).duplicates
    named = [tuple(sorted(pair)) for pair in zip(found["a"], found["b"], strict=True)]
    return found_of([tuple(sorted(pair)) for pair in pairs], named)


def leaked(rows: int = 2000, copies: int = 100) -> Line:
    """Rows of the test part that are copies of development rows, with everything equal."""
    cell = truth.Cell("gauss", 3, 20, 910, error=0.1)
    x, y, _ = truth.draw(cell, rows)
    own = np.random.default_rng(910).choice(rows, copies, replace=False)
    dataset = ayatori.load(np.concatenate([x, x[own]]), y=np.concatenate([y, y[own]]).astype(str))
    test = np.arange(len(dataset)) >= rows - 300
    pairs = [(row, rows + place) for place, row in enumerate(own) if row < rows - 300]
    leaks = ayatori.explore(dataclasses.replace(dataset, fixed_test=test), recipe=ALL).leaks
    named = zip(leaks["row"], leaks["copy_of"], strict=True)
    return found_of(pairs, [tuple(sorted(pair)) for pair in named])


def near_rows(rows: int = 2000, copies: int = 100, noise: float = 0.01) -> Line:
    """Rows of a table that come again with 1 % of a standard deviation added."""
    x, y, _ = truth.draw(truth.Cell("gauss", 3, 20, 911, error=0.1), rows)
    rng = np.random.default_rng(911)
    own = rng.choice(rows, copies, replace=False)
    more = x[own] + noise * x.std(axis=0) * rng.normal(size=(copies, x.shape[1]))
    dataset = ayatori.load(np.concatenate([x, more]), y=np.concatenate([y, y[own]]).astype(str))
    return twins_found(dataset, [(int(row), rows + place) for place, row in enumerate(own)])


def near_pictures(pixels: np.ndarray, labels: np.ndarray, change: Change, rows: int) -> Line:
    """Pictures of ``pixels`` that come again, changed; what is named and was not planted is listed by number.

    The audit's own step, as the quick models have no part in it.
    """
    rng = np.random.default_rng(912)
    some = rng.choice(len(pixels), min(rows, len(pixels)), replace=False)
    own = rng.choice(len(some), 60, replace=False)
    more = np.stack([change(pixels[row], rng) for row in some[own]])
    dataset = ayatori.load(
        np.concatenate([pixels[some], more]), y=np.concatenate([labels[some], labels[some[own]]])
    )
    start = time.process_time()
    twins = find_twins(dataset)
    pairs = [(int(row), len(some) + place) for place, row in enumerate(own)]
    named = [(int(a), int(b)) for a, b in twins.pairs]
    of = [*some, *some[own]]
    strangers = [(int(of[a]), int(of[b])) for a, b in named if (a, b) not in pairs]
    return {
        **found_of(pairs, named),
        "not_planted": strangers,
        "processor_seconds": round(time.process_time() - start, 2),
    }


def _noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip((picture + rng.normal(0, 8, picture.shape)).round(), 0, 255).astype(np.uint8)


def _cropped(picture: np.ndarray, rng: np.random.Generator, cut: float) -> np.ndarray:
    """Without the share ``cut`` of its border (at least a pixel), enlarged again."""
    side = picture.shape[1]
    edge = max(1, round(cut * side))
    image = _image(picture).crop((edge, edge, side - edge, side - edge))
    return _pixels(image.resize((side, side)))


def _cut_out(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """85 to 95 % of its sides, anywhere, enlarged again."""
    side = picture.shape[1]
    kept = side * rng.uniform(0.85, 0.95)
    left, top = rng.uniform(0, side - kept, 2)
    box = (left, top, left + kept, top + kept)
    return _pixels(_image(picture).resize((side, side), Image.Resampling.BILINEAR, box=box))


def _recoded(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    _image(picture).save(file, "JPEG", quality=60)
    return _pixels(Image.open(file))


def _shifted(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    most = round(0.07 * picture.shape[1])
    return np.roll(picture, tuple(rng.integers(-most, most + 1, 2)), (1, 2))


def _image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))


def _pixels(image: Image.Image) -> np.ndarray:
    found = np.asarray(image)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


CHANGES: dict[str, Change] = {
    "noise": _noisy,
    "4 % cut off": partial(_cropped, cut=0.035),
    "7 % cut off": partial(_cropped, cut=0.07),
    "a part": _cut_out,
    "brighter": lambda picture, rng: np.clip(0.8 * picture + 30, 0, 255).astype(np.uint8),
    "coded again": _recoded,
    "shifted": _shifted,
    "mirrored": lambda picture, rng: picture[:, :, ::-1],
}


# --- cold start


SIZES = ((1_000, 20), (10_000, 512), (100_000, 50), (1_000_000, 20))


def cold(options: argparse.Namespace) -> Line:
    cases = [(f"{n} x {d}", partial(cold_start, n, d)) for n, d in SIZES]
    return {line["case"]: line for line in each(options.lines, cases[: options.most])}


def cold_start(rows: int, columns: int) -> Line:
    """Wall seconds and peak resident memory of one command on an .npz."""
    x, y, _ = truth.draw(truth.Cell("gauss", 10, columns, 920, error=0.1), rows)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/data.npz", X=x, y=y)
        del x
        start = time.perf_counter()
        command = [AYATORI, "explore", f"{folder}/data.npz", "--out", f"{folder}/look"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            text = child.stdout.read() if child.stdout else ""
            status, usage = os.wait4(child.pid, 0)[1:]
            child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{text}")
        facts = json.loads(Path(folder, "look", "explore.json").read_text(encoding="utf-8"))
        page = Path(folder, "look", "explore.html")
        size = page.stat().st_size / 1e6 if page.exists() else None
    peak = usage.ru_maxrss / 1024**2 if sys.platform != "darwin" else usage.ru_maxrss / 1024**3
    return {
        "wall": wall,
        "peak_gb": peak,
        "stages": facts["seconds"],
        "page_mb": size,
        "word": facts["verdict"]["word"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name in COMMANDS:
        kind = kinds.add_parser(name)
        kind.add_argument("--most", type=int, help="so many cases and no more")
        kind.add_argument("--lines", type=Path, default=Path(f"{name}.jsonl"))
        if name in ("reach", "real", "fit", "planted"):
            add_places(kind)
        if name in ("real", "fit"):
            kind.add_argument(
                "--reached", type=Path, default=Path("reached.jsonl"), help="the lines of reach"
            )
        if name == "fit":
            kind.add_argument("--cells", type=Path, default=Path("cells.jsonl"))
            kind.add_argument("--write", type=Path, required=True, help="calibration.json")
        if name == "shuffled":
            kind.add_argument("--first", type=int, default=0, help="seed of the first; the next follow")
        if name == "planted":
            kind.add_argument("--rows", type=int, nargs="+", default=[900], help="pictures to hide copies in")
        if name in ("known", "fit"):
            kind.add_argument("--rows", type=int, nargs="+", default=[3000, 1000])
            kind.add_argument("--step", type=int, default=1, help="only every so many cells")
    options = parser.parse_args()
    before = machine()
    say(COMMANDS[options.kind](options), before)


COMMANDS: dict[str, Callable[[argparse.Namespace], Line]] = {
    "known": known,
    "reach": reach,
    "fit": fit,
    "real": real,
    "shuffled": shuffled,
    "planted": planted,
    "cold": cold,
}

if __name__ == "__main__":
    main()
