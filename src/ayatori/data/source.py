"""Stage 1. Anything that holds labelled rows -> Dataset.

``load`` decides how rows are read, on the development rows alone; ``load_like`` reads more rows that way.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.archives import archive_of, unpacked
from ayatori.data import arrays
from ayatori.data.beside import check_beside, names_beside
from ayatori.data.files import TableSource, open_table
from ayatori.data.label_lists import labels_apart, labels_like
from ayatori.data.labelled import load_listed, read_listed_like
from ayatori.data.list_columns import drop_lists
from ayatori.data.listing import (
    Listing,
    list_folder,
    list_labelled,
    list_one,
    list_table,
    list_test,
)
from ayatori.data.own_test import part
from ayatori.data.paths import is_media, is_steps, kind_of, named_pictures
from ayatori.data.pictures import Progress
from ayatori.data.rare import without_rare
from ayatori.data.rows import Rows, make_dataset
from ayatori.data.series import holds_series, load_series, load_series_like, measured_whole
from ayatori.data.table import no_columns, read_table
from ayatori.data.table_like import ids_like, read_table_like
from ayatori.data.text_files import load_texts, texts_like
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset, Schema, SchemaError


def load(
    data: Any,
    y: Any = None,
    recipe: DataRecipe | None = None,
    *,
    target: str | tuple[str, ...] = "",
    test: str | Path | None = None,
    blind: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read labelled rows: a table, a folder of pictures, recordings, scans or texts, arrays, a torch Dataset.

    A path may be, or lead into, a ZIP or tar archive (see ``ayatori.archives.unpacked``).

    ``y``: the target of arrays or of a DataFrame, (n,) or (n, values). ``target``: the column (or columns) of
    a table that hold it; short for ``recipe=DataRecipe(target=...)``. ``test``: a file or folder of rows
    for the sealed test, or ``column=value`` of a table (a column that says train and test is found); they
    come last, ``fixed_test`` marks them, and nothing is decided on them.
    ``blind``: nobody will read their labels, so that a table of them may have none (zeros stand for them).
    ``cache``: where decoded pictures are written when they outgrow ``recipe.memory_gb``.
    ``progress(done, total)`` is called while pictures are decoded.

    Raises AyatoriError with one sentence on rows that cannot be read as they should.

    >>> import numpy as np
    >>> dataset = load(np.arange(40.0).reshape(20, 2), y=["cat", "dog"] * 10)
    >>> len(dataset), dataset.task, dataset.classes, dataset.inputs["numbers"].shape
    (20, 'classification', ('cat', 'dog'), (20, 2))
    """
    recipe = recipe or DataRecipe()
    if target:
        recipe = dataclasses.replace(recipe, target=target)
    dataset = without_rare(_load(data, y, recipe, test, blind, cache, progress), recipe.rarest, blind)
    if isinstance(data, str | Path) and (archive := archive_of(Path(data))):
        note = f"unpacked from '{archive.name}': '{dataset.source}'"
        dataset = dataclasses.replace(dataset, notes=(note, *dataset.notes))
    return dataset


def _load(
    data: Any,
    y: Any,
    recipe: DataRecipe,
    test: str | Path | None,
    blind: bool,
    cache: Path | None,
    progress: Progress | None,
) -> Dataset:
    path = unpacked(data, progress) if isinstance(data, str | Path) else None
    data = framed(data)
    source = "" if path is None else str(path.absolute())
    if path is not None and path.is_dir():
        if recipe.series:
            raise AyatoriError(
                f"`series` says how a table holds series, however '{path}' is a folder, a file for each; "
                "leave it out"
            )
        listing, later = list_labelled(path, recipe)
        if test is not None:
            later = list_test(test, listing, recipe)
        if kind_of(listing.files) == "texts":
            return make_dataset(*load_texts(listing, later, recipe, progress), source)
        return load_listed(listing, later, recipe, source, cache, progress)
    if holds_series(path, recipe) and is_table(data, path):
        rows, schema = load_series(data, path, recipe, _given_target(data, y, recipe))
        return make_dataset(rows, schema, None if test is None else _read_test(test, schema, recipe), source)
    if path is not None and path.suffix.lower() == ".npz":
        rows, schema, within = _read_npz(path, recipe, y)
        return make_dataset(
            rows, schema, within if test is None else _read_test(test, schema, recipe), source
        )
    if is_table(data, path):
        opened, own = open_table(path or data, recipe.encoding), None
        recipe = dataclasses.replace(recipe, drop=drop_lists(recipe.drop, opened.lists))
        if y is None:
            opened, own = part(opened, recipe, test)
            opened, recipe = labels_apart(opened, recipe)
        later_rows = own or test
        named = named_pictures(opened, recipe) if y is None else None
        if named and named.sure:
            listing = list_table(opened, named, recipe, None)
            later = None if later_rows is None else list_test(later_rows, listing, recipe)
            return load_listed(listing, later, recipe, source, cache, progress)
        if recipe.beside:
            raise AyatoriError(
                "`beside` names columns beside files, however no column of the table is known to name files; "
                "leave it out, or name the folder of the files as `pictures`"
            )
        rows, schema = read_table(opened, recipe, _given_target(data, y, recipe), progress)
        if named:
            note = f"column '{named.column}' names files; to learn from them: --pictures '{named.folder}'"
            rows = dataclasses.replace(rows, notes=(*rows.notes, note))
    else:
        rows, schema = _read_arrays(data, y, recipe)
        later_rows = test
    sealed = None if later_rows is None else _read_test(later_rows, schema, recipe, blind)
    return make_dataset(rows, schema, sealed, source)


def load_like(
    data: Any,
    schema: Schema,
    need_target: bool = False,
    y: Any = None,
    ids: str = "",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read rows in the way that ``schema`` says, for a model that learned from others.

    Columns that the schema does not know are ignored; categories it does not know become -1. The target
    is read where it is there and known, else it is ``None``; with ``need_target`` it must be there.
    ``ids``: a column that names the rows. ``y``, ``cache``, ``progress``: as in ``load``.

    Raises SchemaError with one sentence where the rows do not fit.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"size": [1.5, 2.5, 0.5, 4.0], "kind": ["a", "b", "a", "b"]})
    >>> trained = load(frame, target="kind")
    >>> load_like(pd.DataFrame({"size": [3.0], "other": ["x"]}), trained.schema).inputs["numbers"]
    array([[3.]])
    """
    path = unpacked(data, progress) if isinstance(data, str | Path) else None
    if (table := texts_like(path, schema)) is not None:
        data, path = table, None
    data = framed(data)
    listing = listing_like(data, path, schema, need_target, ids)
    if listing is not None:
        rows = read_listed_like(listing, schema, need_target, cache, progress)
    elif schema.kind == "series" and is_table(data, path):
        rows = load_series_like(data, path, schema, need_target and y is None, ids)
        rows = rows if y is None else arrays.with_target(rows, y, schema)
    elif path is not None and path.suffix.lower() == ".npz":
        found = arrays.read_npz(path)
        y = found.get("y") if y is None else y
        rows = arrays.read_arrays_like(found["X"], y, schema, need_target, found.get("ids"))
    elif is_table(data, path):
        opened = open_table(path or data, schema.encoding)
        opened = labels_like(opened, schema.target, need_target) if schema.task == "multilabel" else opened
        rows = read_table_like(opened, schema, need_target and y is None, ids)
        rows = rows if y is None else arrays.with_target(rows, y, schema)
    else:
        values, y = arrays.from_torch_dataset(data) if arrays.is_torch_dataset(data) else (data, y)
        rows = arrays.read_arrays_like(values, y, schema, need_target)
    return make_dataset(rows, schema, source="" if path is None else str(path.absolute()))


def listing_like(
    data: Any, path: Path | None, schema: Schema, need_target: bool = False, ids: str = ""
) -> Listing | None:
    """The pictures that new rows are: a folder, a file, or a table of paths; None where they are not."""
    listed = schema.image is not None or (schema.kind == "series" and not schema.columns and not schema.by)
    one = path is not None and (is_media(path.name) or (schema.kind == "series" and is_steps(path.name)))
    if path is not None and one and listed and schema.image is None:
        named = named_pictures(open_table(path, schema.encoding, bare=True), DataRecipe())
        one = named is None or not named.sure
    if path is not None and (path.is_dir() or (one and listed)):
        if not listed:
            raise SchemaError(f"the rows must be a table like those learned from, however '{path}' is not")
        alone = (
            list_folder(path, need_target, scans=schema.kind == "scans") if path.is_dir() else list_one(path)
        )
        check_beside(alone, schema, path.name)
        return alone
    if not listed or not is_table(data, path) or measured_whole(path):
        return None
    opened = open_table(path or data, schema.encoding)
    beside = names_beside(schema)
    recipe = DataRecipe(target=schema.target, ids=ids_like(opened, schema, ids), beside=beside)
    named = named_pictures(opened, recipe, known=True)
    words = {*schema.categories, *schema.texts}
    return None if named is None else list_table(opened, named, recipe, schema.target, need_target, words)


def framed(data: Any) -> Any:
    """Arrays of text or of mixed kinds are tables."""
    frame = arrays.mixed_frame(data) if isinstance(data, np.ndarray | list) else None
    return data if frame is None else frame


def is_table(data: Any, path: Path | None) -> bool:
    if path is not None:
        return path.suffix.lower() != ".npz"
    return isinstance(data, pd.DataFrame) or hasattr(data, "__arrow_c_stream__")


def _read_arrays(data: Any, y: Any, recipe: DataRecipe) -> tuple[Rows, Schema]:
    no_columns(recipe, "the data are arrays")
    _no_steps(recipe)
    task: str = recipe.task
    if arrays.is_torch_dataset(data):
        data, y = arrays.from_torch_dataset(data)
        if task == "auto" and all(isinstance(label, int) for label in y):
            task = "classification"  # where torch means a value, it gives a float
    if y is None:
        raise AyatoriError("arrays must come with a target, however y is missing; call load(X, y=y)")
    return arrays.read_arrays(data, y, task, log=recipe.log_target, series=bool(recipe.series))


def _no_steps(recipe: DataRecipe) -> None:
    if recipe.series_steps:
        raise AyatoriError(
            "`series_steps` averages series of files and tables, however these are arrays; leave it out, and "
            "average them first"
        )


def _given_target(data: Any, y: Any, recipe: DataRecipe) -> list[Any] | None:
    if y is None:
        return None
    if recipe.target:
        raise AyatoriError(f"the target must be given once, however there are y and target='{recipe.target}'")
    return arrays.target_columns(y, len(y) if isinstance(data, str | Path) else len(data))


def _read_npz(path: Path, recipe: DataRecipe, y: Any) -> tuple[Rows, Schema, Rows | None]:
    no_columns(recipe, f"'{path}' holds arrays")
    _no_steps(recipe)
    found = arrays.read_npz(path)
    if y is None and "y" not in found:
        raise AyatoriError(f"'{path}' must hold a target 'y', however it holds only {', '.join(found)}")
    if ("X_test" in found) != ("y_test" in found):
        raise AyatoriError(
            f"'{path}' must hold 'X_test' and 'y_test' or neither, however it holds one of them"
        )
    y = found["y"] if y is None else y
    rows, schema = arrays.read_arrays(
        found["X"],
        y,
        recipe.task,
        found.get("ids"),
        found.get("groups"),
        recipe.log_target,
        bool(recipe.series),
    )
    later = None
    if "X_test" in found:
        later = arrays.read_arrays_like(found["X_test"], found["y_test"], schema, True)
    return rows, schema, later


def _read_test(
    test: str | Path | TableSource, schema: Schema, recipe: DataRecipe, blind: bool = False
) -> Rows:
    if isinstance(test, TableSource):
        test = labels_like(test, schema.target)
        return read_table_like(test, schema, True, groups=recipe.groups, time=recipe.time)
    path = unpacked(test)
    if path.is_dir():
        raise AyatoriError(f"the test '{path}' must be a file like the other rows, however it is a folder")
    if path.suffix.lower() == ".npz":
        found = arrays.read_npz(path)
        return arrays.read_arrays_like(found["X"], found.get("y"), schema, True, found.get("ids"))
    if schema.kind == "series":
        return load_series_like(path, path, schema, True, groups=recipe.groups, time=recipe.time)
    opened = labels_like(open_table(path, recipe.encoding), schema.target)
    blind = blind and not set(schema.target) & set(opened.names)
    rows = read_table_like(opened, schema, not blind, groups=recipe.groups, time=recipe.time)
    if not blind:
        return rows
    note = f"the {len(rows.ids):,} test rows have no labels: they are compared with the others, no more"
    return dataclasses.replace(rows, target=_unknown(len(rows.ids), schema), notes=(*rows.notes, note))


def _unknown(rows: int, schema: Schema) -> np.ndarray:
    """What stands for labels that nobody may read."""
    if schema.task == "classification":
        return np.zeros(rows, np.int64)
    if schema.task == "multilabel":
        return np.zeros((rows, len(schema.classes)), np.float32)
    return np.zeros((rows, len(schema.target)))
