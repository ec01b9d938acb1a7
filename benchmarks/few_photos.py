"""Forty photos of each class: a network from scratch, a head on a frozen one, and its last part tuned.

Each draw takes other photos; figures are out of fold, five folds, as a run reports them. ``--first`` and
``--beyond`` say between which photos of a class is drawn, so that settings can be tried on others.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, say

import ayatori
from ayatori.evaluate import paired
from ayatori.recipe import EvaluateRecipe, ExploreRecipe, PlanRecipe, PretrainedRecipe, Recipe

BARE = {"explore": ExploreRecipe(look=False), "evaluate": EvaluateRecipe(baselines=())}


def drawn(options: argparse.Namespace, seed: int, folder: Path) -> Path:
    """A folder of the photos of one draw."""
    chance = np.random.default_rng(seed)
    for kind in sorted(path for path in options.data.iterdir() if path.is_dir()):
        files = sorted(kind.iterdir())[options.first : options.beyond]
        (folder / kind.name).mkdir(parents=True)
        for number in chance.choice(len(files), options.photos, replace=False):
            shutil.copy(files[number], folder / kind.name)
    return folder


def out_of_fold(result: ayatori.Result, net: str) -> np.ndarray:
    """(n, classes): what the network ``net`` of each row's own fold says of it."""
    values: np.ndarray = np.full(result.predictions.values.shape[1:], np.nan)
    for member, column in enumerate(result.plan.columns):
        if column.net == net:
            rows = result.plan.rows(member, 252)
            values[rows] = result.predictions.values[member, rows]
    return values


def measure(data: Path, ways: list[str]) -> dict[str, Any]:
    said, found = {}, {}
    for way in ways:
        source = PretrainedRecipe() if way == "scratch" else PretrainedRecipe("efficientnet_lite0", way)
        start = time.perf_counter()
        result = ayatori.run(data, Recipe(plan=PlanRecipe(test=0.0), pretrained=source, **BARE))  # type: ignore[arg-type]
        net = {"scratch": "cnn", "none": "linear"}.get(way, "tuned")
        said[way], truth = out_of_fold(result, net), result.dataset.labels
        right = float((said[way].argmax(1) == truth).mean())
        loss = float(-np.log(said[way][np.arange(len(truth)), truth].clip(1e-7)).mean())
        seconds = time.perf_counter() - start
        found[way] = {"accuracy": right, "log_loss": loss, "n": len(truth), "seconds": seconds}
        print(way, found[way], file=sys.stderr)
    for way in ways:
        if way not in ("scratch", "none"):
            found[f"{way} - none"] = paired(truth, said[way], said["none"], "classification")
    if "scratch" in ways:
        found["none - scratch"] = paired(truth, said["none"], said["scratch"], "classification")
    return found


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder with a subfolder of photos for each class")
    parser.add_argument("--photos", type=int, default=40, help="of each class")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--beyond", type=int, default=300)
    parser.add_argument("--ways", nargs="+", default=["scratch", "none", "last"])
    options = parser.parse_args()
    before, found = machine(), []
    for seed in range(options.draws):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(drawn(options, seed, Path(folder)), options.ways))
    say({"draws": found, "options": sys.argv[1:]}, before)


if __name__ == "__main__":
    main()
