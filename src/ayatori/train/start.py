"""Stage 6. Dataset, Plan, recipe -> members: here, in this process or in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ayatori.nets import Network
from ayatori.nets.dropout import global_chance, own_chance, seed_globally
from ayatori.nets.joined import Joined
from ayatori.recipe import Recipe
from ayatori.records import STOP, Dataset, Member, Plan
from ayatori.train.calibrate import shift_and_temperature, temperature
from ayatori.train.exact import solve_members
from ayatori.train.learner import Learner, Progress
from ayatori.train.lesson import check_offsets, soft_targets
from ayatori.train.loop import Job, OnEpoch, OnStep, packed, train_members
from ayatori.train.predict import logits_of
from ayatori.train.stream import make_stream, pick_device, read_by
from ayatori.train.workers import train_in_workers, why_not_workers


class Keeper(Protocol):
    """Where checkpoints go; the run folder is one."""

    def save_checkpoint(self, progress: dict[int, dict], tensors: dict[str, Tensor]) -> None: ...

    def load_checkpoint(self) -> tuple[dict[int, dict], dict[str, Tensor]] | None: ...


def train(
    dataset: Dataset,
    plan: Plan,
    recipe: Recipe,
    keeper: Keeper | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    offsets: np.ndarray | None = None,
    teacher: np.ndarray | None = None,
    start: Sequence[Mapping[str, Tensor] | None] = (),
) -> list[Member]:
    """Train every member of ``plan``; each comes back with its best weights and the reason it stopped.

    ``recipe`` must be settled (see ``settle``). ``on_epoch(line)`` sees each member's each epoch and ends
    that member by returning True. A checkpoint is written at the end of an epoch, at most every
    ``recipe.train.checkpoint_seconds``; Ctrl-C writes one too, then goes on upwards.

    ``offsets`` (members, n, outputs) float: logits, or values in the units of the target, of which each
    member learns what is missing. It minimises, and is stopped by, the loss of their sum with its own
    outputs, and answers with its own: neither softmax nor temperature, nor the mean of the target.

    ``teacher`` (n, outputs), or (members, n, outputs) where each has its own, float: probabilities or values.
    Members learn from them and the labels alike (see ``soft_targets``); they stop, and are calibrated, by
    labels alone. Nothing is read of rows that a member does not learn from.

    ``start``: tensors by name that each member begins with (None: nothing), such as a head that has learned
    already. Each of the three keeps to one process.
    """
    dataset = read_by(recipe, dataset)
    device = pick_device(recipe.train.device)
    if offsets is not None:
        check_offsets(offsets, dataset, plan)
    job = Job(
        dataset,
        plan,
        recipe,
        make_stream(dataset, plan, recipe),
        device,
        offsets=offsets,
        soft=None if teacher is None else soft_targets(teacher, dataset, plan),
        start=start,
    )
    alone = offsets is not None or teacher is not None or bool(start)
    found = keeper.load_checkpoint() if keeper else None
    workers = min(recipe.engine.workers, plan.members)

    def save(learners: Sequence[Learner]) -> None:
        if keeper:
            keeper.save_checkpoint(*packed(learners))

    with global_chance([torch.cuda.current_device()] if device.type == "cuda" else []):
        if recipe.train.solver == "exact" and offsets is None and teacher is None:
            learners = solve_members(job, on_step)
            trained = [(learner.index, learner.network, learner.progress) for learner in learners]
        elif workers > 1 and not alone and not why_not_workers(recipe):
            keep = keeper.save_checkpoint if keeper else None
            trained = train_in_workers(job, workers, found, keep, on_epoch, on_step)
        else:
            learners = train_members(job, range(plan.members), found, save, on_epoch, on_step)
            trained = [(learner.index, learner.network, learner.progress) for learner in learners]
        return [_member(job, *one) for one in trained]


def _member(job: Job, index: int, network: Network, progress: Progress) -> Member:
    """The member with its best weights, calibrated on its own stop rows."""
    column = job.plan.columns[index]
    own_chance(network, [])
    network.eval()
    seed_globally(column.seed)
    if job.offsets is not None:
        network.shift.zero_()
    elif job.dataset.task != "regression":
        rows = job.plan.rows(index, STOP)
        call = Joined([network])
        logits = logits_of(call.logits, job.dataset.inputs, [rows], job.device)[0]
        target = torch.from_numpy(job.dataset.labels[rows])
        logits = network.led_back(logits.float()).cpu()
        if job.recipe.balance.name != "none" and job.recipe.balance.balance_correct:
            shift, divisor = shift_and_temperature(logits, target)
            network.shift += shift.to(network.shift.device)
            network.temperature.fill_(divisor)
        else:
            network.temperature.fill_(temperature(logits, target))
    return Member(
        index=index,
        column=column,
        network=network,
        history=tuple(progress.history),
        best_epoch=progress.best_epoch,
        reason=progress.reason,
        seconds=progress.seconds,
    )
