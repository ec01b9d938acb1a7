"""Stage 6. Several augmentations in one shared run -> each fold keeps the best on its own stop rows.

A fold chooses by rows of its own, so that the rows it is scored on have no say. Networks that must not see a
second fold either ("pair") have no choice of their own, and learn with what was decided without looking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ayatori.augment import candidates
from ayatori.recipe import Recipe, change
from ayatori.records import Dataset, Plan
from ayatori.train.parts import Desk
from ayatori.train.settle import settle
from ayatori.train.start import train


@dataclass(frozen=True)
class Compared:
    """The Plan with an augmentation for each column, and what was seen: a sentence, and facts."""

    plan: Plan
    sentence: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def compare_augments(
    dataset: Dataset, plan: Plan, recipe: Recipe, desk: Desk, on_step: Callable[[float], None] | None = None
) -> Compared:
    """Train the folds of ``plan`` once with each augmentation that ``recipe`` names, on one stream."""
    names = candidates(recipe.train.augment)
    if not names:
        return Compared(plan)
    net = plan.columns[0].net
    folds = [m for m, column in enumerate(plan.columns) if column.kind == "fold" and column.net == net]
    columns = tuple(dataclasses.replace(plan.columns[fold], augment=name) for name in names for fold in folds)
    trial = Plan(np.tile(plan.roles[:, folds], len(names)), columns, plan.strategy)
    settings = settle(change(recipe, "engine", together=0, tune=False), dataset, trial)
    if settings.time_limit:
        settings = dataclasses.replace(settings, time_limit=settings.time_limit / 2)
    members = train(dataset, trial, settings, desk.keeper("augment"), on_step=on_step)
    kept = [one.history[one.best_epoch - 1].stop_loss if one.best_epoch > 0 else np.inf for one in members]
    losses = np.array(kept).reshape(len(names), len(folds))
    winners = losses.argmin(axis=0)
    chosen = {
        (plan.columns[fold].repeat, plan.columns[fold].fold): names[winner]
        for fold, winner in zip(folds, winners, strict=True)
    }
    whole = tuple(
        dataclasses.replace(column, augment=chosen.get((column.repeat, column.fold), ""))
        if column.kind in ("fold", "bag", "plain")
        else column
        for column in plan.columns
    )
    facts = {
        "names": names,
        "losses": losses.tolist(),
        "chosen": [names[winner] for winner in winners],
        "seconds": float(sum(member.seconds for member in members)),
    }
    return Compared(dataclasses.replace(plan, columns=whole), _sentence(names, losses), facts)


def _sentence(names: tuple[str, ...], losses: np.ndarray) -> str:
    """What each came to on the stop rows, against the first; and who keeps what."""
    means = losses.mean(axis=1)
    folds = losses.shape[1]
    told = [f"{names[0]} {means[0]:.4g}"]
    for name, mean, own in zip(names[1:], means[1:], losses[1:], strict=True):
        told.append(f"{name} {mean:.4g} (better in {int((own < losses[0]).sum())} of {folds})")
    counts = np.bincount(losses.argmin(axis=0), minlength=len(names))
    kept = ", ".join(f"{names[place]} in {counts[place]}" for place in np.argsort(-counts) if counts[place])
    return f"mean loss on stop rows: {'; '.join(told)}; each fold keeps its best: {kept}"
