"""Real data sets, each as several tasks: fewer rows, wrong labels, merged classes, half of the features.

Every task is small enough for a default run of seconds. What is changed is drawn from a seed, a hash of the
task's name. The files are in no repository of ours; their places are options:

    --tables    letter, satellite, shuttle, magic, adult, titanic, diamonds as CSV
    --fashion   the idx.gz files of Fashion-MNIST
    --series    wheel of PyPI's aeon (series as .ts text)
    --trace     wheel of PyPI's tslearn (Trace.npz)
    --pictures  cats_dogs: a folder of photos per class

    python benchmarks/tasks.py --tables DIR ...      the tasks, as JSON
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from sklearn import datasets

import ayatori
from ayatori.records import Dataset

Raw = tuple[Any, np.ndarray]  # inputs (a DataFrame or an array), target
Noise = Literal["", "uniform", "pair", "normal"]
TABLES = {
    "letter": "lettr",
    "satellite": "classes",
    "shuttle": "Class",
    "magic": "y",
    "adult": "income",
    "titanic": "survived",
    "diamonds": "price",
}


@dataclass(frozen=True)
class Task:
    """A data set and what is changed about it; ``rows`` 0 = all, ``merged`` 0 = the classes as they are."""

    data_set: str
    read: Callable[[], Raw]
    rows: int = 0
    noise: Noise = ""  # replaced evenly, called the next class, or (regression) added in standard deviations
    rate: float = 0.0
    merged: int = 0
    masked: bool = False

    @property
    def name(self) -> str:
        parts = [self.data_set, f"{self.rows} rows" if self.rows else ""]
        parts += [
            f"{self.noise} {self.rate:g}" if self.noise else "",
            f"{self.merged} classes" * bool(self.merged),
        ]
        return ", ".join(part for part in [*parts, "half seen" * self.masked] if part)

    def load(self) -> Dataset:
        inputs, target = self.read()
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        inputs, target = _fewer(inputs, target, self.rows, rng)
        if self.noise == "normal":
            target = target + self.rate * target.std() * rng.normal(size=len(target))
            return ayatori.load(_half(inputs, rng) if self.masked else inputs, y=target)
        codes = np.unique(target, return_inverse=True)[1]
        if target.dtype.kind != "f" or self.merged:
            target = _wrong(_merge(codes, self.merged, rng), self.noise, self.rate, rng)
            target = np.char.add("c", target.astype(str))
        return ayatori.load(_half(inputs, rng) if self.masked else inputs, y=target)


def _fewer(inputs: Any, target: np.ndarray, rows: int, rng: np.random.Generator) -> Raw:
    """``rows`` of them, without classes that keep fewer than 12."""
    if rows and rows < len(target):
        chosen = np.sort(rng.choice(len(target), rows, replace=False))
        inputs, target = _take(inputs, chosen), target[chosen]
    if target.dtype.kind == "f":
        return inputs, target
    codes, counts = np.unique(target, return_inverse=True, return_counts=True)[1:]
    chosen = np.flatnonzero(counts[codes] >= 12)
    return _take(inputs, chosen), target[chosen]


def _take(inputs: Any, chosen: np.ndarray) -> Any:
    return inputs.iloc[chosen].reset_index(drop=True) if isinstance(inputs, pd.DataFrame) else inputs[chosen]


def _merge(codes: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    if not classes:
        return codes
    return (rng.permutation(codes.max() + 1) % classes)[codes]


def _wrong(codes: np.ndarray, noise: Noise, rate: float, rng: np.random.Generator) -> np.ndarray:
    classes, hit = int(codes.max()) + 1, rng.random(len(codes)) < rate
    other = rng.integers(classes, size=len(codes)) if noise == "uniform" else (codes + 1) % classes
    return np.where(hit, other, codes)


def _half(inputs: Any, rng: np.random.Generator) -> Any:
    """A random half of the columns, or the upper half of pictures."""
    if inputs.ndim > 2:
        half = inputs.copy()
        half[..., inputs.shape[2] // 2 :, :] = 0
        return half
    columns = np.sort(rng.choice(inputs.shape[1], (inputs.shape[1] + 1) // 2, replace=False))
    return inputs.iloc[:, columns] if isinstance(inputs, pd.DataFrame) else inputs[:, columns]


# --- data sets


@functools.cache
def table(path: Path, target: str, quintiles: bool = False) -> Raw:
    frame = pd.read_csv(path, skipinitialspace=True)
    values = frame.pop(target)
    # whoever sat in a boat or has a body number is known to have survived or not
    inputs = frame.drop(columns=[name for name in ("boat", "body") if name in frame])
    if target == "price" and not quintiles:
        return inputs, values.to_numpy(float)
    return inputs, (pd.qcut(values, 5, labels=False) if quintiles else values).to_numpy().astype(str)


@functools.cache
def fashion(folder: Path) -> Raw:
    def read(name: str, start: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=start)

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return pixels, read("t10k-labels-idx1-ubyte.gz", 8).astype(str)


@functools.cache
def photos(folder: Path, side: int = 24) -> Raw:
    files = sorted(folder.glob("*/*.jpg"))
    pixels = np.stack([np.asarray(_photo(file, side)).transpose(2, 0, 1) for file in files])
    return pixels, np.array([file.parent.name for file in files])


def _photo(file: Path, side: int) -> Image.Image:
    with Image.open(file) as photo:
        photo.draft("RGB", (2 * side, 2 * side))
        return photo.convert("RGB").resize((side, side), Image.Resampling.BOX)


@functools.cache
def series(wheel: Path, name: str) -> Raw:
    """Training and test rows of a .ts file, all channels beside one another."""
    values, labels = [], []
    with zipfile.ZipFile(wheel) as files:
        for part in ("TRAIN", "TEST"):
            folder = f"aeon/datasets/data/{name.removesuffix('_eq')}"
            text = files.read(f"{folder}/{name}_{part}.ts").decode()
            for line in text[text.lower().index("@data") + 5 :].split():
                *channels, label = line.split(":")
                values.append(np.concatenate([np.array(each.split(","), float) for each in channels]))
                labels.append(label)
    return np.stack(values).astype(np.float32), np.array(labels)


@functools.cache
def trace(wheel: Path) -> Raw:
    with zipfile.ZipFile(wheel) as files:
        found = np.load(io.BytesIO(files.read("tslearn/.cached_datasets/Trace.npz")), allow_pickle=False)
        values = np.concatenate([found["X_train"], found["X_test"]])
        labels = np.concatenate([found["y_train"], found["y_test"]])
    return values.reshape(len(values), -1).astype(np.float32), labels.astype(int).astype(str)


@functools.cache
def shipped(name: str) -> Raw:
    """What scikit-learn brings along."""
    found = getattr(datasets, f"load_{name}")()
    if name == "digits":
        return (found.images[:, None] * 15.9).astype(np.uint8), found.target.astype(str)
    return found.data, found.target.astype(float if name == "diabetes" else str)


# --- tasks


def tasks(options: argparse.Namespace) -> list[Task]:
    """All tasks of the data sets whose places are given, the first of each set before the second of any."""
    found: list[list[dict[str, Any]]] = []
    for name, (read, rows, classes) in _sets(options).items():
        found.append([{"data_set": name, "read": read, **change} for change in _changes(rows, classes)])
    turns = [each[turn] for turn in range(max(map(len, found))) for each in found if turn < len(each)]
    return [Task(**values) for values in turns]


def _sets(options: argparse.Namespace) -> dict[str, tuple[Callable[[], Raw], tuple[int, int], int]]:
    """Name -> reader, sizes (0 = all rows), and classes (0 = regression)."""
    sets: dict[str, tuple[Callable[[], Raw], tuple[int, int], int]] = {}
    for name, rows, classes in (("breast_cancer", (0, 250), 2), ("wine", (0, 0), 3), ("iris", (0, 0), 3)):
        sets[name] = (functools.partial(shipped, name), rows, classes)
    sets["digits"] = (functools.partial(shipped, "digits"), (700, 300), 10)
    sets["diabetes"] = (functools.partial(shipped, "diabetes"), (0, 220), 0)
    if options.tables:
        many = {"letter": 26, "satellite": 6, "shuttle": 4}
        for name, target in TABLES.items():
            read = functools.partial(table, options.tables / f"{name}.csv", target)
            kinds = many.get(name, 0 if name == "diamonds" else 2)
            sets[name] = (read, (1309, 400) if name == "titanic" else (1000, 400), kinds)
        read = functools.partial(table, options.tables / "diamonds.csv", "price", True)
        sets["diamonds, quintiles"] = (read, (1000, 400), 5)
    if options.series:
        names = {"ItalyPowerDemand": (2, 300), "GunPoint": (2, 0), "JapaneseVowels_eq": (9, 300)}
        for name, (kinds, few) in {**names, "OSULeaf": (6, 250), "ArrowHead": (3, 0)}.items():
            sets[name] = (functools.partial(series, options.series, name), (0, few), kinds)
    if options.trace:
        sets["Trace"] = (functools.partial(trace, options.trace), (0, 0), 4)
    if options.fashion:
        sets["Fashion-MNIST"] = (functools.partial(fashion, options.fashion), (600, 300), 10)
    if options.pictures:
        sets["cats and dogs"] = (functools.partial(photos, options.pictures), (400, 0), 2)
    return sets


def _changes(rows: tuple[int, int], classes: int) -> list[dict[str, Any]]:
    most, few = rows
    if not classes:
        noises: list[dict[str, Any]] = [{"noise": "normal", "rate": rate} for rate in (0.5, 1.0)]
    else:
        noises = [{"noise": "uniform", "rate": 0.2}, {"noise": "pair", "rate": 0.2}]
        noises += [{"noise": "uniform", "rate": 0.4}] if most else []
    changes: list[dict[str, Any]] = [{"rows": most}, *({"rows": few} for _ in range(bool(few)))]
    changes += [*({"rows": most, **noise} for noise in noises), {"rows": most, "masked": True}]
    changes += [{"rows": most, "merged": max(2, classes // 3)}] if classes > 3 else []
    return changes + ([{"rows": 3000}] if most == 1000 else [])


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options that say where the files are."""
    for name in ("tables", "fashion", "series", "trace", "pictures"):
        parser.add_argument(f"--{name}", type=Path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Real data sets, each as several tasks")
    add_places(parser)
    found = tasks(parser.parse_args())
    facts = {"data_sets": sorted({task.data_set for task in found}), "tasks": [task.name for task in found]}
    print(json.dumps({"counts": {name: len(values) for name, values in facts.items()}, **facts}, indent=1))


if __name__ == "__main__":
    main()
