"""Stage 7. A grown Plan, and what its members say -> ensembles, and their Blends.

An ensemble answers twice. Out of fold, a row is answered by the members of its own fold, none of which has
seen it; what was chosen about them (weights, rounds) was chosen on their stop rows. Sealed and new rows are
answered by the members of all folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from ayatori.ensemble.greedy import by_loss, greedy
from ayatori.ensemble.losses import row_losses
from ayatori.ensemble.say import say
from ayatori.records import SCORE, UNUSED, Blend, Ensemble, Group, Plan, Predictions, Task, Vote

SEARCHES, DRAWN, PICKS = 20, 4000, 25  # greedy searches of an ensemble, rows and picks of each
Key = tuple[int, int]  # repeat, fold
How = Literal["mean", "geometric", "majority", "median", "sum"]
StopAnswers = Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]  # members of one fold -> values, truth


def fold_members(
    plan: Plan, kinds: Sequence[str] = ("fold",), net: str | None = None
) -> dict[Key, list[int]]:
    """The members of each fold: of some kinds, and of one network or of all."""
    found: dict[Key, list[int]] = {}
    for member, column in enumerate(plan.columns):
        if column.kind in kinds and net in (None, column.net):
            found.setdefault((column.repeat, column.fold), []).append(member)
    return found


def networks(plan: Plan) -> list[str]:
    """The names of the networks of a Plan, the run's own first."""
    return list(dict.fromkeys(column.net for column in plan.columns if column.kind == "fold"))


def votes(
    plan: Plan, kinds: Sequence[str], task: Task, stop: StopAnswers, heard: Sequence[str]
) -> list[Ensemble]:
    """Bagging, majority, median, weighted and greedy, where they are among ``kinds``.

    ``stop`` says what members of one fold answer on their stop rows (k, s, c), and the truth there; the last
    two weigh all members of the kinds ``heard``.
    """
    own = plan.columns[0].net
    bags = fold_members(plan, ("bag",))
    made = []
    if "bagging" in kinds:
        made.append(_equal("bagging", f"{_most(bags)} bags", bags))
    crowd = bags or fold_members(plan, net=own)
    titles: dict[How, str] = {"majority": "majority vote", "median": "median"}
    for how, title in titles.items():
        if how in kinds:
            folds = {key: Group(tuple(members), how=how) for key, members in crowd.items()}
            everyone = tuple(member for members in crowd.values() for member in members)
            made.append(Ensemble(how, title, folds, Vote((Group(everyone, how=how),))))
    pool = fold_members(plan, heard)
    for kind, title, weigh in (
        ("weighted", "weighted by loss", _by_loss),
        ("greedy", "greedy choice", _greedy),
    ):
        if kind in kinds and _most(pool) > 1:
            folds = {}
            for key, members in pool.items():
                values, truth = stop(members)
                folds[key] = _without_idle(members, weigh(values, truth, task))
            everyone = tuple(member for members in pool.values() for member in members)
            made.append(Ensemble(kind, title, folds, Vote(tuple(folds.values())), everyone))
    return made


def other_networks(plan: Plan) -> list[Ensemble]:
    """The folds of the networks that stand beside the run's own."""
    return [_equal(net, f"{net} network", fold_members(plan, net=net)) for net in networks(plan)[1:]]


def chained(chains: Mapping[Key, Group], plan: Plan) -> Ensemble:
    """Boosting: the rounds of each fold."""
    heard = {voice for group in chains.values() for voice in group.voices}
    rounds = {member for members in fold_members(plan, ("round",)).values() for member in members}
    trained = tuple(sorted(heard | rounds))
    return Ensemble("boosting", "boosted networks", dict(chains), Vote(tuple(chains.values())), trained)


def blends_of(
    ensemble: Ensemble, predictions: Predictions, plan: Plan, task: Task, seconds: np.ndarray
) -> list[Blend]:
    """What an ensemble honestly says: of the rows that its folds held out, and of sealed rows.

    ``seconds`` (m,): how long each member trained. No out-of-fold line where one network answers each row
    already.
    """
    where = "hold-out" if plan.strategy == "holdout" else f"{len(ensemble.folds)} folds"
    mean = where if plan.strategy == "holdout" else f"mean of {where}"
    heard = sorted({voice for group in ensemble.folds.values() for voice in group.voices})
    used = [*ensemble.trained] or heard
    alone = all(len(group.voices) == 1 for group in ensemble.folds.values())
    made = []
    if not (alone and ensemble.name in ("majority", "median")):
        values, fold = _held_out(ensemble, predictions, plan, task)
        made.append(
            _blend(ensemble, f"{ensemble.title}, {where}", False, values, fold, used, predictions, seconds)
        )
        made[0] = dataclasses.replace(made[0], single=alone)
    sealed = np.flatnonzero(plan.sealed)
    values = np.full(predictions.values.shape[1:], np.nan, np.float32)
    values[sealed] = np.mean(
        [said(predictions, group, sealed, task) for group in ensemble.vote.groups], axis=0
    )
    fold = np.full(len(values), -1, np.int16)
    test = _blend(ensemble, f"{ensemble.title}, {mean}", True, values, fold, used, predictions, seconds)
    made.append(dataclasses.replace(test, vote=ensemble.vote))
    return [blend for blend in made if blend.rows.any() or blend.vote]


def out_of_bag(plan: Plan, predictions: Predictions, seconds: np.ndarray) -> list[Blend]:
    """Each development row said by the bags, of all folds, that neither learned from it nor stopped by it."""
    bags = [member for members in fold_members(plan, ("bag",)).values() for member in members]
    if not bags:
        return []
    total, count = np.zeros(predictions.values.shape[1:]), np.zeros(len(plan.roles))
    for member in bags:
        rows = np.flatnonzero(np.isin(plan.roles[:, member], (UNUSED, SCORE)))
        total[rows] += predictions.values[member, rows]
        count[rows] += 1
    values = np.full(total.shape, np.nan, np.float32)
    values[count > 0] = total[count > 0] / count[count > 0, None]
    nothing = Ensemble("", "", {}, Vote(()))
    fold = np.full(len(values), -1, np.int16)
    name = f"out of bag, {len(bags)} bags"
    return [_blend(nothing, name, False, values, fold, bags, predictions, seconds)]


def one_network(
    plan: Plan, predictions: Predictions, losses: Sequence[float], seconds: np.ndarray
) -> list[Blend]:
    """Sealed rows said by the one network that did best on its own stop rows: what an ensemble must beat."""
    found = []
    for net in networks(plan):
        members = [own[0] for own in fold_members(plan, net=net).values()]
        if plan.strategy != "kfold" or len(members) < 2 or not plan.sealed.any():
            continue
        best = min(members, key=lambda member: np.nan_to_num(losses[member], nan=np.inf))
        values = np.full(predictions.values.shape[1:], np.nan, np.float32)
        values[plan.sealed] = predictions.values[best, plan.sealed]
        kind = "networks" if net == networks(plan)[0] else f"{net} networks"
        nothing = Ensemble("", "", {}, Vote(()))
        fold = np.full(len(values), -1, np.int16)
        name = f"one of {len(members)} {kind}"
        blend = _blend(nothing, name, True, values, fold, [best], predictions, seconds)
        found.append(dataclasses.replace(blend, single=True))
    return found


def said(predictions: Predictions, group: Group, rows: np.ndarray, task: Task) -> np.ndarray:
    """(rows, c) what a group says of some rows."""
    values = predictions.values[np.ix_(np.asarray(group.voices), rows)]
    return say(values, dataclasses.replace(group, voices=tuple(range(len(group.voices)))), task)


def _held_out(
    ensemble: Ensemble, predictions: Predictions, plan: Plan, task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, c) of the rows that the folds score, mean of the repeats; and each row's fold (n,)."""
    total, count = np.zeros(predictions.values.shape[1:]), np.zeros(len(plan.roles))
    fold = np.full(len(plan.roles), -1, np.int16)
    for (_, number), group in ensemble.folds.items():
        rows = plan.rows(group.voices[0], SCORE)
        total[rows] += said(predictions, group, rows, task)
        count[rows] += 1
        fold[rows] = number
    if len({repeat for repeat, _ in ensemble.folds}) > 1:
        fold[:] = -1
    values = np.full(total.shape, np.nan, np.float32)
    values[count > 0] = total[count > 0] / count[count > 0, None]
    return values, fold


def _blend(
    ensemble: Ensemble,
    name: str,
    test: bool,
    values: np.ndarray,
    fold: np.ndarray,
    members: Sequence[int],
    predictions: Predictions,
    seconds: np.ndarray,
) -> Blend:
    return Blend(
        name=name,
        split="test" if test else "out_of_fold",
        values=values,
        rows=~np.isnan(values).any(axis=1),
        fold=fold,
        members=tuple(members),
        seconds_train=float(seconds[list(members)].sum()),
        seconds_predict=predictions.seconds * _heard(ensemble, members) / max(len(predictions.values), 1),
        ensemble=ensemble.name,
    )


def _by_loss(values: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    return by_loss(row_losses(values, truth, task).mean(axis=1).tolist())


def _greedy(values: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """The mean of searches on bootstrap samples of the rows: one search on few rows picks too few voices."""
    random = np.random.default_rng(len(truth))
    draws = [random.integers(len(truth), size=min(len(truth), DRAWN)) for _ in range(SEARCHES)]
    return np.mean([greedy(values[:, rows], truth[rows], task, PICKS) for rows in draws], axis=0)


def _heard(ensemble: Ensemble, members: Sequence[int]) -> int:
    """How many networks answer for a new row."""
    return len({voice for group in ensemble.vote.groups for voice in group.voices}) or len(members)


def _equal(name: str, title: str, members: Mapping[Key, Sequence[int]]) -> Ensemble:
    folds = {key: Group(tuple(own)) for key, own in members.items()}
    return Ensemble(name, title, folds, Vote(tuple(folds.values())))


def _without_idle(members: Sequence[int], weights: np.ndarray) -> Group:
    """The members that weigh something."""
    heard = np.flatnonzero(weights > 1e-9)
    share = weights[heard] / weights[heard].sum()
    return Group(tuple(members[int(place)] for place in heard), tuple(share.tolist()))


def _most(members: Mapping[Key, Sequence[int]]) -> int:
    return max((len(own) for own in members.values()), default=0)
