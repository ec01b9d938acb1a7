"""Stage 1a. The first lines of a CSV -> what parts its values, its column names, how it writes numbers."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from ayatori.records import AyatoriError

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "<NA>", "?", "null", "NULL", "None")
UNNAMED = "unnamed"  # what a column without a name is called, with its position
SAMPLE_ROWS = 50
SPACES = " "  # any number of them, or of tabs
_SEPARATORS = ",;\t|"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
MANY = 7  # whole numbers that grow (or fall) are names: rows do so once in 2 500


def separator_of(lines: Sequence[str]) -> str:
    """What parts the values of a line; ``SPACES`` where nothing else does and they cut all lines alike.

    >>> separator_of(["a;b", "1,5;2"]), separator_of([" 0.1  18", "12.5   0"])
    (';', ' ')
    """
    best, widest = ",", 1
    for separator in _SEPARATORS:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        if widths and min(widths) == max(widths) > widest:
            best, widest = separator, widths[0]
    if widest > 1:
        return best
    spaced = {len(line.split()) for line in lines}
    if len(lines) > 1 and len(spaced) == 1 and max(spaced) > 1:
        return SPACES
    return max(_SEPARATORS, key=lines[0].count)  # none cuts all lines alike: go by the first line


def decimal_comma(lines: Sequence[str], separator: str) -> bool:
    """Whether numbers are written as 1,5: some values are, and none as 1.5.

    >>> decimal_comma(["1,5;31.12.2025;7.5 %"], ";"), decimal_comma(["1,5;2.5"], ";")
    (True, False)
    """
    words = [word.strip() for row in csv.reader(lines, delimiter=separator) for word in row]
    comma, point = (any(map(_fraction(mark).fullmatch, words)) for mark in (",", "[.]"))
    return comma and not point


def _fraction(mark: str) -> re.Pattern[str]:
    return re.compile(rf"[-+]?\d*{mark}\d+([eE][-+]?\d+)?", re.ASCII)


def header(path: Path, rows: Sequence[Sequence[str]], of_numbers: bool) -> list[str] | None:
    """The column names in the first of these ``rows``, or None where it is a row like the others.

    ``of_numbers``: of whole numbers, only 1, 2, 3 ... are names.
    """
    words = [word.strip() for word in rows[0]] if rows else []
    known = [word for word in words if word not in MISSING]
    if not known:
        raise AyatoriError(f"the first line of '{path}' must name the columns, however it names none")
    names = [word or f"{UNNAMED} {position}" for position, word in enumerate(words)]
    if all(map(_NUMBER.fullmatch, known)):
        counted = names == numbered(len(names))
        return names if counted or (not of_numbers and _counts(known)) else None
    others = [row for row in itertools.islice(rows, 1, SAMPLE_ROWS + 1) if len(row) == len(names)]
    return None if _is_row(names, others) else names


def numbered(columns: int) -> list[str]:
    """What the columns of a table without names are called.

    >>> numbered(3)
    ['1', '2', '3']
    """
    return [str(position) for position in range(1, columns + 1)]


def _counts(names: Sequence[str]) -> bool:
    """Whether whole numbers name columns: years, places, wavelengths.

    >>> _counts(["2019", "2020", "2021"]), _counts(["6", "148", "72"]), _counts(["0", "1"])
    (True, False, True)
    """
    if not all(name.isdigit() for name in names):
        return False
    steps = {int(right) - int(left) for left, right in itertools.pairwise(names)}
    one_way = min(steps, default=1) > 0 or max(steps, default=1) < 0
    return one_way and (steps <= {1, -1} or len(names) >= MANY)


def _is_row(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line is no header: a number over numbers everywhere, over texts mostly one of them, or
    a file over files.

    >>> _is_row(["5.1", "setosa"], [["4.9", "setosa"], ["7.0", "versicolor"]])
    True
    >>> _is_row(["0", "kind"], [["4.9", "setosa"], ["7.0", "versicolor"]])
    False
    >>> _is_row(["a.png", "cat"], [["b.png", "dog"], ["c.jpg", "dog"]])
    True
    """
    if not rows:
        return False
    if any(_is_file_too(name, column) for name, column in zip(names, zip(*rows, strict=True), strict=True)):
        return True
    columns = [[value.strip() for value in column] for column in zip(*rows, strict=True)]
    numbers = [all(_NUMBER.fullmatch(value) or value in MISSING for value in column) for column in columns]
    texts = [
        name in column for name, column, number in zip(names, columns, numbers, strict=True) if not number
    ]
    named = [
        _NUMBER.fullmatch(name) or name in MISSING
        for name, number in zip(names, numbers, strict=True)
        if number
    ]
    if not named:
        return len(texts) > 2 and all(texts)
    return all(named) and len(texts) > 0 and sum(texts) * 2 >= len(texts)


def _is_file_too(name: str, column: Sequence[str]) -> bool:
    """Whether ``name`` ends as the names of files do that are below it."""
    endings = {Path(value.strip()).suffix.lower() for value in column}
    return Path(name).suffix.lower() in endings and not any(
        ending[1:].isdigit() or not ending for ending in endings
    )
