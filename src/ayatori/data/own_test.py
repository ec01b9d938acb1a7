"""Stage 1c. A column of a table that says which rows are the test -> the table's two parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ayatori.archives import archive_of
from ayatori.data.csv_head import SAMPLE_ROWS
from ayatori.data.files import TableSource
from ayatori.data.table import check_names, default_target
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

# parts of a data set, as folders and the values of columns are called
TRAIN, TEST = frozenset(["train", "training"]), frozenset(["test", "testing"])
PARTS = TRAIN | TEST | frozenset(["val", "valid", "validation", "dev", "eval"])


def is_part(test: str | Path | None) -> bool:
    """Whether ``test`` is ``column=value`` rather than a path."""
    text = "" if test is None else str(test)
    return "=" in text and not Path(text).exists() and archive_of(Path(text)) is None


def part(
    opened: TableSource, recipe: DataRecipe, test: str | Path | None
) -> tuple[TableSource, TableSource | None]:
    """The rows to learn from and those of the test, where ``test`` is ``column=value``, or a column tells.

    A column tells that holds nothing but words such as train, val and test; rows of val are learned from, but
    where no others are there to test by. Neither part has the column. Test rows without any label are
    left out. (opened, None) where nothing tells.
    """
    if is_part(test):
        column, value = _named(opened, str(test))
        values, words = [value], f"{value!r} in column '{column}'"
    elif test is None and (found := _telling(opened, recipe)):
        column, values = found
        words = (
            f"{' or '.join(map(repr, values))} in column '{column}' (--drop '{column}' lets chance draw one)"
        )
    else:
        return opened, None
    rest, own = (_rows_of(opened, column, values, among) for among in (False, True))
    targets = default_target(rest, recipe, set(), [])
    check_names(rest, targets)
    labels = own.read(targets, ())
    if not labels.num_rows:
        raise AyatoriError(f"the test must have rows, however no row of the table{opened.called} has {words}")
    if any(name.null_count == labels.num_rows for name in labels.columns):
        note = f"{labels.num_rows:,} rows have no label, and are left out: those with {words}"
        return dataclasses.replace(rest, notes=(*rest.notes, note)), None
    note = f"the test is {labels.num_rows:,} rows, those with {words}"
    return dataclasses.replace(rest, notes=(*rest.notes, note)), own


def _named(opened: TableSource, test: str) -> tuple[str, str]:
    """The column and the value; either may hold a sign of equality."""
    places = [place for place, sign in enumerate(test) if sign == "="]
    place = next((place for place in places if test[:place].strip() in opened.names), places[0])
    column, value = test[:place].strip(), test[place + 1 :].strip()
    check_names(opened, (column,))
    return column, value


def _telling(opened: TableSource, recipe: DataRecipe) -> tuple[str, list[str]] | None:
    """The column that says which rows are the test, and its values that say so."""
    targets = (recipe.target,) if isinstance(recipe.target, str) else recipe.target
    used = {*targets, recipe.groups, recipe.time, recipe.ids, *recipe.drop, *recipe.beside, *recipe.texts}
    for name, values in opened.sample().items():
        if name in used or not values or not all(value.strip().lower() in PARTS for value in values if value):
            continue
        there = [value for value in pc.unique(_words(opened, name)).to_pylist() if value]
        parts = {value.lower() for value in there}
        if parts <= PARTS and parts & TRAIN and parts - TRAIN:
            kinds = TEST if parts & TEST else PARTS - TRAIN
            return name, sorted(value for value in there if value.lower() in kinds)
    return None


def _words(opened: TableSource, column: str) -> pa.ChunkedArray:
    return _as_words(opened.read([column], [column])[column])


def _as_words(values: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.utf8_trim_whitespace(values.cast(pa.string()))
    except pa.ArrowException:
        raise AyatoriError(
            "a column that says which rows are the test must hold words or numbers, however it is "
            f"{values.type}"
        ) from None


def _rows_of(opened: TableSource, column: str, values: Sequence[str], among: bool) -> TableSource:
    """The rows whose ``column`` is among the ``values``, or all others; without that column."""
    names = tuple(name for name in opened.names if name != column)

    def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
        table = opened.read([*columns, column], {*text, column})
        mask = pc.is_in(_as_words(table[column]), pa.array(values))
        return table.filter(mask if among else pc.invert(mask)).select(list(columns))

    def sample() -> dict[str, list[str]]:
        known = list(opened.sample())  # columns of texts, where the file knows its types
        table = read([name for name in names if name in known], names).slice(0, SAMPLE_ROWS)
        return {
            name: [value for value in table[name].to_pylist() if value is not None]
            for name in table.column_names
        }

    return dataclasses.replace(opened, names=names, read=read, sample=sample, stream=None)
