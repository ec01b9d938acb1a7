"""Stage 1g. Arrays, .npz files and torch datasets -> inputs and target columns."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.data import target as targets
from ayatori.data.columns import RawColumn, decode
from ayatori.data.files import arrow_column
from ayatori.data.rows import Rows, row_numbers
from ayatori.records import AyatoriError, Schema, SchemaError

_WORDS = {"numbers": "rows of numbers", "image": "pictures", "series": "series"}
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    KeyError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_KEYS = ("X", "y", "groups", "ids", "X_test", "y_test")
# what others call them: scikit-learn and its users, Keras, MedMNIST
_CALLED = {
    "X": ("X_train", "x_train", "train_images", "x", "data", "images", "features"),
    "y": ("y_train", "train_labels", "Y", "target", "targets", "labels"),
    "X_test": ("x_test", "test_images"),
    "y_test": ("test_labels",),
}
_MORE = {"X": "val_images", "y": "val_labels"}  # of MedMNIST, which are for development too
LEAST_SLICES, LONGEST = 16, 4.0  # of an array of scans: the least side; how much longer another may be


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an .npz file; pickled objects are refused."""
    try:
        with path.open("rb") as raw, np.lib.npyio.NpzFile(raw, allow_pickle=False) as file:
            names = list(file.files)
            found = {name: file[called] for name in _KEYS if (called := _called(name, names))}
            if found.keys() >= _MORE.keys() and "X" not in names and {*_MORE.values()} <= {*names}:
                found |= {name: np.concatenate([found[name], file[more]]) for name, more in _MORE.items()}
    except DAMAGE as error:
        raise damaged(path, error) from None
    if "X" not in found:
        raise AyatoriError(
            f"'{path}' must hold an array 'X', however it holds {', '.join(names) or 'nothing'}"
        )
    return found


def _called(name: str, names: Sequence[str]) -> str:
    """What an array is called in a file with these ``names``; "" where it is not there."""
    known = (name, *(_CALLED.get(name, ()) if "X" not in names or name == "y" else ()))
    return next((one for one in known if one in names), "")


def damaged(path: Path, error: Exception) -> AyatoriError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return AyatoriError(f"'{path}' must be a whole .npz of plain arrays, however: {reason}")


def is_torch_dataset(data: Any) -> bool:
    """Whether ``data`` gives (x, y) by number, as torch's datasets do."""
    plain = isinstance(data, np.ndarray | pd.DataFrame | list | tuple | str | Path | Mapping)
    return (
        not plain and not hasattr(data, "shape") and hasattr(data, "__getitem__") and hasattr(data, "__len__")
    )


def from_torch_dataset(data: Any) -> tuple[np.ndarray, list[Any]]:
    """All x of a dataset stacked (n, ...), and all y."""
    if not len(data):
        raise AyatoriError("the dataset must hold rows, however it has none")
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for position in range(len(data)):
        item = data[position]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise AyatoriError(
                f"a dataset must give pairs (x, y), however item {position} is a {type(item).__name__}"
            )
        x = as_array(item[0])
        if xs and x.shape != xs[0].shape:
            raise AyatoriError(
                f"every x of a dataset must have one shape, however item 0 has {xs[0].shape} "
                f"and item {position} has {x.shape}; resize them"
            )
        xs.append(x)
        ys.append(as_array(item[1]))
    return np.stack(xs), [y.item() if y.ndim == 0 else y for y in ys]


def as_array(values: Any) -> np.ndarray:
    """Anything like an array, a torch tensor too, as one."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise AyatoriError(f"X must be an array, however: {error}") from None


def mixed_frame(values: Any) -> pd.DataFrame | None:
    """A two-dimensional array of objects or text as a table with the columns x0, x1, ...; None for others."""
    array = as_array(values)
    if array.ndim != 2 or array.dtype.kind not in "OUS":
        return None
    return pd.DataFrame({f"x{at}": array[:, at] for at in range(array.shape[1])})


def inputs_of(
    values: Any, start: int = 0, scale: float | None = None, series: bool = False
) -> dict[str, np.ndarray]:
    """(n, p) numbers, or pictures (n, h, w), (n, c, h, w) or (n, h, w, c) -> the inputs of a Dataset.

    So are scans (n, d, h, w), also with an axis of one channel, see ``holds_scans``.

    ``series``: rows are series, (n, steps) or (n, channels, steps).

    Where these rows are a part of others, ``start`` is the number of the first, and ``scale`` what all of
    them ask for (``pixel_scale``).
    """
    array = as_array(values)
    if array.dtype.kind not in "buif" or array.ndim not in (1, 2, 3, 4, 5):
        raise AyatoriError(
            "X must be an array of numbers (rows, columns), of pictures (rows, channels, height, width) or "
            f"of scans (rows, slices, height, width), however its shape is {array.shape} and its type "
            f"{array.dtype}"
        )
    if not len(array):
        raise AyatoriError("X must hold rows, however it has none")
    if series:
        return {"series": _series(array, start)}
    if array.ndim <= 2:
        return {"numbers": _numbers(array.reshape(len(array), -1), start)}
    return {"image": _pictures(array, scale)}


def _numbers(array: np.ndarray, start: int) -> np.ndarray:
    numbers = array.astype(np.float64, order="C")  # batches are picked by rows
    infinite = np.isinf(numbers)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise AyatoriError(
            f"X must be finite, however row {start + row}, column {column} (the first is 0) is infinite"
        )
    if not numbers.shape[1]:
        raise AyatoriError("X must have columns, however it has none")
    return numbers


def _series(array: np.ndarray, start: int) -> np.ndarray:
    if array.ndim not in (2, 3) or array.shape[-1] < 2:
        raise AyatoriError(
            "series must be an array (rows, steps) or (rows, channels, steps) of two steps or more, however "
            f"its shape is {array.shape}"
        )
    with np.errstate(over="ignore"):
        series = np.ascontiguousarray(array.reshape(len(array), -1, array.shape[-1]), np.float32)
    if np.isinf(series).any():
        row = start + int(np.argwhere(np.isinf(series))[0][0])
        raise AyatoriError(f"series must be finite, however row {row} (the first is 0) is not")
    return series


def holds_scans(shape: Sequence[int]) -> bool:
    """Whether an array is one of scans: an axis of one channel beside three sides, or none of these short.

    Bands of light, too, are an axis of a dozen.

    >>> holds_scans((100, 28, 28, 28)), holds_scans((100, 13, 32, 32)), holds_scans((100, 1, 9, 48, 48))
    (True, False, True)
    """
    if len(shape) == 5:
        return len(_sides(shape)) == 3
    sides = shape[1:]
    return len(sides) == 3 and min(sides) >= LEAST_SLICES and max(sides) <= LONGEST * min(sides)


def _sides(shape: Sequence[int]) -> Sequence[int]:
    """The three sides of (n, 1, d, h, w) or (n, d, h, w, 1)."""
    if 1 not in (shape[1], shape[-1]):
        raise AyatoriError(f"scans must have one channel, however the shape of X is {tuple(shape)}")
    return shape[2:] if shape[1] == 1 else shape[1:-1]


def _pictures(array: np.ndarray, scale: float | None) -> np.ndarray:
    if array.ndim == 5:
        array = array.reshape(len(array), *_sides(array.shape))
    elif array.ndim == 3:
        array = array[:, None]
    elif array.shape[3] < array.shape[1] and not holds_scans(array.shape):  # the shorter is the channels
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if scale is None:
        scale = pixel_scale(array.dtype, array.min(), array.max())
    pixels = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), 1024):
        pixels[start : start + 1024] = np.rint(array[start : start + 1024] * scale)
    return pixels


def pixel_scale(kind: np.dtype, low: float, high: float) -> float:
    """What pictures with values from ``low`` to ``high`` are multiplied by to be bytes."""
    if not (low >= 0 and high <= 255):
        raise AyatoriError(
            f"pictures must have values from 0 to 1 or from 0 to 255, "
            f"however these go from {low:.4g} to {high:.4g}; leave out the normalisation"
        )
    return 255.0 if kind.kind in "bf" and high <= 1 else 1.0


def target_columns(y: Any, rows: int) -> list[RawColumn]:
    """A target given apart from the inputs: (n,) or (n, values)."""
    frame = _frame(y)
    if len(frame) != rows:
        raise AyatoriError(f"X and y must have as many rows, however there are {rows} and {len(frame)}")
    columns = [(str(name), frame.iloc[:, at]) for at, name in enumerate(frame.columns)]
    return [decode(name, arrow_column(values)) for name, values in columns]


def _frame(y: Any) -> pd.DataFrame:
    if isinstance(y, pd.DataFrame):
        return y
    if isinstance(y, pd.Series):
        return y.to_frame("y" if y.name is None else y.name)
    array = as_array(y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise AyatoriError(f"y must have the shape (rows,) or (rows, values), however it is {array.shape}")
    if array.ndim == 1:
        return pd.DataFrame({"y": array})
    return pd.DataFrame({f"y{at}": array[:, at] for at in range(array.shape[1])})


def as_text(values: Any, rows: int, what: str) -> np.ndarray:
    """Groups or ids of arrays as text (n,)."""
    array = np.asarray(values)
    if array.shape != (rows,):
        raise AyatoriError(f"{what} must have the shape ({rows},), however it is {array.shape}")
    return array.astype(str)


def read_arrays(
    values: Any,
    y: Any,
    task: str,
    ids: Any = None,
    groups: Any = None,
    log: bool = False,
    series: bool = False,
) -> tuple[Rows, Schema]:
    """Read development rows from arrays and decide their schema; ``log``: see ``Schema``."""
    inputs = inputs_of(values, series=series)
    (kind, array), *_ = inputs.items()
    scans = kind == "image" and holds_scans(np.shape(values))
    columns = target_columns(y, len(array))
    decided = targets.decide(columns, task, log)
    notes = [decided.note, *(["arrays with three sides are scans: slices, height, width"] if scans else [])]
    missing = targets.missing_rows(columns)
    kept = np.flatnonzero(~missing)
    if missing.any():
        notes.append(f"{missing.sum()} of {len(missing)} rows are left out: {targets.NO_TARGET}")
        inputs = {kind: array[kept]}
        columns = [column.take(kept) for column in columns]
    schema = Schema(
        kind="arrays",
        task=decided.task,
        classes=decided.classes,
        target=tuple(column.name for column in columns),
        numbers=tuple(f"x{at}" for at in range(array.shape[1])) if kind == "numbers" else (),
        image=array.shape[1:] if kind == "image" else None,
        slices=scans,
        series=array.shape[1:] if kind == "series" else None,
        channels=tuple(map(str, range(1, array.shape[1] + 1))) if kind == "series" else (),
        log=decided.log,
    )
    rows = Rows(
        inputs,
        targets.encode(columns, decided.task, decided.classes, decided.log),
        row_numbers(kept) if ids is None else as_text(ids, len(missing), "ids")[kept],
        groups=None if groups is None else as_text(groups, len(missing), "groups")[kept],
        notes=tuple(notes),
    )
    return rows, schema


def read_arrays_like(values: Any, y: Any, schema: Schema, need_target: bool, ids: Any = None) -> Rows:
    """Read arrays by the schema of others. Raises SchemaError where they do not fit."""
    inputs = inputs_of(values, series=schema.series is not None)
    check_fit(inputs, schema)
    if need_target and y is None:
        raise SchemaError("the rows must have a target, however y is missing")
    count = len(next(iter(inputs.values())))
    names = row_numbers(np.arange(count)) if ids is None else as_text(ids, count, "ids")
    rows = Rows(inputs, None, names)
    return rows if y is None else with_target(rows, y, schema)


def check_fit(inputs: Mapping[str, np.ndarray], schema: Schema) -> None:
    """Raise SchemaError where inputs are not of the kind and size that the schema says."""
    (kind, array), *_ = inputs.items()
    wanted = "image" if schema.image is not None else "series" if schema.series is not None else "numbers"
    if kind != wanted:
        raise SchemaError(f"the rows must be {_WORDS[wanted]}, however they are {_WORDS[kind]}")
    if schema.image is not None and tuple(schema.image) != array.shape[1:]:
        raise SchemaError(
            f"pictures must have the shape {tuple(schema.image)}, "
            f"however theirs is {array.shape[1:]}; resize them"
        )
    if schema.series is not None:
        if tuple(schema.series) != array.shape[1:]:
            raise SchemaError(
                f"series must have the shape {tuple(schema.series)} (channels, steps), however theirs is "
                f"{array.shape[1:]}"
            )
        return
    if schema.image is None and schema.kind != "arrays":
        columns = ", ".join([*schema.numbers, *schema.categories][:5])
        raise SchemaError(
            f"the rows must be a table with the columns {columns} ..., however they are a bare array; "
            "give a DataFrame"
        )
    if schema.image is None and array.shape[1] != len(schema.numbers):
        raise SchemaError(
            f"the rows must have {len(schema.numbers)} columns, however they have {array.shape[1]}"
        )


def with_target(rows: Rows, y: Any, schema: Schema) -> Rows:
    """``rows`` with a target that was given apart; rows without one are left out."""
    columns = target_columns(y, len(rows.ids))
    missing = targets.missing_rows(columns)
    if missing.all():
        raise SchemaError("y must have values, however all are missing")
    kept = np.flatnonzero(~missing)
    own = [column.take(kept) for column in columns]
    codes = targets.encode(own, schema.task, schema.classes, schema.log)
    if not missing.any():
        return replace(rows, target=codes)
    note = f"{missing.sum()} of {len(missing)} rows are left out: {targets.NO_TARGET}"
    inputs = {name: values[kept] for name, values in rows.inputs.items()}
    return replace(rows, inputs=inputs, target=codes, ids=rows.ids[kept], notes=(*rows.notes, note))
