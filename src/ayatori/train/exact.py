"""Linear heads on frozen features, solved rather than stepped towards: all members and penalties at once.

The problem is convex, and all features of a member's rows can be had at once: its solution needs neither a
learning rate nor epochs. Of the penalties each member keeps the one that is best on its own stop rows.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import augment
from ayatori.nets import kind_of
from ayatori.nets.beside import has_beside
from ayatori.recipe import Recipe
from ayatori.records import STOP, AyatoriError, Dataset, Epoch
from ayatori.train.convex import PENALTIES, Solved, solve
from ayatori.train.learner import Learner, clone, remember
from ayatori.train.loop import Job, OnStep, new_learners
from ayatori.train.stream import VIEWS

CONVEX = {
    "classification": ("auto", "cross_entropy"),
    "multilabel": ("auto", "binary"),
    "regression": ("auto", "mse"),
}


def why_steps(recipe: Recipe, dataset: Dataset) -> str:
    """Why this network cannot be solved and must be stepped towards; "" if it can."""
    if kind_of(dataset) != "features" or recipe.net.name != "linear":
        return "only a linear head on frozen features is convex"
    if recipe.net.options.get("dropout"):
        return "dropout is drawn anew at each step"
    if recipe.loss.name not in CONVEX[dataset.task] or recipe.loss.label_smoothing > 0:
        return "it minimises another loss"
    if recipe.balance.name != "none" and dataset.task == "multilabel":
        return "each label of a row weighs by itself"
    if augment(recipe.train.augment).pairs:
        return "rows are mixed anew at each step"
    if any(name.endswith(VIEWS) for name in dataset.inputs):
        return "rows have several views"
    if has_beside(dataset.schema):
        return "columns stand beside"
    return ""


def decide_solver(recipe: Recipe, dataset: Dataset) -> str:
    """ "exact" where it can be and is not forbidden, else "steps"."""
    asked, why = recipe.train.solver, why_steps(recipe, dataset)
    if asked not in ("auto", "steps", "exact"):
        raise AyatoriError(f"`solver` must be auto, steps or exact, however: {asked!r}")
    if asked == "exact" and why:
        raise AyatoriError(f"`solver` cannot be exact, however it was asked for: {why}; leave it out")
    return "steps" if asked == "steps" or why else "exact"


def solve_members(job: Job, on_step: OnStep | None) -> list[Learner]:
    """Every member with the best of its solutions; its history has a line for each penalty."""
    start = time.monotonic()
    learners = new_learners(job, range(job.plan.members))
    features = torch.from_numpy(np.ascontiguousarray(job.dataset.inputs["features"])).to(job.device)
    labels = torch.from_numpy(job.dataset.labels).to(job.device)
    weight = torch.from_numpy(np.stack([_weight(one) for one in learners])).to(job.device)
    fronts = [one.network.front for one in learners]
    found = solve(
        features,
        labels if job.dataset.task == "classification" else labels.float(),
        weight.float(),
        torch.stack([front.mean for front in fronts]),  # type: ignore[misc]
        torch.stack([front.scale for front in fronts]),  # type: ignore[misc]
        job.dataset.task,
        learners[0].network.spec.outputs,
        PENALTIES,
        on_step,
    )
    for learner in learners:
        _choose(learner, found, features, labels, job)
        learner.progress.seconds = (time.monotonic() - start) / len(learners)
    return learners


def _weight(learner: Learner) -> np.ndarray:
    """(n,): how much each row counts; what is drawn more often weighs more here."""
    often = learner.counts if learner.share is None else learner.share
    return often * learner.weight


@torch.no_grad()
def _choose(learner: Learner, found: Solved, features: Tensor, labels: Tensor, job: Job) -> None:
    """Give the member the weights whose penalty is best on its stop rows, and note all that were tried."""
    network, progress = learner.network, learner.progress
    rows = torch.from_numpy(job.plan.rows(learner.index, STOP)).to(job.device)
    seen = network.front({"features": features[rows]})
    target = network.standardise(labels[rows])
    weight, bias = found.weight[learner.index], found.bias[learner.index]
    if network.spec.task == "regression":  # solved in the units of the target
        weight, bias = weight / network.scale[:, None], (bias - network.shift) / network.scale
    losses = [
        learner.stop_loss(network.led_back(seen @ one.T + offset), target).double().mean().item()
        for one, offset in zip(weight, bias, strict=True)
    ]
    for number, (loss, penalty) in enumerate(zip(losses, PENALTIES, strict=True), 1):
        learned = found.train_loss[learner.index, number - 1].item()
        note = f"penalty {penalty:g}"
        progress.history.append(Epoch(learner.index, number, learned, loss, 0.0, 0.0, note))
    best = int(np.argmin(losses))
    network.body.weight.copy_(weight[best])  # type: ignore[operator]
    network.body.bias.copy_(bias[best])  # type: ignore[operator]
    progress.epoch, progress.best_epoch, progress.best_loss = len(losses), best + 1, losses[best]
    progress.reason = f"all {len(losses)} penalties were solved for"
    learner.best = clone(network.state_dict())
    remember(learner)
