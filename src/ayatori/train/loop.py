"""Stage 6. Dataset, Plan, recipe -> members. The only training loop: all members, one stream of data.

Each batch is read, moved and augmented once; every member takes from it the rows that are its own. Each
epoch's order and each step's random numbers follow from (seed, epoch, step, member) alone, so that a
run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import augment
from ayatori.nets import build, measure
from ayatori.recipe import Recipe
from ayatori.records import STOP, Dataset, Epoch, Member, Plan
from ayatori.train.calibrate import temperature
from ayatori.train.chance import draws_from_torch, give_chance, take_chance
from ayatori.train.crew import turns
from ayatori.train.learner import (
    Learner,
    finish_epoch,
    make_optimizer,
    pack,
    remember,
    schedule,
    step,
    unpack,
)
from ayatori.train.loss import make_loss
from ayatori.train.predict import outputs_of
from ayatori.train.stream import (
    Batch,
    batches,
    own_inputs,
    pick_device,
    read_batch,
    row_weights,
    seed_of,
)

AHEAD = 4  # batches that are read together; at most three times as many wait in memory
OnEpoch = Callable[[Epoch], bool | None]
OnStep = Callable[[float], None]  # share of all steps that is done


class Keeper(Protocol):
    """Where checkpoints go; the run folder is one."""

    def save_checkpoint(self, progress: list[dict], tensors: dict[str, Tensor]) -> None: ...

    def load_checkpoint(self) -> tuple[list[dict], dict[str, Tensor]] | None: ...


def train(
    dataset: Dataset,
    plan: Plan,
    recipe: Recipe,
    keeper: Keeper | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> list[Member]:
    """Train every member of ``plan``; each comes back with its best weights and the reason it stopped.

    ``recipe`` must be settled (see ``settle``). ``on_epoch(line)`` sees each member's each epoch and ends
    that member by returning True. A checkpoint is written at the end of an epoch, at most every
    ``recipe.train.checkpoint_seconds``; Ctrl-C writes one too, then goes on upwards.
    """
    device = pick_device(recipe.train.device)
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        learners = [new_learner(dataset, plan, recipe, index, device) for index in range(plan.members)]
        load(learners, keeper)
        try:
            _epochs(dataset, plan, recipe, learners, device, keeper, on_epoch, on_step)
        except KeyboardInterrupt:
            save(learners, keeper)
            raise
        save(learners, keeper)
    return [_member(learner, dataset, plan) for learner in learners]


def _epochs(
    dataset: Dataset,
    plan: Plan,
    recipe: Recipe,
    learners: list[Learner],
    device: torch.device,
    keeper: Keeper | None,
    on_epoch: OnEpoch | None,
    on_step: OnStep | None,
) -> None:
    settings, began, saved = recipe.train, time.monotonic(), time.monotonic()
    stream = np.flatnonzero(np.stack([learner.counts for learner in learners]).any(axis=0))
    share = np.mean([np.count_nonzero(learner.counts) for learner in learners]) / len(stream)
    steps = max(1, round(len(stream) * share / settings.batch_size))
    spent = max((learner.progress.seconds for learner in learners), default=0.0)
    with turns(learners, device) as crew:
        for epoch in range(min(learner.progress.epoch for learner in learners), settings.epochs):
            active = [one for one in learners if not one.done and one.progress.epoch == epoch]
            if not active:
                break
            start = time.monotonic()
            for done in _pass(dataset, recipe, active, stream, steps, epoch, crew, device):
                if on_step:
                    on_step((epoch + done) / settings.epochs)
            judged = [crew.submit(stop_loss, dataset, plan, learner) for learner in active]
            for learner, loss in zip(active, judged, strict=True):
                rate = settings.learning_rate * schedule((epoch + 1) / settings.epochs, settings.warmup)
                seconds = (time.monotonic() - start) / len(active)
                line = finish_epoch(learner, loss.result(), seconds, settings.epochs, rate)
                if on_epoch and on_epoch(line) and not learner.done:
                    learner.progress.reason = "it was asked to stop"
            if recipe.time_limit and spent + time.monotonic() - began > recipe.time_limit:
                for learner in active:
                    learner.progress.reason = (
                        learner.progress.reason or f"the time limit of {recipe.time_limit:g} s"
                    )
            if time.monotonic() - saved > settings.checkpoint_seconds:
                save(learners, keeper)
                saved = time.monotonic()


def _pass(
    dataset: Dataset,
    recipe: Recipe,
    learners: list[Learner],
    stream: np.ndarray,
    steps: int,
    epoch: int,
    crew: Executor,
    device: torch.device,
) -> Iterator[float]:
    """One pass over the stream; yields the share that is done. Each batch is read once, a few ahead."""
    settings, vary = recipe.train, augment(recipe.train.augment)
    waiting: deque[list[Future]] = deque()
    last: dict[int, Future] = {}
    numbered = list(enumerate(batches(stream, steps, recipe.seed, epoch)))
    for first in range(0, steps, AHEAD):
        chunk, ready = numbered[first : first + AHEAD], []
        for number, rows in chunk:
            rate = schedule((epoch * steps + number + 1) / (settings.epochs * steps), settings.warmup)
            ready.append(read_batch(dataset, rows, vary, rate, (recipe.seed, epoch, number), device))
        for learner in learners:
            last[learner.index] = crew.submit(own_steps, learner, ready, last.get(learner.index))
        waiting.append(list(last.values()))
        if len(waiting) > 2:
            _finish(waiting.popleft())
        yield (first + len(chunk)) / steps
    for futures in waiting:
        _finish(futures)


def _finish(futures: list[Future]) -> None:
    for future in futures:
        future.result()


def own_steps(learner: Learner, ready: list[Batch], before: Future | None) -> None:
    """A member's steps on the rows of these batches that are its own, after its steps on earlier ones."""
    if before is not None:
        before.result()
    for batch in ready:
        own = np.flatnonzero(learner.counts[batch.rows])
        if len(own) < learner.network.least_rows:
            continue
        inputs, target = batch.inputs, batch.target
        if len(own) < len(batch.rows):
            index = torch.from_numpy(own).to(target.device)
            inputs = {name: value.index_select(0, index) for name, value in inputs.items()}
            target = target.index_select(0, index)
        weight = learner.weight[torch.from_numpy(batch.rows[own])].to(target.device)
        # a member's dropout does not depend on who trains beside it
        learner.seed_chance(seed_of(*batch.key, learner.column.seed))
        step(learner, inputs, learner.network.standardise(target), weight, batch.rate)


def stop_loss(dataset: Dataset, plan: Plan, learner: Learner) -> float:
    """Mean loss of a member on its own stop rows."""
    logits, target = outputs_of(learner.network, dataset, plan.rows(learner.index, STOP))
    learner.network.train()
    return learner.stop_loss(logits, target).double().mean().item()


def new_learner(dataset: Dataset, plan: Plan, recipe: Recipe, index: int, device: torch.device) -> Learner:
    """A fresh member: built with its own seed, its front fitted on its own training rows alone."""
    column, counts = plan.columns[index], plan.counts(index)
    own = np.repeat(np.arange(len(counts)), counts)
    inputs = own_inputs(dataset, own, column.seed)
    network = build(recipe.net, dataset, measure(inputs, dataset.schema), column.seed)
    network.fit(inputs, dataset.labels[own])
    chance = give_chance(network)
    draws_globally = device.type != "cpu" or draws_from_torch(network, inputs)
    network.to(device)
    if "image" in dataset.inputs:
        network.to(memory_format=torch.channels_last)
    learner = Learner(
        index=index,
        column=column,
        network=network,
        counts=counts,
        weight=torch.from_numpy(row_weights(dataset, counts, recipe.loss.class_weights)),
        loss=make_loss(recipe.loss, dataset.task, recipe.loss.label_smoothing),
        stop_loss=make_loss(recipe.loss, dataset.task),
        optimizer=make_optimizer(network, recipe.train, network.rates()),
        recipe=recipe.train,
        chance=chance,
        draws_globally=draws_globally,
    )
    network.train()
    remember(learner)
    return learner


def save(learners: list[Learner], keeper: Keeper | None) -> None:
    """Write the last complete epoch of every member."""
    if keeper is None:
        return
    progress: list[dict] = []
    tensors: dict[str, Tensor] = {}
    for learner in learners:
        values, state = pack(learner)
        progress.append(values)
        tensors |= {f"{learner.index}/{name}": value for name, value in state.items()}
    keeper.save_checkpoint(progress, tensors)


def load(learners: list[Learner], keeper: Keeper | None) -> None:
    """Go on from the checkpoint, if there is one."""
    found = keeper.load_checkpoint() if keeper is not None else None
    if found is None:
        return
    progress, tensors = found
    for learner in learners:
        prefix = f"{learner.index}/"
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        unpack(learner, progress[learner.index], state)


def _member(learner: Learner, dataset: Dataset, plan: Plan) -> Member:
    """The member with its best weights, calibrated on its own stop rows."""
    progress, network = learner.progress, learner.network
    take_chance(network)
    # a member that never had a finite loss keeps its first weights, and its reason says so
    network.load_state_dict(learner.best or learner.good[0])
    if dataset.task != "regression":
        logits, target = outputs_of(network, dataset, plan.rows(learner.index, STOP))
        network.temperature.fill_(temperature(logits.cpu(), target.cpu()))
    return Member(
        index=learner.index,
        column=learner.column,
        network=network.eval(),
        history=tuple(progress.history),
        best_epoch=progress.best_epoch,
        reason=progress.reason,
        seconds=progress.seconds,
    )
