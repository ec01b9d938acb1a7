"""Stage 1a. A file, a DataFrame or an Arrow table -> named Arrow columns, unchanged."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pandas.api.types import is_object_dtype

from ayatori.data.csv_head import MISSING, SAMPLE_ROWS, SPACES, decimal_comma, header, numbered, separator_of
from ayatori.data.list_columns import lists_in, lists_of, spread, tags_in, tags_of, widths_of
from ayatori.data.sheet_files import read_sheets
from ayatori.records import AyatoriError

_HEAD_BYTES = 1 << 16
_CSV_BLOCK = 1 << 20  # bytes; a line must be shorter
_BARE = "no line names the columns: they are called"
_CHECK_EVERY = 64  # blocks of a CSV
_PIECE_VALUES = 1 << 19  # of a Parquet file, read at once
# what Arrow tries for a column of a CSV, in this order, until all its values fit
_KINDS = (
    *(pa.int64(), pa.bool_(), pa.date32(), pa.time32("s"), pa.timestamp("s"), pa.timestamp("ns")),
    *(pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), pa.float64(), pa.string(), pa.binary()),
)
# how files begin that are often given by mistake -> what they are, and what to do
_OTHERS = {
    b"pk\x03\x04": "a ZIP archive; let its name end in .zip",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save its sheet as CSV",
    b"<!doctype": "a web page; fetch the file that the page shows",
    b"<html": "a web page; fetch the file that the page shows",
    b"<table": "a web page; copy its table into a CSV",
    b"$fl2@(#)": "an SPSS file; save it as CSV",
    b"$fl3@(#)": "an SPSS file; save it as CSV",
    b"\0" * 12 + b"\xc2\xea": "a SAS file; save it as CSV",
    b"header record*******library": "a SAS file; save it as CSV",
    b"sqlite format 3": "a database; save the table as CSV",
    b"\x93numpy": "one array; save what is known and the target together: numpy.savez('data.npz', X=X, y=y)",
    b"matlab 5.0": "a MATLAB file; save it as CSV, or from Python by numpy.savez('data.npz', X=X, y=y)",
    b"\x89hdf": "an HDF5 file; save it as CSV, or from Python by numpy.savez('data.npz', X=X, y=y)",
    b"\x80\x04": "a pickle, which may do anything when it is opened; save the DataFrame by to_parquet",
    b"\x80\x05": "a pickle, which may do anything when it is opened; save the DataFrame by to_parquet",
}


Check = Callable[[int, int], None]  # is told (bytes done, bytes in all)


@dataclass(frozen=True)
class Stream:
    """A table that is read piece by piece: how many rows it has, and its pieces in order."""

    rows: int
    pieces: Iterator[pa.Table]


@dataclass(frozen=True)
class TableSource:
    """A table that has been opened but not yet read: its column names, and how to read some of them.

    ``read(columns, text)`` gives an Arrow table of ``columns``; those in ``text`` stay text where the
    file has no types of its own. ``sample()`` gives the first values of the text columns.
    ``stream(columns, text, check)`` reads the same values, of the same types, piece by piece.
    """

    names: tuple[str, ...]
    read: Callable[[Sequence[str], Collection[str]], pa.Table]
    sample: Callable[[], dict[str, list[str]]] = dict
    source: str = ""
    folder: Path | None = None  # where relative paths in the table start
    stream: Callable[[Sequence[str], Collection[str], Check | None], Stream] | None = None
    notes: tuple[str, ...] = ()
    bare: int = 0  # how many columns, where no line names them
    # columns of lists of numbers, and how long these are; those of other lists, which may be labels
    lists: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tags: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """ " 'file'" for sentences, or nothing."""
        return f" '{self.source}'" if self.source else ""


def open_table(data: Any, encoding: str = "", bare: bool = False) -> TableSource:
    """Open a path to a table (CSV, Parquet, Excel, JSON, Feather), a DataFrame or what Arrow can import.

    ``encoding`` is that of a CSV that is not UTF-8, by its name in Python; a mark of UTF-16 needs none.
    The columns of a CSV without a line of names are called 1, 2, 3 ...; ``bare``: a first line of whole
    numbers is a row, though it could be years.
    """
    file = isinstance(data, str | Path)
    opened = _open_file(Path(data), encoding, bare) if file else _open_frame(data)
    _check_names(opened)
    return spread(opened, opened.lists) if opened.lists else opened


def _open_file(path: Path, encoding: str, bare: bool) -> TableSource:
    if _is_parquet(path):
        return _open_parquet(path)
    if (found := read_sheets(path)) is None:
        return _open_csv(path, encoding, bare)
    opened = _open_frame(found[0])
    return dataclasses.replace(opened, source=str(path), folder=path.parent, notes=found[1])


def _check_names(opened: TableSource) -> None:
    name, times = Counter(opened.names).most_common(1)[0] if opened.names else ("", 0)
    if times > 1:
        raise AyatoriError(
            f"every column must have a name of its own, however '{name}' names "
            f"{times} columns of the table{opened.called}; "
            "rename one, or add a header line if there is none"
        )


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _open_parquet(path: Path) -> TableSource:
    def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
        try:
            table = pq.read_table(path, columns=list(columns), partitioning=None)
            table.validate(full=True)  # damaged text shows only here
            return table
        except (pa.ArrowException, OSError) as error:
            raise _not_parquet(path, error) from None

    try:
        schema = pq.read_schema(path)
        names = tuple(name for name in schema.names if not name.startswith("__index_level_"))
        lists, tags = lists_in(path, schema), tags_of(schema)
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None

    def sample() -> dict[str, list[str]]:
        try:
            with pq.ParquetFile(path) as file:
                batch = next(file.iter_batches(batch_size=SAMPLE_ROWS, columns=list(names)), None)
            found = {} if batch is None else batch.to_pydict()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _not_parquet(path, error) from None
        return {
            name: [value for value in values if value is not None]
            for name, values in found.items()
            if all(value is None or isinstance(value, str) for value in values)
        }

    def stream(columns: Sequence[str], text: Collection[str], check: Check | None) -> Stream:
        try:
            rows = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError) as error:
            raise _not_parquet(path, error) from None
        return Stream(rows, _parquet_pieces(path, list(columns)))

    return TableSource(names, read, sample, str(path), path.parent, stream, lists=lists, tags=tags)


def _parquet_pieces(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    rows = min(max(_PIECE_VALUES // max(1, len(columns)), 1024), 1 << 16)
    try:
        # with a buffer, a row group is read page by page, however large it is
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                batch.validate(full=True)
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> AyatoriError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    if path.stat().st_size == 0:
        reason = "it is empty"
    return AyatoriError(f"'{path}' must be a whole Parquet file, however: {reason}; write it again")


def _open_csv(path: Path, encoding: str, bare: bool) -> TableSource:
    head, complete, encoding = _head(path, encoding)
    text_of = _opener(path, encoding)
    lines = list(io.StringIO(head, newline=""))
    if len(lines) > 1 and not complete:
        lines = lines[:-1]
    separator = separator_of([line for line in lines if line.strip()][:SAMPLE_ROWS])
    if separator == SPACES:
        return _open_spaced(path, text_of, lines, bare)
    reader = csv.reader(lines, delimiter=separator)
    ended, rows = 0, []
    for row in reader:
        if any(row):
            ended = ended or reader.line_num
            rows.append(row)
        if len(rows) > SAMPLE_ROWS:
            break
    found = header(path, rows, bare)
    names, skipped = (numbered(len(rows[0])), 0) if found is None else (found, ended)
    comma = separator != "," and decimal_comma(lines[skipped:], separator)

    def options(columns: Sequence[str], types: Mapping[str, pa.DataType]) -> dict[str, Any]:
        return {
            "read_options": pacsv.ReadOptions(column_names=names, skip_rows=skipped, block_size=_CSV_BLOCK),
            "parse_options": pacsv.ParseOptions(delimiter=separator, newlines_in_values=True),
            "convert_options": pacsv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict(types),
                null_values=list(MISSING),
                strings_can_be_null=True,
                decimal_point="," if comma else ".",
            ),
        }

    def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
        types = {name: pa.string() for name in columns if name in text}
        try:
            with text_of() as source:
                table = pacsv.read_csv(source, **options(columns, types))
        except (pa.ArrowException, OSError) as error:
            raise _bad_csv(path, error) from None
        _check_text(path, table.schema)
        return table

    def stream(columns: Sequence[str], text: Collection[str], check: Check | None) -> Stream:
        types = {name: pa.string() for name in columns if name in text}
        rows, schema = _settle(path, text_of, names, lambda known: options(columns, known), types, check)
        _check_text(path, schema)
        settled = {field.name: field.type for field in schema}
        return Stream(rows, _csv_pieces(path, text_of, options(columns, settled)))

    def sample() -> dict[str, list[str]]:
        rows = list(csv.reader(lines[skipped : skipped + SAMPLE_ROWS], delimiter=separator))
        return {
            name: [row[position] for row in rows if position < len(row)]
            for position, name in enumerate(names)
        }

    notes = (f"{_BARE} 1 to {len(names)}",) if found is None else ()
    unnamed = len(names) if found is None else 0
    return TableSource(tuple(names), read, sample, str(path), path.parent, stream, notes, unnamed)


def _open_spaced(
    path: Path, text_of: Callable[[], pa.NativeFile], lines: Sequence[str], bare: bool
) -> TableSource:
    """A table whose values are parted by any number of spaces; it is read at once."""
    columns = len(next(line for line in lines if line.strip()).split())
    found = header(path, [line.split() for line in lines if line.strip()][: SAMPLE_ROWS + 1], bare)
    try:
        with text_of() as source:
            for line in io.TextIOWrapper(source, "utf-8-sig"):
                # a line with fewer would be filled up with gaps
                if (values := len(line.split())) not in (0, columns):
                    raise _uneven(path, columns, values, line.rstrip())
        frame = pd.read_csv(
            text_of(),
            sep=r"\s+",
            header=0 if found else None,
            names=found or None,
            na_values=list(MISSING),
            keep_default_na=False,
        )
    except (ValueError, OSError) as error:
        raise _bad_csv(path, error) from None
    if found is None:
        frame.columns = pd.Index(numbered(columns))
    opened = _open_frame(frame)
    notes = () if found else (f"{_BARE} 1 to {columns}",)
    return dataclasses.replace(
        opened, source=str(path), folder=path.parent, notes=notes, bare=0 if found else columns
    )


def _opener(path: Path, encoding: str) -> Callable[[], pa.NativeFile]:
    """How a CSV is opened as UTF-8: as it is, or a copy of it, which is made when it is first asked for."""
    if encoding == "utf8":
        return lambda: pa.input_stream(str(path), compression="detect")
    made: list[pa.Buffer] = []

    def copied() -> pa.NativeFile:
        if not made:
            made.append(_as_utf8(path, encoding))
        return pa.BufferReader(made[0])

    return copied


def _as_utf8(path: Path, encoding: str) -> pa.Buffer:
    """The text of a file, mapped from a copy that goes with it.

    Arrow would decode in a thread of its own, and what cannot be decoded there ends the process.
    """
    decoder = _decoder(encoding)
    with tempfile.TemporaryDirectory(prefix="ayatori-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "table.csv"
        with pa.input_stream(str(path), compression="detect") as source, copy.open("wb") as file:
            while raw := source.read(_CSV_BLOCK):
                file.write(_decoded(path, raw, False, encoding, decoder).encode())
            file.write(_decoded(path, b"", True, encoding, decoder).encode())
        return pa.memory_map(str(copy)).read_buffer()


def _check_text(path: Path, schema: pa.Schema) -> None:
    for field in schema:
        if pa.types.is_binary(field.type):
            raise _not_utf8(path, f"column '{field.name}' holds other bytes")


def _settle(
    path: Path,
    text_of: Callable[[], pa.NativeFile],
    names: Sequence[str],
    options: Callable[[Mapping[str, pa.DataType]], dict[str, Any]],
    types: Mapping[str, pa.DataType],
    check: Check | None,
) -> tuple[int, pa.Schema]:
    """The rows of a CSV, and the types its columns have when all of it is read at once.

    A stream keeps the types of its first block. So where a later value does not fit, its column takes the
    next type that Arrow would try, and the check begins again: what is left fits every value.
    """
    known, fixed = dict(types), set(types)
    while True:
        rows = 0
        try:
            with text_of() as source, pacsv.open_csv(source, **options(known)) as reader:
                known = {field.name: field.type for field in reader.schema}
                for number, batch in enumerate(reader, 1):
                    rows += batch.num_rows
                    if check and number % _CHECK_EVERY == 0:
                        # of a compressed file, how far one is cannot be told
                        check(min(source.tell(), path.stat().st_size), path.stat().st_size)
                return rows, reader.schema
        except (pa.ArrowException, OSError) as error:
            failed = re.search(r"In CSV column #(\d+):.*CSV conversion error", str(error))
            name = names[int(failed[1])] if failed else ""
            if name not in known or name in fixed or known[name] == _KINDS[-1]:
                raise _bad_csv(path, error) from None
            known[name] = _KINDS[_KINDS.index(known[name]) + 1 if known[name] in _KINDS else 0]


def _csv_pieces(
    path: Path, text_of: Callable[[], pa.NativeFile], options: dict[str, Any]
) -> Iterator[pa.Table]:
    try:
        with text_of() as source, pacsv.open_csv(source, **options) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _bad_csv(path, error) from None


def _head(path: Path, encoding: str) -> tuple[str, bool, str]:
    """The first lines of a text file, whether they are all of it, and its encoding.

    What is no UTF-8 has the ``encoding``: other text is never UTF-8 by chance.
    """
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            raw = stream.read(_HEAD_BYTES)
            complete = not stream.read(1)
    except OSError as error:
        raise AyatoriError(f"'{path}' must be readable, however: {error}") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decoded(path, raw, complete, "utf-16", _decoder("utf-16")), complete, "utf-16"
    if kind := next((kind for start, kind in _OTHERS.items() if raw.lstrip().lower().startswith(start)), ""):
        raise AyatoriError(f"'{path}' must be a CSV or Parquet table, however it is {kind}")
    if b"\0" in raw and not encoding:
        raise AyatoriError(
            f"'{path}' must be a CSV or Parquet table, an .npz or a folder of pictures, "
            "however it is another kind of binary file"
        )
    if not raw.strip():
        raise AyatoriError(f"'{path}' must hold a table, however it is empty")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(raw, final=complete)
    except UnicodeDecodeError as error:
        if not encoding:
            raise _not_utf8(path, f"byte {error.start} is 0x{raw[error.start]:02x}") from None
        return _decoded(path, raw, complete, encoding, _decoder(encoding)), complete, encoding
    if encoding and ("\0" in text or (text.isascii() and not complete)):  # more of the file may tell
        return _decoded(path, raw, complete, encoding, _decoder(encoding)), complete, encoding
    return text, complete, "utf8"


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        "".encode(encoding)  # refuses what is no encoding of text
        return codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError):
        raise AyatoriError(
            f"`encoding` must be one that Python knows, such as cp932 or cp1252, however: {encoding!r}"
        ) from None


def _decoded(path: Path, raw: bytes, last: bool, encoding: str, decoder: codecs.IncrementalDecoder) -> str:
    try:
        return decoder.decode(raw, final=last)
    except UnicodeDecodeError as error:
        found = " ".join(f"0x{byte:02x}" for byte in error.object[error.start : error.start + 2])
        raise AyatoriError(
            f"'{path}' must be text in {encoding}, however it holds {found}: {error.reason}; name another "
            "--encoding, or mend the file"
        ) from None


def _not_utf8(path: Path, found: str) -> AyatoriError:
    return AyatoriError(
        f"'{path}' must be text in UTF-8, however {found}; save it as UTF-8 (in Excel: 'CSV UTF-8'), or name "
        "its encoding, such as --encoding cp932 or cp1252"
    )


def _bad_csv(path: Path, error: Exception) -> AyatoriError:
    text = str(error).splitlines()[0]
    widths = re.search(r"Expected (\d+) columns, got (\d+): (.*)", text)
    if widths:
        expected, got, line = widths.groups()
        return _uneven(path, expected, got, line)
    if "UTF8" in text:
        return _not_utf8(path, "some bytes are not")
    if "Empty CSV" in text or "Could not skip" in text:
        return AyatoriError(f"'{path}' must hold rows, however it has none")
    return AyatoriError(f"'{path}' must be a CSV table, however: {text}")


def _uneven(path: Path, expected: str | int, got: str | int, line: str) -> AyatoriError:
    return AyatoriError(
        f"every line of '{path}' must have {expected} values like its header, however one has {got}: "
        f"'{line[:60]}'; mend that line"
    )


def _texts(table: pa.Table) -> dict[str, list[str]]:
    """The first values of columns of text."""
    head = table.slice(0, SAMPLE_ROWS)
    names = [field.name for field in head.schema if field.type in (pa.string(), pa.large_string())]
    return {name: [value for value in head[name].to_pylist() if value is not None] for name in names}


def _open_frame(data: Any) -> TableSource:
    if not isinstance(data, pd.DataFrame):
        table = data if isinstance(data, pa.Table) else pa.table(data)
        return TableSource(
            tuple(table.column_names),
            lambda columns, text: table.select(list(columns)),
            lambda: _texts(table),
            lists=widths_of({name: table[name][:SAMPLE_ROWS].to_pylist() for name in lists_of(table.schema)}),
            tags=tags_of(table.schema),
        )
    names = tuple(str(name) for name in data.columns)
    place = {name: position for position, name in enumerate(names)}

    def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
        arrays = [arrow_column(data.iloc[:, place[name]]) for name in columns]
        return pa.table(arrays, names=list(columns))

    def sample() -> dict[str, list[str]]:
        first = {name: data.iloc[:, place[name]].head(SAMPLE_ROWS).dropna().tolist() for name in names}
        return {name: words for name, words in first.items() if all(isinstance(word, str) for word in words)}

    kinds = zip(names, data.dtypes, strict=True)
    objects = {
        name: data.iloc[:, place[name]].head(SAMPLE_ROWS) for name, kind in kinds if is_object_dtype(kind)
    }
    return TableSource(names, read, sample, lists=widths_of(objects), tags=tags_in(objects))


def arrow_column(values: pd.Series) -> pa.Array | pa.ChunkedArray:
    """A pandas column as Arrow; values of mixed types become text."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        present = values.notna().to_numpy()
        words = np.array([str(value) for value in values], dtype=object)
        return pa.array(words, pa.string(), mask=~present)
