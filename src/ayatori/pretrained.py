"""Stage 1b. Recipe -> the pretrained network, how it wants rows to be read, which networks stand on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from ayatori.data.twins import row_keys
from ayatori.embed import Frozen, dtype_on
from ayatori.nets import TUNED, WHOLE, find_net, tuned_options
from ayatori.nets.source import Source, find_source, inputs_for, learns_as_cnn, over_slices
from ayatori.recipe import PretrainedRecipe, Recipe, change, nearest
from ayatori.records import AyatoriError, Dataset

FINETUNE = ("none", "last", "all", "auto")
SLICES = 16  # of a scan that a network for pictures looks at
LAST = 1  # parts that "last" lets learn
KEYS = "rows.parquet"  # of a run: hashes of the rows that taught it
MOST_SEEN = 0.01  # share of rows that a source may know from its own training


def find_pretrained(recipe: Recipe) -> tuple[Recipe, Source | None]:
    """The source that a recipe names, and the recipe that reads rows as the source was trained to."""
    if not recipe.pretrained.name:
        if recipe.pretrained.finetune != "none":
            raise AyatoriError(
                f"`finetune` needs a pretrained network, however finetune={recipe.pretrained.finetune!r} and "
                "none is named; add --pretrained efficientnet_lite0"
            )
        return recipe, None
    last_parts(recipe.pretrained)
    source = find_source(recipe.pretrained.name)
    if source.facts["image"]:
        channels, side, _ = source.facts["image"]
        how = {"crop": source.facts["crop"], "resample": source.facts["resample"]}
        colour = "rgb" if channels == 3 else "grey"
        how |= {key: source.facts[key] for key in ("scan_window", "scan_mm") if source.facts.get(key)}
        recipe = change(recipe, "data", seen=side, colour=colour, **how)
    if Path(recipe.pretrained.name).exists():
        # a run can be resumed from another folder
        recipe = change(recipe, "pretrained", name=str(Path(recipe.pretrained.name).resolve()))
    return recipe, source


def as_seen(dataset: Dataset, source: Source) -> Source:
    """The source as it looks at these rows: where it knows pictures and they are scans, at their slices."""
    flat = source.facts["image"] and source.facts["image"][0] in (1, 3)
    return over_slices(source, SLICES) if flat and dataset.schema.slices else source


def source_name(recipe: Recipe) -> str:
    """What the pretrained network is called in a sentence: a name, or the end of a path."""
    name = recipe.pretrained.name
    return Path(name).name if "=" not in name and Path(name).exists() else name


def last_parts(recipe: PretrainedRecipe) -> int | None:
    """How many parts of the source learn on: 0 none, None all.

    >>> last_parts(PretrainedRecipe(finetune="last:3"))
    3
    """
    if recipe.finetune == "all":
        return None
    name, _, number = recipe.finetune.partition(":")
    if name not in FINETUNE or (number and name != "last"):
        raise AyatoriError(
            f"`finetune` must be none, last, last:N, all or auto, however: {recipe.finetune!r}"
            f"{nearest(name, FINETUNE)}"
        )
    if number and not (number.isdecimal() and int(number) > 0):
        raise AyatoriError(f"N of last:N must be a whole number above 0, however: {recipe.finetune!r}")
    return 0 if name == "none" else int(number or LAST)


def freeze(dataset: Dataset, source: Source, recipe: Recipe) -> tuple[Dataset, Frozen]:
    """The part that does not learn, and the dataset whose networks will stand on it."""
    learns = last_parts(recipe.pretrained)
    if learns not in (0, None):
        if not source.cuttable:
            raise AyatoriError(
                "--finetune last needs a network that is a chain of parts, however "
                f"{source.facts['name']!r} is none; use --finetune none or all"
            )
        if learns >= len(source.parts):
            raise AyatoriError(
                f"`finetune` must leave a part frozen, however {source.facts['name']!r} has "
                f"{len(source.parts)} parts and finetune={recipe.pretrained.finetune!r}; use --finetune all"
            )
    frozen = Frozen(source, None if learns == 0 else 0 if learns is None else len(source.parts) - learns)
    # new rows pass through it as these do, wherever that will be
    facts = frozen.facts() | {"dtype": dtype_on(recipe.train.device, recipe.engine.dtype)}
    schema = dataclasses.replace(dataset.schema, source=facts)
    return dataclasses.replace(dataset, schema=schema), frozen


def check_unseen(dataset: Dataset, source: Source, natural: bool) -> str:
    """Refuse a run as a source whose rows these are: what it learned of them would pass for skill.

    ``natural``: equal rows are common in this table, and no sign that a case was seen. A few rows that the
    source knows are no reason to refuse it; a sentence on them is returned.
    """
    path = Path(source.facts["name"]) / KEYS
    if natural or source.facts["kind"] != "run" or not path.is_file():
        return ""
    seen = dataclasses.replace(dataset, inputs=inputs_for(source, dataset.inputs, dataset.schema))
    known = np.isin(row_keys(seen), pd.read_parquet(path)["key"].to_numpy())
    if not known.any():
        return ""
    what = f"{known.sum():,} of {len(known):,} rows taught the run {Path(source.facts['name']).name!r}"
    if known.mean() > MOST_SEEN:
        raise AyatoriError(
            f"a pretrained network must not have learned the rows that it is judged on, however {what} "
            f"(e.g. {dataset.ids[known.argmax()]}); leave them out, or use a run on other data"
        )
    return f"{what}: their scores are too good"


def with_own_net(recipe: Recipe, source: Source | None) -> Recipe:
    """The recipe with the network that the run is about.

    A head, the tuned network around one, or a CNN of ours as a whole, which needs no head.
    """
    settings = recipe.pretrained
    if source is None:
        return recipe
    whole = learns_as_cnn(source) and settings.finetune == "all" and not settings.tune_rate
    if recipe.net.name == WHOLE and not whole:
        raise AyatoriError(
            "net must be linear or mlp on a pretrained network, however it is 'cnn'; only "
            "a run that trained one learns on as such, as a whole (here: "
            f"{source.facts['name']!r}, finetune={settings.finetune!r}); leave out --net"
        )
    if settings.finetune in ("none", "auto") or recipe.net.name in (TUNED, WHOLE):
        return recipe
    if whole and recipe.net.name == "auto":
        return change(recipe, "net", name=WHOLE)
    head, _ = find_net(recipe.net, "features")
    return change(recipe, "net", name=TUNED, options=tuned_options(head, recipe))


def partner(recipe: Recipe) -> str:
    """The network that stands beside the run's own: heads that tuned networks begin from, or tuned ones."""
    if not recipe.pretrained.name or recipe.pretrained.finetune == "none" or recipe.net.name == WHOLE:
        return ""
    return str(recipe.net.options["head"]) if recipe.net.name == TUNED else TUNED


def describe(seen: Dataset, frozen: Frozen, recipe: Recipe) -> str:
    """What the frozen part gives, in a sentence."""
    parts, width = len(frozen.source.parts), seen.inputs["features"].shape[1]
    views = seen.inputs.get("features_views")
    told = f"{source_name(recipe)}: {width:,} features of each row"
    told += "" if views is None else f", in {views.shape[1]} views"
    if frozen.cut is None:
        return f"{told}, computed once; nothing of it learns on"
    if frozen.cut == 0:
        return f"{told}; all of it learns on"
    learns = parts - frozen.cut
    return f"{told}; {learns} of its {parts} parts learn{'s' if learns == 1 else ''} on"
