"""Stage 1c. A column of lists of labels, such as tags -> a column of yes and no for each label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ayatori.data.files import TableSource
from ayatori.data.paths import is_media
from ayatori.data.table import default_target
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

SIGNS = ("|", ";", ",", " ")  # what parts labels in a text, the first that occurs
MOST_LABELS = 1000


def labels_apart(opened: TableSource, recipe: DataRecipe) -> tuple[TableSource, DataRecipe]:
    """The table and the recipe with the labels of the target's lists as targets, or as they are.

    Lists are Arrow's, or a DataFrame's; with task "multilabel" also texts, such as ``red|blue``. A row
    without a list has no target, one with an empty list no label.
    """
    targets = (recipe.target,) if isinstance(recipe.target, str) else recipe.target
    if len(targets) > 1 or recipe.task not in ("auto", "multilabel"):
        return opened, recipe
    files = {name for name, values in opened.sample().items() if values and all(map(is_media, values))}
    name = targets[0] if any(targets) else default_target(opened, recipe, files, [])[0]
    if name not in opened.names or (name not in opened.tags and recipe.task != "multilabel"):
        return opened, recipe
    values = opened.read([name], [name])[name]
    if name not in opened.tags and not _is_text(values.type):
        return opened, recipe
    lists = _lists(values)
    labels = sorted({label for label in pc.unique(pc.list_flatten(lists)).to_pylist() if label})
    if not 0 < len(labels) <= MOST_LABELS:
        raise AyatoriError(
            f"the lists of column '{name}' must hold up to {MOST_LABELS:,} labels, however they hold "
            f"{len(labels):,}; choose another --target"
        )
    each = _matrix(lists, labels)[0].sum() / max(1, len(lists) - lists.null_count)
    note = f"column '{name}' holds lists of labels, {each:.2g} a row on average"
    apart = _apart(opened, name, labels)
    targets = tuple(map(_called(opened, name), labels))
    apart = dataclasses.replace(apart, notes=(*opened.notes, note))
    return apart, dataclasses.replace(recipe, target=targets, task="multilabel")


def labels_like(opened: TableSource, target: Sequence[str], strict: bool = True) -> TableSource:
    """The table with the columns ``target``, if one of its columns holds lists of such labels.

    Raises AyatoriError where it is ``strict`` and they hold others, too.
    """
    if set(target) <= set(opened.names) or (len(target) < 2 and not opened.tags):
        return opened
    for name in dict.fromkeys([*opened.tags, *opened.sample()]):
        called = _called(opened, name)
        known = {called(label): label for label in target} | {label: label for label in target}
        values = opened.read([name], [name])[name]
        there = {label for label in pc.unique(pc.list_flatten(_lists(values))).to_pylist() if label}
        shown = {label for label in there if called(label) in target}
        if shown and 2 * len(shown) > len(there):
            prefix = f"{name}: "
            labels = [known[label].removeprefix(prefix) if label not in there else label for label in target]
            if strict and (more := sorted(there - set(labels))):
                raise AyatoriError(
                    f"the labels of the test must be among those that are learned, however '{more[0]}' is not"
                )
            return _apart(opened, name, labels)
    return opened


def _called(opened: TableSource, column: str) -> Callable[[str], str]:
    """How the column of a label is called: by the label, unless another column is."""
    others = set(opened.names) - {column}
    return lambda label: f"{column}: {label}" if label in others else label


def _apart(opened: TableSource, column: str, labels: Sequence[str]) -> TableSource:
    called = _called(opened, column)
    place = {called(label): at for at, label in enumerate(labels)}

    def read(columns: Sequence[str], text: Collection[str]) -> pa.Table:
        own = [name for name in columns if name not in place]
        asked = [*own, column] if len(own) < len(columns) else own
        table = opened.read(asked, {*(name for name in text if name not in place), column})
        if len(own) == len(columns):
            return table
        there, missing = _matrix(_lists(table[column]), labels)
        arrays = [
            table[name] if name in own else pa.array(there[:, place[name]], mask=missing) for name in columns
        ]
        return pa.table(arrays, names=list(columns))

    names = (*(name for name in opened.names if name != column), *place)
    sample = opened.sample
    return dataclasses.replace(
        opened,
        names=names,
        read=read,
        sample=lambda: {name: values for name, values in sample().items() if name != column},
        stream=None,
        tags=(),
    )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _lists(values: pa.ChunkedArray) -> pa.Array:
    """Lists of labels as text; a text is parted by the first of SIGNS that any of them has."""
    whole = values.combine_chunks()
    if pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type):
        return whole.cast(pa.list_(pa.string()))
    plain = pc.replace_substring_regex(whole.cast(pa.string()), r"""[\[\]'"]""", "")
    sign = next((sign for sign in SIGNS if pc.any(pc.match_substring(plain, sign)).as_py()), SIGNS[0])
    lists = pc.split_pattern(plain, sign)
    trimmed = pc.utf8_trim_whitespace(lists.values)
    return pa.ListArray.from_arrays(lists.offsets, trimmed, mask=pc.is_null(plain))


def _matrix(lists: pa.Array, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) bool: which row has which label; (n,) bool: rows without a list."""
    there = np.zeros((len(lists), len(labels)), bool)
    codes = pc.index_in(pc.list_flatten(lists), pa.array(labels, pa.string()))
    known = np.asarray(pc.is_valid(codes))
    rows = np.asarray(pc.list_parent_indices(lists))
    there[rows[known], np.asarray(codes.drop_null())] = True
    return there, np.asarray(pc.is_null(lists))
