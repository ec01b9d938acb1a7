"""Stage 1a. Columns of lists of numbers, such as embeddings -> a column for each of their places."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ayatori.data.csv_head import SAMPLE_ROWS
from ayatori.records import AyatoriError

if TYPE_CHECKING:
    from ayatori.data.files import Check, Stream, TableSource

LISTS = (list, tuple, np.ndarray)


def widths_of(head: Mapping[str, Iterable[Any]]) -> dict[str, int]:
    """The columns whose first values are lists of equally many numbers, and how many."""
    found = {}
    for name, values in head.items():
        lists = [value for value in values if value is not None and not isinstance(value, float)]
        lengths = {len(value) if _is_vector(value) else 0 for value in lists}
        if len(lengths) == 1 and lengths != {0}:
            found[name] = lengths.pop()
    return found


def lists_of(schema: pa.Schema) -> list[str]:
    """The columns that may be such lists, by their type."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    lists = (field for field in schema if any(of(field.type) for of in kinds))
    numbers = (pa.types.is_floating, pa.types.is_integer)
    return [field.name for field in lists if any(of(field.type.value_type) for of in numbers)]


def tags_of(schema: pa.Schema) -> tuple[str, ...]:
    """The columns of lists of texts or whole numbers, by their type."""
    kinds = (pa.types.is_list, pa.types.is_large_list)
    lists = (field for field in schema if any(of(field.type) for of in kinds))
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer)
    return tuple(field.name for field in lists if any(of(field.type.value_type) for of in texts))


def tags_in(head: Mapping[str, Iterable[Any]]) -> tuple[str, ...]:
    """The columns whose first values are lists of texts or whole numbers, one of them at least not empty."""
    found = []
    for name, values in head.items():
        lists = [value for value in values if value is not None and not isinstance(value, float)]
        texts = [text for value in lists if isinstance(value, LISTS) for text in value]
        if (
            texts
            and all(isinstance(value, LISTS) for value in lists)
            and all(isinstance(t, str | int | np.integer) for t in texts)
        ):
            found.append(name)
    return tuple(found)


def lists_in(path: Path, schema: pa.Schema) -> dict[str, int]:
    """The columns of a Parquet file that are such lists."""
    if not (names := lists_of(schema)):
        return {}
    with pq.ParquetFile(path) as file:
        head = next(file.iter_batches(SAMPLE_ROWS, columns=names), None)
    return {} if head is None else widths_of(head.to_pydict())


def drop_lists(drop: Sequence[str], widths: Mapping[str, int]) -> tuple[str, ...]:
    """Names of columns to leave out, with those of every place where a name is that of lists."""
    places = (
        (f"{name}[{place}]" for place in range(widths[name])) if name in widths else (name,) for name in drop
    )
    return tuple(itertools.chain.from_iterable(places))


def spread(opened: TableSource, widths: Mapping[str, int]) -> TableSource:
    """The same table, with ``name[0]``, ``name[1]``, ... in place of each column in ``widths``.

    Raises AyatoriError while rows are read, where one holds more or fewer numbers.
    """
    places = {
        one: (name, place)
        for name in opened.names
        for one, place in (
            [(f"{name}[{place}]", place) for place in range(widths[name])] if name in widths else [(name, -1)]
        )
    }

    def whole(columns: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(places[name][0] for name in columns))

    def apart(table: pa.Table, columns: Sequence[str]) -> pa.Table:
        grids = {
            name: _grid(table[name], name, widths[name]) for name in table.column_names if name in widths
        }
        arrays = [
            table[name] if place < 0 else pa.array(grids[name][:, place], from_pandas=True)
            for name, place in (places[one] for one in columns)
        ]
        return pa.table(arrays, names=list(columns))

    def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
        return apart(opened.read(whole(columns), set(text) - set(widths)), columns)

    def stream(columns: Sequence[str], text: Collection[str], check: Check | None) -> Stream:
        assert opened.stream is not None
        pieces = opened.stream(whole(columns), set(text) - set(widths), check)
        return dataclasses.replace(pieces, pieces=(apart(piece, columns) for piece in pieces.pieces))

    note = ", ".join(f"'{name}' of {width:,}" for name, width in widths.items())
    return dataclasses.replace(
        opened,
        names=tuple(places),
        read=read,
        stream=opened.stream and stream,
        notes=(*opened.notes, f"lists of numbers are read as a column for each place: {note}"),
    )


def _is_vector(value: Any) -> bool:
    if not isinstance(value, LISTS):
        return False
    numbers = np.asarray(value) if len(value) else np.zeros(0, object)
    return numbers.ndim == 1 and numbers.dtype.kind in "fiu"


def _grid(values: pa.ChunkedArray, name: str, width: int) -> np.ndarray:
    """Lists -> (n, width) float64; a missing list is NaN."""
    lists = values.combine_chunks()
    there = np.asarray(pc.is_valid(lists))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), width))
    if (odd := np.flatnonzero(lengths != width)).size:
        raise AyatoriError(
            f"column '{name}' must hold {width:,} numbers in every row, however row {odd[0] + 1:,} holds "
            f"{lengths[odd[0]]:,}"
        )
    grid = np.full((len(there), width), np.nan)
    flat = pc.list_flatten(lists).cast(pa.float64())
    grid[there] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return grid
