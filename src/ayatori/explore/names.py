"""Stage 3h. Names of files, neighbours -> the part of the names whose rows look alike, as a speaker's do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ayatori.data.parts import parts_of
from ayatori.records import Dataset, Graph

FEWEST_ROWS = 4  # of a value on average: fewer are no group
FEWEST_PAIRS = 50
ALIKE, CLEAR = 0.2, 4.0  # how far beyond chance neighbours share a value, and in standard errors


def alike_by_name(dataset: Dataset, graph: Graph) -> tuple[str, str]:
    """A sentence on the part of the names of files that tells which rows of a class are near, and what to do.

    ``graph``: neighbours among the rows of ``dataset``, none of them sealed. Copies do not count: they are
    kept together anyway. Nothing ("", "") is said of names that are not all cut alike.
    """
    if dataset.schema.kind not in ("pictures", "recordings") or len(graph.rows) == 0:
        return "", ""
    cut = [parts_of(name) for name in dataset.ids.tolist()]
    if len(set(map(len, cut))) != 1:
        return "", ""
    found = []
    for place, values in enumerate(zip(*cut, strict=True)):
        words, codes = np.unique(values, return_inverse=True)
        if 2 <= len(words) <= len(codes) / FEWEST_ROWS:
            seen, chance, sure = _shared(codes, dataset, graph)
            if sure > CLEAR and seen - chance > ALIKE * (1 - chance):
                found.append(((seen - chance) / (1 - chance), place, words, seen, chance))
    if not found:
        return "", ""
    _, place, words, seen, chance = max(found, key=lambda one: one[0])
    return _said(place, words, seen, chance, dataset)


def _shared(codes: np.ndarray, dataset: Dataset, graph: Graph) -> tuple[float, float, float]:
    """How often a row's nearest of its label share its value, by chance, and the gap in standard errors."""
    labels = np.zeros(len(codes), np.int64)
    if dataset.task != "regression":
        labels = np.unique(dataset.labels, axis=0, return_inverse=True)[1].ravel()
    near, own = graph.indices, graph.rows[:, None]
    counted = labels[near] == labels[own]
    if dataset.groups is not None:
        counted &= dataset.groups[near] != dataset.groups[own]
    some = counted.any(axis=1)
    if some.sum() < FEWEST_PAIRS:
        return 0.0, 0.0, 0.0
    same = (codes[near] == codes[own]) & counted
    seen = same[some].sum(1) / counted[some].sum(1)
    together = labels * (codes.max() + 1) + codes
    mine = np.bincount(together)[together] - 1
    others = np.bincount(labels)[labels] - 1
    chance = (mine / np.maximum(others, 1))[graph.rows[some]]
    gap = seen - chance
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    return float(seen.mean()), float(chance.mean()), float(gap.mean() / max(error, 1e-9))


def _said(place: int, words: np.ndarray, seen: float, chance: float, dataset: Dataset) -> tuple[str, str]:
    examples = ", ".join(map(str, words[:3])) + (" ..." if len(words) > 3 else "")
    whose = "nearest of its class" if dataset.task == "classification" else "nearest"
    table = not Path(dataset.source).is_dir()
    how = "name a column of it by --groups" if table else f"say --groups {place + 1}"
    sentence = (
        f"part {place + 1} of the names ({examples}: {len(words)} values) tells which {dataset.schema.kind} "
        f"look alike: {seen:.0%} of a row's {whose} share it, {chance:.0%} by chance; if it says whom they "
        f"are of (a speaker, a patient), {how}, which keeps them on one side of every split"
    )
    step = (
        f"If part {place + 1} of the names ({examples}) says whom {dataset.schema.kind} are of, {how}: "
        "without it the figures hold for more of the same alone, not for others."
    )
    return sentence, step
