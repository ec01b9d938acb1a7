"""Stage 3j. Dataset, Plan, copies, neighbours, out-of-fold probabilities -> what is wrong with the data.

Labels of sealed rows are blanked before anything is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ayatori.data.twins import Twins
from ayatori.explore.columns import WORTH_SAYING, odd_columns
from ayatori.explore.giveaways import step_of
from ayatori.explore.making import making
from ayatori.explore.shift import shift
from ayatori.explore.suspects import (
    Suspicion,
    dwarfed,
    neighbours_say,
    noise_matrix,
    suspect_classes,
    suspect_sets,
    suspect_values,
)
from ayatori.explore.telling import telling
from ayatori.records import Dataset, Graph, Plan, Representation

LISTED = 1000  # of each list in explore.json, the worst
NOISY, MOST_NOISY = 50, 6  # classes, beyond which no matrix of wrong labels is given; pairs that are named
RARE = 0.1  # share of an even share below which a class is small
BEYOND, OUTLYING = 1.7, 10  # quartile ranges above the upper quartile; neighbours
FEWEST = 20  # rows that can say what is far


@dataclass(frozen=True)
class Audit:
    """What is wrong with the data. ``facts`` is the "audit" part of explore.json.

    The data frames hold numbers of rows, worst first: ``duplicates`` (a, b, kind, across, same_label,
    distance), ``leaks`` (row, copy_of, kind), ``suspects`` (row, given, likely, score), ``outliers`` (row,
    distance, score). ``suspicion`` and ``outlier`` (n,) float32 are the scores of all rows, NaN where not
    judged; an outlier has more than 1.
    """

    facts: dict[str, Any]
    duplicates: pd.DataFrame
    leaks: pd.DataFrame
    suspects: pd.DataFrame
    outliers: pd.DataFrame
    suspicion: np.ndarray
    outlier: np.ndarray


def audit(
    dataset: Dataset,
    plan: Plan,
    twins: Twins,
    graph: Graph | None = None,
    representation: Representation | None = None,
    probabilities: np.ndarray | None = None,
    seed: int = 0,
) -> Audit:
    """Look for copies, odd columns, small classes, shift, outliers and wrong labels.

    **Shape** (n rows) ``probabilities`` (n, outputs): what models that never saw a row say of it (regression:
    values), NaN where none; without them neighbours speak. ``graph``: neighbours in ``representation`` of
    some or all rows. ``dataset`` is the bound one that the ``plan`` was made of.

    >>> from ayatori.data import load
    >>> from ayatori.data.twins import find_twins
    >>> from ayatori.plan import make_plan
    >>> from ayatori.recipe import PlanRecipe
    >>> values = np.random.default_rng(0).normal(size=(100, 3))
    >>> data = load(np.concatenate([values, values[:1]]), y=["cat", "dog"] * 50 + ["dog"])
    >>> found = audit(data, make_plan(data, PlanRecipe(test=0)), find_twins(data))
    >>> found.facts["counts"]["duplicates"], found.facts["counts"]["conflicts"]
    (1, 2)
    """
    sealed = plan.sealed
    labels = dataset.labels.copy()
    labels[sealed] = 0  # never read: what is sealed is masked wherever labels are used
    open_ = np.flatnonzero(~sealed)
    duplicates = _duplicates(twins, labels, sealed, dataset)
    leaks = _leaks(twins, sealed, dataset.barred)
    conflicts, floor = _conflicts(twins, labels, sealed, dataset)
    suspicion = _suspicion(dataset, labels, sealed, graph, probabilities, twins)
    suspects = _suspects(suspicion, labels, dataset)
    outlier, outliers = _outliers(graph, sealed)
    columns, words = odd_columns(dataset, open_, seed), telling(dataset, open_)
    made = making(dataset, open_, seed)
    classes, moved = _classes(labels[open_], dataset), shift(dataset, sealed, twins.groups, seed)
    seen = (made, words, classes, moved)
    alarms = [one for one in seen if one and one.get("alarm", one["sentence"])]
    counts = {
        **_of_kinds(twins),
        "leaks": len(leaks),
        "conflicts": conflicts,
        "suspects": len(suspects),
        "outliers": len(outliers),
        "bound": _bound(dataset, twins),
    }
    facts = {
        "counts": counts,
        **{"columns": columns, "made": made, "words": words, "classes": classes, "shift": moved},
        "sentences": [
            *_of_copies(counts, dataset, twins),
            *_of_labels(counts, floor, len(open_), dataset),
            *_of_values(labels[open_], dataset),
            *(one["sentence"] for one in columns if one["what"] in WORTH_SAYING),
            *(one["sentence"] for one in alarms),
            *_of_outliers(counts, representation),
        ],
        "duplicates": _records(duplicates),
        "suspects": _records(suspects),
        "outliers": _records(outliers),
        "error_floor": floor,
        **_first_of(made, words, step_of(columns, dataset.schema.dates)),
        "noise": _noise(suspicion, labels, dataset),
    }
    scores = (suspicion.score.astype(np.float32), outlier.astype(np.float32))
    return Audit(facts, duplicates, leaks, suspects, outliers, *scores)


def _first_of(*found: Mapping[str, Any] | None) -> dict[str, str]:
    """What the figures may come from, and the step to take: of the first that has one."""
    asking = [one for one in found if one and one["step"]]
    return {
        "careful": "; and ".join(one["sentence"] for one in asking),
        "step": asking[0]["step"] if asking else "",
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.head(LISTED).astype(object).where(frame.notna(), None).to_dict("records")


# --- copies


def _of_kinds(twins: Twins) -> dict[str, int]:
    """How many pairs are copies as they are, and how many nearly so."""
    return {"duplicates": int((twins.kind == "exact").sum()), "near": int((twins.kind == "near").sum())}


def _duplicates(twins: Twins, labels: np.ndarray, sealed: np.ndarray, dataset: Dataset) -> pd.DataFrame:
    """Every pair: across the test first, then those of different labels, then the nearest."""
    a, b = twins.pairs.T
    hidden = sealed[a] | sealed[b]
    same = labels[a] == labels[b]
    same = same if same.ndim == 1 else same.all(axis=1)
    frame = pd.DataFrame(
        {
            "a": a,
            "b": b,
            "kind": twins.kind,
            "across": sealed[a] != sealed[b],
            "same_label": np.where(hidden, None, same),
            "distance": twins.distance,
        }
    )
    order = np.lexsort((b, a, twins.distance, hidden | same, ~frame["across"].to_numpy(bool)))
    return frame.iloc[order].reset_index(drop=True)


def _leaks(twins: Twins, sealed: np.ndarray, barred: np.ndarray | None) -> pd.DataFrame:
    rows, partners = twins.leaks(sealed, barred).T
    near = np.unique(twins.groups[twins.pairs[twins.kind == "near", 0]])
    kind = np.where(np.isin(twins.groups[rows], near), "near", "exact")
    return pd.DataFrame({"row": rows, "copy_of": partners, "kind": kind})


def _conflicts(twins: Twins, labels: np.ndarray, sealed: np.ndarray, dataset: Dataset) -> tuple[int, float]:
    """How many open rows have equal inputs and other labels than their like; and what that costs at least.

    Classes: the share of open rows that any function of the inputs gets wrong, sum_g (n_g - max_c n_gc) / n;
    numbers: the share of the variance that none explains.
    """
    exact = twins.pairs[twins.kind == "exact"]
    first = np.arange(len(dataset))
    first[exact[:, 1]] = exact[:, 0]
    open_ = np.flatnonzero(~sealed)
    rows = open_[np.isin(first[open_], exact[:, 0])]  # any other row agrees with itself
    if not len(rows):
        return 0, 0.0
    _, group, sizes = np.unique(first[rows], return_inverse=True, return_counts=True)
    own = labels[rows].reshape(len(rows), -1)
    if dataset.task == "regression":
        mean = np.stack([np.bincount(group, column) for column in own.T], axis=1) / sizes[:, None]
        within = np.square(own - mean[group])
        total = labels[open_].reshape(len(open_), -1).var(axis=0) * len(open_)
        differs = (within > 1e-18 * (1 + np.square(own))).any(axis=1)
        floor = float((within.sum(axis=0) / np.where(total > 0, total, 1)).mean())
    else:
        codes = np.unique(own, axis=0, return_inverse=True)[1].reshape(-1)
        pairs, counts = np.unique(np.stack([group, codes], axis=1), axis=0, return_counts=True)
        most = np.zeros(len(sizes), np.int64)
        np.maximum.at(most, pairs[:, 0], counts)
        differs = most[group] < sizes[group]
        floor = float((sizes - most).sum() / len(open_))
    return int(np.isin(group, group[differs]).sum()), floor


def _bound(dataset: Dataset, twins: Twins) -> int:
    """Rows that splits hold together with a copy."""
    if dataset.groups is None:
        return 0
    rows = np.flatnonzero(twins.groups >= 0)
    both = np.stack([twins.groups[rows], dataset.groups[rows]], axis=1)
    _, inverse, counts = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    return int((counts[inverse.reshape(-1)] > 1).sum())


def _of_copies(counts: dict[str, int], dataset: Dataset, twins: Twins) -> list[str]:
    found = []
    if counts["duplicates"] and twins.natural:
        found.append(
            f"rows that repeat an earlier one: {counts['duplicates']:,}; that is to be expected of columns "
            "with so few values, and they are not held together"
        )
    elif counts["duplicates"] or counts["near"]:
        kinds = [f"{counts['duplicates']:,} exact"] * (counts["duplicates"] > 0)
        windows = "series" in dataset.inputs
        kinds += [f"{counts['near']:,} {'that overlap' if windows else 'near'}"] * (counts["near"] > 0)
        bound = f"; splits hold {counts['bound']:,} rows together" if counts["bound"] else ""
        advice = "" if windows and counts["near"] else "; leave them out if they are mistakes"
        found.append(f"copies of rows: {' and '.join(kinds)}{bound}{advice}")
    if counts["leaks"] and not twins.natural:
        found.append(
            f"rows of the test that are copies of training rows: {counts['leaks']:,}; their score is too "
            "good, take them out of one side (the list of duplicates names them)"
        )
    if dataset.barred is not None:
        found.append(f"copies of rows of the given test: {dataset.barred.sum():,}; nobody learns from them")
    return found


# --- labels


def _suspicion(
    dataset: Dataset,
    labels: np.ndarray,
    sealed: np.ndarray,
    graph: Graph | None,
    probabilities: np.ndarray | None,
    twins: Twins,
) -> Suspicion:
    n, outputs = len(dataset), labels[:1].size
    if dataset.task == "classification":
        outputs = len(dataset.classes)
    if probabilities is not None:
        said = probabilities.astype(np.float64).reshape(n, -1)
    elif graph is not None and dataset.task == "classification":
        said = neighbours_say(labels, ~sealed, outputs, graph, twins.groups)
    else:
        said = np.full((n, outputs), np.nan)
    said[sealed] = np.nan
    if dataset.task == "classification":
        return suspect_classes(labels, said, ~sealed, graph, twins.groups)
    if dataset.task == "multilabel":
        return suspect_sets(labels, said, ~sealed, graph, twins.groups)
    return suspect_values(labels.reshape(n, -1), said)


def _noise(found: Suspicion, labels: np.ndarray, dataset: Dataset) -> dict[str, Any] | None:
    """Which labels look like which other class, the largest shares first; None of other tasks."""
    if dataset.task != "classification" or len(dataset.classes) > NOISY:
        return None
    matrix = noise_matrix(labels, found, len(dataset.classes))
    names = dataset.classes
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_NOISY]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    most = [
        {"given": names[a], "likely": names[b], "share": float(wrong[a, b])} for a, b in pairs if wrong[a, b]
    ]
    return {"matrix": matrix.tolist(), "most": most}


def _suspects(found: Suspicion, labels: np.ndarray, dataset: Dataset) -> pd.DataFrame:
    rows = np.flatnonzero(found.flagged)
    rows = rows[np.argsort(-found.score[rows], kind="stable")]
    given, likely = (_words(values[rows], dataset) for values in (labels, found.likely))
    return pd.DataFrame({"row": rows, "given": given, "likely": likely, "score": found.score[rows]})


def _words(values: np.ndarray, dataset: Dataset) -> list[Any]:
    """Labels as a reader knows them: names, sets of names, or numbers."""
    names = dataset.classes
    if dataset.task == "classification":
        return [names[code] for code in values]
    if dataset.task == "multilabel":
        return [", ".join(names[at] for at in np.flatnonzero(row)) for row in values]
    lines = [[float(value) for value in np.atleast_1d(row)] for row in values]
    return [line[0] if len(line) == 1 else line for line in lines]


def _of_labels(counts: dict[str, int], floor: float, rows: int, dataset: Dataset) -> list[str]:
    found = []
    if counts["conflicts"]:
        cost = "error of at least" if dataset.task != "regression" else "unexplained share of the variance of"
        found.append(
            f"rows with the same inputs as others and another label: {counts['conflicts']:,}, which costs "
            f"every model an {cost} {floor:.1%}; correct them, or add inputs that tell them apart"
        )
    if counts["suspects"]:
        what = "values" if dataset.task == "regression" else "labels"
        look = (
            "looks wrong, or is a hard case" if counts["suspects"] == 1 else "look wrong, or are hard cases"
        )
        found.append(f"{counts['suspects']:,} of {rows:,} {what} {look}: look at the suspects, worst first")
    return found


def _of_values(values: np.ndarray, dataset: Dataset) -> list[str]:
    """Numbers of which a few dwarf the others are better learned as logarithms."""
    if dataset.task != "regression" or dataset.schema.log:
        return []
    names = dataset.schema.target or ("y",) * values.shape[1]
    return [
        f"of '{name}', one value in a hundred is {np.quantile(own, 0.99) / np.median(own):,.0f} times the "
        "middle one or more, and a few rows decide every score: --log-target has the logarithms learned"
        for name, own in zip(names, values.T, strict=True)
        if dwarfed(own)
    ]


def _classes(labels: np.ndarray, dataset: Dataset) -> dict[str, Any] | None:
    """The smallest class (or the rarest label) of the open rows."""
    if dataset.task == "regression":
        return None
    several = dataset.task == "multilabel"
    counts = labels.sum(axis=0) if several else np.bincount(labels, minlength=len(dataset.classes))
    smallest, name = int(counts.min()), dataset.classes[int(counts.argmin())]
    share = smallest / max(len(labels), 1)
    sentence = ""
    if share < (RARE * 0.5 if several else RARE / len(dataset.classes)):
        sentence = (
            f"class '{name}' has {smallest:,} of {len(labels):,} rows ({share:.2%}): look at balanced "
            "accuracy, and give it more rows or weight"
        )
    return {"smallest": [name, smallest], "share": share, "sentence": sentence}


# --- what is far


def _outliers(graph: Graph | None, sealed: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Scores (n,), and the rows whose mean distance to their neighbours is far beyond that of open rows.

    On the logarithm, so that a factor counts, not a difference: score 1 is the upper quartile plus 1.7 times
    the range between the quartiles.
    """
    scores = np.full(len(sealed), np.nan)
    nothing = pd.DataFrame({"row": np.zeros(0, np.int64), "distance": np.zeros(0), "score": np.zeros(0)})
    if graph is None or not graph.indices.shape[1]:
        return scores, nothing
    distance = graph.distances[:, :OUTLYING].mean(axis=1, dtype=np.float64)
    typical = distance[(distance > 0) & ~sealed[graph.rows]]
    if len(typical) < FEWEST:
        return scores, nothing
    low, high = np.quantile(np.log(typical), [0.25, 0.75])
    beyond = (np.log(np.maximum(distance, typical.min())) - high) / max(BEYOND * (high - low), 1e-3)
    scores[graph.rows] = beyond
    far = np.flatnonzero(beyond > 1)
    far = far[np.argsort(-beyond[far], kind="stable")]
    return scores, pd.DataFrame({"row": graph.rows[far], "distance": distance[far], "score": beyond[far]})


def _of_outliers(counts: dict[str, int], representation: Representation | None) -> list[str]:
    if not counts["outliers"]:
        return []
    where = f" ({representation.name})" if representation is not None else ""
    rows = "row lies" if counts["outliers"] == 1 else "rows lie"
    return [f"{counts['outliers']:,} {rows} far from all others{where}: see whether they belong to the task"]
