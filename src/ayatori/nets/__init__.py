"""Stage 4. A recipe and the sizes of a member's rows -> its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from torch import nn

from ayatori.nets.beside import (
    has_beside,
    measure_beside,
    of_files,
    stand_beside,
    voices_of,
)
from ayatori.nets.dropout import global_chance, seed_globally
from ayatori.nets.features import (
    HEADS,
    TUNED,
    WHOLE,
    begin,
    build_features,
    feature_defaults,
    head_state,
    measure_features,
    options_beside,
    tuned_options,
)
from ayatori.nets.network import NetSpec, Network, activation, lay_out
from ayatori.nets.own import build_own, find_factory
from ayatori.nets.pictures import build_pictures, measure_pictures, picture_defaults
from ayatori.nets.series import SERIES_NETS, build_series, measure_series, series_defaults
from ayatori.nets.table import build_table, measure_table, table_defaults
from ayatori.nets.traits import Traits, convolves, find_traits
from ayatori.recipe import NetRecipe, nearest
from ayatori.records import AyatoriError, Dataset, Schema, Task

__all__ = [
    "HEADS",
    "TUNED",
    "WHOLE",
    "NetSpec",
    "Network",
    "Traits",
    "activation",
    "build",
    "convolves",
    "defaults",
    "find_net",
    "find_traits",
    "has_beside",
    "head_state",
    "kind_of",
    "lay_out",
    "measure",
    "options_beside",
    "reads",
    "rebuild",
    "tuned_options",
]

Kind = Literal["table", "texts", "image", "series", "features"]
NAMES: dict[Kind, tuple[str, ...]] = {
    "table": ("mlp", "linear"),
    "texts": ("linear", "mlp"),
    "image": ("cnn", "linear"),
    "series": SERIES_NETS,
    "features": (*HEADS, TUNED, WHOLE),
}
Own = Any  # a factory or a module of the user's, or None for a network of ours


def kind_of(dataset: Dataset) -> Kind:
    """What networks are made of these rows: on a pretrained network, pictures, series, a table."""
    if dataset.schema.source is not None:
        return "features"
    if "words" in dataset.inputs and len(dataset.inputs) == 1:
        return "texts"  # and nothing else: layers would have nothing to look at
    return "image" if "image" in dataset.inputs else "series" if "series" in dataset.inputs else "table"


def reads(net: str, inputs: Mapping[str, Any], beside: bool = False) -> tuple[str, ...]:
    """Names of the ``inputs`` that the network ``net`` looks at; ``beside``: also at columns beside files."""
    if "features" not in inputs:
        return tuple(inputs)
    heads = {name for name in inputs if name.startswith("features")}
    others = of_files(inputs).keys() if beside else inputs.keys()
    unseen = heads if net not in HEADS else others - heads
    return tuple(name for name in inputs if name not in unseen)


def find_net(recipe: NetRecipe, kind: Kind) -> tuple[str, Own]:
    """(name, the user's factory or module, if any) that ``recipe`` stands for."""
    if kind == "features" and (not isinstance(recipe.name, str) or ":" in recipe.name):
        raise AyatoriError(
            f"the head of a pretrained network must be {' or '.join(HEADS)}, however: {recipe.name!r}"
        )
    if not isinstance(recipe.name, str):
        named = recipe.name if hasattr(recipe.name, "__qualname__") else type(recipe.name)
        return f"{named.__module__}:{named.__qualname__}", recipe.name
    known = NAMES[kind]
    if recipe.name == "auto":
        return known[0], None
    if ":" in recipe.name:
        return recipe.name, find_factory(recipe.name)
    if recipe.name not in known:
        raise AyatoriError(
            f"net must be {', '.join(known)} or package:factory for this kind of data, "
            f"however: {recipe.name!r}{nearest(recipe.name, known)}"
        )
    return recipe.name, None


def measure(inputs: Mapping[str, np.ndarray], schema: Schema, features: float = 1.0) -> dict[str, Any]:
    """What the shape of a network depends on, from a member's own training rows.

    ``features``: the share of a table's columns that the member may look at.
    """
    beside = measure_beside(inputs, schema)
    if schema.source is not None:
        return measure_features(of_files(inputs) if beside else inputs, schema) | beside
    if "image" in inputs:
        return measure_pictures(inputs, schema) | beside
    if "series" in inputs:
        return measure_series(inputs) | beside
    return measure_table(inputs, schema) | ({"features": features} if features < 1 else {})


def build(
    recipe: NetRecipe, dataset: Dataset, sizes: Mapping[str, Any], seed: int, step: bool = False
) -> Network:
    """A fresh network, its weights drawn with ``seed``; global generators are left as found.

    ``step``: it will answer with logits as they are (or with values in the units of the target), to be
    added to what others say.
    """
    name, own = find_net(recipe, kind_of(dataset))
    outputs = len(dataset.classes) if dataset.task != "regression" else dataset.labels.shape[1]
    task: Task = "regression" if step else dataset.task
    spec = NetSpec(name, task, outputs, sizes, recipe.activation, dict(recipe.options))
    with global_chance():
        seed_globally(seed)
        network = rebuild(spec, own)
    begin(network, spec)
    if step and own is None:
        # it begins as no step at all, and has no noise to unlearn first
        for voice in voices_of(network):
            *_, last = (part for part in voice.modules() if isinstance(part, nn.Linear))
            for value in last.parameters():
                nn.init.zeros_(value)
    if "features" in sizes:
        network.front.hide(sizes["features"], seed)  # type: ignore[operator]
    return network


def rebuild(spec: NetSpec, own: Own = None) -> Network:
    """The network of ``spec``, its weights and statistics still to be loaded or fitted."""
    parts: tuple[nn.Module, nn.Module]
    if own is not None:
        parts = build_own(spec, own)
    elif "embedded" in spec.sizes or "source" in spec.sizes:
        parts = build_features(spec)
    elif "image" in spec.sizes:
        parts = build_pictures(spec)
    elif "series" in spec.sizes:
        parts = build_series(spec)
    else:
        parts = build_table(spec)
    return Network(*(stand_beside(parts, spec) if "beside" in spec.sizes else parts), spec)


def defaults(net: str, dataset: Dataset, rows: int, outputs: int, preset: str) -> dict[str, Any]:
    """How such a network is best trained, when a member has ``rows`` training rows."""
    task, image = dataset.task, dataset.schema.image
    if dataset.schema.source is not None:
        if net != WHOLE:
            return feature_defaults(task, rows, net, preset)
        image = tuple(dataset.schema.source["facts"]["image"])
    if image is not None:
        settings = picture_defaults(task, rows, image, outputs, preset)
        if dataset.schema.kind == "recordings" and settings["augment"] == "light":
            settings["augment"] = "sound"
        return settings | ({"keep_by_few": "last"} if net == "cnn" else {})
    if dataset.schema.series is not None:
        return series_defaults(task, rows, dataset.schema.series[1], preset) | {"keep_by_few": "last"}
    return table_defaults(task, rows, outputs, net if net in NAMES["table"] else "own", preset)
