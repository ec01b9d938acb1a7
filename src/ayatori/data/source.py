"""Stage 1. Anything that holds labelled rows -> Dataset. ``load`` decides how rows are read, ``load_like`` repeats it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.data import arrays, target
from ayatori.data.columns import RawColumn
from ayatori.data.files import open_table
from ayatori.data.folder import Listing, list_folder, train_and_test
from ayatori.data.pictures import Progress, read_pictures
from ayatori.data.table import Rows, read_table, read_table_like
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset, Schema, SchemaError


def load(
    data: Any,
    recipe: DataRecipe | None = None,
    y: Any = None,
    test: str | Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read labelled rows: a table, a folder of pictures, an ``.npz``, arrays, a DataFrame or a torch Dataset.

    ``y``: the target of arrays or of a DataFrame, (n,) or (n, values). ``test``: a file or folder of rows
    for the sealed test; they come last, ``fixed_test`` marks them, and nothing is decided on them.
    ``cache``: where decoded pictures are written when they outgrow ``recipe.memory_gb``.
    ``progress(done, total)`` is called while pictures are decoded.

    Raises AyatoriError with one sentence on rows that cannot be read as they should.

    >>> dataset = load(np.arange(40.0).reshape(20, 2), y=["cat", "dog"] * 10)
    >>> len(dataset), dataset.task, dataset.classes, dataset.inputs["numbers"].shape
    (20, 'classification', ('cat', 'dog'), (20, 2))
    """
    recipe = recipe or DataRecipe()
    path = _existing(data) if isinstance(data, str | Path) else None
    if path is not None and path.is_dir():
        return _load_folder(path, recipe, test, cache, progress)
    if path is not None and path.suffix.lower() == ".npz":
        return _load_npz(path, recipe, y, test)
    if path is not None or isinstance(data, pd.DataFrame) or hasattr(data, "__arrow_c_stream__"):
        return _load_table(path or data, recipe, y, test)
    return _load_arrays(data, recipe, y, test)


def load_like(
    data: Any,
    schema: Schema,
    need_target: bool = False,
    y: Any = None,
    ids: str = "",
    cache: Path | None = None,
) -> Dataset:
    """Read rows in the way that ``schema`` says, for a model that learned from others.

    Columns that the schema does not know are ignored; categories it does not know become -1. The target
    is read where it is there and known, else it is ``None``; with ``need_target`` it must be there.
    ``ids``: a column that names the rows.

    Raises SchemaError with one sentence where the rows do not fit.

    >>> frame = pd.DataFrame({"size": [1.5, 2.5, 0.5, 4.0], "kind": ["a", "b", "a", "b"]})
    >>> trained = load(frame, DataRecipe(target="kind"))
    >>> load_like(pd.DataFrame({"size": [3.0], "other": ["x"]}), trained.schema).inputs["numbers"]
    array([[3.]])
    """
    path = _existing(data) if isinstance(data, str | Path) else None
    if path is not None and path.is_dir():
        rows = _folder_like(path, schema, need_target, cache)
    elif path is not None and path.suffix.lower() == ".npz":
        found = arrays.read_npz(path)
        rows = _arrays_like(found["X"], found.get("y") if y is None else y, schema, need_target)
        if "ids" in found:
            rows = dataclasses.replace(rows, ids=arrays.as_text(found["ids"], len(rows.ids), "ids"))
    elif path is not None or isinstance(data, pd.DataFrame) or hasattr(data, "__arrow_c_stream__"):
        rows = _table_like(path or data, schema, need_target, y, ids)
    else:
        values, y = _unpacked(data, y)
        rows = _arrays_like(values, y, schema, need_target)
    return _dataset(rows, schema, None, "" if path is None else str(path.absolute()))


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise AyatoriError(f"'{path}' must be a file or folder, however it does not exist")
    return path


def _load_table(data: Any, recipe: DataRecipe, y: Any, test: str | Path | None) -> Dataset:
    opened = open_table(data)
    columns = None
    if y is not None:
        if recipe.target:
            raise AyatoriError(
                f"the target must be given once, however both y and target='{recipe.target}' are"
            )
        columns = arrays.target_columns(y, len(data) if isinstance(data, pd.DataFrame) else len(y))
    rows, schema = read_table(opened, recipe, columns)
    if y is not None and set(schema.target) & set(opened.names):
        schema = dataclasses.replace(schema, target=())
    later = None if test is None else _read_test(test, schema, recipe)
    source = str(data.absolute()) if isinstance(data, Path) else ""
    return _dataset(rows, schema, later, source)


def _read_test(test: str | Path, schema: Schema, recipe: DataRecipe) -> Rows:
    path = _existing(test)
    if path.is_dir() or path.suffix.lower() == ".npz":
        found = None if path.is_dir() else arrays.read_npz(path)
        if found is None or schema.kind == "table":
            raise AyatoriError(
                f"the test '{path}' must be a table like the other rows, however it is another kind"
            )
        return _arrays_like(found["X"], found.get("y"), schema, True)
    return read_table_like(open_table(path), schema, True, groups=recipe.groups, time=recipe.time)


def _table_like(data: Any, schema: Schema, need_target: bool, y: Any, ids: str) -> Rows:
    if schema.image is not None:
        raise SchemaError(
            "the rows must be pictures like those the model learned from, however they are a table"
        )
    rows = read_table_like(open_table(data), schema, need_target and y is None, ids)
    return rows if y is None else _with_y(rows, y, schema)


def _with_y(rows: Rows, y: Any, schema: Schema) -> Rows:
    columns = arrays.target_columns(y, len(rows.ids))
    if target.missing_rows(columns).any():
        raise SchemaError("y must have a value in every row, however some are missing")
    return dataclasses.replace(rows, target=target.encode(columns, schema.task, schema.classes))


def _load_npz(path: Path, recipe: DataRecipe, y: Any, test: str | Path | None) -> Dataset:
    found = arrays.read_npz(path)
    if y is None and "y" not in found:
        raise AyatoriError(f"'{path}' must hold a target 'y', however it holds only {', '.join(found)}")
    if ("X_test" in found) != ("y_test" in found):
        raise AyatoriError(f"'{path}' must hold both 'X_test' and 'y_test', however it holds one of them")
    rows, schema = _array_rows(found["X"], found["y"] if y is None else y, recipe, found)
    later = None
    if test is not None:
        later = _read_test(test, schema, recipe)
    elif "X_test" in found:
        later = _arrays_like(found["X_test"], found["y_test"], schema, True)
    return _dataset(rows, schema, later, str(path.absolute()))


def _load_arrays(data: Any, recipe: DataRecipe, y: Any, test: str | Path | None) -> Dataset:
    values, y = _unpacked(data, y)
    if y is None:
        raise AyatoriError("arrays must come with a target, however y is missing; call load(X, y=y)")
    rows, schema = _array_rows(values, y, recipe, {})
    return _dataset(rows, schema, None if test is None else _read_test(test, schema, recipe), "")


def _unpacked(data: Any, y: Any) -> tuple[Any, Any]:
    return arrays.from_torch_dataset(data) if arrays.is_torch_dataset(data) else (data, y)


def _array_rows(values: Any, y: Any, recipe: DataRecipe, found: Any) -> tuple[Rows, Schema]:
    inputs = arrays.inputs_of(values)
    (kind, array), *_ = inputs.items()
    columns = arrays.target_columns(y, len(array))
    decided = target.decide(columns, recipe.task)
    notes = [decided.note]
    kept = ~target.missing_rows(columns)
    if not kept.all():
        notes.append(f"{(~kept).sum()} of {len(kept)} rows are left out: their target is missing")
        inputs = {name: array[kept] for name, array in inputs.items()}
        columns = [dataclasses.replace(column, values=column.values[kept]) for column in columns]
    schema = Schema(
        kind="arrays",
        task=decided.task,
        classes=decided.classes,
        target=tuple(column.name for column in columns),
        numbers=tuple(arrays.names_of(array)) if kind == "numbers" else (),
        image=array.shape[1:] if kind == "image" else None,
    )
    extra = {
        name: arrays.as_text(found[name], len(kept), name)[kept]
        for name in ("ids", "groups")
        if name in found
    }
    rows = Rows(
        inputs,
        target.encode(columns, decided.task, decided.classes),
        extra.get("ids", np.flatnonzero(kept).astype(str)),
        groups=extra.get("groups"),
        notes=tuple(notes),
    )
    return rows, schema


def _arrays_like(values: Any, y: Any, schema: Schema, need_target: bool) -> Rows:
    inputs = arrays.inputs_of(values)
    (kind, array), *_ = inputs.items()
    if kind == "image" and schema.image != array.shape[1:]:
        raise SchemaError(f"pictures must have the shape {schema.image}, however it is {array.shape[1:]}")
    if kind == "numbers" and (schema.kind != "arrays" or array.shape[1] != len(schema.numbers)):
        raise SchemaError(
            f"the rows must have the columns {', '.join(schema.numbers[:5]) or 'of pictures'} ... "
            f"({len(schema.numbers)}), however they are an array with {array.shape[1]} columns"
        )
    if need_target and y is None:
        raise SchemaError("the rows must have a target, however y is missing")
    rows = Rows(inputs, None, np.arange(len(array)).astype(str))
    return rows if y is None else _with_y(rows, y, schema)


def _load_folder(
    folder: Path, recipe: DataRecipe, test: str | Path | None, cache: Path | None, progress: Progress | None
) -> Dataset:
    if recipe.target or recipe.groups or recipe.time or recipe.ids:
        raise AyatoriError(
            "target, groups, time and ids must name columns of a table, however the data is a folder"
        )
    first, inside = train_and_test(folder)
    listing = list_folder(first)
    later = None
    if test is not None or inside is not None:
        later = list_folder(_existing(test) if test is not None else folder / "test")
    return _load_pictures(listing, later, recipe, str(folder.absolute()), cache, progress)


def _load_pictures(
    first: Listing,
    later: Listing | None,
    recipe: DataRecipe,
    source: str,
    cache: Path | None,
    progress: Progress | None,
) -> Dataset:
    labels = list(first.labels or ())
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise AyatoriError(f"pictures must be of at least two classes, however all are '{classes[0]}'")
    files, names = list(first.files), list(first.names)
    if later is not None:
        labels += _test_labels(later, classes)
        files += later.files
        names += later.names
    store = read_pictures(files, names, recipe, len(first.files), cache=cache, progress=progress)
    place = {name: code for code, name in enumerate(classes)}
    schema = Schema(
        "pictures", "classification", classes, image=(store.image.shape[1], *store.image.shape[2:])
    )
    rows = Rows(
        {"image": store.image},
        np.array([place[labels[at]] for at in store.kept], dtype=np.int64),
        np.array([names[at] for at in store.kept]),
        notes=(f"classification: {len(classes)} classes, one per folder", *first.notes, *store.notes),
    )
    dataset = _dataset(rows, schema, None, source)
    if later is None:
        return dataset
    return dataclasses.replace(dataset, fixed_test=store.kept >= len(first.files))


def _test_labels(later: Listing, classes: Sequence[str]) -> list[str]:
    unknown = sorted(set(later.labels or ("",)) - set(classes))
    if unknown:
        raise AyatoriError(
            f"every class of the test must be among the other pictures, however '{unknown[0]}' is only in the test"
        )
    return list(later.labels or ())


def _folder_like(folder: Path, schema: Schema, need_target: bool, cache: Path | None) -> Rows:
    if schema.image is None:
        raise SchemaError(
            "the rows must be a table like the one the model learned from, however they are a folder"
        )
    listing = list_folder(folder, need_classes=need_target)
    store = read_pictures(listing.files, listing.names, DataRecipe(), 0, schema.image, cache)
    labels = [listing.labels[at] for at in store.kept] if listing.labels else []
    place = {name: code for code, name in enumerate(schema.classes)}
    known = bool(labels) and set(labels) <= set(place)
    if need_target and not known:
        raise SchemaError(
            f"every class must be one of {', '.join(schema.classes[:8])}, however others were found"
        )
    codes = np.array([place[label] for label in labels], dtype=np.int64) if known else None
    ids = np.array([listing.names[at] for at in store.kept])
    return Rows({"image": store.image}, codes, ids, notes=(*listing.notes, *store.notes))


def _dataset(rows: Rows, schema: Schema, later: Rows | None, source: str) -> Dataset:
    """Join development and test rows to a Dataset."""
    fixed_test = None
    if later is not None:
        fixed_test = np.arange(len(rows.ids) + len(later.ids)) >= len(rows.ids)
        rows = _joined(rows, later)
    groups = None if rows.groups is None else np.unique(rows.groups, return_inverse=True)[1].astype(np.int64)
    dataset = Dataset(
        inputs=rows.inputs,
        target=rows.target,
        schema=schema,
        ids=rows.ids,
        groups=groups,
        order=rows.order,
        fixed_test=fixed_test,
        source=source,
        notes=rows.notes,
    )
    return dataclasses.replace(dataset, fingerprint=_fingerprint(dataset, rows.groups))


def _joined(first: Rows, later: Rows) -> Rows:
    def both(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        return None if a is None or b is None else np.concatenate([a, b])

    return Rows(
        {name: np.concatenate([values, later.inputs[name]]) for name, values in first.inputs.items()},
        both(first.target, later.target),
        np.concatenate([first.ids, later.ids]),
        both(first.groups, later.groups),
        both(first.order, later.order),
        (*first.notes, *(f"test: {note}" for note in later.notes)),
    )


def _fingerprint(dataset: Dataset, groups: np.ndarray | None) -> str:
    """A hash of every value: inputs, target, names of rows, groups, time, and the schema."""
    digest = blake2b(digest_size=16)
    digest.update(repr(dataset.schema).encode())
    for name, values in sorted(dataset.inputs.items()):
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        step = max(1, 2**24 // max(1, values[:1].nbytes))
        for start in range(0, len(values), step):
            digest.update(np.ascontiguousarray(values[start : start + step]))
    for part in (dataset.target, dataset.order, dataset.fixed_test):
        digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
    for text in (dataset.ids, groups):
        digest.update(b"-" if text is None else "\0".join(text.tolist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
