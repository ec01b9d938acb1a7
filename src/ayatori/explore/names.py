"""Stage 3h. Names of files, neighbours -> the part of the names whose rows look alike, as a speaker's do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from ayatori.data.parts import parts_of
from ayatori.records import Dataset, Graph

FEWEST_ROWS = 4  # of a value on average: fewer are no group
FEWEST_PAIRS = 50
FEWEST_NUMBERS = 20  # of a running number
ALIKE, CLEAR = 0.2, 4.0  # how far beyond chance neighbours share a value, and in standard errors
NEAR = 0.6  # of the distance by chance: nearer than that is no accident of a collection


def alike_by_name(dataset: Dataset, graph: Graph) -> tuple[str, str]:
    """A sentence on the part of the names of files that tells which rows of a class are near; what to do.

    ``graph``: neighbours among the rows of ``dataset``, none of them sealed. Copies do not count: they are
    kept together anyway. Nothing ("", "") is said of names that are not all cut alike.
    """
    if dataset.schema.kind not in ("pictures", "recordings", "scans") or len(graph.rows) == 0:
        return "", ""
    names = dataset.ids.tolist()
    start = "train/" if all(name.startswith("train/") for name in names) else ""  # parts are counted below it
    cut = [parts_of(name.removeprefix(start)) for name in names]
    if len(set(map(len, cut))) != 1:
        return "", ""
    labels = np.zeros(len(cut), np.int64)
    if dataset.task != "regression":
        labels = np.unique(dataset.labels, axis=0, return_inverse=True)[1].ravel()
    counted = labels[graph.indices] == labels[graph.rows[:, None]]
    if dataset.groups is not None:
        counted &= dataset.groups[graph.indices] != dataset.groups[graph.rows[:, None]]
    if counted.any(axis=1).sum() < FEWEST_PAIRS:
        return "", ""
    parts = [np.array(values) for values in zip(*cut, strict=True)]
    return _shared_part(parts, labels, counted, dataset, graph) or _running_part(
        parts, labels, counted, dataset, graph
    )


def _shared_part(
    parts: Sequence[np.ndarray], labels: np.ndarray, counted: np.ndarray, dataset: Dataset, graph: Graph
) -> tuple[str, str] | None:
    """The part that near rows of a label share most, beyond chance."""
    found = []
    for place, values in enumerate(parts):
        words, codes = np.unique(values, return_inverse=True)
        if 2 <= len(words) <= len(codes) / FEWEST_ROWS:
            together = labels * len(words) + codes
            mine, others = (np.bincount(of)[of] - 1 for of in (together, labels))
            chance = mine / np.maximum(others, 1)
            same = codes[graph.indices] == codes[graph.rows[:, None]]
            seen, by_chance, sure = _beside(same, chance[graph.rows], counted)
            if sure > CLEAR and seen - by_chance > ALIKE * (1 - by_chance):
                found.append(((seen - by_chance) / (1 - by_chance), place, words, seen, by_chance))
    if not found:
        return None
    _, place, words, seen, by_chance = max(found, key=lambda one: one[0])
    return _of_groups(place, words, seen, by_chance, dataset)


def _running_part(
    parts: Sequence[np.ndarray], labels: np.ndarray, counted: np.ndarray, dataset: Dataset, graph: Graph
) -> tuple[str, str]:
    """The running number that near rows of a label are near in, as frames of a film are."""
    for place, values in enumerate(parts):
        words = np.unique(values)
        numbers = all(word.isascii() and word.isdigit() for word in words.tolist())
        if len(words) < FEWEST_NUMBERS or not numbers:
            continue
        rank = np.zeros(len(values))
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            rank[own] = rankdata([float(word) for word in values[own]]) / max(len(own), 1)
        apart = np.abs(rank[graph.indices] - rank[graph.rows[:, None]])
        # of a row at x between 0 and 1, others are (x² + (1 - x)²) / 2 apart by chance
        chance = (np.square(rank) + np.square(1 - rank)) / 2
        seen, by_chance, sure = _beside(apart, chance[graph.rows], counted)
        if sure < -CLEAR and seen < NEAR * by_chance:
            return _of_films(place, sorted(words.tolist(), key=int), seen, by_chance, dataset)
    return "", ""


def _beside(values: np.ndarray, chance: np.ndarray, counted: np.ndarray) -> tuple[float, float, float]:
    """The mean of the counted (q, k) values of each row, beside chance (q,), and the gap in errors."""
    some = counted.any(axis=1)
    seen = (values * counted)[some].sum(1) / counted[some].sum(1)
    gap = seen - chance[some]
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    return float(seen.mean()), float(chance[some].mean()), float(gap.mean() / max(error, 1e-9))


def _of_groups(
    place: int, words: np.ndarray, seen: float, chance: float, dataset: Dataset
) -> tuple[str, str]:
    examples = ", ".join(map(str, words[:3])) + (" ..." if len(words) > 3 else "")
    how, kind = _how("groups", place, dataset), dataset.schema.kind
    sentence = (
        f"part {place + 1} of the names ({examples}: {len(words)} values) tells which {kind} look alike: "
        f"{seen:.0%} of a row's {_nearest(dataset)} share it, {chance:.0%} by chance; if it says whom they "
        f"are of (a speaker, a patient), {how}, which keeps them on one side of every split"
    )
    step = (
        f"If part {place + 1} of the names ({examples}) says whom {kind} are of, {how}: without it the "
        "figures hold for more of the same alone, not for others."
    )
    return sentence, step


def _of_films(
    place: int, words: Sequence[str], seen: float, chance: float, dataset: Dataset
) -> tuple[str, str]:
    examples = ", ".join(words[:3])
    how, kind = _how("time", place, dataset), dataset.schema.kind
    sentence = (
        f"{kind} that follow one another by part {place + 1} of their names ({examples} ...) look alike: a "
        f"row's {_nearest(dataset)} are {seen:.0%} of all numbers away, {chance:.0%} by chance; if they are "
        f"of one film or one day, {how}, which scores later ones by earlier ones"
    )
    step = (
        f"If {kind} follow one another by part {place + 1} of the names ({examples} ...), {how}: without it "
        "the figures hold for what lies between those learned from, not for others."
    )
    return sentence, step


def _nearest(dataset: Dataset) -> str:
    return "nearest of its class" if dataset.task == "classification" else "nearest"


def _how(option: str, place: int, dataset: Dataset) -> str:
    """What to type: of a folder the part itself, of a table a column that holds it."""
    folder = Path(dataset.source).is_dir()
    return f"say --{option} {place + 1}" if folder else f"name a column of it by --{option}"
