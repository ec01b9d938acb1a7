"""Stage 8. Blends, truth -> the leaderboard: who scored what on which rows, and which network to deliver."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ayatori.evaluate.compare import lower_loss, paired
from ayatori.evaluate.metrics import LOWER, MAIN, score, score_folds
from ayatori.records import Blend, Dataset, Entry, Plan, Task


def leaderboard(
    blends: Sequence[Blend],
    dataset: Dataset,
    plan: Plan,
    open_test: Callable[[], np.ndarray] | None = None,
) -> list[Entry]:
    """Entries of both splits, the out-of-fold ones first, best first in each.

    ``open_test`` gives the target (n, ...) of all rows and is called once, after everything out of fold is
    scored, and only where a blend speaks about sealed rows: the one place where the test is opened.
    """
    entries = score_split(blends, dataset.labels, dataset, "out_of_fold")
    if any(blend.split == "test" and blend.rows.any() for blend in blends):
        names = {blend.name for blend in blends if blend.rows.any()}
        picked = _picked(entries, blends, dataset.task, names)
        truth = dataset.labels if open_test is None else open_test()
        entries += score_split(blends, truth, dataset, "test", picked)
    return entries


def score_split(
    blends: Sequence[Blend], truth: np.ndarray, dataset: Dataset, split: str, picked: str = ""
) -> list[Entry]:
    """Entries of one split, best first by log loss or RMSE. Rivals are compared with what was ``picked``
    (else the best network or ensemble), ensembles with the best single network.

    Only the rows of each blend are read from ``truth`` (n, ...).
    """
    own = [blend for blend in blends if blend.split == split and blend.rows.any()]
    scored = sorted(
        ((_entry(blend, truth, dataset), blend) for blend in own),
        key=lambda pair: _rank(pair[0], dataset.task),
    )
    best = next((blend for entry, blend in scored if entry.network), None)
    best = next((blend for _, blend in scored if blend.network and blend.name == picked), best)
    single = next((blend for entry, blend in scored if entry.network and blend.single), best)
    return [
        _compared(entry, blend, single if entry.network else best, truth, dataset) for entry, blend in scored
    ]


def chosen(entries: Sequence[Entry], blends: Sequence[Blend], task: Task) -> str:
    """Name of the network or ensemble to deliver, picked by out-of-fold scores, never by the test.

    The best out-of-fold line stands for the ensemble that its members make (one network a fold for the mean
    of all folds); that is delivered, by its name on the test where it is scored there.
    """
    return _picked(entries, blends, task, {entry.name for entry in entries})


def _picked(entries: Sequence[Entry], blends: Sequence[Blend], task: Task, names: set[str]) -> str:
    """The same by out-of-fold ``entries`` alone, where ``names`` are those of all lines that are scored."""
    networks = [blend for blend in blends if blend.network and blend.ensemble]
    held_out = {blend.name: blend for blend in networks if blend.split == "out_of_fold"}
    lines = [entry for entry in entries if entry.split == "out_of_fold" and entry.name in held_out]
    for entry in sorted(lines, key=lambda entry: _rank(entry, task)):
        blend = held_out[entry.name]
        whole = [
            other
            for other in networks
            if other.split == "test"
            and other.name in names
            and other.ensemble == blend.ensemble
            and set(blend.members) <= set(other.members)
        ]
        return max(whole, key=lambda other: len(other.members)).name if whole else entry.name
    return next((blend.name for blend in networks), "")


def _entry(blend: Blend, truth: np.ndarray, dataset: Dataset) -> Entry:
    rows = np.flatnonzero(blend.rows)
    groups = None if dataset.groups is None else dataset.groups[rows]
    values, decided = blend.values[rows], None if blend.decided is None else blend.decided[rows]
    if blend.split == "out_of_fold":
        folds = blend.fold[rows]
        scores = score_folds(truth[rows], values, folds, dataset.task, dataset.classes, groups, decided)
    else:
        scores = score(truth[rows], values, dataset.task, dataset.classes, groups, decided)
    seconds = {"train": blend.seconds_train, "predict": blend.seconds_predict}
    return Entry(blend.name, blend.split, scores, blend.network, seconds, drawn=blend.drawn)


def _rank(entry: Entry, task: Task) -> float:
    main = MAIN[task]
    if main not in entry.scores:
        return float("inf")
    return entry.scores[main].value * (1 if main in LOWER else -1)


def _compared(entry: Entry, blend: Blend, best: Blend | None, truth: np.ndarray, dataset: Dataset) -> Entry:
    """``entry`` with its difference to ``best`` on the same rows."""
    if best is None or blend is best:
        return entry
    rows = np.flatnonzero(blend.rows & best.rows)
    groups = None if dataset.groups is None else dataset.groups[rows]
    same = truth[rows], blend.values[rows], best.values[rows], dataset.task, groups
    ours, theirs = (one.values[rows] if one.decided is None else one.decided[rows] for one in (blend, best))
    difference = paired(truth[rows], ours, theirs, dataset.task, groups) | lower_loss(*same)
    return dataclasses.replace(entry, paired=difference, against=best.name)
