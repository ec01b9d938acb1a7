"""Is the source close enough? Pairs of source and task that help and pairs that do not: is the advice right?

Judged by networks that are really trained, in two ways: a source ``helps`` where the best of a frozen head,
its last part tuned and (a CNN of ours) all of it learning on has a lower loss out of fold than a network from
scratch on the same rows, beyond the 95 % interval of the paired difference; it ``helps_beside_all`` where
that is so beside the best of that network, a logistic regression and trees on the inputs, which is what the
advice claims. The rule of the advice was written before any of these pairs was tried; after its one change
(the end of a source is judged, not the best of its depths) ten more were written (``--second``). That a CNN
of ours may learn on as a whole, and the second judge, came after both.
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
from ayatori.evaluate import fit_baselines
from ayatori.nets.source import find_source, learns_as_cnn
from ayatori.recipe import DataRecipe, EvaluateRecipe, PlanRecipe, PretrainedRecipe, Recipe, TrainRecipe
from ayatori.records import SCORE, Plan

LITE0 = "efficientnet_lite0"
Task = tuple[Any, np.ndarray | None]  # data, labels (None: in the data)
Pairs = dict[str, Callable[[], tuple[str, Task]]]
HELPS = ("use it frozen", "train the last part", "train all of it")


def few(labels: np.ndarray, each: int, seed: int = 0) -> np.ndarray:
    """Rows: so many of each class."""
    chance = np.random.default_rng(seed)
    own = [chance.permutation(np.flatnonzero(labels == name))[:each] for name in np.unique(labels)]
    return np.sort(np.concatenate(own))


def read(data: Any) -> DataRecipe:
    return DataRecipe(target="lettr" if isinstance(data, pd.DataFrame) else "")


def pretrained(folder: Path, data: Any, y: Any, **train: Any) -> str:
    """A finished run on other data, one network; its folder."""
    recipe = Recipe(
        data=read(data), plan=PlanRecipe(strategy="holdout", test=0.0), train=TrainRecipe(**train), **BARE
    )  # type: ignore[arg-type]
    ayatori.run(data, recipe, out=folder, y=y)
    return str(folder)


def letter_pairs(options: argparse.Namespace, folder: Path) -> Pairs:
    """Tables: half of the letters, all of them, and half with random labels as sources."""
    letter = pd.read_csv(options.tables / "letter.csv")
    early = letter["lettr"] < "N"
    # a sixth of the rows are copies of others
    single = ~letter.duplicated(letter.columns.drop("lettr").tolist())
    new = letter[single & (np.arange(len(letter)) >= 10_000)]
    vowel = np.where(new["lettr"].isin(list("AEIOU")), "vowel", "other")
    mixed = letter[early].assign(lettr=np.random.default_rng(0).permutation(letter[early]["lettr"]))

    def some(rows: pd.DataFrame, each: int) -> Task:
        return rows.iloc[few(rows["lettr"].to_numpy(), each)], None

    def learned(name: str, rows: pd.DataFrame) -> str:
        return pretrained(folder / name, rows, None, epochs=15)

    return {
        "letters A-M -> N-Z": lambda: (learned("early", letter[early]), some(letter[~early], 20)),
        "letters -> vowels": lambda: (
            learned("vowels", letter.iloc[:10_000]),
            some(new.assign(lettr=vowel), 100),
        ),
        "letters -> the same letters, 8 each": lambda: (
            learned("same", letter.iloc[:10_000]),
            some(new, 8),
        ),
        "letters with random labels -> N-Z": lambda: (learned("mixed", mixed), some(letter[~early], 60)),
    }


def digit_pairs(options: argparse.Namespace, folder: Path) -> Pairs:
    """Digits of 8 x 8 pixels."""
    digits = load_digits()
    small, names = (digits.images[:, None] * (255 / 16)).round().astype(np.uint8), digits.target
    chance = np.random.default_rng(0)
    noise, labels = chance.integers(0, 256, (2000, 1, 8, 8)).astype(np.uint8), chance.integers(0, 5, 2000)
    low = names < 5

    def some(rows: np.ndarray, of: np.ndarray, each: int) -> Task:
        own = rows[few(of[rows], each)]
        return small[own], of[own]

    everyone = np.arange(len(small))
    return {
        "digits 0-4 -> 5-9": lambda: (
            pretrained(folder / "low", small[low], names[low]),
            some(np.flatnonzero(~low), names, 15),
        ),
        "digits -> even or odd": lambda: (
            pretrained(folder / "half", small[:900], names[:900]),
            some(everyone[900:], names % 2, 60),
        ),
        "ImageNet -> digits at 8 x 8": lambda: (LITE0, some(everyone, names, 40)),
        "noise -> digits": lambda: (pretrained(folder / "noise", noise, labels), some(everyone, names, 60)),
    }


def cloth_pairs(options: argparse.Namespace, folder: Path) -> Pairs:
    """Fashion-MNIST, as it is and spoiled."""
    fashion, kinds = (
        read_idx(options.fashion / f"train-{name}-ubyte.gz")[:20_000]
        for name in ("images-idx3", "labels-idx1")
    )
    fashion, kinds = fashion[:, None].copy(), kinds.astype(int)
    chance = np.random.default_rng(0)
    order = chance.permutation(28 * 28)
    shuffled = fashion.reshape(len(fashion), -1)[:, order].reshape(fashion.shape)
    pair, new = np.isin(kinds, (4, 6)), np.arange(len(kinds)) >= 10_000
    others = np.flatnonzero(~pair)[:8000]

    def some(among: np.ndarray, of: np.ndarray, each: int, images: np.ndarray = fashion) -> Task:
        rows = np.flatnonzero(among)
        own = rows[few(of[rows], each)]
        return images[own], of[own]

    def learned(name: str, rows: Any, labels: np.ndarray = kinds) -> str:
        return pretrained(folder / name, fashion[rows], labels[rows])

    return {
        "ImageNet -> clothes, 20 each": lambda: (LITE0, some(new, kinds, 20)),
        "eight clothes -> coat or shirt": lambda: (learned("eight", others), some(pair, kinds, 40)),
        "clothes -> worn above the belt": lambda: (
            learned("ten", slice(8000)),
            some(new, np.isin(kinds, (0, 2, 3, 4, 6)), 100),
        ),
        "clothes -> the same clothes, 10 each": lambda: (
            learned("again", slice(8000)),
            some(new, kinds, 10),
        ),
        "ImageNet -> clothes, pixels shuffled": lambda: (LITE0, some(new, kinds, 40, shuffled)),
        "clothes with random labels -> coat or shirt": lambda: (
            learned("random", others, chance.permutation(kinds)),
            some(pair, kinds, 200),
        ),
    }


def second_pairs(options: argparse.Namespace, folder: Path) -> Pairs:
    """Written after the last change of the rule, and tried once after it."""
    letter = pd.read_csv(options.tables / "letter.csv")
    satellite = pd.read_csv(options.tables / "satellite.csv").rename(columns={"classes": "lettr"})
    early, half = letter["lettr"] < "N", np.arange(len(letter)) < 10_000
    new = letter[~letter.duplicated(letter.columns.drop("lettr").tolist()) & ~half]
    shape = np.where(new["lettr"].isin(list("CGJOQSU")), "round", "straight")
    digits = load_digits()
    small, names = (digits.images[:, None] * (255 / 16)).round().astype(np.uint8), digits.target
    chance = np.random.default_rng(1)
    order = chance.permutation(64)
    mixed = small.reshape(-1, 64)[:, order].reshape(small.shape)
    fashion, kinds = (
        read_idx(options.fashion / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1")
    )
    fashion, kinds = fashion[:, None].copy(), kinds.astype(int)

    def some(rows: pd.DataFrame, each: int) -> Task:
        return rows.iloc[few(rows["lettr"].to_numpy(), each, 1)], None

    def pictures(images: np.ndarray, of: np.ndarray, each: int) -> Task:
        own = few(of, each, 1)
        return images[own], of[own]

    def table(name: str, rows: pd.DataFrame) -> str:
        return pretrained(folder / name, rows, None, epochs=15)

    ground = satellite["lettr"].map(satellite["lettr"].value_counts().rank()) > 3
    return {
        "ImageNet -> other cats and dogs, 15 each": lambda: (LITE0, photos(options, folder, 200, 15)),
        "ImageNet -> photos with random labels": lambda: (LITE0, mislabelled(options, folder)),
        "letters N-Z -> A-M": lambda: (table("late", letter[~early]), some(letter[early], 20)),
        "letters -> round or straight": lambda: (
            table("shape", letter[half]),
            some(new.assign(lettr=shape), 100),
        ),
        "half of the grounds -> the others": lambda: (
            table("ground", satellite[ground]),
            some(satellite[~ground], 30),
        ),
        "digits -> the same digits, 6 each": lambda: (
            pretrained(folder / "six", small[:900], names[:900]),
            pictures(small[900:], np.char.add("number ", names[900:].astype(str)), 6),
        ),
        "digits, pixels shuffled -> digits": lambda: (
            pretrained(folder / "mixed digits", mixed, names),
            pictures(small, names, 40),
        ),
        "digits with random labels -> digits": lambda: (
            pretrained(folder / "random digits", small[:900], chance.permutation(names[:900])),
            pictures(small[900:], names[900:], 40),
        ),
        "clothes with random labels -> clothes": lambda: (
            pretrained(folder / "random clothes", fashion[:6000], chance.permutation(kinds[:6000])),
            pictures(fashion[6000:], kinds[6000:], 40),
        ),
        "clothes -> shoe or none": lambda: (
            pretrained(folder / "shoes", fashion[:6000], kinds[:6000]),
            pictures(fashion[6000:], np.isin(kinds[6000:], (5, 7, 9)), 20),
        ),
    }


def photos(options: argparse.Namespace, folder: Path, first: int, each: int) -> Task:
    """Cats and dogs from a number on."""
    place = folder / f"photos {first}"
    for kind in ("cat", "dog"):
        (place / kind).mkdir(parents=True)
        for file in sorted((options.photos / kind).iterdir())[first : first + each]:
            shutil.copy(file, place / kind)
    return place, None


def mislabelled(options: argparse.Namespace, folder: Path) -> Task:
    """Sixty photos of which nothing can be learned."""
    place, chance = folder / "mislabelled", np.random.default_rng(2)
    files = [file for kind in ("cat", "dog") for file in sorted((options.photos / kind).iterdir())[300:330]]
    for number, file in enumerate(chance.permutation(np.array(files, object))):
        (place / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / "ab"[number % 2] / f"{number}.jpg")
    return place, None


def pairs(options: argparse.Namespace, folder: Path) -> Pairs:
    """Name of a pair -> its source and its task; a source is trained when its pair is asked for."""
    if options.second:
        return second_pairs(options, folder)
    return {
        "ImageNet -> cats and dogs": lambda: (LITE0, photos(options, folder, 0, 60)),
        **cloth_pairs(options, folder),
        **digit_pairs(options, folder),
        **letter_pairs(options, folder),
    }


def scored(values: np.ndarray, plan: Plan) -> np.ndarray:
    """(n, c): each row by the member that is scored on it, of (m, n, c)."""
    own: np.ndarray = np.full(values.shape[1:], np.nan)
    for member in range(plan.members):
        rows = plan.rows(member, SCORE)
        own[rows] = values[member, rows]
    return own


def judge(source: str, task: Task) -> dict[str, Any]:
    data, labels = task
    base = Recipe(plan=PlanRecipe(test=0.0), data=read(data), **BARE)  # type: ignore[arg-type]
    tuned = ayatori.run(
        data, dataclasses.replace(base, pretrained=PretrainedRecipe(source, "auto")), y=labels
    )
    scratch = ayatori.run(data, base, y=labels)
    truth, kind = scratch.dataset.labels, scratch.dataset.task
    losses = {net: row_losses(out_of_fold(tuned, net), truth, kind) for net in ("linear", "tuned")}
    if learns_as_cnn(find_source(source)):
        given = PretrainedRecipe(source, "all", advise=False)
        whole = ayatori.run(data, dataclasses.replace(base, pretrained=given), y=labels)
        losses["whole"] = row_losses(out_of_fold(whole, "cnn"), truth, kind)
    best = min(losses, key=lambda net: losses[net].mean())
    plain = row_losses(out_of_fold(scratch, scratch.plan.columns[0].net), truth, kind)
    gains = {net: difference(plain, own, 0) for net, own in losses.items()}
    rivals = fit_baselines(scratch.dataset, scratch.plan, EvaluateRecipe(("linear", "trees")))[0]
    without = {"scratch": plain} | {
        rival.name: row_losses(scored(rival.values, scratch.plan), truth, kind) for rival in rivals
    }
    rest = min(without, key=lambda name: without[name].mean())
    gain, beside = gains[best], difference(without[rest], losses[best], 0)
    helps, said = gain["low"] > 0, tuned.advice["word"]
    return {
        "rows": len(truth),
        "loss": {name: float(own.mean()) for name, own in (losses | without).items()},
        "gains": gains,
        "gain_beside_all": beside,
        "helps_beside_all": beside["low"] > 0,
        "right_beside_all": (beside["low"] > 0) == (said in HELPS),
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
    parser.add_argument("--second", action="store_true", help="the pairs that no rule has seen")
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
    right, beside = (sum(one[name] for one in found.values()) for name in ("right", "right_beside_all"))
    say({"right": right, "right_beside_all": beside, "pairs": len(found), "found": found}, before)


if __name__ == "__main__":
    main()
