"""Stage 1b. One Arrow column -> numbers, dates or interned text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ayatori.data.csv_head import MISSING
from ayatori.records import AyatoriError

_ISO_DATE = re.compile(
    r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?Z|[-+]\d{2}:?\d{2})?)?", re.ASCII
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|infinity)", re.ASCII | re.IGNORECASE)
_DOTTED_DATE = re.compile(r"^(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)  # day first, as in most of Europe
_SLASHED_DATE = re.compile(r"^(\d{1,2})/(\d{1,2})/(\d{4})(?!\d)", re.ASCII)  # day or month first
# as people write amounts: a currency before or behind, thousands parted by commas, per cent
_AMOUNT = re.compile(
    r"(?P<sign>[-+]?)[$€£¥]? ?(?P<digits>[1-9]\d{0,2}(,\d{3})+(\.\d+)?|\d+(\.\d+)?|\.\d+) ?[%$€£¥]?", re.ASCII
)
# the other way round, where that is plain: 1.234,50 or 7,5 %
_COMMA_AMOUNT = re.compile(
    r"(?P<sign>[-+]?)[$€£¥]? ?(?P<digits>[1-9]\d{0,2}(\.\d{3})+,\d+|\d+,\d{1,2}(?= ?[%$€£¥])) ?[%$€£¥]?",
    re.ASCII,
)
_EPOCH = np.datetime64("2000-01-01", "us")
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
# how columns are called that say who or what a row is of
BELONGS = re.compile(
    r"(?i:(.*[_ .-])?((patient|subject|person|user|customer|client|participant|student|animal|speaker|"
    r"session|family|household|case|group|plot|specimen)s?"
    r"([_ .-]?(id|no|nr|number|key|code|name))?|id))|.*[a-z]I[dD]"
)
_ROW_NUMBER = re.compile(r"(?i:(.*[_ .-])?(id|index|idx|rowid|row|no|nr|key|unnamed.*))|.*[a-z](I[dD]|N[or])")
UNIQUE_ROWS = 20  # from which on values that all differ are no accident
MOSTLY = 0.9  # from this share of numbers on, text in a column is a mistake


@dataclass(frozen=True)
class RawColumn:
    """A column as read. **Shape** ``values`` (n,): numbers float64 with NaN; dates float64, days since
    2000-01-01 UTC with NaN; text int32 codes into the sorted ``words``, missing = -1."""

    name: str
    kind: Literal["number", "date", "text", "other"]
    values: np.ndarray
    words: tuple[str, ...] = ()
    boolean: bool = False
    written: str = ""  # one of the words that were read, where it may be read otherwise; the type of others
    month_first: bool = False  # in dates that are parted by slashes

    @property
    def missing(self) -> np.ndarray:
        return self.values < 0 if self.kind == "text" else np.isnan(self.values)

    def take(self, rows: np.ndarray) -> RawColumn:
        """Some rows; ``words`` are those that occur in them."""
        if self.kind != "text":
            return replace(self, values=self.values[rows])
        used, codes = np.unique(self.values[rows], return_inverse=True)
        first = int(used[0] < 0) if len(used) else 0
        words = tuple(self.words[code] for code in used[first:])
        return replace(self, values=(codes - first).astype(np.int32), words=words)

    @property
    def whole(self) -> bool:
        """Whether these are numbers without a fraction."""
        present = self.values[~self.missing]
        return self.kind == "number" and bool((present == np.floor(present)).all())


def numbers_rows(column: RawColumn) -> bool:
    """Whether a column is called like a number of rows, and has another whole number in each."""
    present = column.values[~column.missing]
    several = len(present) > UNIQUE_ROWS and column.whole and bool(_ROW_NUMBER.fullmatch(column.name))
    return several and len(np.unique(present)) == len(present)


def text_of(value: Any) -> str:
    """How a value is called: whole numbers without a point.

    >>> text_of(3.0), text_of(2.5), text_of("a"), text_of(True)
    ('3', '2.5', 'a', 'True')
    """
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value).strip()


def decode(
    name: str, column: pa.ChunkedArray | pa.Array, guess: bool = True, amounts: bool = False
) -> RawColumn:
    """Decode an Arrow column. With ``guess``, text that reads as numbers or dates becomes those.

    ``amounts``: numbers may be written as people write them, see ``amount``.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return RawColumn(name, "number", np.full(len(column), np.nan))
    if pa.types.is_boolean(kind):
        return RawColumn(name, "number", _floats(column.cast(pa.int8())), boolean=True)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return RawColumn(name, "number", _floats(column))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        stamps = np.asarray(column.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False))
        return RawColumn(name, "date", _days(stamps))
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        ticks = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
        hours = 24 if pa.types.is_time(kind) else 1  # a time of day in hours, a duration in days
        return RawColumn(name, "number", _floats(ticks) / (_PER_DAY[kind.unit] / hours))
    if _is_text(kind):
        return _text(name, column, guess and not pa.types.is_dictionary(kind), amount if amounts else number)
    return RawColumn(name, "other", np.full(len(column), np.nan), written=str(column.type))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_dictionary(kind)
    )


def _floats(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    floats = column.cast(pa.float64(), safe=False)
    if isinstance(floats, pa.ChunkedArray):
        floats = floats.combine_chunks()
    return np.array(floats.to_numpy(zero_copy_only=False), dtype=np.float64)


def _days(stamps: np.ndarray) -> np.ndarray:
    ticks = stamps.astype("datetime64[us]") - _EPOCH
    days = ticks.astype(np.float64) / _PER_DAY["us"]
    days[np.isnat(ticks)] = np.nan
    return days


def _text(
    name: str, column: pa.ChunkedArray | pa.Array, guess: bool, read: Callable[[str], float]
) -> RawColumn:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    codes = np.asarray(pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False))
    codes, words = intern(codes, [text_of(word) for word in column.dictionary.to_pylist()])
    if not guess or not words:
        return RawColumn(name, "text", codes, words)
    numbers = _numbers(name, codes, words, read)
    return numbers or _dates(name, codes, words) or RawColumn(name, "text", codes, words)


def intern(codes: np.ndarray, words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes into ``words`` -> codes into the sorted, distinct words that occur; missing markers -> -1.

    >>> codes, words = intern(np.array([2, 0, 1, -1]), ["b", "?", "a"])
    >>> codes.tolist(), words
    ([0, 1, -1, -1], ('a', 'b'))
    """
    used = np.bincount(codes[codes >= 0], minlength=len(words)) > 0
    kept = sorted({word for word, use in zip(words, used, strict=True) if use}.difference(MISSING))
    place = {word: position for position, word in enumerate(kept)}
    table = np.array([place.get(word, -1) for word in words] + [-1], dtype=np.int32)
    return table[codes], tuple(kept)


def _numbers(
    name: str, codes: np.ndarray, words: tuple[str, ...], read: Callable[[str], float]
) -> RawColumn | None:
    values = np.array([*map(read, words), np.nan])
    written = next((word for word in words if np.isnan(number(word))), "")
    rows = codes >= 0
    good = ~np.isnan(values[codes])
    share = good.sum() / rows.sum()
    if share == 1:
        return RawColumn(name, "number", values[codes], written=written)
    if share < MOSTLY or BELONGS.fullmatch(name):  # a subject 207a beside 207 and 208
        return None
    row = int(np.flatnonzero(rows & ~good)[0])
    raise AyatoriError(
        f"column '{name}' must hold numbers like {good.sum()} of its {rows.sum()} values, however row {row} "
        f"(the first is 0) says {words[codes[row]]!r}; mend or empty that value, or drop the column"
    )


def number(word: str) -> float:
    """The number that ``word`` writes out, or NaN."""
    return float(word) if _NUMBER.fullmatch(word) else float("nan")


def amount(word: str) -> float:
    """The number that ``word`` writes out, or an amount as people write it; else NaN.

    >>> amount("1e3"), amount("$1,234.50"), amount("-7 %"), amount("12 €"), amount("1,2,3")
    (1000.0, 1234.5, -7.0, 12.0, nan)
    >>> amount("1.234,50 €"), amount("7,5 %"), amount("7,5")
    (1234.5, 7.5, nan)
    """
    if _NUMBER.fullmatch(word):
        return float(word)
    if found := _AMOUNT.fullmatch(word):
        return float(found["sign"] + found["digits"].replace(",", ""))
    if found := _COMMA_AMOUNT.fullmatch(word):
        return float(found["sign"] + found["digits"].replace(".", "").replace(",", "."))
    return float("nan")


def _dates(name: str, codes: np.ndarray, words: tuple[str, ...]) -> RawColumn | None:
    slashed = next(filter(_SLASHED_DATE.match, words), "")
    month_first = _month_first(words) if slashed else False
    if month_first is None or not all(_ISO_DATE.fullmatch(_iso(word, month_first)) for word in words):
        return None
    days = days_of(words, month_first)
    if np.isnan(days).any():
        return None
    return RawColumn(name, "date", np.append(days, np.nan)[codes], written=slashed, month_first=month_first)


def _month_first(words: Sequence[str]) -> bool | None:
    """Whether 1/31/2026 is how dates are written, or 31/1/2026; None where nothing tells, or both are.

    >>> _month_first(["1/2/2026", "1/31/2026"]), _month_first(["31/1/2026"]), _month_first(["1/2/2026"])
    (True, False, None)
    """
    found = [date for date in map(_SLASHED_DATE.match, words) if date]
    firsts, seconds = (any(int(date[place]) > 12 for date in found) for place in (1, 2))
    return None if firsts == seconds else seconds


def days_of(words: Sequence[str], month_first: bool = False) -> np.ndarray:
    """Days since 2000-01-01 UTC (words,) that ISO dates write out, or 31.1.2026; NaN for other words.

    ``month_first``: so it is in dates that are parted by slashes.

    >>> days_of(["2000-01-02", "2000/01/01 12:00", "3.1.2000", "3/1/2000", "soon"]).tolist()
    [1.0, 0.5, 2.0, 2.0, nan]
    >>> days_of(["1/3/2000"], month_first=True).tolist()
    [2.0]
    """
    isos = (_iso(word, month_first) for word in words)
    dates = [word.replace("/", "-") if _ISO_DATE.fullmatch(word) else None for word in isos]
    stamps = pd.to_datetime(pd.Series(dates, dtype=object), format="ISO8601", utc=True, errors="coerce")
    return _days(stamps.dt.tz_localize(None).to_numpy())


def _iso(word: str, month_first: bool) -> str:
    word = _DOTTED_DATE.sub(lambda found: f"{found[3]}-{found[2]:0>2}-{found[1]:0>2}", word)
    day, month = (2, 1) if month_first else (1, 2)
    return _SLASHED_DATE.sub(lambda found: f"{found[3]}-{found[month]:0>2}-{found[day]:0>2}", word)
