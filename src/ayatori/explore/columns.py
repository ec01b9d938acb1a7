"""Stage 3g. Columns of a table -> which say nothing, name rows, repeat others or give the target away."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ayatori.explore.giveaways import (
    EASY,
    FEWEST,
    GIVEN_AWAY,
    LEANT_ON,
    SORTED,
    Column,
    fact,
    giveaways,
    sorted_by,
    targets,
)
from ayatori.records import Dataset, Task

MAY_BE_GROUPS, SLOW = "may be groups", "slow in time"
WORTH_SAYING = (SORTED, GIVEN_AWAY, LEANT_ON, EASY, MAY_BE_GROUPS, SLOW)  # of what is odd about columns
MISSING = 0.5  # share of gaps from which on a column is mostly missing
DISTINCT = 0.95  # share of distinct texts from which on a column names rows
MOST_COLUMNS = 2000
LASTING, CLEAR = 0.3, 4.0  # correlation of targets that follow one another in time; in standard errors


def odd_columns(dataset: Dataset, open_: np.ndarray, seed: int = 0) -> list[dict[str, Any]]:
    """What is odd about columns, in the ``open_`` (m,) rows alone: "column", "what", "figure", "sentence".

    >>> from ayatori.data import load
    >>> frame = pd.DataFrame({"a": np.arange(60.0) % 7, "b": np.arange(60.0) % 7, "y": ["cat", "dog"] * 30})
    >>> [(one["column"], one["what"]) for one in odd_columns(load(frame, target="y"), np.arange(60))]
    [('b', 'copy of another')]
    """
    found = [*_left_out(dataset), *_may_be_groups(dataset), *_slow_in_time(dataset, open_, seed)]
    useful: list[Column] = []
    counters: list[Column] = []
    seen: dict[int, Column] = {}
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
            found.append(fact(column.name, *odd))
        if odd is not None and odd[0] == "identifier" and column.number:
            counters.append(column)
    worst = sorted_by(dataset, open_, counters, seed)
    names = {one["column"] for one in worst}
    found = [one for one in found if one["what"] != "identifier" or one["column"] not in names]
    return worst + found + giveaways(dataset, open_, useful[:MOST_COLUMNS], seed)


def _left_out(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """What the reader of a table has already left out, in its words."""
    for name in dataset.schema.ignored:
        for note in dataset.notes:
            if note.startswith(f"column '{name}' is left out: "):
                kinds = {"are the same": "constant", "are missing": "mostly missing"}
                what = next((kind for words, kind in kinds.items() if note.endswith(words)), "identifier")
                yield fact(name, what, 1.0, note)


def _may_be_groups(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """What the reader of a table asks about: whether rows of one value belong together."""
    for name in (*dataset.schema.numbers, *dataset.schema.categories, *dataset.schema.ignored):
        for note in dataset.notes:
            if note.startswith(f"column '{name}' has ") and "belong together" in note:
                yield fact(name, MAY_BE_GROUPS, 1.0, note)


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
        lasting = max(_lasting(target[order], dataset.task) for _, target in targets(dataset, open_))
        if lasting > max(LASTING, CLEAR / len(order) ** 0.5):
            yield fact(
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


def _columns(dataset: Dataset, rows: np.ndarray) -> Iterator[Column]:
    numbers = dataset.inputs.get("numbers", np.zeros((len(dataset), 0)))
    dates = {f"{name}: days" for name in dataset.schema.dates}
    names = dataset.schema.numbers or tuple(f"x{at}" for at in range(numbers.shape[1]))
    for at, name in enumerate(names):
        yield Column(name, numbers[rows, at], True, name in dates)
    codes = dataset.inputs.get("categories", np.zeros((len(dataset), 0)))
    for at, name in enumerate(dataset.schema.categories):
        values = codes[rows, at].astype(np.float64)
        yield Column(name, np.where(values < 0, np.nan, values), False)


def _canonical(column: Column) -> np.ndarray:
    """The same for columns that say the same: values, or the order in which categories come first."""
    if column.number:
        return np.where(np.isnan(column.values), np.nan, column.values + 0.0)
    return pd.factorize(column.values)[0]


def _odd(column: Column) -> tuple[str, float, str] | None:
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


def _names_rows(column: Column, known: np.ndarray, distinct: int) -> bool:
    """All different texts; or whole numbers without a gap, or ones that follow the row number."""
    if not column.number:
        return distinct >= DISTINCT * len(known)
    if column.date:
        return False
    if distinct < len(known) or (known != np.round(known)).any():
        return False
    steps = np.diff(known)
    return bool((steps > 0).all() or (steps < 0).all() or np.ptp(known) < 1.5 * len(known))
