"""Stage 1m. A folder of text files, a class in each subfolder -> a table with a text in each row."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ayatori.data.columns import RawColumn, text_of
from ayatori.data.files import open_table
from ayatori.data.listing import Listing, list_folder, list_one
from ayatori.data.paths import is_text
from ayatori.data.rows import Rows
from ayatori.data.table import read_table
from ayatori.data.table_like import read_table_like
from ayatori.data.words import Progress
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Schema

FILE, TEXT = "file", "text"  # columns of the table
GROUPS, TIME = "group", "time"
LONGEST = 1 << 20  # bytes that are read of a file
OTHERWISE = "cp1252"  # how files are read that are no UTF-8


def load_texts(
    listing: Listing, later: Listing | None, recipe: DataRecipe, progress: Progress | None = None
) -> tuple[Rows, Schema, Rows | None]:
    """Read development texts and decide their schema; then those of the test ``later``, if any."""
    if listing.target is None:
        raise AyatoriError("texts must have a class, however they carry none; put them in a folder for each")
    if listing.folders and len(words := listing.target[0].words) < 2:
        raise AyatoriError(
            "there must be two folders of texts or more, one for each class, however only "
            f"'{words[0]}' has texts"
        )
    name = listing.target[0].name
    asked = dataclasses.replace(
        recipe,
        target=name,
        ids=FILE,
        groups=GROUPS if listing.groups is not None else "",
        time=TIME if listing.order is not None else "",
        texts=(TEXT,),
        encoding="",
    )
    table, said = _table(listing, recipe.encoding)
    rows, schema = read_table(open_table(table), asked, progress=progress)
    schema = dataclasses.replace(schema, encoding=recipe.encoding)
    rows = dataclasses.replace(rows, notes=(*listing.notes, *said, *rows.notes))
    if later is None:
        return rows, schema, None
    table, said = _table(later, recipe.encoding)
    tested = read_table_like(open_table(table), schema, True, FILE, asked.groups, asked.time)
    return rows, schema, dataclasses.replace(tested, notes=(*later.notes, *said, *tested.notes))


def texts_like(path: Path | None, schema: Schema) -> pa.Table | None:
    """A folder of text files, or one, as a table for a model that learned from such; None for others."""
    if path is None or set(schema.texts) != {TEXT} or schema.id_column != FILE:
        return None
    if not path.is_dir() and not is_text(str(path)):
        return None
    listing = list_folder(path, need_classes=False) if path.is_dir() else list_one(path)
    return _table(listing, schema.encoding)[0]


def _table(listing: Listing, encoding: str) -> tuple[pa.Table, list[str]]:
    """A row for each file, and what is said of how they were read."""
    found, read_as = [], Counter[str]()
    for path in listing.files:
        text, how = read_text(path, encoding)
        found.append(text)
        read_as[how] += 1
    columns: dict[str, Sequence[str | None] | pa.Array] = {FILE: listing.ids.tolist(), TEXT: found}
    for column in listing.target or ():
        columns[column.name] = _words(column)
    if listing.groups is not None:
        columns[GROUPS] = listing.groups.tolist()
    if listing.order is not None:
        columns[TIME] = pa.array(listing.order)
    notes = []
    if others := read_as[OTHERWISE]:
        notes.append(
            f"{others} of {len(found)} files are no UTF-8: they are read as {OTHERWISE} (--encoding)"
        )
    if not any(text.strip() for text in found):
        raise AyatoriError(f"the files must hold text, however all {len(found)} are empty")
    if empty := sum(not text.strip() for text in found):
        notes.append(f"{empty} of {len(found)} files hold no text")
    return pa.table(columns), notes


def _words(column: RawColumn) -> list[str | None]:
    if column.kind == "text":
        return [None if code < 0 else column.words[code] for code in column.values]
    return [None if value != value else text_of(value) for value in column.values]


def read_text(path: str | Path, encoding: str = "") -> tuple[str, str]:
    """The text of a file, and how it was read: as UTF-8, by the mark it begins with, or as ``encoding``."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LONGEST)
    except OSError as error:
        raise AyatoriError(f"'{path}' must be readable, however: {error.strerror}") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace"), "utf-16"
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if len(raw) == LONGEST and error.start > LONGEST - 4:  # the last letter is cut
            return raw[: error.start].decode("utf-8-sig"), "utf-8"
    how = encoding or OTHERWISE
    try:
        return raw.decode(how, "replace"), how
    except LookupError:
        raise AyatoriError(f"`encoding` must be one that Python knows, however: {encoding!r}") from None
