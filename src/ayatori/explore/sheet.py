"""Stage 3g. All that a look found -> the record, its facts (explore.json) and its table (explore.parquet)."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ayatori.explore.audit import Audit
from ayatori.explore.bounds import Bounds
from ayatori.explore.thumbs import SIDE, thumbs_of
from ayatori.explore.verdict import Evidence, verdict
from ayatori.recipe import Recipe
from ayatori.records import Dataset, Look, Map, Representation

LIBRARIES = ("ayatori", "torch", "numpy", "scikit-learn")
TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
HOVER = 8  # columns of a table that are shown of a row
PAIRS = 20
CONFUSION = 50  # classes at most
THUMBNAILS = 2000
DRAWN, LARGER = 1000, 64  # series that are drawn, and their pixels: lines are thin
SHOWN = 48  # of each list on the page


@dataclass(frozen=True)
class Seen:
    """What the steps of a look found.

    ``rows`` (n,): numbers, in the ``whole``, of the rows that were looked at; ``dataset`` and ``sealed`` are
    of them; ``open``: the development rows, whose labels are known; ``asked`` (k,): those that were judged.
    """

    whole: Dataset
    rows: np.ndarray
    dataset: Dataset
    sealed: np.ndarray
    open: Dataset
    asked: np.ndarray
    ways: list[Representation]
    structures: list[dict[str, float]]
    best: int
    bounds: Bounds | None
    p: float
    found: Audit
    maps: list[Map]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def look_of(seen: Seen, recipe: Recipe) -> Look:
    """The record of a look."""
    facts, table = _facts(seen, recipe), _table(seen)
    expected, ceiling = facts["ruler"]["expected"], facts["ruler"]["ceiling"]
    n = len(seen.whole)
    maps = {}
    for one in seen.maps:
        dimensions = one.points.shape[1]
        name = one.name if dimensions == 3 or one.name == "pca" else f"{one.name}_2d"
        points = np.full((n, dimensions), np.nan, np.float32)
        points[seen.rows[one.rows]] = one.points
        maps[name] = points
    return Look(
        verdict=facts["verdict"]["word"],
        sentence=facts["verdict"]["sentence"],
        expected=None if expected is None else (expected[0], expected[2]),
        ceiling=None if ceiling is None else (ceiling[0], ceiling[2]),
        maps=maps,
        duplicates=seen.found.duplicates,
        leaks=seen.found.leaks,
        suspects=seen.found.suspects,
        outliers=seen.found.outliers,
        table=table,
        facts=facts,
        pictures=_pictures(facts["audit"], table["row"].to_numpy(), seen.whole),
    )


def _facts(seen: Seen, recipe: Recipe) -> dict[str, Any]:
    data, bounds = seen.whole, seen.bounds
    pairs, confusion = _mixed_up(seen)
    target = recipe.explore.target_accuracy or None
    said = verdict(_evidence(seen, target, pairs))
    sealed = round(seen.sealed.mean() * len(data))
    return {
        "name": (data.source or data.schema.kind).rstrip("/").rsplit("/", 1)[-1],
        "source": data.source,
        "sound_seconds": data.schema.sound_seconds,
        "task": data.task,
        "classes": list(data.classes),
        "rows": len(data),
        "development": len(data) - sealed,
        "sealed": sealed,
        "target": ", ".join(data.schema.target),
        "metric": "r2" if data.task == "regression" else "accuracy",
        "seed": recipe.seed,
        "verdict": said,
        "ruler": _ruler(seen, said["word"], target),
        "representations": [
            {
                "name": way.name,
                "columns": way.values.shape[1],
                "agreement": one["agreement"],
                "p": one["p"],
                "note": way.note,
                "used": number == seen.best,
            }
            for number, (way, one) in enumerate(zip(seen.ways, seen.structures, strict=True))
        ],
        "probes": list(bounds.probes) if bounds else [],
        "structure": seen.structures[seen.best] | {"p": seen.p},
        "curve": bounds.curve if bounds else None,
        "maps": [_map_facts(one) for one in seen.maps],
        "pairs": pairs,
        "confusion": confusion,
        "audit": seen.found.facts,
        "features": bounds.features if bounds else {},
        "notes": [*data.notes, *seen.notes],
        "seconds": seen.seconds,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _evidence(seen: Seen, target: float | None, pairs: list[dict[str, Any]]) -> Evidence:
    data, bounds = seen.whole, seen.bounds
    return Evidence(
        task=data.task,
        rows=len(seen.open),
        classes=len(data.classes) if data.task == "classification" else 1,
        chance=bounds.chance if bounds else 0.0,
        probe=bounds.probes[0]["value"] if bounds else 0.0,
        probe_name=bounds.probes[0]["name"] if bounds else "",
        p=seen.p,
        expected=bounds.expected if bounds else None,
        ceiling=bounds.ceiling if bounds else None,
        target=target,
        step=seen.found.facts.get("step", ""),
        suspects=seen.found.facts["counts"]["suspects"],
        worst=(pairs[0]["a"], pairs[0]["b"]) if pairs else None,
        twice=bounds.curve["sentence"] if bounds and bounds.curve else "",
        untried=("A pretrained network",) if "image" in data.inputs and data.schema.source is None else (),
    )


def _map_facts(one: Map) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": TITLES[one.name],
        "dimensions": one.points.shape[1],
        "of": one.of,
        "rows": len(one.rows),
        "trustworthiness": one.trustworthiness,
        "continuity": one.continuity,
        "agreement": one.agreement,
        "agreement_full": one.agreement_full,
    }


def _ruler(seen: Seen, word: str, target: float | None) -> dict[str, Any]:
    """Every figure of the verdict on one scale; None where it cannot be said."""
    bounds = seen.bounds
    scale = {
        "metric": "r2" if seen.whole.task == "regression" else "accuracy",
        "target": target,
        "reached": None,
    }
    if bounds is None:
        keys = ("chance", "probe", "probe_name", "pool", "nearest", "expected", "ceiling")
        return scale | dict.fromkeys(keys)
    blind, few = word == "no class structure", word == "too few rows"
    return scale | {
        "chance": bounds.chance,
        "probe": bounds.probes[0]["value"],
        "probe_name": bounds.probes[0]["name"],
        "pool": bounds.score,
        "nearest": bounds.nearest,
        "expected": None if blind or few else list(bounds.expected),
        # where nothing was seen, a pattern of many features at once may still be there
        "ceiling": [bounds.score, bounds.score, 1.0] if blind else None if few else list(bounds.ceiling),
    }


def _mixed_up(seen: Seen) -> tuple[list[dict[str, Any]], list[list[int]] | None]:
    """Pairs of classes by how many rows of them the pool confuses, and the whole matrix where it is small."""
    if seen.dataset.task != "classification" or seen.bounds is None:
        return [], None
    names = seen.dataset.classes
    truth, said = seen.open.labels[seen.asked], seen.bounds.answers.argmax(axis=1)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (truth, said), 1)
    both = np.triu(counts + counts.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:PAIRS]
    first, second = np.unravel_index(order, both.shape)
    of = counts.sum(axis=1)
    pairs = [
        {"a": names[a], "b": names[b], "rows": int(both[a, b]), "share": float(both[a, b] / (of[a] + of[b]))}
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
        if both[a, b]
    ]
    return pairs, counts.tolist() if len(names) <= CONFUSION else None


def _table(seen: Seen) -> pd.DataFrame:
    """A line per row that was drawn."""
    drawn = seen.maps[0].rows if seen.maps else np.arange(len(seen.rows))
    data = seen.dataset
    columns: dict[str, Any] = {"row": seen.rows[drawn], "id": data.ids[drawn].astype(str)}
    own = np.full(len(data), -1 if data.task == "classification" else np.nan)
    labels = seen.open.labels
    own[~seen.sealed] = labels if labels.ndim == 1 else labels[:, 0]
    if data.task == "classification":
        columns["class"] = own[drawn].astype(np.int32)
    else:
        columns["value"] = own[drawn]
    columns["split"] = np.where(seen.sealed[drawn], "sealed", "development")
    columns["suspicion"] = seen.found.suspicion[seen.rows[drawn]]
    columns["outlier"] = seen.found.outlier[seen.rows[drawn]]
    for one in seen.maps:
        suffix = "3" if one.points.shape[1] == 3 and one.name != "pca" else ""
        for axis, values in zip("xyz", one.points.T, strict=False):
            columns[f"{one.name}{suffix}_{axis}"] = values
    return pd.DataFrame(columns | _hover(data, drawn))


def _hover(data: Dataset, drawn: np.ndarray) -> dict[str, Any]:
    """What a row of a table held, as text."""
    schema = data.schema
    found: dict[str, Any] = {}
    if data.begins is not None:
        found |= {f"in_{name}": own for name, own in zip(schema.texts, data.begins[drawn].T, strict=True)}
    if "numbers" in data.inputs and "image" not in data.inputs:
        names = schema.numbers or [f"x{k}" for k in range(data.inputs["numbers"].shape[1])]
        for place, name in enumerate(names):
            values = data.inputs["numbers"][drawn, place]
            column, _, part = name.rpartition(": ")
            if column not in schema.dates:
                found[f"in_{name}"] = ["" if np.isnan(value) else f"{value:.6g}" for value in values.tolist()]
            elif part == "days":
                found[f"in_{column}"] = _date_texts(values)
            if len(found) == HOVER:
                break
    for place, (name, words) in enumerate(list(schema.categories.items())[: HOVER - len(found)]):
        known = np.array([*words, ""], dtype=object)
        found[f"in_{name}"] = known[data.inputs["categories"][drawn, place]]
    return found


def _date_texts(days: np.ndarray) -> list[str]:
    """Days since 2000-01-01 as dates, with the time of day where there is one."""
    dates = pd.Series(pd.to_datetime(days, unit="D", origin="2000-01-01"))
    style = "%Y-%m-%d" if (days % 1 == 0)[~np.isnan(days)].all() else "%Y-%m-%d %H:%M"
    return dates.dt.round("s").dt.strftime(style).fillna("").tolist()


def _pictures(lists: Mapping[str, Any], drawn: np.ndarray, data: Dataset) -> dict[str, np.ndarray] | None:
    """Rows (t,) and pixels (t, c, s, s) uint8 of pictures: those that are shown first, then evenly more."""
    if not data.inputs.keys() & {"image", "series"}:
        return None
    first = [line["row"] for line in (*lists["suspects"][:SHOWN], *lists["outliers"][:SHOWN])]
    first += [line[side] for line in lists["duplicates"][:SHOWN] for side in "ab"]
    detailed = "series" in data.inputs or data.schema.slices
    most, side = (DRAWN, LARGER) if detailed else (THUMBNAILS, SIDE)
    even = drawn[np.linspace(0, len(drawn) - 1, min(most, len(drawn))).astype(int)]
    rows = pd.unique(np.concatenate([np.array(first, np.int64), even]))[:most]
    pixels = thumbs_of(data.inputs, rows, side)
    return None if pixels is None else {"rows": rows, "pixels": pixels}
