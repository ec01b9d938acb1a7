"""Stage 1h. Development and test rows -> one Dataset, and the hash of all that was read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ayatori.records import Dataset, Schema

_BYTES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Rows:
    """Rows that were read, before development and test rows are joined.

    As in ``Dataset``, but ``groups`` (n,) is text, "" where missing.
    """

    inputs: Mapping[str, np.ndarray]
    target: np.ndarray | None
    ids: np.ndarray
    groups: np.ndarray | None = None
    order: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    begins: np.ndarray | None = None


def make_dataset(
    rows: Rows, schema: Schema, later: Rows | None = None, source: str = "", tested: np.ndarray | None = None
) -> Dataset:
    """A Dataset of ``rows``, then ``later``, the fixed test; ``tested`` marks it where ``rows`` hold both."""
    if later is not None:
        tested = np.arange(len(rows.ids) + len(later.ids)) >= len(rows.ids)
        rows = _joined(rows, later)
    dataset = Dataset(
        inputs=rows.inputs,
        target=rows.target,
        schema=schema,
        ids=rows.ids,
        groups=None if rows.groups is None else group_codes(rows.groups),
        order=rows.order,
        fixed_test=tested,
        source=source,
        notes=rows.notes,
        begins=rows.begins,
    )
    return dataclasses.replace(dataset, fingerprint=fingerprint(dataset))


def take_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The ``rows`` (m,) of a dataset, numbered anew, with all that is of them."""

    def some(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    return dataclasses.replace(
        dataset,
        inputs={name: values[rows] for name, values in dataset.inputs.items()},
        target=some(dataset.target),
        ids=dataset.ids[rows],
        groups=some(dataset.groups),
        order=some(dataset.order),
        fixed_test=some(dataset.fixed_test),
        barred=some(dataset.barred),
        begins=some(dataset.begins),
        made=None if dataset.made is None else dataset.made.iloc[rows].reset_index(drop=True),
    )


def row_numbers(rows: np.ndarray) -> np.ndarray:
    """Row numbers (n,) as text (n,), no wider than they need."""
    return rows.astype(f"U{len(str(rows.max(initial=0)))}")


def _joined(first: Rows, later: Rows) -> Rows:
    def both(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        return None if a is None or b is None else np.concatenate([a, b])

    return Rows(
        {name: np.concatenate([values, later.inputs[name]]) for name, values in first.inputs.items()},
        both(first.target, later.target),
        np.concatenate([first.ids, later.ids]),
        both(first.groups, later.groups),
        both(first.order, later.order),
        (*first.notes, *(f"test: {note}" for note in later.notes)),
        both(first.begins, later.begins),
    )


def group_codes(names: np.ndarray) -> np.ndarray:
    """Names of groups (n,) -> int64 codes (n,); a row without a name is a group of its own.

    >>> group_codes(np.array(["b", "", "a", "", "b"])).tolist()
    [1, 2, 0, 3, 1]
    """
    codes = np.full(len(names), -1, dtype=np.int64)
    named = names != ""
    known, codes[named] = np.unique(names[named], return_inverse=True)
    codes[~named] = len(known) + np.arange((~named).sum())
    return codes


def fingerprint(dataset: Dataset) -> str:
    """A hash of every value: inputs, target, names of rows, groups, time, and the schema."""
    digest = blake2b(digest_size=16)
    digest.update(repr(dataset.schema).encode())
    if dataset.schema.texts:
        digest.update(repr(dataset.schema.texts).encode("utf-8", "surrogatepass"))
    for name, values in sorted(dataset.inputs.items()):
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        step = max(1, _BYTES_AT_ONCE // max(1, values[:1].nbytes))
        for start in range(0, len(values), step):
            digest.update(np.ascontiguousarray(values[start : start + step]).data)
    for part in (dataset.target, dataset.groups, dataset.order, dataset.fixed_test):
        digest.update(b"-" if part is None else np.ascontiguousarray(part).data)
    digest.update("\0".join(dataset.ids.tolist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
