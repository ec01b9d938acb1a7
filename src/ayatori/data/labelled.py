"""Stage 1g. Listed files -> pictures or series with their target; broken ones are left out of all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ayatori.data import target as targets
from ayatori.data.beside import beside_like, read_beside
from ayatori.data.listing import Listing, with_patients
from ayatori.data.made import made
from ayatori.data.paths import kind_of
from ayatori.data.pictures import Progress, called_by, read_pictures, recipe_like
from ayatori.data.rows import Rows, make_dataset
from ayatori.data.series_files import read_series_files
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset, Schema, SchemaError


def load_listed(
    first: Listing,
    later: Listing | None,
    recipe: DataRecipe,
    source: str,
    cache: Path | None,
    progress: Progress | None,
) -> Dataset:
    """Development files ``first``, then those of the fixed test, in one store."""
    files = first.files + (later.files if later else [])
    ids = np.concatenate([first.ids, later.ids]) if later else first.ids
    _label(
        first, later, recipe, np.arange(len(files))
    )  # what is wrong with the labels is said before reading
    if first.groups is None:
        first, later = with_patients(first, later)
    inputs, kept, said, how = _read(files, ids, recipe, len(first.files), cache, progress)
    kind, target = _label(first, later, recipe, kept)
    schema = Schema(
        task=kind.task,
        classes=kind.classes,
        target=() if first.folders else tuple(column.name for column in first.target or ()),
        id_column=recipe.ids or None,
        ignored=recipe.drop,
        log=kind.log,
        encoding=recipe.encoding,
        **how,
    )
    beside = read_beside(first, later, kept, schema, recipe.texts)
    schema = dataclasses.replace(schema, **beside.facts)
    rows = Rows(
        {**inputs, **beside.inputs},
        target,
        ids[kept],
        _both(first.groups, later.groups if later else None, kept),
        _both(first.order, later.order if later else None, kept),
        (
            f"classification: {len(kind.classes)} classes, one per folder" if first.folders else kind.note,
            *first.notes,
            *(f"test: {note}" for note in (later.notes if later else ())),
            *said,
            *beside.notes,
        ),
        beside.begins,
    )
    tested = kept >= len(first.files) if later else None
    dataset = make_dataset(rows, schema, source=source, tested=tested)
    return dataclasses.replace(dataset, made=made([files[row] for row in kept.tolist()]))


def _read(
    files: list[str],
    ids: np.ndarray,
    recipe: DataRecipe,
    decide_on: int,
    cache: Path | None,
    progress: Progress | None,
) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[str, ...], dict[str, Any]]:
    """Inputs of the files that can be read, which they are, what is said of it, and how they are read."""
    if kind_of(files) == "series":
        found = read_series_files(files, ids, recipe, decide_on, progress=progress)
        return {"series": found.series}, found.kept, found.notes, {"kind": "series"} | found.schema
    if recipe.series_steps:
        raise AyatoriError(f"series_steps is for series, however these are {kind_of(files)}")
    store = read_pictures(files, ids.tolist(), recipe, decide_on, cache=cache, progress=progress)
    how = {
        "kind": f"{called_by(store.recipe)}s",
        "image": store.image.shape[1:],
        "crop": recipe.crop,
        "resample": recipe.resample,
        "sound_seconds": store.recipe.sound_seconds,
        "sound_hertz": store.recipe.sound_hertz,
        "slices": bool(store.recipe.scan_window),
        "scan_window": store.recipe.scan_window,
        "scan_mm": store.recipe.scan_mm,
        "bits": store.recipe.bits,
    }
    return {"image": store.image}, store.kept, store.notes, how


def _both(first: np.ndarray | None, later: np.ndarray | None, kept: np.ndarray) -> np.ndarray | None:
    if first is None:
        return None
    return (first if later is None else np.concatenate([first, later]))[kept]


def _label(
    first: Listing, later: Listing | None, recipe: DataRecipe, kept: np.ndarray
) -> tuple[targets.TargetKind, np.ndarray]:
    """The task that the development rows among ``kept`` ask for, and the target of all of them."""
    rows = len(first.files)
    columns = [column.take(kept[kept < rows]) for column in first.target or ()]
    if first.folders and len(columns[0].words) < 2:
        only = f"only '{columns[0].words[0]}' has" if columns[0].words else "none has"
        what = kind_of(first.files)
        raise AyatoriError(
            f"there must be two folders of {what} or more, one for each class, however {only} {what} that "
            "can be read"
        )
    kind = targets.decide(columns, recipe.task, recipe.log_target)
    encoded = targets.encode(columns, kind.task, kind.classes, kind.log)
    if later is None:
        return kind, encoded
    tested = [column.take(kept[kept >= rows] - rows) for column in later.target or ()]
    if not tested or not len(tested[0].values):
        raise AyatoriError(
            f"the test must hold labelled {kind_of(first.files)}, however it has none that can be read"
        )
    return kind, np.concatenate([encoded, targets.encode(tested, kind.task, kind.classes, kind.log)])


def read_listed_like(
    listing: Listing, schema: Schema, need_target: bool, cache: Path | None, progress: Progress | None
) -> Rows:
    """Read files by the schema of others."""
    if schema.image is None:
        found = read_series_files(listing.files, listing.ids, DataRecipe(), 0, schema, progress)
        inputs, kept, said = {"series": found.series}, found.kept, found.notes
    else:
        recipe = recipe_like(schema)
        store = read_pictures(listing.files, listing.ids.tolist(), recipe, 0, schema.image, cache, progress)
        inputs, kept, said = {"image": store.image}, store.kept, store.notes
    beside = beside_like(listing, schema, kept)
    named = listing.folders and bool(schema.target)  # folders that are no classes
    columns = [column.take(kept) for column in listing.target or () if not named]
    target, notes = None, [*listing.notes, *said]
    try:
        if columns and not targets.missing_rows(columns).any():
            target = targets.encode(columns, schema.task, schema.classes, schema.log)
    except AyatoriError as error:
        if need_target:
            raise SchemaError(str(error)) from None
        notes.append(f"the target is not read: {error}")
    if need_target and target is None:
        raise SchemaError(f"the {schema.kind} must have a target, however they carry none")
    inputs = {**inputs, **beside.inputs}
    return Rows(inputs, target, listing.ids[kept], notes=tuple(notes), begins=beside.begins)
