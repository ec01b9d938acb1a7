"""Stage 1i. New rows, however many -> Datasets of a bounded size, together what ``load_like`` gives.

What only all rows together can say (the types of a CSV's columns, the range of pixel values) is found in a
first pass. Every block but the last has the same number of rows, a power of two.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ayatori.archives import unpacked
from ayatori.data import arrays
from ayatori.data.beside import beside_like
from ayatori.data.files import Check, Stream, TableSource
from ayatori.data.listing import Listing
from ayatori.data.pictures import broken_notes, called_by, decode_pictures, recipe_like
from ayatori.data.rows import Rows, row_numbers
from ayatori.data.series import open_like
from ayatori.data.series_files import decode_series
from ayatori.data.source import framed, is_table, listing_like, load_like
from ayatori.data.table import row_names
from ayatori.data.table_like import columns_like, ids_like, inputs_like, no_rows
from ayatori.data.text_files import texts_like
from ayatori.records import Dataset, Schema

# A power of two, so that blocks fall into the same batches as all rows would: the same sums, bit for bit.
MOST_ROWS, LEAST_ROWS = 1 << 14, 1 << 10
BLOCK_BYTES = 64 * 2**20  # raw inputs; several copies of a block are alive at once

Progress = Callable[[str, float], None]  # is told "check" or "predict", and which share of it is done


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Rows of one array; ``pieces(rows)`` gives all of them in order, so many at a time."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[int], Iterator[np.ndarray]]
    ids: np.ndarray | None = None


def read_blocks(
    data: Any, schema: Schema, ids: str = "", progress: Progress | None = None
) -> Iterator[Dataset]:
    """Read rows by ``schema`` in blocks, so that memory does not grow with their number.

    CSV and Parquet files, ``.npz``, folders and lists of pictures and mapped arrays are read piece by piece;
    a DataFrame or a torch Dataset is read at once. The blocks together hold what ``load_like`` reads: inputs
    and ids, but never the target. ``notes`` of a block are those of all rows up to its last.
    ``progress(stage, share)`` is told how much is done of the "check" of a long CSV, and of all ("predict").

    Raises AyatoriError with one sentence, at the block where it is found.

    >>> import pandas as pd
    >>> from ayatori.data import load
    >>> frame = pd.DataFrame({"size": [1.5, 2.5, 0.5, 4.0], "kind": ["a", "b", "a", "b"]})
    >>> [block.inputs["numbers"].shape for block in read_blocks(frame, load(frame, target="kind").schema)]
    [(4, 1)]
    """
    path = None
    if isinstance(data, str | Path):
        path = unpacked(data, progress and (lambda done, size: progress("unpack", done / size)))
    if (table := texts_like(path, schema)) is not None:
        data, path = table, None
    data = framed(data)
    listing = listing_like(data, path, schema, ids=ids)
    source = _array_source(data, path)
    if listing is not None:
        total, blocks = len(listing.files), _listed_blocks(listing, schema)
    elif source is not None:
        total, blocks = source.shape[0], _array_blocks(source, schema)
    elif is_table(data, path) and (schema.kind != "series" or schema.columns):
        total, blocks = _table_blocks(open_like(data, path, schema), schema, ids, progress)
    else:
        whole = load_like(data, schema, ids=ids)
        total, blocks = len(whole), _parts(whole)
    done = 0
    for rows in blocks:
        named = "" if path is None else str(path.absolute())
        yield Dataset(rows.inputs, None, schema, rows.ids, source=named, notes=rows.notes)
        done += len(rows.ids)
        if progress and done < total:
            progress("predict", done / total)


def block_rows(row_bytes: float) -> int:
    """How many rows of ``row_bytes`` bytes make a block.

    >>> block_rows(64), block_rows(27_648), block_rows(1e6)
    (16384, 2048, 1024)
    """
    fitting = min(max(BLOCK_BYTES / max(row_bytes, 1.0), LEAST_ROWS), MOST_ROWS)
    return 1 << int(math.log2(fitting))


def _table_blocks(
    opened: TableSource, schema: Schema, ids: str, progress: Progress | None
) -> tuple[int, Iterator[Rows]]:
    ids = ids_like(opened, schema, ids)
    wanted = set(columns_like(opened, schema, (ids,) if ids else ()))
    columns, text = (
        [name for name in opened.names if name in wanted],
        {*schema.categories, *schema.texts, ids},
    )
    if opened.stream is None:
        table = opened.read(columns, text)
        stream = Stream(table.num_rows, iter([table]))
    else:
        check: Check | None = None
        if progress is not None:
            tell = progress

            def check(done: int, size: int) -> None:
                tell("check", done / size)

        stream = opened.stream(columns, text, check)
    if not stream.rows:
        raise no_rows(opened)

    def blocks() -> Iterator[Rows]:
        start = 0
        for table in recut(stream.pieces):
            kept = start + np.arange(table.num_rows)
            yield Rows(inputs_like(table, schema, kept), None, row_names(table, ids, kept))
            start += table.num_rows

    return stream.rows, blocks()


def recut(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of one length, which the first piece decides; the last may be shorter."""
    first = next(pieces, None)
    if first is None:
        return
    rows = block_rows(2 * first.nbytes / max(1, first.num_rows))  # as Arrow, and as inputs
    waiting: list[pa.Table] = []
    count = 0
    for piece in itertools.chain([first], pieces):
        waiting.append(piece)
        count += piece.num_rows
        if count >= rows:
            table = pa.concat_tables(waiting)
            whole = count - count % rows
            for start in range(0, whole, rows):
                yield table.slice(start, rows)
            waiting, count = [table.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(waiting)


def _listed_blocks(listing: Listing, schema: Schema) -> Iterator[Rows]:
    """Files, a picture, a recording or a series each."""
    name, called, shape = "series", "series file", schema.image or schema.series or ()
    rows, total = block_rows(math.prod(shape)), len(listing.files)

    def decode(files: list[str]) -> tuple[np.ndarray, dict[int, str]]:
        return decode_series(files, schema)

    if schema.image is not None:
        name, recipe = "image", recipe_like(schema)
        called, decode = (
            called_by(recipe),
            functools.partial(decode_pictures, shape=schema.image, recipe=recipe),
        )
    broken: dict[int, str] = {}
    done = 0
    while done < total:
        parts: list[np.ndarray] = []
        kept: list[np.ndarray] = []
        missing = rows
        while missing and done < total:  # others take the place of broken ones
            files = listing.files[done : done + missing]
            image, bad = decode(files)
            good = np.setdiff1d(np.arange(len(files)), list(bad)).astype(np.int64)
            broken.update((done + position, reason) for position, reason in bad.items())
            parts.append(image[good] if bad else image)
            kept.append(done + good)
            missing -= len(good)
            done += len(files)
        notes = broken_notes(broken, listing.ids, len(broken) == total, called)
        image = parts[0] if len(parts) == 1 else np.concatenate(parts)
        own = np.concatenate(kept)
        inputs = {name: image, **beside_like(listing, schema, own).inputs}
        yield Rows(inputs, None, listing.ids[own], notes=(*listing.notes, *notes))


def _array_source(data: Any, path: Path | None) -> ArraySource | None:
    """An array that can be read by rows; None for others, and where ``load_like`` says what is wrong."""
    source = None
    if path is not None and path.suffix.lower() == ".npz":
        source = _open_npz(path)
    elif isinstance(data, np.ndarray):

        def slices(rows: int) -> Iterator[np.ndarray]:
            return (data[start : start + rows] for start in range(0, len(data), rows))

        source = ArraySource(data.shape, data.dtype, slices) if data.ndim else None
    sound = source is not None and source.dtype.kind in "buif" and len(source.shape) <= 5
    return source if source is not None and sound and all(source.shape) else None


def _open_npz(path: Path) -> ArraySource | None:
    try:
        with zipfile.ZipFile(path) as file, file.open("X.npy") as member:
            shape, by_column, dtype = _header(member)
        with np.load(path, allow_pickle=False) as opened:
            ids = opened["ids"] if "ids" in opened.files else None
    except arrays.DAMAGE:
        return None
    width = dtype.itemsize * math.prod(shape[1:])

    def pieces(rows: int) -> Iterator[np.ndarray]:
        try:
            with zipfile.ZipFile(path) as file, file.open("X.npy") as member:
                _header(member)
                for start in range(0, shape[0], rows):
                    count = min(rows, shape[0] - start)
                    content = member.read(count * width)
                    if len(content) < count * width:
                        raise ValueError(f"'X' ends after {start + len(content) // width} of {shape[0]} rows")
                    yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
                member.read(1)  # the end, where the checksum is compared
        except arrays.DAMAGE as error:
            raise arrays.damaged(path, error) from None

    # what is stored by column or holds no rows is read at once
    return ArraySource(shape, dtype, pieces, ids) if not by_column and shape and width else None


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether it is stored by column, type); KeyError for the format of odd structures."""
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return read[version](member)


def _array_blocks(source: ArraySource, schema: Schema) -> Iterator[Rows]:
    count = source.shape[0]
    rows = block_rows(math.prod(source.shape[1:]) * max(8, source.dtype.itemsize))
    names = None if source.ids is None else arrays.as_text(source.ids, count, "ids")
    scale = None
    if schema.image is not None and source.dtype != np.uint8:
        ranges = [(piece.min(), piece.max()) for piece in source.pieces(rows)]
        low, high = np.min([low for low, _ in ranges]), np.max([high for _, high in ranges])
        scale = arrays.pixel_scale(source.dtype, low, high)
    start = 0
    for piece in source.pieces(rows):
        inputs = arrays.inputs_of(piece, start, scale, schema.series is not None)
        arrays.check_fit(inputs, schema)
        kept = start + np.arange(len(piece))
        yield Rows(inputs, None, row_numbers(kept) if names is None else names[kept])
        start += len(piece)


def _parts(whole: Dataset) -> Iterator[Rows]:
    rows = block_rows(sum(values[:1].nbytes for values in whole.inputs.values()))
    for start in range(0, len(whole), rows):
        part = slice(start, start + rows)
        inputs = {name: values[part] for name, values in whole.inputs.items()}
        yield Rows(inputs, None, whole.ids[part], notes=whole.notes)
