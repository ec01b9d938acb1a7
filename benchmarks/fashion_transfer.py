"""Fashion-MNIST: a run on eight classes, then the other two from twenty rows of each; and from scratch.

Each draw takes other rows; all are scored on the same rows of the two classes, which neither the run on
eight classes nor any draw has seen. The interval is that of the mean difference over draws (Student's t).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, say
from fashion import CLASSES, read_idx
from few_photos import BARE
from scipy import stats

import ayatori
from ayatori.recipe import PlanRecipe, PretrainedRecipe, Recipe


def draw(x: np.ndarray, y: np.ndarray, pair: tuple[int, int], each: int, seed: int) -> np.ndarray:
    """Rows: so many of each class of the pair."""
    chance = np.random.default_rng(seed)
    return np.concatenate([chance.choice(np.flatnonzero(y == one), each, replace=False) for one in pair])


def scored(source: str, way: str, rows: tuple, test: tuple) -> tuple[float, float]:
    """Accuracy and log loss of the model that a run hands over, on the test; nothing else is sealed."""
    given = PretrainedRecipe() if way == "scratch" else PretrainedRecipe(source, way, advise=False)
    result = ayatori.run(rows[0], Recipe(plan=PlanRecipe(test=0.0), pretrained=given, **BARE), y=rows[1])  # type: ignore[arg-type]
    said = result.model.predict_values(result.model.read(test[0]))
    truth = np.searchsorted(np.array(result.dataset.classes), test[1].astype(str))
    told = said[np.arange(len(truth)), truth].clip(1e-7)
    return float((said.argmax(1) == truth).mean()), float(-np.log(told).mean())


def gain(ways: dict[str, list[float]], way: str) -> dict[str, float]:
    differences = np.array(ways[way]) - np.array(ways["scratch"])
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    mean = float(differences.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half, "draws": len(differences)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the idx.gz files are")
    parser.add_argument("--each", type=int, default=20, help="rows of each of the two classes")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--rows", type=int, default=48_000, help="of the eight classes")
    parser.add_argument("--pairs", nargs="+", default=["4,6", "5,7"], help="numbers of the two classes")
    parser.add_argument("--ways", nargs="+", default=["scratch", "none", "last", "all"])
    options = parser.parse_args()
    before, found = machine(), {}
    parts = {
        part: (
            read_idx(options.folder / f"{part}-images-idx3-ubyte.gz")[:, None].copy(),
            read_idx(options.folder / f"{part}-labels-idx1-ubyte.gz").astype(int),
        )
        for part in ("train", "t10k")
    }
    (x, y), (new_x, new_y) = parts["train"], parts["t10k"]
    for text in options.pairs:
        first, second = (int(number) for number in text.split(","))
        pair, name = (first, second), f"{CLASSES[first]} or {CLASSES[second]}"
        asked, others = np.isin(new_y, pair), np.flatnonzero(~np.isin(y, pair))[: options.rows]
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            plan = PlanRecipe(strategy="holdout", test=0.0)
            ayatori.run(x[others], Recipe(plan=plan, **BARE), out=f"{folder}/eight", y=y[others])  # type: ignore[arg-type]
            facts: dict[str, Any] = {"seconds_of_the_source": time.perf_counter() - start}
            accuracy: dict[str, list[float]] = {way: [] for way in options.ways}
            loss: dict[str, list[float]] = {way: [] for way in options.ways}
            for seed in range(options.draws):
                own = draw(x, y, pair, options.each, seed)
                for way in options.ways:
                    told = scored(f"{folder}/eight", way, (x[own], y[own]), (new_x[asked], new_y[asked]))
                    accuracy[way].append(told[0])
                    loss[way].append(told[1])
                print(name, seed, {way: accuracy[way][-1] for way in options.ways}, file=sys.stderr)
        facts |= {"accuracy": accuracy, "log_loss": loss}
        facts["gain"] = {way: gain(accuracy, way) for way in options.ways if way != "scratch"}
        found[name] = facts
    say({"pairs": found, "each": options.each, "tested": 2000, "options": sys.argv[1:]}, before)


if __name__ == "__main__":
    main()
