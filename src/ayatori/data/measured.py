"""Stage 1j. Where measurements over time are kept -> a series each, and what is said beside it.

A series is (channels, steps); they are as long as they are, and what is missing is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ayatori.data.columns import RawColumn, decode, numbers_rows, text_of
from ayatori.data.files import TableSource, open_table
from ayatori.data.steps import blocks_of, single
from ayatori.data.table import check_finite, check_names
from ayatori.records import AyatoriError, SchemaError

_TIME = re.compile(r"(?i:time|timestamp|date|datetime)([_ ]?(s|ms|us|ns|utc|unix|sec|seconds))?( ?[\[(].*)?")
_COUNTS = re.compile(
    r"(?i:t|ts|seconds?|secs?|ms|millis|elapsed|frame|step|tick|index|sample)([_ ]?(no|nr|number|id))?"
)
ROW = "row"  # `series`: each row of a table or an array is a series


class UnmeasuredError(Exception):
    """A file that holds no series, and why."""


@dataclass(frozen=True)
class Measured:
    """``series``: n arrays (channels, steps). ``beside``: a table with a row for each.

    ``columns``: those that hold the values of a table with a series in each row, channel by channel.
    """

    series: Sequence[np.ndarray] | np.ndarray
    channels: tuple[str, ...]
    beside: pa.Table
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_ts(path: Path) -> Measured:
    """A file of the UEA and UCR archives (.ts): channels are parted by colons, the label comes last."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise AyatoriError(f"'{path}' must be a text file of series, however: {error}") from None
    begin = next((at for at, line in enumerate(lines) if line.lower() == "@data"), -1)
    rows = [(at + 1, line) for at, line in enumerate(lines) if at > begin >= 0 and line and line[0] != "#"]
    if not rows:
        raise AyatoriError(f"'{path}' must hold series after a line @data, however it has none")
    said = {name: rest for name, *rest in (line.lower().split() for line in lines[:begin] if line)}
    if said.get("@timestamps", [])[:1] == ["true"]:
        raise AyatoriError(f"'{path}' must hold values without time stamps, however it has them")
    kinds = {"@classlabel": "class", "@targetlabel": "value"}
    labelled = next((name for word, name in kinds.items() if said.get(word, [])[:1] == ["true"]), "")
    parts = [line.split(":") for _, line in rows]
    beside = {labelled: [one.pop().strip() for one in parts]} if labelled else {}
    channels = len(parts[0])
    series = []
    for (number, _), own in zip(rows, parts, strict=True):
        if len(own) != channels or not channels:
            raise AyatoriError(
                f"every series of '{path}' must have as many channels as the first, {channels}, however line "
                f"{number} has {len(own)}"
            )
        series.append(side_by_side([_values(part, f"line {number} of '{path}'") for part in own]))
    names = ("value",) if channels == 1 else tuple(map(str, range(1, channels + 1)))
    return Measured(series, names, pa.table(beside))


def _values(text: str, where: str) -> np.ndarray:
    """Numbers with commas between, "?" where one is missing -> (steps,) float32."""
    try:
        found = np.array(text.replace("?", "nan").split(","), np.float32)
    except ValueError as error:
        raise AyatoriError(f"{where} must hold numbers, however: {error}") from None
    if np.isinf(found).any():
        raise AyatoriError(f"{where} must hold finite numbers, however it does not")
    return found


def side_by_side(found: Sequence[np.ndarray]) -> np.ndarray:
    """Channels (t,) each, of whatever length -> (channels, longest), NaN behind the shorter ones."""
    longest = max(len(one) for one in found)
    joined = np.full((len(found), longest), np.nan, np.float32)
    for channel, values in zip(joined, found, strict=True):
        channel[: len(values)] = values
    return joined


def read_wide(
    opened: TableSource, used: Sequence[str], drop: Sequence[str], text: Collection[str]
) -> Measured:
    """A table with a series in each row; all its numbers are steps, but those ``used`` otherwise.

    ``text``: those of the ``used`` that stay text. Names that are numbered by channel (acc_x_0, acc_x_1 ...,
    acc_y_0 ...) tell the channels, see ``blocks_of``.
    """
    wanted = [name for name in opened.names if name not in {*used, *drop}]
    beside = opened.read([name for name in opened.names if name in used], text)
    table = opened.read(wanted, ())
    found = [decode(name, table[name]) for name in wanted]
    numbers = {one.name: one for one in found if one.kind == "number" and not numbers_rows(one)}
    notes = [f"column '{one.name}' is left out: it numbers the rows" for one in found if numbers_rows(one)]
    if not numbers:
        raise AyatoriError(
            f"the table{opened.called} must have columns of numbers, the steps of series, however it has none"
        )
    channels, columns = blocks_of(list(numbers))
    steps = [numbers[name] for name in columns]
    _need_numbers(steps)
    others = [one.name for one in found if one.name not in set(columns) and not numbers_rows(one)]
    if others:
        notes.append(f"columns beside the series are left out: {', '.join(others[:8])}")
    values = single(np.stack([one.values for one in steps], axis=1))
    series = values.reshape(len(values), len(channels), -1)
    return Measured(series, channels, beside, tuple(columns), tuple(notes))


def read_long(
    opened: TableSource,
    by: str,
    channels: Sequence[str],
    used: Sequence[str],
    drop: Sequence[str],
    text: Collection[str],
) -> Measured:
    """A table with a step in each row, in the order of time; ``by`` is the column that names their series.

    ``channels``: those of earlier rows, or none. What is ``used`` otherwise must be the same in all rows of
    a series.
    """
    check_names(opened, (by, *channels))
    kept = [name for name in opened.names if name in used and name != by]
    wanted = list(channels) or [name for name in opened.names if name not in {by, *used, *drop}]
    table = opened.read([by, *kept, *wanted], {by, *text})
    if not table.num_rows:
        raise AyatoriError(f"the table{opened.called} must hold rows, however it has none")
    names = decode(by, table[by], guess=False)
    if names.missing.any():
        row = int(np.flatnonzero(names.missing)[0])
        raise AyatoriError(f"column '{by}' must name a series in every row, however row {row} names none")
    _, first, codes = np.unique(names.values, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[codes]  # series in the order in which they begin
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(first)))
    for name in kept:
        _one_value(decode(name, table[name], guess=False), place, np.sort(first), names, by)
    found = [decode(name, table[name]) for name in wanted]
    notes: tuple[str, ...] = ()
    if channels:
        numbers = found
        _need_numbers(found)
    else:
        numbers, notes = _channels(found, np.arange(len(order)) - starts[place[order]], order)
    values = single(np.stack([one.values for one in numbers]))[:, order]
    series = np.split(values, starts[1:], axis=1)
    beside = table.select([by, *kept]).take(np.sort(first))
    return Measured(series, tuple(one.name for one in numbers), beside, notes=notes)


def _one_value(column: RawColumn, place: np.ndarray, first: np.ndarray, names: RawColumn, by: str) -> None:
    """Raise AyatoriError where a column says two things of one series."""
    values = column.values
    same = (values == values[first][place]) | (column.missing & column.missing[first][place])
    if not same.all():
        code = names.values[int(np.flatnonzero(~same)[0])]
        named = names.words[code] if names.kind == "text" else text_of(code)
        raise AyatoriError(
            f"column '{column.name}' must say the same in all rows of a series, however series '{named}' of "
            f"column '{by}' has two values of it"
        )


def _channels(
    columns: Sequence[RawColumn], count: np.ndarray, order: np.ndarray
) -> tuple[list[RawColumn], tuple[str, ...]]:
    """The columns of numbers but those that only count steps or rows, and what was left out."""
    notes: list[str] = []
    numbers: list[RawColumn] = []
    texts: list[str] = []
    for column in columns:
        if column.kind == "date":
            is_clock("date", column.values[order], count)
        if column.kind != "number":
            texts.append(column.name)
        elif is_clock(column.name, column.values[order], count):
            notes.append(f"column '{column.name}' is left out: it tells the time of a step")
        elif numbers_rows(column):
            notes.append(f"column '{column.name}' is left out: it numbers the rows")
        else:
            numbers.append(column)
    if texts:
        notes.append(f"columns beside the series are left out: {', '.join(texts[:8])}")
    if not numbers:
        raise AyatoriError(
            "the table must have columns of numbers, the channels of its series, however none is left"
        )
    _need_numbers(numbers)
    return numbers, tuple(notes)


def _need_numbers(columns: Sequence[RawColumn]) -> None:
    for column in columns:
        if column.kind != "number":
            raise SchemaError(f"column '{column.name}' must hold numbers, however it holds other values")
        check_finite(column)


def is_clock(name: str, values: np.ndarray, count: np.ndarray) -> bool:
    """Whether ``values`` (m,) say when a step was, and no more; ``count`` (m,) numbers the steps of a series.

    They are the same for the same step of all series, or called like a time and never go back. AyatoriError
    where a time goes back: then rows are not in its order.
    """
    if counts_steps(values, count):
        return True
    timed, counted = bool(_TIME.fullmatch(name)), bool(_COUNTS.fullmatch(name))
    back = bool((np.diff(values)[count[1:] > 0] < 0).any())
    if back and (timed or (counted and _all_differ(values, count))):
        raise AyatoriError(
            f"the rows of a series must be in the order of time, however column '{name}' goes back; sort the "
            "table by it, or leave it out with --drop"
        )
    return not back and (timed or counted)


def _all_differ(values: np.ndarray, count: np.ndarray) -> bool:
    """Whether no value comes twice in a series."""
    of = np.cumsum(count == 0)
    order = np.lexsort((values, of))
    return not ((np.diff(values[order]) == 0) & (np.diff(of[order]) == 0)).any()


def counts_steps(values: np.ndarray, count: np.ndarray) -> bool:
    """Whether ``values`` (m,) say nothing but which step of its series a row is, ``count`` (m,) from 0."""
    steps = count.max(initial=0) + 1
    if steps < 3 or np.isnan(values).any():
        return False
    known = np.full(steps, np.nan)
    known[count[::-1]] = values[::-1]
    return bool((values == known[count]).all() and (np.diff(known) > 0).all())


def read_file(file: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A CSV or Parquet file with a step in each line -> its series, and the names of its columns.

    Raises UnmeasuredError where it holds none.
    """
    try:
        opened = open_table(file, bare=True)
        table = opened.read(opened.names, ())
        columns = [decode(name, table[name]) for name in opened.names]
        numbers = [one for one in columns if one.kind == "number"]
        _need_numbers(numbers)
        if not numbers or not len(numbers[0].values):
            raise UnmeasuredError("it has no numbers")
        return single(np.stack([one.values for one in numbers])), tuple(one.name for one in numbers)
    except AyatoriError as error:
        raise UnmeasuredError(re.split(r"however:? ", str(error))[-1]) from None
