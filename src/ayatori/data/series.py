"""Stage 1j. Series of any length -> one array (n, channels, steps) with their target, groups and names."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ayatori.data.columns import RawColumn
from ayatori.data.files import TableSource, open_table
from ayatori.data.measured import ROW, Measured, read_long, read_ts, read_wide
from ayatori.data.rows import Rows
from ayatori.data.steps import choose_steps, packed
from ayatori.data.table import check_names, default_target, read_table
from ayatori.data.table_like import ids_like, read_table_like
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Schema, SchemaError

_PLACE = "place in the file"  # a column of numbers, so that rows find their series again


def measured_whole(path: Path | None) -> bool:
    """Whether a file is one of series alone, by its ending."""
    return path is not None and path.suffix.lower() == ".ts"


def holds_series(path: Path | None, recipe: DataRecipe) -> bool:
    """Whether a table, an array or a file holds series, by its ending or because the recipe says so."""
    return bool(recipe.series) or measured_whole(path)


def load_series(
    data: Any, path: Path | None, recipe: DataRecipe, y: Sequence[RawColumn] | None = None
) -> tuple[Rows, Schema]:
    """Read development series from a .ts file or a table, and decide their schema."""
    notes: list[str] = []
    by = "" if recipe.series == ROW or measured_whole(path) else recipe.series
    measured, recipe = _first(data, path, recipe, by, y is None, notes)
    if len(measured.series) < 2:
        raise AyatoriError("there must be two series or more, however there is 1")
    shapes = [one.shape for one in measured.series]
    shape, stretch, said = choose_steps(shapes, measured.channels, recipe.series_steps)
    rows, schema = read_table(open_table(_placed(measured)), recipe, y)
    schema = dataclasses.replace(
        schema,
        kind="series",
        numbers=(),
        categories={},
        ignored=recipe.drop,
        series=shape,
        channels=measured.channels,
        stretch=stretch,
        columns=measured.columns,
        by=by,
    )
    notes += [*rows.notes, *measured.notes, *said]
    return dataclasses.replace(_with_series(rows, measured, shape, stretch), notes=tuple(notes)), schema


def _first(
    data: Any, path: Path | None, recipe: DataRecipe, by: str, own_target: bool, notes: list[str]
) -> tuple[Measured, DataRecipe]:
    """What a source holds, and the recipe with the columns that were found."""
    if path is not None and measured_whole(path):
        measured = read_ts(path)
        named = measured.beside.column_names
        if own_target and not named:
            raise AyatoriError(f"'{path}' must label its series, however it says @classLabel false")
        used = [recipe.groups, recipe.time, recipe.ids, *recipe.drop]
        if any(used) or (recipe.target and recipe.target not in named):
            raise AyatoriError(f"'{path}' has no columns but its label; leave out what names others")
        task = "classification" if named == ["class"] and recipe.task == "auto" else recipe.task
        return measured, dataclasses.replace(recipe, target=named[0] if own_target else "", task=task)
    opened = open_table(path or data, recipe.encoding, bare=recipe.series == ROW)
    check_names(opened, (by, recipe.groups, recipe.time, recipe.ids, *recipe.drop))
    target = default_target(opened, recipe, {by}, notes) if own_target else ()
    check_names(opened, target)
    used = [name for name in (*target, recipe.groups, recipe.time, recipe.ids) if name]
    if by:
        measured = read_long(opened, by, (), used, recipe.drop, {recipe.ids})
    else:
        measured = read_wide(opened, used, recipe.drop, {recipe.ids})
    found = target[0] if len(target) == 1 else target
    return measured, dataclasses.replace(recipe, target=found, ids=recipe.ids or by, drop=())


def load_series_like(
    data: Any,
    path: Path | None,
    schema: Schema,
    need_target: bool,
    ids: str = "",
    groups: str = "",
    time: str = "",
) -> Rows:
    """Read series in the way that ``schema`` says. Raises SchemaError where they do not fit."""
    assert schema.series is not None
    if path is not None and measured_whole(path):
        measured = read_ts(path)
    else:
        opened = open_like(data, path, schema)
        ids = ids_like(opened, schema, ids)
        if schema.columns:
            return read_table_like(opened, schema, need_target, ids, groups, time)
        target = [name for name in schema.target if name in opened.names]
        used = [name for name in (*target, groups, time, ids) if name]
        text = {ids, *(schema.target if schema.task == "classification" else ())}
        measured = read_long(opened, schema.by, schema.channels, used, (), text)
    check_channels(measured.channels, schema)
    placed = open_table(_placed(measured))
    asked = dataclasses.replace(schema, kind="table", series=None, numbers=(_PLACE,))
    rows = read_table_like(placed, asked, need_target, ids, groups, time)
    return _with_series(rows, measured, schema.series, schema.stretch)


def open_like(data: Any, path: Path | None, schema: Schema) -> TableSource:
    """A table that holds the columns of ``schema``; without a header, they may be all that it has."""
    opened = open_table(path or data, schema.encoding, bare=bool(schema.columns))
    needed = schema.columns
    if needed and opened.names == tuple(str(place) for place in range(1, len(needed) + 1)) != needed:
        back = dict(zip(needed, opened.names, strict=True))

        def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
            return opened.read([back[name] for name in columns], text).rename_columns(list(columns))

        return dataclasses.replace(opened, names=needed, read=read, stream=None)
    return opened


def check_channels(channels: Sequence[str], schema: Schema) -> None:
    """Raise SchemaError where series have other channels than those learned from."""
    if len(channels) != len(schema.channels):
        raise SchemaError(
            f"series must have {len(schema.channels)} channels like those learned from, however they have "
            f"{len(channels)}"
        )


def _placed(measured: Measured) -> pa.Table:
    places = pa.array(np.arange(len(measured.series), dtype=np.float64))
    return pa.table([*measured.beside.columns, places], [*measured.beside.column_names, _PLACE])


def _with_series(rows: Rows, measured: Measured, shape: tuple[int, int], stretch: int) -> Rows:
    places = rows.inputs["numbers"][:, 0].astype(np.int64)
    series = [measured.series[place] for place in places]
    return dataclasses.replace(rows, inputs={"series": packed(series, shape, stretch)})
