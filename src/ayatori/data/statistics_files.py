"""Stage 1a. ARFF and Stata files -> a DataFrame, and notes on it."""

from __future__ import annotations

import csv
import io
import re
import struct
from pathlib import Path

import pandas as pd

from ayatori.records import AyatoriError

ARFF = re.compile(rb"\s*(?:%[^\n]*\n\s*)*@relation\b", re.IGNORECASE)
STATA = re.compile(rb"<stata_dta>|[\x71-\x73][\x01\x02]\x01\x00")
_ATTRIBUTE = re.compile(r"""@attribute\s+('(?:\\.|[^'])*'|"(?:\\.|[^"])*"|\S+)\s*(.*)""", re.IGNORECASE)
# commas and spaces alike part values
_VALUE = re.compile(r"""'(?:\\.|[^'])*'|"(?:\\.|[^"])*"|[^\s,]+""")


def read_statistics(path: Path, head: bytes) -> tuple[pd.DataFrame, tuple[str, ...]] | None:
    """The table that a file holds, told by its ``head``; None where it is of other kinds."""
    try:
        if path.suffix.lower() == ".arff" or ARFF.match(head):  # pages of comments may stand above
            return _arff(path)
        if STATA.match(head):
            return _stata(path)
    except (ValueError, OSError, EOFError, LookupError, struct.error) as error:
        if isinstance(error, AyatoriError):
            raise
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise AyatoriError(f"'{path}' must be a whole file, however it cannot be read: {reason}") from None
    return None


def _arff(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Weka's format (https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/)."""
    notes: tuple[str, ...] = ()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text, notes = (
            path.read_text(encoding="cp1252", errors="replace"),
            ("it is read as cp1252, not UTF-8",),
        )
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("%")]
    start = next((n for n, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if start is None:
        raise AyatoriError(f"'{path}' must have a line @data, however it has none")
    told = [found for line in lines[:start] if (found := _ATTRIBUTE.match(line.strip()))]
    names = [_bare(found[1]) for found in told]
    rows = lines[start + 1 :]
    if any(row.lstrip().startswith("{") for row in rows):
        raise AyatoriError(f"'{path}' must give every value, however its rows are sparse; save it as CSV")
    values = [[_bare(value) for value in _VALUE.findall(row)] for row in rows]
    if odd := next((row for row in values if len(row) != len(names)), None):
        raise AyatoriError(
            f"every row of '{path}' must have {len(names)} values, one for each @attribute, however one has "
            f"{len(odd)}: {odd[:3]}"
        )
    written = io.StringIO()
    csv.writer(written).writerows(values)
    kinds = {name: found[2].strip().lower() for name, found in zip(names, told, strict=True)}
    words = {
        name: "str"
        for name, kind in kinds.items()
        if kind.split("[")[0].split(" ")[0] not in ("numeric", "real", "integer")
    }
    written.seek(0)
    frame = pd.read_csv(written, names=names, dtype=words, na_values=["?"], keep_default_na=False)
    # a class may be called 1
    classes = [name for name, kind in kinds.items() if kind.startswith("{")]
    frame[classes] = frame[classes].astype("category")
    return frame, notes


def _bare(name: str) -> str:
    quoted = name[0] in "'\"" and len(name) > 1
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if quoted else name


def _stata(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Values that all have labels become those; where a few have, such as "refused", numbers stay."""
    codes = pd.read_stata(path, convert_categoricals=False)
    try:
        labels = pd.read_stata(path)
    except ValueError:  # two values have one label
        return codes, ("values are numbers, as some of them share a label",)
    for name in labels:
        kind = labels[name].dtype
        if isinstance(kind, pd.CategoricalDtype):
            whole = all(isinstance(label, str) for label in kind.categories)
            labels[name] = labels[name].astype(object) if whole else codes[name]
    return labels, ()
