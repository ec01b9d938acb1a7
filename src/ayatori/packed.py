"""Parquet and Arrow files -> one table, and beside it the pictures and recordings of its columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ayatori.errors import AyatoriError

# how files begin -> how their names end
BEGINNINGS = (
    *((rb"\x89PNG", ".png"), (rb"\xff\xd8\xff", ".jpg"), (rb"GIF8", ".gif"), (rb"II\*\0|MM\0\*", ".tif")),
    *((rb"RIFF....WEBP", ".webp"), (rb"RIFF....WAVE", ".wav"), (rb"fLaC", ".flac"), (rb"OggS", ".ogg")),
    *(
        (rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", ".mp3"),
        (rb"FORM....AIF", ".aiff"),
        (rb"BM.{4}\0{4}", ".bmp"),
    ),
)
FEW, MANY = 64, 1 << 16  # rows that are read at once, with and without files in them


def steps_of_shards(shards: Sequence[Path], table: Path) -> Iterator[tuple[int, int]]:
    """Write all rows as one ``table``, and the files in its columns beside it; yields (rows done, all rows).

    A picture becomes ``column/0000012.png``, and its path takes its place; numbers of classes become their
    names, and -1, which stands for none, a gap.
    """
    row, writer = 0, None
    try:
        size = sum(map(_rows_of, shards))
        for shard in shards:
            files, classes = _files_in(shard), _classes_of(_schema_of(shard))
            for batch in _batches(shard, FEW if files else MANY):
                columns = {}
                for name, values in zip(batch.schema.names, batch.columns, strict=True):
                    if name in files:
                        folder = table.parent / _called(name, batch.schema.names.index(name))
                        columns[name] = _write_files(values, folder, row)
                    else:
                        columns[name] = _named(values, classes[name]) if name in classes else values
                part = pa.table(columns)
                writer = writer or pq.ParquetWriter(table, part.schema)
                writer.write_table(part)
                row += len(batch)
                yield row, size
        if writer is None:  # there are no rows
            pq.write_table(_schema_of(shards[0]).empty_table(), table)
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise AyatoriError(
            f"'{shards[0]}' must be whole, and its pieces must have the same columns, however: {reason}"
        ) from None
    finally:
        if writer is not None:
            writer.close()


def is_packed(path: Path) -> bool:
    """Whether it is a stream of Arrow, or holds files or names of classes; False if it cannot be read."""
    try:
        return _is_stream(path) or bool(_classes_of(_schema_of(path)) or _files_in(path))
    except (pa.ArrowException, OSError):
        return False  # who opens it says what is wrong


def _is_stream(path: Path) -> bool:
    """Whether it is what ``datasets.save_to_disk`` writes; Feather, a file of Arrow, begins otherwise."""
    with path.open("rb") as file:
        return file.read(4) == b"\xff" * 4


def _schema_of(path: Path) -> pa.Schema:
    if not _is_stream(path):
        return pq.read_schema(path)
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def _rows_of(path: Path) -> int:
    if not _is_stream(path):
        return pq.read_metadata(path).num_rows
    return sum(map(len, _batches(path, MANY)))


def _batches(path: Path, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """At most so many rows at a time."""
    if not _is_stream(path):
        with pq.ParquetFile(path, buffer_size=1 << 20) as opened:
            yield from opened.iter_batches(rows, columns=columns)
        return
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for whole in stream:
            batch = whole if columns is None else whole.select(columns)
            yield from (batch.slice(start, rows) for start in range(0, len(batch), rows))


def _files_in(path: Path) -> list[str]:
    """The columns whose first values are pictures or recordings."""
    names = [field.name for field in _schema_of(path) if _may_hold_files(field.type)]
    if not names:
        return []
    first = next(_batches(path, FEW, names), None)
    if first is None:
        return []
    return [name for name in names if any(map(_ending, map(_bytes_of, first[name].to_pylist())))]


def _may_hold_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _may_hold_files(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _classes_of(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes of columns of whole numbers."""
    told: dict[str, Any] = {}
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        name: [str(one) for one in about["names"]]
        for name, about in told.items()
        if isinstance(about, dict) and about.get("_type") == "ClassLabel" and about.get("names")
        if name in schema.names and pa.types.is_integer(schema.field(name).type)
    }


def _named(numbers: pa.Array, classes: Sequence[str]) -> pa.Array:
    known = dict(enumerate(classes))
    return pa.array([known.get(number) for number in numbers.to_pylist()], pa.string())


def _called(name: str, position: int) -> str:
    """The folder of a column's files; its name may hold anything."""
    plain = re.sub(r"[^\w-]+", "_", name)
    return name if plain == name else f"{plain}-{position}"


def _write_files(values: pa.Array, folder: Path, row: int) -> pa.Array:
    """Write each as a file, numbered from ``row`` on; their paths, as seen from beside the folder."""
    folder.mkdir(exist_ok=True)
    paths: list[str | None] = []
    for number, value in enumerate(values.to_pylist(), row):
        content = _bytes_of(value)
        ending = _ending(content)
        paths.append(f"{folder.name}/{number:07}{ending}" if ending else None)
        if ending:
            (folder / f"{number:07}{ending}").write_bytes(content)
    return pa.array(paths, pa.string())


def _bytes_of(value: Any) -> bytes:
    return (value["bytes"] if isinstance(value, dict) else value) or b""


def _ending(content: bytes) -> str:
    """How a file is called that begins so; "" where that is not known."""
    return next((ending for start, ending in BEGINNINGS if re.match(start, content, re.DOTALL)), "")
