"""Stage 1l. More rows of a table -> inputs and target, by the schema that earlier rows decided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ayatori.data import target as targets
from ayatori.data.columns import RawColumn, amount, days_of, decode, text_of
from ayatori.data.files import TableSource
from ayatori.data.rows import Rows
from ayatori.data.steps import packed, single
from ayatori.data.table import (
    check_finite,
    date_parts,
    row_names,
    side_by_side,
    texts_of,
    times_of,
    with_target,
)
from ayatori.data.words import Texts, beginnings, joined, words_like
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Schema, SchemaError


def read_table_like(
    opened: TableSource, schema: Schema, need_target: bool, ids: str = "", groups: str = "", time: str = ""
) -> Rows:
    """Read rows by the schema of others. Raises SchemaError where they do not fit."""
    ids = ids_like(opened, schema, ids)
    also = [*(schema.target if need_target else ()), *(name for name in (groups, time) if name)]
    labelled = bool(schema.target) and set(schema.target) <= set(opened.names)
    needed = columns_like(opened, schema, (*([ids] if ids else []), *also))
    wanted = {*needed, *(schema.target if labelled else ())}
    classes = schema.target if schema.classes and schema.task == "classification" else ()
    table = opened.read(
        [name for name in opened.names if name in wanted], {*schema.categories, *schema.texts, ids, *classes}
    )
    if not table.num_rows:
        raise no_rows(opened)
    notes: list[str] = []
    target = None
    kept = np.arange(table.num_rows)
    if labelled:
        target, kept, table = _target_like(table, schema, need_target, notes)
    return Rows(
        inputs_like(table, schema, kept),
        target,
        row_names(table, ids, kept),
        texts_of(table, groups) if groups else None,
        times_of(table, time, kept),
        tuple(notes),
        beginnings(read_texts_like(table, schema)),
    )


def no_rows(opened: TableSource) -> SchemaError:
    return SchemaError(f"the table{opened.called} must hold rows, however it has none")


def ids_like(opened: TableSource, schema: Schema, ids: str = "") -> str:
    """The column that names the rows: the one asked for, else the one of the schema where it is there."""
    return ids or (schema.id_column if schema.id_column in opened.names else None) or ""


def columns_like(opened: TableSource, schema: Schema, also: Sequence[str] = ()) -> list[str]:
    """The columns that a schema needs, and ``also``; raises SchemaError where one is missing."""
    if schema.image is not None or (schema.series is not None and not schema.columns):
        raise SchemaError(
            f"the rows{opened.called} must be {schema.kind} like those that the model learned from, "
            "however they are a table without paths of such files"
        )
    if opened.bare and schema.series is None:
        _check_bare(opened, schema)
    needed = [
        *schema.columns,
        *plain_numbers(schema),
        *schema.dates,
        *schema.categories,
        *schema.texts,
        *also,
    ]
    for name in needed:
        if name not in opened.names:
            hint = nearest(name, list(opened.names))
            if not hint and name in schema.target:
                hint = "; without labels rows are no test: leave it out, and predict them after training"
            raise SchemaError(
                f"column '{name}' must be in the rows{opened.called}, however it is missing{hint}"
            )
    return list(dict.fromkeys(needed))


def _check_bare(opened: TableSource, schema: Schema) -> None:
    """Columns that are known by their place alone must be all there; the target may be missing at the end."""
    if not schema.bare:
        raise SchemaError(
            f"the first line of the rows{opened.called} must name the columns, however it looks like a row; "
            "add a header line"
        )
    last = {str(place) for place in range(opened.bare + 1, schema.bare + 1)}
    if opened.bare > schema.bare or not last <= set(schema.target):
        raise SchemaError(
            f"the rows{opened.called} must have {schema.bare} columns, as no line names them, however they "
            f"have {opened.bare}"
        )


def plain_numbers(schema: Schema) -> list[str]:
    """The numbers that are columns of a table, not parts of dates."""
    made = {part for name in schema.dates for part in date_parts(name, np.zeros(1))}
    return [name for name in schema.numbers if name not in made]


def inputs_like(table: pa.Table, schema: Schema, kept: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of a Dataset by the schema of others; ``kept`` (n,) are the numbers of the rows.

    Every row is read by itself: parts of a table give parts of what all of it gives.
    """
    found = {name: _number_like(name, table[name], kept) for name in plain_numbers(schema)}
    for name in schema.dates:
        days = _date_like(name, table[name], kept, name in schema.month_first)
        found.update(date_parts(name, days))
    inputs: dict[str, np.ndarray] = {}
    if schema.numbers:
        columns = [found[name] for name in schema.numbers]
        inputs["numbers"] = side_by_side(columns, table.num_rows, np.float64)
    if schema.columns and schema.series is not None:
        steps = [_number_like(name, table[name], kept) for name in schema.columns]
        whole = single(side_by_side(steps, table.num_rows, np.float64))
        whole = whole.reshape(table.num_rows, schema.series[0], -1)
        inputs["series"] = packed(whole, schema.series, schema.stretch)
    if schema.categories:
        codes = [_codes_like(name, table[name], words) for name, words in schema.categories.items()]
        inputs["categories"] = side_by_side(codes, table.num_rows, np.int32)
    if schema.texts:
        inputs["words"] = joined(read_texts_like(table, schema))
    return inputs


def read_texts_like(table: pa.Table, schema: Schema) -> list[Texts]:
    """Texts of a table by the terms that a schema knows."""
    return words_like((decode(name, table[name], guess=False) for name in schema.texts), schema)


def _target_like(
    table: pa.Table, schema: Schema, need: bool, notes: list[str]
) -> tuple[np.ndarray | None, np.ndarray, pa.Table]:
    guess = schema.task != "classification"
    kept = np.arange(table.num_rows)
    try:
        columns = [decode(name, table[name], guess, amounts=guess) for name in schema.target]
        missing = targets.missing_rows(columns)
        if need:
            if missing.all():
                raise AyatoriError(
                    f"the target '{schema.target[0]}' must have values, however all are missing"
                )
            kept, table, columns = with_target(table, columns, notes)
        elif missing.any():
            return None, kept, table
        return targets.encode(columns, schema.task, schema.classes, schema.log), kept, table
    except AyatoriError as error:
        if need:
            raise SchemaError(str(error)) from None
        notes.append(f"the target is not read: {error}")
        return None, kept, table


def _number_like(name: str, values: pa.ChunkedArray, kept: np.ndarray) -> np.ndarray:
    column = decode(name, values, guess=False)
    if column.kind == "text":
        floats = np.array([*map(amount, column.words), np.nan])[column.values]
        wrong = np.isnan(floats) & ~column.missing
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise SchemaError(
                f"column '{name}' must hold numbers, however row {kept[row]} (the first is 0) "
                f"says '{column.words[column.values[row]]}'"
            )
        column = RawColumn(name, "number", floats)
    if column.kind != "number":
        raise SchemaError(f"column '{name}' must hold numbers, however it holds values of type {values.type}")
    check_finite(column, kept)
    return column.values


def _date_like(name: str, values: pa.ChunkedArray, kept: np.ndarray, month_first: bool) -> np.ndarray:
    column = decode(name, values, guess=False)
    days = column.values if column.kind == "date" else np.full(len(column.values), np.nan)
    if column.kind == "text":
        days = np.append(days_of(column.words, month_first), np.nan)[column.values]
    wrong = np.isnan(days) & ~column.missing
    if wrong.any():
        row = kept[int(np.flatnonzero(wrong)[0])]
        likes = "2026-01-31 or 1/31/2026" if month_first else "2026-01-31"
        raise SchemaError(
            f"column '{name}' must hold dates like {likes}, however row {row} (the first is 0) does not"
        )
    return days


def _codes_like(name: str, values: pa.ChunkedArray, words: tuple[str, ...]) -> np.ndarray:
    column = decode(name, values, guess=False)
    known = {word: code for code, word in enumerate(words)}
    if column.kind == "text":
        table = np.array([known.get(word, -1) for word in column.words] + [-1], dtype=np.int32)
        return table[column.values]
    distinct, codes = np.unique(column.values, return_inverse=True)
    called = (
        text_of(bool(value) if column.boolean else value) if value == value else "" for value in distinct
    )
    return np.array([known.get(word, -1) for word in called], dtype=np.int32)[codes]
