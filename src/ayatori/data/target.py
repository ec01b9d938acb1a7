"""Stage 1c. Target columns -> the task, the classes and the encoded target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ayatori.data.columns import RawColumn, number, text_of
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Task

NO_TARGET = "their target is missing (empty, or NA, NaN, ?, null, None)"
FEW_VALUES = 20  # up to so many distinct whole numbers, seen ten times each on average, are classes
COUNTED_FROM, RAREST = 5, 5  # more distinct ones than so many must each be seen so often


@dataclass(frozen=True)
class TargetKind:
    """What is to be learned; ``classes`` names the labels of a multilabel task."""

    task: Task
    classes: tuple[str, ...]
    note: str
    log: bool = False  # the logarithms of values are learned


def missing_rows(columns: Sequence[RawColumn]) -> np.ndarray:
    """(n,) bool: rows where some part of the target is missing."""
    return np.logical_or.reduce([column.missing for column in columns])


def decide(columns: Sequence[RawColumn], task: str, log: bool = False) -> TargetKind:
    """The task and classes that the non-missing values of ``columns`` ask for; ``task`` may be "auto".

    ``log``: they are numbers, whose logarithms are to be learned.
    """
    if log and task not in ("auto", "regression"):
        raise AyatoriError(f"`log_target` is for numbers, however the task is {task}; leave it out")
    task = "regression" if log else task
    for column in columns:
        if column.kind == "other":
            raise AyatoriError(
                f"the target must hold a class or a number in each row, however column '{column.name}' holds "
                f"values of type {column.written}"
            )
        if column.missing.all():
            raise AyatoriError(
                f"the target must have values, however column '{column.name}' is missing in every row"
            )
        if column.kind == "number" and np.isinf(column.values).any():
            row = int(np.flatnonzero(np.isinf(column.values))[0])
            raise AyatoriError(
                f"the target '{column.name}' must be finite, however row {row} (the first is 0) is infinite"
            )
    one = len(columns) == 1 and task in ("auto", "classification", "regression")
    kind = _one(columns[0], task) if one else _several(columns, task)
    if not log:
        return kind
    return replace(kind, note=f"{kind.note}; its logarithm is learned, and all figures are of it", log=True)


def _one(column: RawColumn, task: str) -> TargetKind:
    words, counted = _words(column), int((~column.missing).sum())
    guessed = task == "auto"
    named = column.kind == "text" or column.boolean
    if guessed:
        few = len(words) == 2 or (len(words) <= FEW_VALUES and 10 * len(words) <= counted)
        few = few and not (column.kind == "number" and _trails_off(column))
        task = "classification" if named or (column.whole and few) else "regression"
    if len(words) < 2:
        raise AyatoriError(
            f"the target must have at least two {'classes' if task == 'classification' else 'values'}, "
            f"however every row of '{column.name}' says '{words[0]}'; choose another --target"
        )
    if task == "classification" and column.kind == "text" and len(words) > max(FEW_VALUES, counted / 2):
        raise AyatoriError(
            f"the target '{column.name}' must hold classes or numbers, however {len(words)} of its {counted} "
            f"texts differ, such as '{words[0]}'; write numbers as 1.5, or choose another --target"
        )
    if task == "classification":
        note = f"classification: {len(words)} classes in '{column.name}'"
        note += _alike(words)
        if guessed and not named:
            note += " (numbers with few distinct values; task 'regression' takes them as values)"
        return TargetKind("classification", words, note)
    _need_numbers(column)
    low, high = np.nanmin(column.values), np.nanmax(column.values)
    note = f"regression: '{column.name}' from {low:.6g} to {high:.6g}"
    if guessed and column.whole and len(words) <= FEW_VALUES:
        note += f" ({len(words)} whole numbers; task 'classification' takes them as classes)"
    return TargetKind("regression", (), note)


def _trails_off(column: RawColumn) -> bool:
    """Whether many whole numbers are counts of something: the largest are seen once or twice."""
    _, seen = np.unique(column.values[~column.missing], return_counts=True)
    return len(seen) > COUNTED_FROM and int(seen.min()) < RAREST


def _alike(words: Sequence[str]) -> str:
    """Says which classes are perhaps one.

    >>> _alike(["No", "no", "yes"])
    "; 'No' and 'no' differ in upper and lower case alone"
    """
    seen: dict[str, str] = {}
    for word in words:
        if (other := seen.setdefault(word.casefold(), word)) != word:
            return f"; '{other}' and '{word}' differ in upper and lower case alone"
    return ""


def _several(columns: Sequence[RawColumn], task: str) -> TargetKind:
    if task == "classification":
        raise AyatoriError(
            f"classification must have one target, however {len(columns)} were named; use task 'multilabel'"
        )
    for column in columns:
        _need_numbers(column)
    names = tuple(column.name for column in columns)
    binary = all(set(np.unique(column.values[~column.missing])) <= {0.0, 1.0} for column in columns)
    if task == "multilabel" and not binary:
        raise AyatoriError("multilabel targets must be 0 or 1, however other values were found")
    if task == "regression" or not binary:
        return TargetKind("regression", (), f"regression: {len(names)} values ({', '.join(names[:5])})")
    return TargetKind("multilabel", names, f"multilabel: {len(names)} labels ({', '.join(names[:5])})")


def _need_above_zero(column: RawColumn) -> None:
    low = column.values[column.values <= 0]
    if len(low):
        raise AyatoriError(
            f"the target '{column.name}' must be above 0 to have a logarithm, however {len(low)} of its "
            f"{len(column.values)} values are not, such as {low[0]:g}; leave `log_target` out, or add the "
            "same to all"
        )


def _need_numbers(column: RawColumn) -> None:
    if column.kind == "text":
        row = int(np.flatnonzero(~column.missing)[0])
        raise AyatoriError(
            f"the target '{column.name}' must hold numbers, however row {row} (the first is 0) "
            f"says '{column.words[column.values[row]]}'; use task 'classification' or another --target"
        )


def _words(column: RawColumn) -> tuple[str, ...]:
    """The distinct values as text; in the order of numbers where all are numbers."""
    if column.kind == "text":
        if not any(np.isnan(number(word)) for word in column.words):
            return tuple(sorted(column.words, key=lambda word: (number(word), word)))
        return column.words
    values = np.unique(column.values[~column.missing])
    return tuple(text_of(bool(value) if column.boolean else value) for value in values)


def encode(
    columns: Sequence[RawColumn], task: Task, classes: tuple[str, ...], log: bool = False
) -> np.ndarray:
    """The target of rows that are not missing: int64 (n,), or float (n, values); see ``Dataset``.

    Raises AyatoriError when a value is none of ``classes``, or has no logarithm.
    """
    if task == "classification":
        return _codes(columns[0], classes)
    for column in columns:
        _need_numbers(column)
        if log:
            _need_above_zero(column)
    values = np.stack([column.values for column in columns], axis=1)
    values = np.log(values) if log else values
    return values.astype(np.float32) if task == "multilabel" else values


def _codes(column: RawColumn, classes: tuple[str, ...]) -> np.ndarray:
    place = {name: position for position, name in enumerate(classes)}
    plain = {_plain(name): position for position, name in enumerate(classes)}
    if column.kind == "text":
        words, codes = column.words, column.values
    else:
        distinct, codes = np.unique(column.values, return_inverse=True)
        words = tuple(text_of(bool(value) if column.boolean else value) for value in distinct)
    table = np.array([place.get(word, plain.get(_plain(word), -1)) for word in words], dtype=np.int64)
    if (table < 0).any():
        word = words[int(np.flatnonzero(table < 0)[0])]
        raise AyatoriError(
            f"class '{word}' in '{column.name}' must be one of the {len(classes)} classes that are learned, "
            f"however it is not{nearest(word, classes)}"
        )
    return table[codes]


def _plain(word: str) -> str:
    """'1.0' and '1', 'TRUE' and 'True' are the same class when read from different files."""
    value = number(word)
    if not np.isnan(value):
        return text_of(value) if np.isfinite(value) else word
    return word.lower() if word.lower() in ("true", "false") else word
