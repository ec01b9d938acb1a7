"""Stage 1h. Dataset -> the same without classes that are too rare to be learned and judged."""

from __future__ import annotations

import dataclasses

import numpy as np

from ayatori.data.rows import fingerprint, take_rows
from ayatori.records import AyatoriError, Dataset

NAMED = 5  # classes that a note names


def without_rare(dataset: Dataset, least: int, blind: bool = False) -> Dataset:
    """Leave out the rows of classes that have fewer than ``least`` development rows, those of the test too.

    ``blind``: the labels of the test are not known, so that its rows stay. A note counts what is left out.

    Raises AyatoriError where there are no classes, or where fewer than two would be left.

    >>> from ayatori.data import load
    >>> dataset = load(np.arange(9.0)[:, None], y=list("aaaabbbbc"))
    >>> common = without_rare(dataset, 2)
    >>> len(common), common.classes, common.notes[-1]
    (8, ('a', 'b'), "1 row of 1 class with fewer than 2 rows is left out: 'c' (1)")
    """
    if not least:
        return dataset
    if dataset.task != "classification":
        raise AyatoriError(f"`rarest` is for classes, however the task is {dataset.task}; leave it out")
    tested = np.zeros(len(dataset), bool) if dataset.fixed_test is None else dataset.fixed_test
    counts = np.bincount(dataset.labels[~tested], minlength=len(dataset.classes))
    common = counts >= least
    if common.sum() < 2:
        raise AyatoriError(
            f"two classes must have rarest={least} rows or more, however "
            f"{'only one has' if common.any() else 'none has'}; use a smaller number"
        )
    if common.all():
        return dataset
    kept = np.flatnonzero(common[dataset.labels] | (tested & blind))
    codes = np.maximum(np.cumsum(common) - 1, 0)
    found = dataclasses.replace(
        take_rows(dataset, kept),
        target=codes[dataset.labels[kept]],
        schema=dataclasses.replace(dataset.schema, classes=tuple(np.array(dataset.classes)[common].tolist())),
        notes=(*dataset.notes, _note(dataset, counts, least, len(dataset) - len(kept))),
    )
    return dataclasses.replace(found, fingerprint=fingerprint(found))


def _note(dataset: Dataset, counts: np.ndarray, least: int, rows: int) -> str:
    rare = [
        (name, count) for name, count in zip(dataset.classes, counts.tolist(), strict=True) if count < least
    ]
    named = ", ".join(f"'{name}' ({count})" for name, count in rare[:NAMED])
    classes = "1 class" if len(rare) == 1 else f"{len(rare)} classes"
    what = f"1 row of {classes}" if rows == 1 else f"{rows:,} rows of {classes}"
    more = ", ..." if len(rare) > NAMED else ""
    return f"{what} with fewer than {least} rows {'is' if rows == 1 else 'are'} left out: {named}{more}"
