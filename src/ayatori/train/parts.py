"""Stage 6. A grown Plan -> its members: those of one network train together, one part after another.

Folds and their bags are one part and share a stream, so that a fold learns the same whether bags stand
beside it or not. Each part has a checkpoint of its own; a run that is resumed finds finished parts there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ayatori.nets import TUNED, head_state, options_beside
from ayatori.recipe import Recipe, change
from ayatori.records import Dataset, Epoch, Member, Plan
from ayatori.train.learner import State
from ayatori.train.loop import OnEpoch, OnStep
from ayatori.train.settle import settle
from ayatori.train.start import Keeper, train


@dataclass(frozen=True)
class Desk:
    """Where each part of a run keeps its checkpoint, and who is told what happens."""

    keeper: Callable[[str], Keeper | None]
    on_epoch: OnEpoch | None = None
    on_step: OnStep | None = None


def train_parts(dataset: Dataset, plan: Plan, recipe: Recipe, desk: Desk) -> list[Member]:
    """Every member of ``plan``, in its order. ``recipe`` is settled, for the run's own network."""
    members: list[Member] = []
    done = 0
    # heads first: tuned networks begin from them
    parts = sorted(enumerate(split(plan)), key=lambda item: plan.columns[item[1][0]].net == TUNED)
    for number, part in parts:
        shares = _between(desk.on_step, done / plan.members, len(part) / plan.members)
        settings = recipe if number == 0 else recipe_of(part, dataset, plan, recipe)
        name = "" if number == 0 else f"part-{number}"
        members += train_some(
            dataset, plan, part, settings, dataclasses.replace(desk, on_step=shares), name, members
        )
        done += len(part)
    return sorted(members, key=lambda member: member.index)


def split(plan: Plan) -> list[tuple[int, ...]]:
    """Numbers of the members that train together: of one network folds with bags, or pairs, or plain ones."""
    parts: dict[tuple[str, str], list[int]] = {}
    for member, column in enumerate(plan.columns):
        kind = column.kind if column.kind in ("pair", "plain") else ""
        parts.setdefault((column.net, kind), []).append(member)
    return [tuple(part) for part in parts.values()]


def recipe_of(part: Sequence[int], dataset: Dataset, plan: Plan, recipe: Recipe) -> Recipe:
    """The run's recipe for another part: the same epochs, and what its own network and size want."""
    net = plan.columns[part[0]].net
    if plan.columns[part[0]].kind == "plain":
        recipe = change(change(recipe, "balance", name="none"), "loss", class_weights=())
    if net != plan.columns[0].net:
        fresh: dict[str, Any] = {"learning_rate": 0.0, "weight_decay": -1.0, "beta2": 0.0, "warmup": -1.0}
        fresh |= {"solver": "auto", "keep": "auto"}
        if TUNED in (net, plan.columns[0].net):
            fresh |= {"epochs": 0, "batch_size": 0, "patience": 0}  # of other networks altogether
        own, activation = options_beside(net, recipe), recipe.net.activation
        recipe = change(recipe, "net", name=net, options=own or {}, activation=activation if own else "")
        recipe = change(change(recipe, "train", **fresh), "loss", label_smoothing=-1.0)
    # how many are in memory at once depends on how large they are, and how many
    recipe = change(recipe, "engine", together=0, tune=False)
    return settle(recipe, dataset, plan.only(part))


def train_some(
    dataset: Dataset,
    plan: Plan,
    part: Sequence[int],
    recipe: Recipe,
    desk: Desk,
    name: str,
    before: Sequence[Member] = (),
    **given: Any,
) -> list[Member]:
    """The members ``part`` of ``plan``, with their numbers there; ``before`` have used up a part of the time.

    ``given``: offsets or a teacher, see ``train``.
    """
    if recipe.time_limit:
        left = recipe.time_limit - sum(member.seconds for member in before)
        recipe = dataclasses.replace(recipe, time_limit=max(left, 1e-3))  # an epoch there always is

    begun = [] if given.get("offsets") is not None else _heads(plan, part, before)
    if any(begun):
        given = {"start": begun, **given}

    def told(line: Epoch) -> bool | None:
        return desk.on_epoch and desk.on_epoch(dataclasses.replace(line, member=part[line.member]))

    trained = train(dataset, plan.only(part), recipe, desk.keeper(name), told, desk.on_step, **given)
    return [_renumbered(member, part[member.index]) for member in trained]


def _heads(plan: Plan, part: Sequence[int], before: Sequence[Member]) -> list[State | None]:
    """For each tuned network of ``part`` the head that has learned from no row but its own; None for others.

    Bags and rounds draw from the rows of their fold, so that its head has seen no more than they may see.
    """
    found: list[State | None] = []
    for member in part:
        column = plan.columns[member]
        kind = "pair" if column.kind == "pair" else "fold"
        wanted = (kind, column.repeat, column.fold, column.other)
        head = None
        for one in before if column.net == TUNED and column.kind != "student" else ():
            own = one.column
            if own.net != TUNED and (own.kind, own.repeat, own.fold, own.other) == wanted:
                head = head_state(one.network)
        found.append(head)
    return found


def _renumbered(member: Member, index: int) -> Member:
    history = tuple(dataclasses.replace(line, member=index) for line in member.history)
    return dataclasses.replace(member, index=index, history=history)


def _between(on_step: OnStep | None, start: float, length: float) -> OnStep | None:
    return on_step and (lambda done: on_step(start + length * done))
