"""Is the source close enough? Pairs of source and task that help and pairs that do not: is the advice right?

Judged by networks that are really trained: a source helps where the better of a frozen head and its last part
tuned has a lower loss out of fold than a network from scratch on the same rows, beyond the 95 % interval of the
paired difference. The rule of the advice was written before any of these pairs was tried.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import machine, say
from fashion import read_idx
from few_photos import BARE, out_of_fold
from sklearn.datasets import load_digits

import ayatori
from ayatori.advise import difference
from ayatori.ensemble.losses import row_losses
from ayatori.recipe import DataRecipe, NetRecipe, PlanRecipe, PretrainedRecipe, Recipe, TrainRecipe

LITE0 = "efficientnet_lite0"
Task = tuple[Any, np.ndarray | None]  # data, labels (None: in the data)
HELPS = ("use it frozen", "train the last part", "train all of it")


def few(labels: np.ndarray, each: int, seed: int = 0) -> np.ndarray:
    """Rows: so many of each class."""
    chance = np.random.default_rng(seed)
    own = [chance.permutation(np.flatnonzero(labels == name))[:each] for name in np.unique(labels)]
    return np.sort(np.concatenate(own))


def pretrained(folder: Path, data: Any, y: Any, **train: Any) -> str:
    """A finished run on other data, one network; its folder."""
    recipe = Recipe(plan=PlanRecipe(strategy="holdout", test=0.0), train=TrainRecipe(**train), **BARE)  # type: ignore[arg-type]
    ayatori.run(data, recipe, out=folder, y=y)
    return str(folder)


def pairs(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], tuple[str, Task]]]:
    """Name of a pair -> its source and its task; what a source must learn first is learned when it is asked."""
    chance = np.random.default_rng(0)
    digits = load_digits()
    small = (digits.images[:, None] * (255 / 16)).round().astype(np.uint8)
    fashion, kinds = (
        read_idx(options.fashion / f"train-{name}-ubyte.gz")[:20_000]
        for name in ("images-idx3", "labels-idx1")
    )
    fashion, kinds = fashion[:, None].copy(), kinds.astype(int)
    order = chance.permutation(28 * 28)
    shuffled = fashion.reshape(len(fashion), -1)[:, order].reshape(fashion.shape)
    letter = pd.read_csv(options.tables / "letter.csv")
    early = letter["lettr"] < "N"

    def photos() -> Task:
        for kind in ("cat", "dog"):
            (folder / "photos" / kind).mkdir(parents=True)
            for file in sorted((options.photos / kind).iterdir())[:60]:
                shutil.copy(file, folder / "photos" / kind)
        return folder / "photos", None

    def clothes(own: list[int], each: int, images: np.ndarray = fashion) -> Task:
        rows = np.flatnonzero(np.isin(kinds, own))
        rows = rows[few(kinds[rows], each)]
        return images[rows], kinds[rows]

    def eight(images: np.ndarray, labels: np.ndarray, name: str) -> str:
        rows = np.flatnonzero(~np.isin(kinds, (4, 6)))[:8000]
        return pretrained(folder / name, images[rows], labels[rows])

    def letters(each: int) -> Task:
        rest = letter[~early].reset_index(drop=True)
        return rest.iloc[few(rest["lettr"].to_numpy(), each)], None

    def numerals(own: range, each: int) -> Task:
        rows = np.flatnonzero(np.isin(digits.target, own))
        rows = rows[few(digits.target[rows], each)]
        return small[rows], digits.target[rows]

    low = digits.target < 5
    random_letters = letter[early].assign(lettr=chance.permutation(letter[early]["lettr"]))
    noise = chance.integers(0, 256, (2000, 1, 8, 8)).astype(np.uint8)
    return {
        "ImageNet -> cats and dogs": lambda: (LITE0, photos()),
        "ImageNet -> clothes, 20 each": lambda: (LITE0, clothes(list(range(10)), 20)),
        "eight clothes -> coat or shirt": lambda: (eight(fashion, kinds, "eight"), clothes([4, 6], 40)),
        "letters A-M -> N-Z": lambda: (
            pretrained(folder / "letters", letter[early], None, epochs=15),
            letters(20),
        ),
        "digits 0-4 -> 5-9": lambda: (
            pretrained(folder / "digits", small[low], digits.target[low]),
            numerals(range(5, 10), 15),
        ),
        "ImageNet -> digits at 8 x 8": lambda: (LITE0, numerals(range(10), 40)),
        "ImageNet -> clothes, pixels shuffled": lambda: (
            LITE0,
            clothes(list(range(10)), 40, shuffled),
        ),
        "clothes with random labels -> coat or shirt": lambda: (
            eight(fashion, chance.permutation(kinds), "random"),
            clothes([4, 6], 200),
        ),
        "letters with random labels -> N-Z": lambda: (
            pretrained(folder / "mixed", random_letters, None, epochs=15),
            letters(60),
        ),
        "noise -> digits": lambda: (
            pretrained(folder / "noise", noise, chance.integers(0, 5, 2000)),
            numerals(range(10), 60),
        ),
    }


def judge(source: str, task: Task) -> dict[str, Any]:
    data, labels = task
    base = Recipe(plan=PlanRecipe(test=0.0), data=DataRecipe(), net=NetRecipe(), **BARE)  # type: ignore[arg-type]
    tuned = ayatori.run(
        data, dataclasses.replace(base, pretrained=PretrainedRecipe(source, "auto")), y=labels
    )
    scratch = ayatori.run(data, base, y=labels)
    truth, kind = scratch.dataset.labels, scratch.dataset.task
    losses = {net: row_losses(out_of_fold(tuned, net), truth, kind) for net in ("linear", "tuned")}
    best = min(losses, key=lambda net: losses[net].mean())
    plain = row_losses(out_of_fold(scratch, scratch.plan.columns[0].net), truth, kind)
    gain = difference(plain, losses[best], 0)
    helps, said = gain["low"] > 0, tuned.advice["word"]
    return {
        "rows": len(truth),
        "loss": {**{net: float(own.mean()) for net, own in losses.items()}, "scratch": float(plain.mean())},
        "gain": gain,
        "helps": helps,
        "advice": said,
        "right": helps == (said in HELPS),
        "sentence": tuned.advice["sentence"],
        "seconds_of_the_advice": tuned.seconds["advise"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder with cat/ and dog/")
    parser.add_argument(
        "--fashion", type=Path, required=True, help="the folder of Fashion-MNIST's idx.gz files"
    )
    parser.add_argument("--tables", type=Path, required=True, help="the folder of letter.csv")
    parser.add_argument("--pairs", nargs="+", help="parts of the names of some pairs")
    options = parser.parse_args()
    before, found = machine(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in pairs(options, Path(folder)).items():
            if options.pairs and not any(part in name for part in options.pairs):
                continue
            found[name] = judge(*make())
            one = found[name]
            print(f"{name}: helps {one['helps']} {one['loss']}; {one['sentence']}", file=sys.stderr)
    right = sum(one["right"] for one in found.values())
    say({"right": right, "pairs": len(found), "found": found}, before)


if __name__ == "__main__":
    main()
