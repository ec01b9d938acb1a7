"""Stage 1a. Files of other programs -> a DataFrame or an Arrow table, and notes on it."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import feather

from ayatori.data.statistics_files import read_statistics
from ayatori.records import AyatoriError

HEAD = 1024  # bytes that tell what a file is
FEATHERS = (b"ARROW1", b"FEA1")
BOOK = "xl/workbook.xml"  # in an Excel workbook, which is a ZIP archive


def read_sheets(path: Path) -> tuple[Any, tuple[str, ...]] | None:
    """The table that a file holds, told by how it begins, and notes on it; None where it is of other kinds.

    JSON is a list of objects, one object a line, or an object of columns; of a workbook the first sheet that
    holds values is read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise AyatoriError(f"'{path}' must be readable, however: {error.strerror}") from None
    if head.startswith(FEATHERS):
        return _feather(path), ()
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _workbook(path) if BOOK in archive.namelist() else None
    plain = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if plain.startswith(b"{") or (plain.startswith(b"[") and plain[1:].lstrip().startswith(b"{")):
        return _json(path), ()
    return read_statistics(path, head)


def _feather(path: Path) -> pa.Table:
    try:
        table = feather.read_table(path, memory_map=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise AyatoriError(f"'{path}' must be a whole Feather file, however: {reason}") from None
    return table


def _json(path: Path) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = next(line for line in text.splitlines() if line.strip())
        return pd.read_json(
            io.StringIO(text),
            lines=_is_whole(first) and text.strip() != first.strip() and first.lstrip().startswith("{"),
            dtype=False,
            precise_float=True,
        )
    except (ValueError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AyatoriError(
            f"'{path}' must be a table in JSON, a list of objects or one object a line, however: {reason}"
        ) from None


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _workbook(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    if importlib.util.find_spec("openpyxl") is None:
        raise AyatoriError(
            f"'{path}' is an Excel workbook, and must be read with openpyxl, however it is missing; "
            "pip install ayatori[excel], or save the sheet as CSV"
        )
    try:
        with path.open("rb") as file:
            sheets = pd.read_excel(file, sheet_name=None, header=None, engine="openpyxl")
    except Exception as error:  # openpyxl raises nearly every kind of exception on broken workbooks
        raise AyatoriError(f"'{path}' must be a whole Excel workbook, however: {error}") from None
    filled = {name: sheet.dropna(how="all") for name, sheet in sheets.items() if sheet.notna().any(axis=None)}
    if not filled:
        raise AyatoriError(f"'{path}' must hold a table, however its sheets are empty")
    first, table = next(iter(filled.items()))
    table = table.dropna(axis=1, how="all")
    names = [
        f"unnamed {position}" if pd.isna(name) else str(name).strip()
        for position, name in enumerate(table.iloc[0])
    ]
    rows = table.iloc[1:].infer_objects()
    rows.columns = pd.Index(names)
    notes: tuple[str, ...] = ()
    if len(filled) > 1:
        others = ", ".join(f"'{name}'" for name in list(filled)[1:4])
        notes = (f"of the workbook's {len(filled)} sheets the first, '{first}', is read, not {others}",)
    return rows.reset_index(drop=True), notes
