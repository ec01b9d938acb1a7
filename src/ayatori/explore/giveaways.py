"""Stage 3g. Columns, target -> which of them give it away, and may have been written down after the fact."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ayatori.records import Dataset

GIVEN_AWAY, LEANT_ON, EASY = "gives the target away", "tells nearly all", "tells the target"
SORTED = "counts the rows, which are sorted"
AWAY_CLASSES, AWAY_VALUES = 0.99, 0.999  # accuracy, R2 of a tree on one column
SKILL = 0.9  # how far above the largest class that must be, as a share of what is left
CLOSE = 0.93  # how alike the targets of adjacent values are, to be worth a tree
ALONE, OTHERS = 0.6, 0.6  # skill of the one column that a task leans on; of all others, as a share of it
LEADING = 3  # columns that may be that one
MANY = 6  # columns, from which on it is odd that one tells nearly all
FIRST, LATER = 1500, 3000  # rows of the first look at all columns, and of the second at some
MOST_TARGETS = 10
MOST_KINDS = 50  # values of a column that may stand for classes
COUNTERS = 3  # columns that are told of, at most, where several count the rows
SORTS = 0.5  # skill of a column that counts the rows, from which on they are in the order of the target
FEWEST = 40
FOLDS = 3


@dataclass(frozen=True)
class Column:
    """``values`` (m,) float64; codes for a category; missing = NaN."""

    name: str
    values: np.ndarray
    number: bool
    date: bool = False


def fact(name: str, what: str, figure: float, sentence: str) -> dict[str, Any]:
    """What is odd about a column, as plain JSON."""
    return {"column": name, "what": what, "figure": figure, "sentence": sentence}


def giveaways(
    dataset: Dataset, open_: np.ndarray, columns: Sequence[Column], seed: int
) -> list[dict[str, Any]]:
    """Columns that alone say the target of the ``open_`` (m,) rows, or nearly all that can be said of it."""
    if len(columns) < 2 or len(open_) < FEWEST:
        return []
    some = np.random.default_rng([seed, 13]).permutation(len(open_))
    first, later = (np.sort(some[:most]) for most in (FIRST, LATER))
    table = np.stack([column.values[first] for column in columns], axis=1)
    found: dict[str, dict[str, Any]] = {}
    for label, target in targets(dataset, open_):
        follows = _follows(table, target[first], dataset.task != "regression")
        about = _Target(label, target[later], dataset.task != "regression", seed)
        near = [columns[at] for at in np.flatnonzero(follows > CLOSE).tolist()]
        told = [(column, about.told([column], later)) for column in near]
        sure = [(column, figure) for column, figure in told if about.is_away(figure)]
        leading = [columns[at] for at in np.argsort(-follows, kind="stable")[:LEADING].tolist()]
        facts = list(_away(about, columns, sure, later))
        if not sure and len(columns) >= MANY:
            facts += _leant_on(about, columns, leading, later)
        found = {**{one["column"]: one for one in facts}, **found}
    return list(found.values())


def sorted_by(
    dataset: Dataset, open_: np.ndarray, counters: Sequence[Column], seed: int
) -> list[dict[str, Any]]:
    """Those of the ``counters``, columns that count the ``open_`` (m,) rows, that tell the target so."""
    if len(open_) < FEWEST:
        return []
    rows = np.sort(np.random.default_rng([seed, 13]).permutation(len(open_))[:LATER])
    found: dict[str, dict[str, Any]] = {}
    for label, target in targets(dataset, open_):
        about = _Target(label, target[rows], dataset.task != "regression", seed)
        for column in counters[:COUNTERS]:
            if about.skill(figure := about.told([column], rows)) >= SORTS:
                found[column.name] = fact(
                    *(column.name, SORTED, figure),
                    f"column '{column.name}' only counts the rows, and that tells {about} "
                    f"({about.words(figure)}): they were sorted by it, or follow one another in time; new "
                    "rows have other numbers, so drop it",
                )
    return list(found.values())


def step_of(facts: Sequence[dict[str, Any]], dates: Sequence[str] = ()) -> dict[str, str]:
    """Sentence and next step about the first column that may have been written down after the fact.

    ``dates``: columns whose parts have names of their own.

    >>> step_of([fact("seen: days", LEANT_ON, 0.9, "")], ("seen",))["step"]
    "If column 'seen' is not known before the target is, leave it out: --drop seen."
    """
    for one in facts:
        if one["what"] == SORTED:
            step = (
                f"Leave out column '{one['column']}', which counts the rows: --drop {_typed(one['column'])}."
            )
            return {"sentence": one["sentence"], "step": step}
        if one["what"] in (GIVEN_AWAY, LEANT_ON):
            name = next((date for date in dates if one["column"].startswith(f"{date}: ")), one["column"])
            step = (
                f"If column '{name}' is not known before the target is, leave it out: --drop {_typed(name)}."
            )
            return {"sentence": one["sentence"], "step": step}
    return {"sentence": "", "step": ""}


def _typed(name: str) -> str:
    return shlex.quote(f'"{name}"' if "," in name else name)


@dataclass(frozen=True)
class _Target:
    """One target ``values`` (m,), and how well a tree tells it."""

    label: str
    values: np.ndarray
    classes: bool
    seed: int

    def told(self, columns: Sequence[Column], rows: np.ndarray) -> float:
        """Accuracy or R2, out of fold."""
        return _told(
            np.stack([c.values[rows] for c in columns], axis=1), self.values, self.classes, self.seed
        )

    @property
    def chance(self) -> float:
        """Accuracy of the largest class; R2 of the mean."""
        return np.unique(self.values, return_counts=True)[1].max() / len(self.values) if self.classes else 0.0

    def skill(self, figure: float) -> float:
        return (figure - self.chance) / max(1 - self.chance, 1e-9)

    def is_away(self, figure: float) -> bool:
        return (
            figure >= AWAY_CLASSES and self.skill(figure) >= SKILL if self.classes else figure >= AWAY_VALUES
        )

    def words(self, figure: float) -> str:
        return f"accuracy {figure:.3f}" if self.classes else f"R2 {figure:.4f}"

    def __str__(self) -> str:
        return f"the target '{self.label}'" if self.label else "the target"


def _away(
    about: _Target, columns: Sequence[Column], sure: Sequence[tuple[Column, float]], rows: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Columns that are ``sure`` to tell the target, and how well; and whether the others together do too."""
    names = {column.name for column, _ in sure}
    rest = [column for column in columns if column.name not in names]
    if not (sure and rest):
        return
    easy = about.is_away(about.told(rest, rows))
    for column, figure in sure:
        if not easy:
            yield fact(
                *(column.name, GIVEN_AWAY, figure),
                f"column '{column.name}' alone gives {about} away ({about.words(figure)}): drop it, if it is "
                "not known beforehand",
            )
        # of numbers that is nothing odd; a few values that each stand for one class may be made of it
        elif figure == 1 and len(np.unique(column.values)) <= MOST_KINDS:
            yield fact(
                *(column.name, EASY, figure),
                f"column '{column.name}' alone tells {about} ({about.words(figure)}), and so do the others "
                "without it: an easy task, if all of them are known beforehand",
            )


def _leant_on(
    about: _Target, columns: Sequence[Column], leading: list[Column], rows: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The one of the ``leading`` columns without which little is left, if there is one."""
    figures = [about.told([column], rows) for column in leading]
    figure, column = max(zip(figures, leading, strict=True), key=lambda pair: pair[0])
    if about.skill(figure) < ALONE:
        return
    others = about.told([one for one in columns if one is not column], rows)
    if about.skill(others) <= OTHERS * about.skill(figure):
        yield fact(
            *(column.name, LEANT_ON, figure),
            f"nearly all that is told of {about} comes from column '{column.name}' alone "
            f"({about.words(figure)}; all other columns {max(others, about.chance):.3f}): see that it is "
            "known before the target, or drop it",
        )


def targets(dataset: Dataset, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each target (m,) of some rows, and its name where there are several."""
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


def _told(values: np.ndarray, target: np.ndarray, classes: bool, seed: int) -> float:
    """Accuracy or R2, out of fold, of a tree on ``values`` (m, columns)."""
    kind, tree = (StratifiedKFold, DecisionTreeClassifier) if classes else (KFold, DecisionTreeRegressor)
    if classes:
        _, codes, counts = np.unique(target, return_inverse=True, return_counts=True)
        if len(counts) < 2 or counts.max() < FOLDS:
            return 0.0
        if counts.min() < FOLDS:  # the rare are left to the tree's fate
            kind = KFold
        target = codes
    truth, said = [], []
    for learn, judge in kind(FOLDS, shuffle=True, random_state=seed % 2**32).split(values, target):
        # of many columns, random thresholds are good enough and far faster
        splitter = "best" if values.shape[1] <= 30 else "random"
        fitted = tree(random_state=0, splitter=splitter).fit(values[learn], target[learn])
        truth.append(target[judge])
        said.append(fitted.predict(values[judge]))
    score = accuracy_score if classes else r2_score
    return float(score(np.concatenate(truth), np.concatenate(said)))
