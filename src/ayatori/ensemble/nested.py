"""Stage 7. Voices of several kinds -> a stack: its last model, and what it honestly says.

The last model learns from out-of-fold outputs. Scored on the same folds it would flatter itself, because
the outputs of fold i come from networks that learned from fold j. So fold j is answered by a last model of
its own, which learns from outputs of networks that have seen neither i nor j (the pairs of the Plan): nothing
that answers for a row has ever met its label. In time order the earlier folds have not met it anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayatori.ensemble.say import last_says
from ayatori.ensemble.stacking import fit_last
from ayatori.records import SCORE, Blend, Dataset, Group, Last, Plan, Vote


@dataclass(frozen=True)
class Kind:
    """One kind of voice: a network, or a simple rival.

    **Shape** ``values`` (m, n, c) of its members; ``folds`` and ``pairs`` say which member is which;
    ``voices`` are the numbers of the folds' members in a Vote.
    """

    name: str
    values: np.ndarray
    folds: Mapping[int, int]
    pairs: Mapping[tuple[int, int], int]
    voices: tuple[int, ...]
    seconds_train: float = 0.0
    seconds_predict: float = 0.0


def stack(
    kinds: Sequence[Kind],
    plan: Plan,
    dataset: Dataset,
    model: Any,
    inputs: np.ndarray | None = None,
    seed: int = 0,
) -> list[Blend]:
    """The stack's two lines: held-out rows, sealed rows. The second carries what is delivered, its ``vote``.

    ``plan``: the folds alone, one column each. ``model``: see ``fit_last``. ``inputs`` (n, features): seen by
    the last model too.
    """
    scored = {column.fold: plan.rows(member, SCORE) for member, column in enumerate(plan.columns)}
    shape = kinds[0].values.shape[1:]
    values, fold = np.full(shape, np.nan, np.float32), np.full(shape[0], -1, np.int16)
    for judged, rows in scored.items():
        others = [i for i in scored if i != judged and (kinds[0].pairs or i < judged)]
        if not others or not len(rows):
            continue
        learn = np.concatenate([scored[i] for i in others])
        said = np.stack(
            [np.concatenate([_unseen(kind, i, judged)[scored[i]] for i in others]) for kind in kinds]
        )
        own = _fit(said, learn, dataset, model, inputs, seed)
        heard = np.stack([_of_both(kind, others, judged, rows) for kind in kinds])
        values[rows] = last_says(own, heard, dataset.task, _some(inputs, rows))
        fold[rows] = judged
    development = np.concatenate(list(scored.values()))
    said = np.stack(
        [np.concatenate([kind.values[kind.folds[i], rows] for i, rows in scored.items()]) for kind in kinds]
    )
    last = _fit(said, development, dataset, model, inputs, seed)
    vote = Vote(tuple(Group(kind.voices) for kind in kinds), last)
    return [
        _blend(kinds, f"stack, {len(scored)} folds", values, fold, None),
        _blend(
            kinds, f"stack, mean of {len(scored)} folds", *_sealed(kinds, plan, dataset, last, inputs), vote
        ),
    ]


def _unseen(kind: Kind, fold: int, judged: int) -> np.ndarray:
    """(n, c) by the member that has seen neither ``fold`` nor ``judged``."""
    return kind.values[kind.pairs[min(fold, judged), max(fold, judged)] if kind.pairs else kind.folds[fold]]


def _of_both(kind: Kind, others: Sequence[int], judged: int, rows: np.ndarray) -> np.ndarray:
    """(rows, c): the mean of all members that the last model has learned from."""
    if not kind.pairs:
        return kind.values[kind.folds[judged], rows]
    return np.mean([_unseen(kind, i, judged)[rows] for i in others], axis=0)


def _sealed(
    kinds: Sequence[Kind], plan: Plan, dataset: Dataset, last: Last, inputs: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    values = np.full(kinds[0].values.shape[1:], np.nan, np.float32)
    rows = np.flatnonzero(plan.sealed)
    if len(rows):
        heard = np.stack([kind.values[list(kind.folds.values())][:, rows].mean(axis=0) for kind in kinds])
        values[rows] = last_says(last, heard, dataset.task, _some(inputs, rows))
    return values, np.full(len(values), -1, np.int16)


def _fit(
    said: np.ndarray, rows: np.ndarray, dataset: Dataset, model: Any, inputs: np.ndarray | None, seed: int
) -> Last:
    return fit_last(said, dataset.labels[rows], dataset.task, model, _some(inputs, rows), seed)


def _some(inputs: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if inputs is None else inputs[rows]


def _blend(
    kinds: Sequence[Kind], name: str, values: np.ndarray, fold: np.ndarray, vote: Vote | None
) -> Blend:
    return Blend(
        name=name,
        split="out_of_fold" if vote is None else "test",
        values=values,
        rows=~np.isnan(values).any(axis=1),
        fold=fold,
        members=tuple(voice for kind in kinds for voice in kind.voices),
        seconds_train=sum(kind.seconds_train for kind in kinds),
        seconds_predict=sum(kind.seconds_predict for kind in kinds),
        ensemble="stacking",
        vote=vote,
    )
