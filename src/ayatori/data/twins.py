"""Stage 1h. Dataset -> rows that are copies of each other; and a Dataset whose splits keep copies together.

Inputs alone say what a copy is; no target is read to find one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ayatori.data.alike import Pairs, near_rows
from ayatori.data.like_texts import near_texts
from ayatori.data.likeness import near_pictures
from ayatori.data.overlap import overlaps
from ayatori.data.scans import alike_in_depth, flattened
from ayatori.recipe import PlanRecipe
from ayatori.records import SCORE, STOP, AyatoriError, Dataset, Plan

NEAR_ROWS, NEAR_VALUES = 200_000, 20_000_000  # of a table; beyond, only exact copies are looked for
_ROWS_AT_ONCE = 4096
_COLUMNS_TRIED = 64
LEAST_LEFT = 4  # rows to learn from, with which a Plan can be made
BESIDE = 1 << 20  # the numbers of columns that are compared, but not learned from


@dataclass(frozen=True)
class Twins:
    """Rows that are copies of each other.

    **Shape** ``pairs`` (m, 2) int64 row numbers, the smaller first; of c equal rows each later one is paired
    with the first. ``kind`` (m,) "exact" or "near"; ``distance`` (m,) float64: 0 for exact ones, else 1 minus
    the correlation of two pictures, or robust standard deviations of a table. ``groups`` (n,) int64: the
    number of the group of copies that a row belongs to, -1 for none.

    ``natural``: a table so coarse that different cases often have equal rows; exact copies are then no sign
    of a case that was taken twice, and are not bound.
    """

    pairs: np.ndarray
    kind: np.ndarray
    distance: np.ndarray
    groups: np.ndarray
    natural: bool = False

    def leaks(self, sealed: np.ndarray, barred: np.ndarray | None = None) -> np.ndarray:
        """(k, 2): each row of ``sealed`` (n,) bool that is a copy of an open one, and the first such row.

        Nobody learns from rows that are ``barred`` (n,).
        """
        known = self.groups >= 0
        open_ = np.flatnonzero(known & ~sealed if barred is None else known & ~sealed & ~barred)
        groups, first = np.unique(self.groups[open_], return_index=True)
        shut = np.flatnonzero(known & sealed)
        shut = shut[np.isin(self.groups[shut], groups)]
        partner = open_[first[np.searchsorted(groups, self.groups[shut])]]
        return np.stack([shut, partner], axis=1)


def known_rows(twins: Twins, plan: Plan) -> int:
    """How many of the rows that judge, the sealed ones or else those of the folds, are copies of rows that
    were learned from. Copies that are natural do not count."""
    if twins.natural:
        return 0
    taught: np.ndarray = (plan.roles > 0) & (plan.roles <= STOP)
    if plan.sealed.any():
        return len(twins.leaks(plan.sealed, ~np.any(taught, axis=1)))
    known = np.zeros(len(twins.groups), bool)
    for member in range(plan.members):
        judged = plan.roles[:, member] == SCORE
        known[twins.leaks(judged, ~taught[:, member])[:, 0]] = True
    return int(known.sum())


def find_twins(dataset: Dataset, near: bool = True) -> Twins:
    """All rows with the same inputs (NaN equals NaN), and with ``near`` those that differ by noise, light, a
    slight crop or another coding, and series that overlap.

    >>> from ayatori.data import load
    >>> data = load(np.array([[1.0, np.nan], [2.0, 3.0], [1.0, np.nan]]), y=[0.1, 0.7, 0.4])
    >>> find_twins(data).pairs.tolist()
    [[0, 2]]
    """
    keys = row_keys(dataset)
    first = _first_equal(dataset, keys)
    copies = np.flatnonzero(first != np.arange(len(dataset)))
    exact = np.stack([first[copies], copies], axis=1)
    distinct = np.flatnonzero(first == np.arange(len(dataset)))
    found, apart = np.zeros((0, 2), np.int64), np.zeros(0)
    width = sum(
        values.shape[1] for name, values in dataset.inputs.items() if name in ("numbers", "categories")
    )
    near &= bool(dataset.inputs.keys() & {"image", "numbers", "series", "words"})
    if near and len(distinct) <= min(NEAR_ROWS, NEAR_VALUES // max(width, 1)):
        with threadpool_limits(1):  # the products are small: threads would mostly wait for one another
            found, apart = _near(dataset, distinct)
    pairs = np.concatenate([exact, found])
    return Twins(
        pairs,
        np.repeat(["exact", "near"], [len(exact), len(found)]),
        np.concatenate([np.zeros(len(exact)), apart]),
        _numbered(_components(len(dataset), pairs)),
        len(exact) > 0 and _is_coarse(dataset, keys),
    )


def _near(dataset: Dataset, rows: np.ndarray) -> Pairs:
    """Near pairs among ``rows``, numbered as in the data set."""
    if "image" in dataset.inputs:
        pairs, apart = near_pictures(flattened(dataset), rows)
        if dataset.schema.slices:
            same = alike_in_depth(dataset.inputs["image"], pairs)
            pairs, apart = pairs[same], apart[same]
        return pairs, apart
    if "series" in dataset.inputs:
        pairs, apart = overlaps(dataset.inputs["series"][rows])
        return rows[pairs], apart
    if "words" in dataset.inputs:  # whatever stands beside a long text, it is learned by heart
        pairs, apart = near_texts(dataset.inputs["words"][rows])
        return rows[pairs], apart
    numbers = dataset.inputs["numbers"][rows]
    categories = dataset.inputs.get("categories", np.zeros((len(dataset), 0)))[rows]
    keys = np.zeros(len(rows), np.uint64)
    for at, column in enumerate([*np.isnan(numbers).T, *categories.T]):
        keys += pd.util.hash_array(column.astype(np.int64)) * _odd(at)
    pairs, apart = near_rows(numbers, keys)
    return rows[pairs], apart


def row_keys(dataset: Dataset) -> np.ndarray:
    """(n,) uint64: equal for equal rows, and else different but for one chance in 2^64."""
    keys = np.zeros(len(dataset), np.uint64)
    for at, column in enumerate(_hashed_columns(dataset)):
        keys += column * _odd(at)
    if dataset.begins is not None:  # words that are too rare to be known may tell texts apart
        for at, column in enumerate(dataset.begins.T):
            keys += pd.util.hash_array(column) * _odd(at + BESIDE)
    for name in dataset.inputs.keys() & {"image", "series", "words"}:
        values = dataset.inputs[name]
        for row in range(len(values)):
            own = values[row]
            if name == "series":
                own = np.where(np.isnan(own), np.nan, own + 0.0)
            if name == "words" and own.max(initial=-1) < 0:
                own = np.array([row])  # no word is no copy of no word
            digest = blake2b(np.ascontiguousarray(own).data, digest_size=8).digest()
            keys[row : row + 1] += np.uint64(int.from_bytes(digest))
    return keys


def _hashed_columns(dataset: Dataset) -> Iterator[np.ndarray]:
    """(n,) uint64 for each column of a table; all kinds of missing are one, and -0 is 0."""
    for column in dataset.inputs.get("numbers", np.zeros((len(dataset), 0))).T:
        yield pd.util.hash_array(np.where(np.isnan(column), np.nan, column + 0.0))
    for column in dataset.inputs.get("categories", np.zeros((len(dataset), 0))).T:
        yield pd.util.hash_array(column.astype(np.int64))


def _odd(at: int) -> np.uint64:
    """The factor of column ``at`` in a key."""
    return np.uint64(int.from_bytes(blake2b(b"%d" % at, digest_size=8).digest()) | 1)


def _first_equal(dataset: Dataset, keys: np.ndarray) -> np.ndarray:
    """(n,) int64: the first row that each row is equal to; itself where there is none before it."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first = first[inverse].astype(np.int64)
    rows = np.flatnonzero(first != np.arange(len(keys)))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        for values in (*dataset.inputs.values(), *([] if dataset.begins is None else [dataset.begins])):
            a, b = values[block], values[first[block]]
            same = (a == b) | ((a != a) & (b != b))
            strangers = block[~same.reshape(len(block), -1).all(axis=1)]
            first[strangers] = strangers
    return first


def _is_coarse(dataset: Dataset, keys: np.ndarray) -> bool:
    """Whether equal rows of a table are what to expect: rows that differ in one column are as common.

    A case that was taken twice brings an equal row and none that is nearly equal.
    """
    if dataset.inputs.keys() & {"image", "series", "words"}:
        return False
    equal, almost = _equal_pairs(keys), 0.0
    columns = sum(values.shape[1] for values in dataset.inputs.values())
    tried = set(np.linspace(0, columns - 1, min(columns, _COLUMNS_TRIED)).astype(int).tolist())
    for at, column in enumerate(_hashed_columns(dataset)):
        if at in tried:
            almost += (_equal_pairs(keys - column * _odd(at)) - equal) * columns / len(tried)
    return almost >= equal


def _equal_pairs(keys: np.ndarray) -> float:
    counts = np.unique(keys, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())


def _components(n: int, pairs: np.ndarray) -> np.ndarray:
    """(n,) int64: the same number for rows that pairs connect."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _numbered(components: np.ndarray) -> np.ndarray:
    """Components of several rows numbered from 0, rows alone -1."""
    counts = np.bincount(components)
    numbers = np.where(counts > 1, np.cumsum(counts > 1) - 1, -1)
    return numbers[components].astype(np.int64)


def bind(dataset: Dataset, twins: Twins, recipe: PlanRecipe) -> tuple[Dataset, str]:
    """A copy whose groups also join copies, so that they stay on one side of every split; and what was done.

    Copies among the rows of a given test file are joined too, but never with open rows: an open row that is
    a copy of a test row is barred from teaching anybody. The data set is given back as it is, and the note
    is "", where there is nothing to do; the note says why where binding is not possible.

    Raises AyatoriError where the given test leaves hardly a row to learn from.

    >>> from ayatori.data import load
    >>> values = np.random.default_rng(0).normal(size=(40, 3))
    >>> data = load(np.concatenate([values, values[:3]]), y=["cat", "dog"] * 20 + ["cat", "dog", "cat"])
    >>> bound, note = bind(data, find_twins(data), PlanRecipe())
    >>> bool(bound.groups[0] == bound.groups[40]), note
    (True, '6 rows are copies of one another (3 groups): copies stay on one side of every split')
    """
    n = len(dataset)
    shut = np.zeros(n, bool) if dataset.fixed_test is None else dataset.fixed_test
    pairs = twins.pairs[twins.kind == "near"] if twins.natural else twins.pairs
    joined = _numbered(_components(n, pairs))
    dataset, barred = _bar(dataset, joined, shut)
    dataset, bound = _bind(dataset, joined, shut, recipe)
    return dataset, "; ".join(filter(None, (bound, barred)))


def _bar(dataset: Dataset, joined: np.ndarray, shut: np.ndarray) -> tuple[Dataset, str]:
    """Copies of rows of a given test (n,) ``shut`` teach nobody; ``joined`` (n,): groups of copies, or -1."""
    barred = ~shut & (joined >= 0) & np.isin(joined, joined[shut])
    count, left = int(barred.sum()), int((~shut & ~barred).sum())
    if not count:
        return dataset, ""
    if left < LEAST_LEFT:
        raise AyatoriError(
            f"the given test must hold other rows than those to learn from, however of these {count:,} of "
            f"{count + left:,} are copies of its rows; give other rows as --test"
        )
    what, them = ("1 row is a copy", "it") if count == 1 else (f"{count:,} rows are copies", "them")
    note = f"{what} of rows of the test: nobody learns from {them}"
    return dataclasses.replace(dataset, barred=barred), note


def _bind(dataset: Dataset, joined: np.ndarray, shut: np.ndarray, recipe: PlanRecipe) -> tuple[Dataset, str]:
    rows = np.flatnonzero(joined >= 0)
    sides = np.unique(2 * joined[rows] + shut[rows], return_inverse=True)[1]  # never across a given test
    wanted = _stars(sides, rows)
    if not len(wanted):
        return dataset, ""
    count = len(np.unique(wanted))
    groups = count - len(wanted)
    beside = " or overlap" if "series" in dataset.inputs else ""
    what = f"{count:,} rows are copies of one another{beside} ({groups:,} group{'s' * (groups > 1)})"
    if dataset.order is not None:
        return dataset, f"{what}, however splits go by time: copies may lie on both sides of one"
    if recipe.splitter is not None:
        return dataset, f"{what}, however the splitter is your own: copies may lie on both sides of a split"
    kept, why = _bindable(dataset, wanted, recipe)
    if why:
        what += f"; {len(np.unique(wanted)) - len(np.unique(kept)):,} of them are not bound, as {why}"
    if not len(kept):
        return dataset, what
    units = _units(dataset, kept)
    note = f"{what}{': the other' if why else ':'} copies stay on one side of every split"
    return dataclasses.replace(dataset, groups=units), note


def _stars(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m, 2): the first of ``rows`` of each of ``groups`` (both (k,)) with each later one."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    first = first[inverse]
    later = first != np.arange(len(rows))
    return np.stack([rows[first[later]], rows[later]], axis=1)


def _units(dataset: Dataset, pairs: np.ndarray) -> np.ndarray:
    """(n,) int64: the same number for rows that ``pairs`` or the user's groups hold together."""
    if dataset.groups is not None:
        pairs = np.concatenate([pairs, _stars(dataset.groups, np.arange(len(dataset)))])
    return _components(len(dataset), pairs)


def _bindable(dataset: Dataset, pairs: np.ndarray, recipe: PlanRecipe) -> tuple[np.ndarray, str]:
    """The pairs that leave enough to split: small groups, and several in each class. Else why not."""
    open_ = np.ones(len(dataset), bool) if dataset.fixed_test is None else ~dataset.fixed_test
    folds = 3 if recipe.strategy == "holdout" else recipe.folds
    sealed = 0.0 if isinstance(recipe.test, str) or dataset.fixed_test is not None else recipe.test
    before = np.arange(len(dataset)) if dataset.groups is None else dataset.groups
    units = _units(dataset, pairs)
    sizes = np.bincount(units[open_], minlength=units.max() + 1)
    largest = max(open_.sum() / (2 * folds), np.unique(before[open_], return_counts=True)[1].max())
    why = []
    keep = sizes[units[pairs[:, 0]]] <= largest
    if not keep.all():
        why.append("a group of them is larger than half a fold")

    def enough(rows: np.ndarray) -> bool:
        count = len(np.unique(_units(dataset, pairs[keep])[rows]))
        return count - int(np.ceil(sealed * count)) >= 2 * folds

    if dataset.task == "classification":
        for code, name in enumerate(dataset.classes):
            own = np.flatnonzero(open_ & (dataset.labels == code))
            touched = keep & np.isin(units[pairs[:, 0]], units[own])
            if touched.any() and not enough(own):
                keep &= ~touched
                why.append(f"class '{name}' would be left with too few different rows")
    if keep.any() and not enough(np.flatnonzero(open_)):
        keep[:] = False
        why.append("too few different rows would be left")
    return pairs[keep], " and ".join(why)
