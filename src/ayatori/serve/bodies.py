"""What a request carries -> rows as the model reads them.

A request only ever brings values and the content of files: no path in it is opened, and files are written
to a folder of their own under names that we choose. What is wrong is said by RequestError or AyatoriError.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ayatori.data import load_like, read_blocks
from ayatori.data.beside import names_beside
from ayatori.data.columns import text_of
from ayatori.data.csv_head import UNNAMED
from ayatori.data.files import open_table
from ayatori.data.measured import side_by_side
from ayatori.data.pictures import broken_notes
from ayatori.data.rows import row_numbers
from ayatori.data.series_files import decode_series
from ayatori.data.steps import packed
from ayatori.data.table import date_parts
from ayatori.data.table_like import inputs_like
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Dataset, Schema
from ayatori.serve.files import read_files
from ayatori.serve.limits import Limits, RequestError, Upload, check_count

SPARE_VALUES = 64  # a row, beside twice its columns: far more than a sound request has
COMMAS = 200  # in a text, on average
FILE = "file"  # what stands for the file in a row that has columns, too


Kind = Literal["number", "date", "category", "text"]
Media = Literal["json", "csv", "picture", "form"]


def takes_pictures(schema: Schema) -> bool:
    """Whether files are read, pictures, recordings or scans; arrays of other shapes are not made of them."""
    if schema.kind == "scans":
        return True
    if is_beside(schema):
        return False
    return schema.image is not None and schema.image[0] in (1, 3) and schema.image[1] == schema.image[2]


def is_beside(schema: Schema) -> bool:
    """Whether a row has columns beside its file, and so comes as JSON."""
    return schema.kind in ("pictures", "recordings") and bool(names_beside(schema))


def files_of_schema(schema: Schema) -> str:
    """What these files are called, in JSON too."""
    return schema.kind if schema.kind in ("recordings", "scans") else "pictures"


def media_types(schema: Schema) -> tuple[str, ...]:
    """What a file may be said to be, the usual kinds first."""
    if schema.kind == "recordings":
        names = ("wav", "mpeg", "x-wav", "wave", "vnd.wave", "flac", "x-flac", "ogg", "mp3", "aiff", "x-aiff")
        return tuple(f"audio/{name}" for name in names)
    if schema.kind == "scans":
        return tuple(f"application/{name}" for name in ("gzip", "dicom", "x-gzip", "x-nifti"))
    return tuple(f"image/{name}" for name in ("png", "jpeg", "gif", "bmp", "webp", "tiff"))


def takes_rows(schema: Schema) -> bool:
    """Whether JSON has "rows": objects for a table or files with columns, lists for arrays."""
    return is_beside(schema) or schema.kind not in ("pictures", "recordings", "scans", "series")


def is_one_each(schema: Schema) -> bool:
    """Whether a file is one series, a step in each line."""
    return schema.kind == "series" and not schema.columns and not schema.by


def columns_of(schema: Schema) -> dict[str, Kind]:
    """The columns that a row must have, in the order of the schema: numbers, dates, categories, texts."""
    made = {part for name in schema.dates for part in date_parts(name, np.zeros(1))}
    found: dict[str, Kind] = {name: "number" for name in schema.numbers if name not in made}
    found.update((name, "date") for name in schema.dates)
    found.update((name, "category") for name in schema.categories)
    found.update((name, "text") for name in schema.texts)
    return found


def others_of(schema: Schema) -> list[str]:
    """Columns that a row may have too: they were there in training, and are not looked at."""
    names = (*schema.target, *schema.ignored, *([schema.id_column] if schema.id_column else []))
    return [name for name in dict.fromkeys(names) if name not in columns_of(schema)]


def read(media: Media, uploads: Sequence[Upload], schema: Schema, limits: Limits) -> Dataset:
    """The rows that a request holds. Raises AyatoriError with one sentence where they do not fit."""
    if not uploads or not all(upload.content for upload in uploads):
        empty = next((f"'{upload.name}'" for upload in uploads if media == "form"), "the body")
        raise RequestError(400, f"the request must hold rows, however {empty} is empty")
    try:
        if media == "json":
            return _read_json(uploads[0].content, schema, limits)
        if takes_pictures(schema):
            return read_files(uploads, schema, limits)
        if is_one_each(schema):
            return _read_series(uploads, schema, limits)
        if len(uploads) > 1:
            raise RequestError(422, f"the form must hold one CSV file, however it holds {len(uploads)} files")
        return _read_csv(uploads[0], schema, limits)
    except AyatoriError:
        raise
    except Exception as error:  # readers of odd bytes raise nearly every kind of exception
        raise RequestError(
            422, f"the rows must be readable, however they lead to {type(error).__name__}; mend them"
        ) from None


def _read_json(content: bytes, schema: Schema, limits: Limits) -> Dataset:
    width = math.prod(schema.image or schema.series or (0,)) * schema.stretch or len(columns_of(schema))
    commas = 2 * width + SPARE_VALUES + COMMAS * len(schema.texts)
    facts = _parsed(content, limits.rows * commas)
    keys = [
        *(["rows"] if takes_rows(schema) else []),
        *([files_of_schema(schema)] if takes_pictures(schema) else []),
        *(["series"] if schema.kind == "series" else []),
    ]
    if not isinstance(facts, dict) or len(facts) != 1 or not set(facts) <= set(keys):
        found = f"the keys {_some(facts)}" if isinstance(facts, dict) else _called(facts)
        shape = " or ".join(f'{{"{key}": [...]}}' for key in keys)
        raise RequestError(422, f"the JSON must be {shape}, however it is {found}")
    ((key, rows),) = facts.items()
    if not isinstance(rows, list):
        raise RequestError(422, f'"{key}" must be a list, however it is {_called(rows)}')
    check_count(len(rows), limits)
    if key == "series":
        return _listed_series(rows, schema)
    if key != "rows":
        return read_files([_unpacked(at, text) for at, text in enumerate(rows)], schema, limits)
    if is_beside(schema):
        return _with_files(rows, schema, limits)
    if schema.kind == "table":
        return load_like(_table(rows, schema), schema)
    return load_like(_array(rows, schema), schema)


def _parsed(content: bytes, most: int) -> Any:
    """JSON with at most so many values, counted before any is made."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            400, f"the JSON must be text in UTF-8, however byte {error.start} is not"
        ) from None
    if text.count(",") > most:
        raise RequestError(413, f"the JSON must hold at most {most} values, however it holds more")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise RequestError(400, f"the body must be JSON, however: {reason}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON; write null where a value is missing")


def _table(rows: Sequence[Any], schema: Schema) -> pa.Table:
    """JSON objects -> an Arrow table, each value by what its column holds, whatever stands in other rows."""
    columns, others = columns_of(schema), others_of(schema)
    rows = [_places_apart(row, columns) for row in rows]
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(
                422, f"row {at} (the first is 0) must be an object, however it is {_called(row)}"
            )
        check_names(row, columns, others, f"row {at} (the first is 0)")
    arrays = {name: _column(name, kind, [row[name] for row in rows]) for name, kind in columns.items()}
    if schema.id_column and schema.id_column not in arrays:
        named = [row.get(schema.id_column) for row in rows]
        if any(name is not None for name in named):
            arrays[schema.id_column] = _column(schema.id_column, "category", named)
    return pa.table(arrays)


def _places_apart(row: Any, columns: Collection[str]) -> Any:
    """A list of numbers, as of an embedding, fills the columns of its places."""
    if not isinstance(row, dict):
        return row
    lists = [name for name, value in row.items() if isinstance(value, list) and f"{name}[0]" in columns]
    apart = {f"{name}[{place}]": value for name in lists for place, value in enumerate(row[name])}
    return {name: value for name, value in row.items() if name not in lists} | apart


def _with_files(rows: Sequence[Any], schema: Schema, limits: Limits) -> Dataset:
    """JSON objects with a file, in base64, beside their columns."""
    for at, row in enumerate(rows):
        if not isinstance(row, dict) or FILE not in row:
            found = _some(row) if isinstance(row, dict) else _called(row)
            raise RequestError(
                422, f'row {at} (the first is 0) must be an object with "{FILE}", however it is {found}'
            )
    files = read_files([_unpacked(at, row[FILE]) for at, row in enumerate(rows)], schema, limits)
    table = _table([{name: row[name] for name in row if name != FILE} for row in rows], schema)
    columns = inputs_like(table, schema, np.arange(len(rows)))
    return dataclasses.replace(files, inputs={**files.inputs, **columns})


def check_names(
    names: Collection[str], columns: Mapping[str, Kind], others: Iterable[str], where: str
) -> None:
    """Refuse names where a column is missing or unknown."""
    if missing := [name for name in columns if name not in names]:
        hint = nearest(missing[0], [name[:60] for name in itertools.islice(names, 200)])
        raise RequestError(
            422, f"{where} must have the column '{missing[0]}', however it has {_some(names)}{hint}"
        )
    allowed = {*columns, *others}
    if unknown := [name for name in names if name not in allowed]:
        raise RequestError(
            422, f"{where} must have only columns of the model, however it has {_some(unknown)}; leave it out"
        )


def _column(name: str, kind: Kind, values: Sequence[Any]) -> pa.Array:
    """Values of one column: text stays text, as in a CSV, and is read as one."""
    for at, value in enumerate(values):
        if not isinstance(value, str | int | float | None):
            raise RequestError(
                422,
                f"column '{name}' must hold numbers, text or null, however row {at} (the first is 0) holds "
                f"{_called(value)}",
            )
    if kind != "number":
        return _texts(name, [None if value is None else text_of(value) for value in values])
    if any(isinstance(value, str) for value in values):
        words = [
            value if value is None or isinstance(value, str) else repr(_float(value)) for value in values
        ]
        return _texts(name, words)
    return pa.array([None if value is None else _float(value) for value in values], pa.float64())


def _texts(name: str, words: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(words, pa.string())
    except UnicodeEncodeError:
        raise RequestError(
            422, f"column '{name}' must hold whole characters, however one is half of a pair"
        ) from None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf  # refused with the other infinite numbers


def _array(rows: Sequence[Any], schema: Schema) -> np.ndarray:
    """JSON lists -> (n, columns) float64, or pixels: null is missing."""
    shape = f"{len(schema.numbers)} numbers" if schema.image is None else f"pixels {tuple(schema.image)}"
    if schema.series is not None:
        shape = f"channels and steps {tuple(schema.series)}"
    try:
        array = np.array(rows, np.float64)
        leaves: Iterable[Any] = rows
        for _ in range(array.ndim - 1):
            leaves = itertools.chain.from_iterable(leaves)
        kinds = set(map(type, leaves))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise RequestError(422, f"every row must be a list of {shape}, however some are not") from None
    if array.ndim < 2 or not kinds <= {int, float, bool, type(None)}:
        raise RequestError(422, f"every row must be a list of {shape}, however some are not")
    if schema.image is not None and kinds <= {int} and np.abs(array).max(initial=0) < 2**31:
        return array.astype(np.int64)  # whole pixels go to 255, others may go to 1
    return array


def _unpacked(at: int, text: Any) -> Upload:
    if isinstance(text, str):
        try:
            return Upload(str(at), base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            pass
    found = "it is another text" if isinstance(text, str) else f"it is {_called(text)}"
    raise RequestError(
        422,
        f"file {at} (the first is 0) must be base64 of a file, without 'data:' in front, however {found}",
    )


def _read_csv(upload: Upload, schema: Schema, limits: Limits) -> Dataset:
    """A CSV as ``ayatori predict`` reads it."""
    if upload.content.startswith(b"PAR1"):
        raise RequestError(422, f"'{upload.name}' must be a CSV, however it is a Parquet file")
    with tempfile.TemporaryDirectory(prefix="ayatori-") as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(upload.content)
        try:
            if schema.kind != "series":
                opened = open_table(path, schema.encoding)
                names = [name for name in opened.names if not name.startswith(UNNAMED)]
                check_names(names, columns_of(schema), others_of(schema), f"'{upload.name}'")
            parts: list[Dataset] = []
            for part in read_blocks(path, schema):
                parts.append(part)
                check_count(sum(map(len, parts)), limits)
        except RequestError:
            raise
        except AyatoriError as error:
            raise RequestError(422, str(error).replace(str(path), upload.name)) from None
    return joined(parts)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Datasets of one schema, one after another."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    inputs = {name: np.concatenate([part.inputs[name] for part in parts]) for name in first.inputs}
    return Dataset(inputs, None, first.schema, np.concatenate([part.ids for part in parts]))


def _listed_series(rows: Sequence[Any], schema: Schema) -> Dataset:
    """JSON lists of channels, each a list of steps (or steps, where one channel is all): null is missing."""
    assert schema.series is not None
    channels = len(schema.channels)
    found = []
    for at, row in enumerate(rows):
        flat = isinstance(row, list) and channels == 1 and not any(isinstance(one, list) for one in row)
        lines = [row] if flat else row
        try:
            whole = len(lines) == channels and all(_is_numbers(line) for line in lines)
            series = side_by_side([np.array(line, np.float32) for line in lines]) if whole else None
        except (TypeError, ValueError, OverflowError):
            series = None
        if series is None or np.isinf(series).any():
            raise RequestError(
                422,
                f"every series must be {channels} lists of finite numbers or null, a channel each, however "
                f"series {at} (the first is 0) is not",
            )
        found.append(series)
    series = packed(found, schema.series, schema.stretch)
    return Dataset({"series": series}, None, schema, row_numbers(np.arange(len(found))))


def _is_numbers(line: Any) -> bool:
    return isinstance(line, list) and len(line) > 0 and set(map(type, line)) <= {int, float, type(None)}


def _read_series(uploads: Sequence[Upload], schema: Schema, limits: Limits) -> Dataset:
    """Files as ``ayatori predict`` reads them: tables of one series each, or a .ts file of several."""
    check_count(len(uploads), limits)
    with tempfile.TemporaryDirectory(prefix="ayatori-") as folder:
        if len(uploads) == 1 and uploads[0].content.lstrip(codecs.BOM_UTF8)[:1] in (b"@", b"#"):
            path = Path(folder) / "series.ts"
            path.write_bytes(uploads[0].content)
            try:
                dataset = load_like(path, schema)
            except AyatoriError as error:
                raise RequestError(422, str(error).replace(str(path), uploads[0].name)) from None
            check_count(len(dataset), limits)
            return dataclasses.replace(dataset, target=None, source="")
        files = [str(Path(folder) / f"{at}.csv") for at in range(len(uploads))]
        for file, upload in zip(files, uploads, strict=True):
            Path(file).write_bytes(upload.content)
        series, broken = decode_series(files, schema)
    names = [upload.name for upload in uploads]
    broken_notes(broken, names, True, "series file")
    return Dataset({"series": series}, None, schema, np.array(names))


def _called(value: Any) -> str:
    """A JSON value in words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number")


def _some(names: Iterable[str]) -> str:
    """A few names."""
    known = [f"'{name[:60]}'" for name in itertools.islice(names, 5)]
    return ", ".join(known) + (" ..." if len(known) == 5 else "") if known else "none"
