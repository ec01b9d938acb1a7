"""Stage 3g. Columns of a table -> which say nothing, name rows, repeat others or give the target away."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ayatori.records import Dataset, Task

GIVEN_AWAY, EASY, MAY_BE_GROUPS, SLOW = (
    "gives the target away",
    "tells the target",
    "may be groups",
    "slow in time",
)
WORTH_SAYING = (GIVEN_AWAY, EASY, MAY_BE_GROUPS, SLOW)  # of what is odd about columns
MISSING = 0.5  # share of gaps from which on a column is mostly missing
DISTINCT = 0.95  # share of distinct texts from which on a column names rows
AWAY_CLASSES, AWAY_VALUES = 0.99, 0.999  # accuracy, R2 of a tree on one column
SKILL = 0.9  # how far above the largest class that must be, as a share of what is left
CLOSE = 0.93  # how alike the targets of adjacent values are, to be worth a tree
FIRST, LATER = 1500, 3000  # rows of the first look at all columns, and of the second at some
MOST_TARGETS, MOST_COLUMNS = 10, 2000
MOST_KINDS = 50  # values of a column that may stand for classes
FEWEST = 40
LASTING, CLEAR = 0.3, 4.0  # correlation of targets that follow one another in time; in standard errors


@dataclass(frozen=True)
class _Column:
    name: str
    values: np.ndarray  # (m,) float64; codes for a category; missing = NaN
    number: bool
    date: bool = False


def odd_columns(dataset: Dataset, open_: np.ndarray, seed: int = 0) -> list[dict[str, Any]]:
    """What is odd about columns, in the ``open_`` (m,) rows alone: "column", "what", "figure", "sentence".

    >>> from ayatori.data import load
    >>> frame = pd.DataFrame({"a": np.arange(60.0) % 7, "b": np.arange(60.0) % 7, "y": ["cat", "dog"] * 30})
    >>> [(one["column"], one["what"]) for one in odd_columns(load(frame, target="y"), np.arange(60))]
    [('b', 'copy of another')]
    """
    found = [*_left_out(dataset), *_may_be_groups(dataset), *_slow_in_time(dataset, open_, seed)]
    useful: list[_Column] = []
    seen: dict[int, _Column] = {}
    for column in _columns(dataset, open_):
        odd = _odd(column)
        if odd is None:
            key = hash(_canonical(column).tobytes())
            other = seen.setdefault(key, column)
            if other is not column and np.array_equal(_canonical(other), _canonical(column)):
                odd = (
                    "copy of another",
                    1.0,
                    f"column '{column.name}' repeats '{other.name}': leave one out with --drop",
                )
        if odd is None or odd[0] == "mostly missing":
            useful.append(column)
        if odd is not None:
            found.append(_fact(column.name, *odd))
    return found + _giveaways(dataset, open_, useful[:MOST_COLUMNS], seed)


def _fact(name: str, what: str, figure: float, sentence: str) -> dict[str, Any]:
    return {"column": name, "what": what, "figure": figure, "sentence": sentence}


def _left_out(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """What the reader of a table has already left out, in its words."""
    for name in dataset.schema.ignored:
        for note in dataset.notes:
            if note.startswith(f"column '{name}' is left out: "):
                kinds = {"are the same": "constant", "are missing": "mostly missing"}
                what = next((kind for words, kind in kinds.items() if note.endswith(words)), "identifier")
                yield _fact(name, what, 1.0, note)


def _may_be_groups(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """What the reader of a table asks about: whether rows of one value belong together."""
    for name in (*dataset.schema.numbers, *dataset.schema.categories, *dataset.schema.ignored):
        for note in dataset.notes:
            if note.startswith(f"column '{name}' has ") and "belong together" in note:
                yield _fact(name, MAY_BE_GROUPS, 1.0, note)


def _slow_in_time(dataset: Dataset, open_: np.ndarray, seed: int) -> Iterator[dict[str, Any]]:
    """Dates along which the target changes slowly, so that rows of a random split tell those beside them."""
    if dataset.order is not None or len(open_) < FEWEST:
        return
    chance = np.random.default_rng([seed, 17]).random(len(open_))  # rows of one day are in no order
    for name in dataset.schema.dates:
        days = dataset.inputs["numbers"][open_, dataset.schema.numbers.index(f"{name}: days")]
        order = np.lexsort((chance, days))[: int((~np.isnan(days)).sum())]  # gaps come last
        if len(np.unique(days[order])) < FEWEST:
            continue
        lasting = max(_lasting(target[order], dataset.task) for _, target in _targets(dataset, open_))
        if lasting > max(LASTING, CLEAR / len(order) ** 0.5):
            yield _fact(
                *(name, SLOW, lasting),
                f"targets that follow one another in '{name}' are alike (correlation {lasting:.2f}): if "
                f"later rows are to be told from earlier ones, --time {shlex.quote(name)} scores that",
            )


def _lasting(target: np.ndarray, task: Task) -> float:
    """How alike neighbours are, from 0 (no more than any two) to 1: of numbers Spearman's correlation."""
    if task == "regression":
        found = spearmanr(target[:-1], target[1:]).statistic if np.ptp(target) else 0.0
        return float(found)
    alike = (target[:-1] == target[1:]).mean()
    chance = np.square(np.unique(target, return_counts=True)[1] / len(target)).sum()
    return float((alike - chance) / max(1 - chance, 1e-9))


def _columns(dataset: Dataset, rows: np.ndarray) -> Iterator[_Column]:
    numbers = dataset.inputs.get("numbers", np.zeros((len(dataset), 0)))
    dates = {f"{name}: days" for name in dataset.schema.dates}
    names = dataset.schema.numbers or tuple(f"x{at}" for at in range(numbers.shape[1]))
    for at, name in enumerate(names):
        yield _Column(name, numbers[rows, at], True, name in dates)
    codes = dataset.inputs.get("categories", np.zeros((len(dataset), 0)))
    for at, name in enumerate(dataset.schema.categories):
        values = codes[rows, at].astype(np.float64)
        yield _Column(name, np.where(values < 0, np.nan, values), False)


def _canonical(column: _Column) -> np.ndarray:
    """The same for columns that say the same: values, or the order in which categories come first."""
    if column.number:
        return np.where(np.isnan(column.values), np.nan, column.values + 0.0)
    return pd.factorize(column.values)[0]


def _odd(column: _Column) -> tuple[str, float, str] | None:
    """What a column is by itself, where that is odd."""
    known = column.values[~np.isnan(column.values)]
    gaps = 1 - len(known) / max(len(column.values), 1)
    distinct = len(np.unique(known))
    if distinct + (gaps > 0) <= 1:
        return "constant", 1.0, f"column '{column.name}' has one value only: it says nothing; drop it"
    if gaps > MISSING:
        sentence = (
            f"column '{column.name}' is {gaps:.0%} empty: see whether it says more than that it is empty"
        )
        return "mostly missing", gaps, sentence
    if len(known) >= FEWEST and _names_rows(column, known, distinct):
        sentence = (
            f"column '{column.name}' tells rows apart rather than cases: name it with --ids, or drop it"
        )
        return "identifier", distinct / len(known), sentence
    return None


def _names_rows(column: _Column, known: np.ndarray, distinct: int) -> bool:
    """All different texts; or whole numbers without a gap, or ones that follow the row number."""
    if not column.number:
        return distinct >= DISTINCT * len(known)
    if column.date:
        return False
    if distinct < len(known) or (known != np.round(known)).any():
        return False
    steps = np.diff(known)
    return bool((steps > 0).all() or (steps < 0).all() or np.ptp(known) < 1.5 * len(known))


# --- the target


def _giveaways(
    dataset: Dataset, open_: np.ndarray, columns: list[_Column], seed: int
) -> list[dict[str, Any]]:
    """Columns that alone say the target, and whether the others together do too."""
    if len(columns) < 2 or len(open_) < FEWEST:
        return []
    chance = np.random.default_rng([seed, 13])
    some = chance.permutation(len(open_))
    found: dict[str, tuple[float, str, bool]] = {}
    for label, target in _targets(dataset, open_):
        first, later = (np.sort(some[:most]) for most in (FIRST, LATER))
        kind = dataset.task != "regression"
        table = np.stack([column.values[first] for column in columns], axis=1)
        near = [columns[at] for at in np.flatnonzero(_follows(table, target[first], kind) > CLOSE)]
        told = {c.name: _told(c.values[later, None], target[later], kind, seed, 3) for c in near}
        sure = [c for c in near if _is_away(told[c.name], target[later], kind)]
        rest = [c.values[later] for c in columns if c not in sure]
        if not sure or not rest:
            continue
        together = _told(np.stack(rest, axis=1), target[later], kind, seed, 3)
        easy = _is_away(together, target[later], kind)
        if (
            easy
        ):  # of numbers that is nothing odd; a few values that each stand for one class may be made of it
            sure = [c for c in sure if told[c.name] == 1 and len(np.unique(c.values)) <= MOST_KINDS]
        found |= {c.name: (told[c.name], label, easy) for c in sure if c.name not in found}
    return [
        _fact(name, EASY if easy else GIVEN_AWAY, *_said(name, figure, label, easy, dataset))
        for name, (figure, label, easy) in found.items()
    ]


def _said(name: str, figure: float, label: str, easy: bool, dataset: Dataset) -> tuple[float, str]:
    figures = f"R2 {figure:.4f}" if dataset.task == "regression" else f"accuracy {figure:.3f}"
    what = f"the target '{label}'" if label else "the target"
    if easy:
        return figure, (
            f"column '{name}' alone tells {what} ({figures}), and so do the others without it: an easy task, "
            "if all of them are known beforehand"
        )
    return figure, (
        f"column '{name}' alone gives {what} away ({figures}): drop it, if it is not known beforehand"
    )


def _targets(dataset: Dataset, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    target = dataset.labels[rows]
    if dataset.task == "classification":
        yield "", target
        return
    names = dataset.classes if dataset.task == "multilabel" else dataset.schema.target
    for at in range(min(target.shape[1], MOST_TARGETS)):
        yield (names[at] if target.shape[1] > 1 and at < len(names) else ""), target[:, at]


def _follows(table: np.ndarray, target: np.ndarray, classes: bool) -> np.ndarray:
    """(columns,): how alike the ``target`` (m,) of rows is that follow one another in the order of a column.

    Classes: the share of equal ones. Numbers: 1 less the share of the variance (von Neumann's ratio).
    """
    order = np.argsort(table, axis=0, kind="stable")
    own, other = target[order[:-1]], target[order[1:]]
    if classes:
        return (own == other).mean(axis=0)
    return 1 - np.square(own - other).mean(axis=0) / max(2 * float(target.var()), 1e-300)


def _told(values: np.ndarray, target: np.ndarray, classes: bool, seed: int, folds: int) -> float:
    """Accuracy or R2, out of fold, of a tree on ``values`` (m, columns)."""
    kind, tree = (StratifiedKFold, DecisionTreeClassifier) if classes else (KFold, DecisionTreeRegressor)
    if classes:
        _, codes, counts = np.unique(target, return_inverse=True, return_counts=True)
        if len(counts) < 2 or counts.max() < folds:
            return 0.0
        if counts.min() < folds:  # the rare are left to the tree's fate
            kind = KFold
        target = codes
    truth, said = [], []
    for learn, judge in kind(folds, shuffle=True, random_state=seed % 2**32).split(values, target):
        # of many columns, random thresholds are good enough and far faster
        splitter = "best" if values.shape[1] <= 30 else "random"
        fitted = tree(random_state=0, splitter=splitter).fit(values[learn], target[learn])
        truth.append(target[judge])
        said.append(fitted.predict(values[judge]))
    score = accuracy_score if classes else r2_score
    return float(score(np.concatenate(truth), np.concatenate(said)))


def _is_away(figure: float, target: np.ndarray, classes: bool) -> bool:
    if not classes:
        return figure >= AWAY_VALUES
    largest = np.unique(target, return_counts=True)[1].max() / len(target)
    return figure >= AWAY_CLASSES and figure - largest >= SKILL * (1 - largest)
