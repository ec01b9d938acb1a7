"""Name of a data set, seed -> a Task: the rows, and which of them every side is tested on.

Needs numpy, pandas and scikit-learn alone: a rival reads the same rows in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Inputs = pd.DataFrame | np.ndarray
TEST = 0.2  # share of every class that is the test
FEWEST = 20  # rows of a class; a rarer one is left out, as AutoGluon drops classes of less than 10 rows


@dataclass(frozen=True)
class Task:
    """What every side does: learn from the rows that are not ``test``, and say something of those that are.

    **Shape** (n rows, p columns, h height, w width)

    - ``x``: table (n, p) of numbers and words, missing = NaN; or pictures (n, h, w) uint8
    - ``y``: (n,) codes into ``classes``, or float64 values where there are none
    - ``test``: (n,) bool
    """

    x: Inputs
    y: np.ndarray
    classes: tuple[str, ...]
    test: np.ndarray
    seed: int = 0
    epochs: int = 0  # 0 = as many as each side thinks best

    @property
    def pictures(self) -> bool:
        return isinstance(self.x, np.ndarray)

    @property
    def labels(self) -> np.ndarray:
        """(n,) names of the classes, or the values."""
        return np.array(self.classes)[self.y] if self.classes else self.y

    @property
    def frame(self) -> pd.DataFrame:
        """(n, p) the table, or a column for each pixel of the pictures."""
        if isinstance(self.x, pd.DataFrame):
            return self.x
        flat = self.x.reshape(len(self.x), -1).astype(float)
        return pd.DataFrame(flat, columns=[f"pixel{number}" for number in range(flat.shape[1])])

    @property
    def words(self) -> list[str]:
        """Names of the columns that hold words."""
        frame = self.frame
        return [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from. ``read(folders)`` gives its inputs and target, folders by name."""

    read: Callable[[dict[str, Path]], tuple[Inputs, np.ndarray]]
    pictures: bool = False
    values: bool = False  # the target is a number


def table(name: str, target: str, drop: tuple[str, ...] = (), values: bool = False) -> Source:
    """A CSV of the folder ``tables``, without the columns ``drop``."""

    def read(folders: dict[str, Path]) -> tuple[Inputs, np.ndarray]:
        frame = pd.read_csv(folders["tables"] / name)
        y = frame[target].to_numpy(float) if values else frame[target].astype(str).to_numpy(object)
        return frame.drop(columns=[target, *drop]), y

    return Source(read, values=values)


def shipped(name: str, pictures: bool = False) -> Source:
    """A data set that scikit-learn ships."""

    def read(_: dict[str, Path]) -> tuple[Inputs, np.ndarray]:
        from sklearn import datasets

        found: Any = getattr(datasets, f"load_{name}")(as_frame=not pictures)
        y = np.asarray(found.target_names)[np.asarray(found.target)].astype(str).astype(object)
        if pictures:
            return (found.images * (255 / 16)).round().astype(np.uint8), y
        return found.data, y

    return Source(read, pictures)


def read_fashion(folders: dict[str, Path]) -> tuple[Inputs, np.ndarray]:
    """Its 70 000 pictures together: each seed draws a test of its own."""
    from fashion import CLASSES, PARTS, read_idx

    parts = [[folders["fashion"] / f"{part}-{kind}.gz" for part in PARTS.values()] for kind in KINDS]
    x, y = (np.concatenate([read_idx(path) for path in paths]) for paths in parts)
    return x, np.array(CLASSES, object)[y]


KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
# of titanic: a boat or a body's number tell who survived, and the rest is free text
DATA: dict[str, Source] = {
    "breast_cancer": shipped("breast_cancer"),
    "titanic": table("titanic.csv", "survived", ("boat", "body", "name", "ticket", "cabin", "home.dest")),
    "digits": shipped("digits", pictures=True),
    "magic": table("magic.csv", "y"),
    "adult": table("adult.csv", "income"),
    "shuttle": table("shuttle.csv", "Class"),
    "satellite": table("satellite.csv", "classes"),
    "letter": table("letter.csv", "lettr"),
    "diamonds": table("diamonds.csv", "price", values=True),
    "fashion": Source(read_fashion, pictures=True),
}


def read_task(
    name: str, seed: int, folders: dict[str, Path], rows: int | None = None, epochs: int = 0
) -> Task:
    """At most ``rows`` rows, drawn by ``seed`` in the proportion of their classes; a fifth is the test."""
    source = DATA[name]
    x, target = source.read(folders)
    classes, y = ((), target) if source.values else np.unique(target.astype(str), return_inverse=True)
    strata = np.zeros(len(y), int) if source.values else y
    generator = np.random.default_rng([seed, 5])
    kept = draw(strata, rows, generator)
    tested = np.isin(kept, kept[share(strata[kept], generator)])
    if not source.values:  # classes that are left, numbered anew
        left = np.unique(y[kept])
        classes, y = np.asarray(classes)[left], np.searchsorted(left, y)
    x = x.iloc[kept].reset_index(drop=True) if isinstance(x, pd.DataFrame) else x[kept]
    return Task(x, y[kept], tuple(map(str, classes)), tested, seed, epochs)


def draw(strata: np.ndarray, rows: int | None, generator: np.random.Generator) -> np.ndarray:
    """Sorted numbers of about ``rows`` rows, of each stratum in proportion and ``FEWEST`` at least."""
    whole = len(strata)
    counts = np.bincount(strata)
    wanted = np.round(counts * (min(rows or whole, whole) / whole)).astype(int).clip(FEWEST)
    wanted = np.where(counts < FEWEST, 0, wanted)
    return _pick(strata, wanted, generator)


def share(strata: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Sorted places of a fifth of each stratum."""
    return _pick(strata, np.round(np.bincount(strata) * TEST).astype(int), generator)


def _pick(strata: np.ndarray, wanted: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    order = generator.permutation(len(strata))
    parts = [order[strata[order] == each][:number] for each, number in enumerate(wanted)]
    return np.sort(np.concatenate(parts))
