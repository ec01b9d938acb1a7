"""Stage 1g. Columns of a table that names files -> what is learned beside the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ayatori.data.listing import Listing
from ayatori.data.table import read_features
from ayatori.data.table_like import inputs_like, plain_numbers, read_texts_like
from ayatori.data.words import beginnings
from ayatori.records import Schema, SchemaError


@dataclass(frozen=True)
class Beside:
    """Inputs (n, ...) of the columns, what a schema holds of them, and what is said of them."""

    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    begins: np.ndarray | None = None


def read_beside(
    first: Listing, later: Listing | None, kept: np.ndarray, plain: Schema, texts: tuple[str, ...]
) -> Beside:
    """The columns of the files ``kept`` (n,), of which the development rows alone decide how they are read.

    ``plain``: the schema of the rows without columns; ``texts``: columns that are texts, however short.
    """
    if first.beside is None:
        return Beside()
    own = kept[kept < len(first.files)]
    table = first.beside.take(pa.array(own))
    wanted = tuple(name for name in texts if name in table.column_names)
    found = read_features([(name, table[name]) for name in table.column_names], own, wanted)
    facts = found.facts()
    inputs, begins = found.inputs(len(own)), beginnings(found.texts)
    if later is not None:
        schema = Schema(**{**vars(plain), **facts})
        more = beside_like(later, schema, kept[kept >= len(first.files)] - len(first.files))
        inputs = {name: np.concatenate([values, more.inputs[name]]) for name, values in inputs.items()}
        if begins is not None and more.begins is not None:
            begins = np.concatenate([begins, more.begins])
    facts["ignored"] = (*plain.ignored, *found.ignored)
    return Beside(inputs, facts, tuple(found.notes), begins)


def beside_like(listing: Listing, schema: Schema, kept: np.ndarray) -> Beside:
    """The columns of the files ``kept`` (n,), by the schema of others."""
    if not names_beside(schema):
        return Beside()
    assert listing.beside is not None  # see ``check_beside``
    table = listing.beside.take(pa.array(kept))
    return Beside(inputs_like(table, schema, kept), begins=beginnings(read_texts_like(table, schema)))


def names_beside(schema: Schema) -> tuple[str, ...]:
    """The columns that a model of files looks at beside them."""
    if schema.kind in ("table", "arrays") or schema.columns:
        return ()
    return (*plain_numbers(schema), *schema.dates, *schema.categories, *schema.texts)


def check_beside(listing: Listing, schema: Schema, name: str) -> None:
    """Raise SchemaError where files come without the columns that a model looks at beside them."""
    wanted = names_beside(schema)
    if wanted and listing.beside is None:
        raise SchemaError(
            f"the {schema.kind} must come with the columns {', '.join(wanted[:5])}"
            f"{' ...' if len(wanted) > 5 else ''} that the model looks at beside them, however '{name}' "
            "is no table; give a table that names them"
        )
