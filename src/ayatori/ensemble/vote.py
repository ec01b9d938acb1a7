"""Stage 7. Predictions, Plan -> Blends: one prediction a row, for the rows where it is honest.

A name says what was scored. Out of fold every row is said by the one network that never saw it: that
is *one network's* figure. The mean of all folds can only be scored on sealed rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ayatori.records import SCORE, AyatoriError, Blend, Plan, Predictions


def blends(predictions: Predictions, plan: Plan, losses: Sequence[float] = ()) -> list[Blend]:
    """What ``predictions`` (m, n, c) can honestly say of the rows, as blends of one value a row.

    - kfold: "one network, 5 folds" out of fold (with repeats: one for each repeat, and their mean),
      "mean of 5 folds" on the test
    - holdout: "one network, hold-out" on its held-out rows and on the test
    - rotate: "best of 5, rotated" on the test: the network with the lowest of ``losses`` (m,), which are
      those of its own validation rows; its own figure there chose it, and so is no estimate. Rivals learn
      from all development rows, and so are the same for every member

    A rival's blends are called the same with its name in front. Blends without rows are left out.
    """
    if plan.strategy == "rotate":
        made = [_best(predictions, plan, losses)]
    elif plan.members == 1:
        made = [_score_blend(predictions, plan, [0], "hold-out"), _mean(predictions, plan, "hold-out")]
    else:
        made = _folds(predictions, plan)
    return [blend for blend in made if blend.rows.any()]


def _folds(predictions: Predictions, plan: Plan) -> list[Blend]:
    repeats = sorted({column.repeat for column in plan.columns})
    rounds = [[m for m, column in enumerate(plan.columns) if column.repeat == r] for r in repeats]
    folds = f"{len(rounds[0])} folds"
    if len(rounds) == 1:
        return [
            _score_blend(predictions, plan, rounds[0], folds),
            _mean(predictions, plan, f"mean of {folds}"),
        ]
    several = f"{len(rounds)} x {folds}"
    each = [
        _score_blend(predictions, plan, members, f"{folds}, repeat {number} of {len(rounds)}")
        for number, members in enumerate(rounds, 1)
    ]
    return [
        *each,
        _mean_of_repeats(predictions, plan, each, folds),
        _mean(predictions, plan, f"mean of {several}"),
    ]


def _is_network(predictions: Predictions) -> bool:
    return predictions.name == "network"


def _name(predictions: Predictions, what: str, one: bool) -> str:
    """``one network, 5 folds`` or ``linear, 5 folds``; ``mean of 5 folds`` or ``linear, mean of 5 folds``."""
    if not _is_network(predictions):
        return f"{predictions.name}, {what}"
    return f"one network, {what}" if one else what


def _blend(
    predictions: Predictions,
    name: str,
    test: bool,
    values: np.ndarray,
    members: Sequence[int],
    fold: np.ndarray | None = None,
    single: bool = False,
) -> Blend:
    rows = ~np.isnan(values).any(axis=1)
    share = len(members) / len(predictions.values)
    return Blend(
        name=name,
        split="test" if test else "out_of_fold",
        values=values,
        rows=rows,
        fold=np.full(len(rows), -1, np.int16) if fold is None else fold,
        network=_is_network(predictions),
        members=tuple(members),
        seconds_train=predictions.seconds_train * share,
        seconds_predict=predictions.seconds * share,
        single=single,
        drawn=predictions.drawn,
    )


def _empty(predictions: Predictions) -> np.ndarray:
    return np.full(predictions.values.shape[1:], np.nan, np.float32)


def _score_blend(predictions: Predictions, plan: Plan, members: Sequence[int], what: str) -> Blend:
    """Each row said by the one of ``members`` that is scored on it."""
    values = _empty(predictions)
    fold = np.full(len(values), -1, np.int16)
    for member in members:
        rows = plan.rows(member, SCORE)
        values[rows] = predictions.values[member, rows]
        fold[rows] = plan.columns[member].fold
    return _blend(predictions, _name(predictions, what, one=True), False, values, members, fold, single=True)


def _mean_of_repeats(predictions: Predictions, plan: Plan, each: Sequence[Blend], folds: str) -> Blend:
    """Each row said by the mean of the networks that never saw it, one a repeat."""
    values = np.mean([blend.values for blend in each], axis=0)
    name = _name(predictions, f"mean of {len(each)} repeats, {folds}", one=False)
    return _blend(predictions, name, False, values, range(plan.members))


def _mean(predictions: Predictions, plan: Plan, what: str) -> Blend:
    """Sealed rows said by the mean of all members (of one, where there is one)."""
    values = _empty(predictions)
    sealed = np.flatnonzero(plan.sealed)
    values[sealed] = predictions.values[:, sealed].mean(axis=0)
    name, alone = _name(predictions, what, plan.members == 1), plan.members == 1
    return _blend(predictions, name, True, values, range(plan.members), single=alone)


def _best(predictions: Predictions, plan: Plan, losses: Sequence[float]) -> Blend:
    """Sealed rows said by the member that did best on its own validation rows."""
    network = _is_network(predictions)
    if network and len(losses) != plan.members:
        raise AyatoriError(
            f"`rotate` keeps the network with the lowest validation loss, so there must be {plan.members} "
            f"losses, however there are {len(losses)}"
        )
    best = int(np.argmin(np.where(np.isnan(losses), np.inf, losses))) if network else 0
    values = _empty(predictions)
    sealed = np.flatnonzero(plan.sealed)
    values[sealed] = predictions.values[best, sealed]
    name = f"best of {plan.members}, rotated" if network else f"{predictions.name}, all development rows"
    return _blend(predictions, name, True, values, [best], single=True)
