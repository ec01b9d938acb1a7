"""Stage 1d. An opened table -> numbers and categories by a schema that its development rows decide."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ayatori.data import target as targets
from ayatori.data.columns import (
    BELONGS,
    UNIQUE_ROWS,
    RawColumn,
    amount,
    decode,
    numbers_rows,
    text_of,
)
from ayatori.data.csv_head import UNNAMED
from ayatori.data.files import TableSource
from ayatori.data.rows import Rows, row_numbers
from ayatori.data.steps import blocks_of
from ayatori.data.words import Progress, Texts, beginnings, joined, read_texts
from ayatori.recipe import DataRecipe, nearest
from ayatori.records import AyatoriError, Schema

LEAST_STEPS = 24  # numbered columns that may be steps
LEAST_GROUPS = 10  # different values; with fewer, a column is more often a kind than a case
_UNIQUE = 0.5  # text with more distinct words than this share of its rows is an identifier or free text
_TIMED = re.compile(r"(?i:t|time|step|tick|lag|hour|day|week|month|ms|s|sec|sample)?[_ .-]?\d+")
_SOME_DATE = re.compile(r"\d{1,4}[/.-]\d{1,2}[/.-]\d{2,4}\b", re.ASCII)  # in whatever order


@dataclass
class Features:
    """What is learned from columns of a table, and what is said of them. **Shape** (n,) each."""

    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    dates: list[str] = field(default_factory=list)
    month_first: list[str] = field(default_factory=list)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    codes: list[np.ndarray] = field(default_factory=list)
    texts: list[Texts] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, name: str, reason: str) -> None:
        self.ignored.append(name)
        self.notes.append(f"column '{name}' is left out: {reason}")

    def facts(self) -> dict[str, Any]:
        """What a schema holds of the columns."""
        return {
            "numbers": tuple(self.numbers),
            "dates": tuple(self.dates),
            "month_first": tuple(self.month_first),
            "categories": self.categories,
            "texts": {texts.name: texts.known for texts in self.texts},
            "text_widths": tuple(texts.places.shape[1] for texts in self.texts),
        }

    def inputs(self, rows: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if self.numbers:
            found["numbers"] = side_by_side(list(self.numbers.values()), rows, np.float64)
        if self.codes:
            found["categories"] = side_by_side(self.codes, rows, np.int32)
        if self.texts:
            found["words"] = joined(self.texts)
        return found


def side_by_side(columns: Sequence[np.ndarray], rows: int, kind: type) -> np.ndarray:
    """(n,) arrays -> (n, columns), row first."""
    joined: np.ndarray = np.empty((rows, len(columns)), dtype=kind)
    for position, column in enumerate(columns):
        joined[:, position] = column
    return joined


def check_names(opened: TableSource, wanted: Sequence[str]) -> None:
    """Raise AyatoriError when a column that the recipe names is not in the table."""
    for name in wanted:
        if name and name not in opened.names:
            shown = ", ".join(f"'{known}'" for known in opened.names[:8])
            more = f" and {len(opened.names) - 8} more" if len(opened.names) > 8 else ""
            hint = nearest(name, list(opened.names))
            if "," in hint:
                hint += " (a comma parts two names, unless the name that has it stands in double quotes)"
            raise AyatoriError(
                f"column '{name}' must be in the table{opened.called}, however it holds {shown}{more}{hint}"
            )


def no_columns(recipe: DataRecipe, found: str) -> None:
    """Raise AyatoriError when the recipe names columns of data that have none."""
    for setting in ("target", "groups", "time", "ids", "drop", "texts", "beside"):
        value = getattr(recipe, setting)
        if value and any(value):
            raise AyatoriError(
                f"{setting} must name a column of a table, however {setting}={value!r} "
                f"and {found}; leave it out"
            )
    if recipe.pictures:
        raise AyatoriError(
            f"`pictures` is the folder of the pictures that a table names, however {found}; leave it out"
        )


def default_target(
    opened: TableSource, recipe: DataRecipe, used: set[str], notes: list[str]
) -> tuple[str, ...]:
    """The target columns that the recipe names, or the last column that has a name and no other use."""
    wanted = (recipe.target,) if isinstance(recipe.target, str) else recipe.target
    if any(wanted):
        return tuple(wanted)
    used = used | {*recipe.drop, recipe.groups, recipe.time, recipe.ids}
    free = [name for name in opened.names if name not in used and not name.startswith(UNNAMED)]
    if not free:
        raise AyatoriError(
            f"the table{opened.called} must have a target, however every column has another use"
        )
    notes.append(f"the target is the last column, '{free[-1]}'")
    return (free[-1],)


def read_table(
    opened: TableSource,
    recipe: DataRecipe,
    y: Sequence[RawColumn] | None = None,
    progress: Progress | None = None,
) -> tuple[Rows, Schema]:
    """Read development rows and decide their schema. ``y``: target columns given apart from the table.

    ``progress(done, total)`` is told how many texts are read, where there are some.
    """
    notes = list(opened.notes)
    check_names(opened, (recipe.groups, recipe.time, recipe.ids, *recipe.drop))
    named = default_target(opened, recipe, set(), notes) if y is None else ()
    check_names(opened, named)
    wanted = [name for name in opened.names if name not in recipe.drop or name in named]
    table = opened.read(wanted, {recipe.ids, *recipe.texts} - {""})
    if not table.num_rows:
        raise AyatoriError(f"the table{opened.called} must hold rows, however it has none")
    columns = y or [target_column(name, table[name], recipe.task) for name in named]
    _same_length(columns, table.num_rows)
    kind = targets.decide(columns, recipe.task, recipe.log_target)
    notes.append(kind.note)
    if opened.bare and kind.task == "regression" and y is None and not any(recipe.target):
        notes += _other_target(wanted[0], table[wanted[0]]) if wanted[0] not in named else []
    kept, table, columns = with_target(table, columns, notes)
    others = {*named, recipe.groups, recipe.time, recipe.ids}
    check_names(opened, recipe.texts)
    columns_of = [(name, table[name]) for name in wanted if name not in others]
    features = read_features(columns_of, kept, recipe.texts, progress)
    _ask_series(features)
    target = tuple(column.name for column in columns)
    schema = Schema(
        kind="table",
        task=kind.task,
        classes=kind.classes,
        target=() if y is not None and set(target) & set(opened.names) else target,
        **features.facts(),
        id_column=recipe.ids or None,
        ignored=(*recipe.drop, *features.ignored),
        log=kind.log,
        encoding=recipe.encoding,
        bare=opened.bare,
    )
    rows = Rows(
        inputs=features.inputs(table.num_rows),
        target=targets.encode(columns, kind.task, kind.classes, kind.log),
        ids=row_names(table, recipe.ids, kept),
        groups=texts_of(table, recipe.groups) if recipe.groups else None,
        order=times_of(table, recipe.time, kept),
        notes=(*notes, *features.notes),
        begins=beginnings(features.texts),
    )
    return rows, schema


def target_column(name: str, values: pa.ChunkedArray, task: str) -> RawColumn:
    """A column that is to be learned; a few words such as "10%" are classes, and keep their names."""
    guess = task != "classification"
    column = decode(name, values, guess, amounts=guess)
    few = task == "auto" and len(np.unique(column.values)) <= targets.FEW_VALUES
    return decode(name, values, guess=False) if column.written and few else column


def _other_target(name: str, values: pa.ChunkedArray) -> list[str]:
    """A word on the first column of a table without names, where it may be classes: many put them there."""
    several = len(values.unique())
    if not 2 <= several <= targets.FEW_VALUES:
        return []
    return [f"the first column, '{name}', has {several} values: if it is the target, --target {name}"]


def _same_length(columns: Sequence[RawColumn], rows: int) -> None:
    for column in columns:
        if len(column.values) != rows:
            raise AyatoriError(
                f"inputs and target must have as many rows, however there are {rows} and {len(column.values)}"
            )


def with_target(
    table: pa.Table, columns: Sequence[RawColumn], notes: list[str]
) -> tuple[np.ndarray, pa.Table, list[RawColumn]]:
    """The rows that have a target: their numbers, the table, and the target columns."""
    missing = targets.missing_rows(columns)
    kept = np.flatnonzero(~missing)
    if missing.any():
        notes.append(f"{missing.sum()} of {len(missing)} rows are left out: {targets.NO_TARGET}")
        table = table.filter(pa.array(~missing))
        columns = [column.take(kept) for column in columns]
    return kept, table, list(columns)


def row_names(table: pa.Table, column: str, kept: np.ndarray) -> np.ndarray:
    """(n,) str: the id column, or the row numbers."""
    if not column:
        return row_numbers(kept)
    named = texts_of(table, column)
    return np.where(named == "", row_numbers(kept), named)


def texts_of(table: pa.Table, name: str) -> np.ndarray:
    """(n,) str: a column as text, "" where missing."""
    column = decode(name, table[name], guess=False)
    if column.kind == "text":
        return np.array([*column.words, ""])[column.values]
    distinct, codes = np.unique(column.values, return_inverse=True)
    return np.array(["" if np.isnan(value) else text_of(value) for value in distinct])[codes]


def times_of(table: pa.Table, name: str, kept: np.ndarray) -> np.ndarray | None:
    """(n,) float64: numbers, or days since 2000-01-01; None without a name."""
    if not name:
        return None
    column = decode(name, table[name])
    if column.kind not in ("number", "date") or not np.isfinite(column.values).all():
        bad = column.missing if column.kind == "text" else ~np.isfinite(column.values)
        row = kept[int(np.flatnonzero(bad)[0])] if bad.any() else kept[0]
        raise AyatoriError(
            f"the time column '{name}' must hold a number or a date in every row, "
            f"however row {row} (the first is 0) does not"
        )
    return column.values


def read_features(
    columns: Sequence[tuple[str, pa.ChunkedArray]],
    kept: np.ndarray,
    texts: Sequence[str] = (),
    progress: Progress | None = None,
) -> Features:
    """Columns by their names -> what each is; ``kept`` (n,) are the numbers of the rows.

    ``texts``: columns that are texts, however short.
    """
    found = Features()
    for name, values in columns:
        column = decode(name, values, guess=name not in texts, amounts=True)
        if name in texts and column.kind != "text":
            raise AyatoriError(
                f"column '{name}' must hold texts, however it holds values of type {values.type}"
            )
        if column.kind == "other":
            found.leave_out(name, f"values of type {values.type} are neither numbers, dates nor text")
        elif column.missing.all():
            found.leave_out(name, "all values are missing")
        elif _constant(column):
            found.leave_out(name, "all values are the same")
        elif column.kind == "text":
            _add_text(found, column, name in texts, progress)
        elif column.kind == "date":
            found.dates.append(name)
            if column.month_first:
                found.month_first.append(name)
            if column.written:
                first = "month" if column.month_first else "day"
                found.notes.append(f"column '{name}' is read as dates, the {first} first ({column.written})")
            found.numbers.update(
                (part, values)
                for part, values in date_parts(name, column.values).items()
                if part.endswith("days") or _varies(values[~column.missing])
            )
        else:
            _add_number(found, column, kept)
        _ask_groups(found, column)
    if not (found.numbers or found.codes or found.texts):
        reasons = f" ({'; '.join(found.notes[:3])})" if found.notes else ""
        raise AyatoriError(f"the table must have a column to learn from, however none is left{reasons}")
    return found


def _ask_groups(found: Features, column: RawColumn) -> None:
    """A column that is called like a person or a case, and repeats, may say which rows belong together."""
    if not BELONGS.fullmatch(column.name) or not (column.kind == "text" or column.whole):
        return
    present = int((~column.missing).sum())
    values = len(np.unique(column.values[~column.missing]))
    if LEAST_GROUPS <= values <= present / 2:
        found.notes.append(
            f"column '{column.name}' has {values} values in {present} rows: where rows of one value belong "
            f"together, --groups {shlex.quote(column.name)} keeps them on one side of every split"
        )


def _ask_series(found: Features) -> None:
    """Columns that are numbered by time, or blocks of them with several names, may be steps of series."""
    names = list(found.numbers)
    channels, steps = blocks_of(names)
    timed = len(channels) > 1 or (steps and _TIMED.fullmatch(steps[0]))
    if timed and len(steps) // len(channels) >= LEAST_STEPS:
        found.notes.append(
            f"columns '{steps[0]}' to '{steps[-1]}' are numbered: where they are the steps of a series, in "
            "order of time, --series row learns from their course"
        )


def _constant(column: RawColumn) -> bool:
    return not column.missing.any() and not _varies(column.values)


def _varies(values: np.ndarray) -> bool:
    return bool((values != values[0]).any())


def _add_text(found: Features, column: RawColumn, sure: bool, progress: Progress | None) -> None:
    distinct, present = len(column.words), int((~column.missing).sum())
    if sure or distinct > max(UNIQUE_ROWS, _UNIQUE * present):
        if texts := read_texts(column, sure, progress):
            found.texts.append(texts)
            found.notes.append(texts.note)
            return
        kind = "an identifier, or texts without words in common"
        if all(_SOME_DATE.match(word) for word in column.words):
            kind = "dates that cannot be told for sure; write 2026-01-31"
        found.leave_out(column.name, f"{distinct} of {present} texts differ ({kind})")
        return
    found.categories[column.name] = column.words
    found.codes.append(column.values)


def _add_number(found: Features, column: RawColumn, kept: np.ndarray) -> None:
    check_finite(column, kept)
    if numbers_rows(column):
        found.leave_out(column.name, "it numbers the rows")
        return
    found.numbers[column.name] = column.values
    if column.written:
        value = f"{amount(column.written):g}"
        found.notes.append(
            f"column '{column.name}' is read as numbers, such as '{column.written}' as {value}"
        )


def check_finite(column: RawColumn, kept: np.ndarray | None = None) -> None:
    """Raise AyatoriError where a number is infinite."""
    infinite = np.isinf(column.values)
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise AyatoriError(
            f"column '{column.name}' must hold finite numbers, however row "
            f"{row if kept is None else kept[row]} (the first is 0) is infinite; mend the value or empty it"
        )


def date_parts(name: str, days: np.ndarray) -> dict[str, np.ndarray]:
    """Days since 2000-01-01 (n,), NaN where missing -> the numbers that a network can learn from.

    >>> {part: values.tolist() for part, values in date_parts("t", np.array([0.5, 31.0])).items()}
    {'t: days': [0.5, 31.0], 't: month': [1.0, 2.0], 't: weekday': [5.0, 1.0], 't: hour': [12.0, 0.0]}
    """
    whole = np.floor(days)
    dates = np.datetime64("2000-01-01", "D") + np.nan_to_num(whole).astype(np.int64)
    month = (dates.astype("datetime64[M]").astype(np.int64) % 12 + 1).astype(np.float64)
    month[np.isnan(days)] = np.nan
    return {
        f"{name}: days": days,
        f"{name}: month": month,
        f"{name}: weekday": (whole + 5) % 7,  # Monday is 0
        f"{name}: hour": np.round((days - whole) * 24, 6),
    }
