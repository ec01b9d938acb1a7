"""Stage 6. Dataset, Plan, recipe -> members. The only training loop: all members, one stream of data.

Each batch is read, moved and augmented once; every member takes from it the rows that are its own. Each
epoch's order and each step's random numbers follow from (seed, epoch, step, member) alone, so that a
run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import augment
from ayatori.nets import build, measure
from ayatori.nets.network import Network
from ayatori.recipe import Recipe
from ayatori.records import STOP, AyatoriError, Dataset, Epoch, Member, Plan, Predictions
from ayatori.train.calibrate import temperature
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

FIT_BYTES = 256 * 2**20  # of pictures that a front's statistics come from
PREDICT_ROWS = 1024  # rows of one forward pass without gradients
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

    ``recipe`` must be settled (see ``run.settle``). ``on_epoch(line)`` sees each member's each epoch and ends
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
    return [_member(learner, dataset, plan, device) for learner in learners]


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
    vary = augment(settings.augment)
    stream = np.flatnonzero(np.stack([learner.counts for learner in learners]).any(axis=0))
    share = np.mean([np.count_nonzero(learner.counts) for learner in learners]) / len(stream)
    steps = max(1, round(len(stream) * share / settings.batch_size))
    spent = max((learner.progress.seconds for learner in learners), default=0.0)
    for epoch in range(min(learner.progress.epoch for learner in learners), settings.epochs):
        active = [one for one in learners if not one.done and one.progress.epoch == epoch]
        if not active:
            break
        start, rate = time.monotonic(), 0.0
        for number, rows in enumerate(batches(stream, steps, recipe.seed, epoch)):
            done = (epoch + number / steps) / settings.epochs
            rate = schedule((epoch * steps + number + 1) / (settings.epochs * steps), settings.warmup)
            _stream_step(dataset, active, rows, vary, (recipe.seed, epoch, number), rate, device)
            if on_step:
                on_step(done)
        for learner in active:
            stop_loss = evaluate_stop(dataset, plan, learner, device)
            seconds = (time.monotonic() - start) / len(active)
            line = finish_epoch(learner, stop_loss, seconds, settings.epochs, rate * settings.learning_rate)
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


def _stream_step(
    dataset: Dataset,
    learners: list[Learner],
    rows: np.ndarray,
    vary: Callable[..., Mapping[str, Tensor]],
    key: tuple[int, int, int],
    rate: float,
    device: torch.device,
) -> None:
    """One batch of the stream: read once, varied once, one step for each member on its own rows."""
    wanted = rows[np.stack([learner.counts[rows] for learner in learners]).any(axis=0)]
    if not len(wanted):
        return
    generator = torch.Generator(device).manual_seed(seed_of(*key))
    inputs = vary(take(dataset.inputs, wanted, device), generator)
    target = to_device(dataset.labels[wanted], device)
    for learner in learners:
        own = np.flatnonzero(learner.counts[wanted])
        if len(own) < learner.network.least_rows:
            continue
        if len(own) == len(wanted):
            mine, truth = inputs, target
        else:
            index = torch.from_numpy(own).to(device)
            mine = {name: value.index_select(0, index) for name, value in inputs.items()}
            truth = target.index_select(0, index)
        weight = learner.weight[torch.from_numpy(wanted[own])].to(device)
        # a member's dropout does not depend on who trains beside it
        torch.manual_seed(seed_of(*key, learner.column.seed))
        step(learner, mine, learner.network.standardise(truth), weight, rate)


def new_learner(dataset: Dataset, plan: Plan, recipe: Recipe, index: int, device: torch.device) -> Learner:
    """A fresh member: built with its own seed, its front fitted on its own training rows alone."""
    column, counts = plan.columns[index], plan.counts(index)
    own = np.repeat(np.arange(len(counts)), counts)
    inputs = own_inputs(dataset, own, column.seed)
    network = build(recipe.net, dataset, measure(inputs, dataset.schema), column.seed)
    network.fit(inputs, dataset.labels[own])
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
    )
    network.train()
    remember(learner)
    return learner


def own_inputs(dataset: Dataset, own: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Raw inputs of a member's own training rows; of pictures a sample of at most FIT_BYTES."""
    inputs = {}
    for name, values in dataset.inputs.items():
        rows = own
        if name == "image":
            most = max(1, FIT_BYTES // int(np.prod(values.shape[1:])))
            if len(own) > most:
                rows = np.sort(np.random.default_rng(seed).choice(own, most, replace=False))
        inputs[name] = values[rows]
    return inputs


def row_weights(dataset: Dataset, counts: np.ndarray, class_weights: tuple[float, ...]) -> np.ndarray:
    """(n,) float32: weight of each row in the loss; mean 1 over a member's own training rows."""
    weight = counts.astype(np.float64)
    if class_weights:
        if dataset.task == "regression" or len(class_weights) != len(dataset.classes):
            raise AyatoriError(
                f"`class_weights` must hold one weight for each of the {len(dataset.classes)} classes, "
                f"however: {len(class_weights)}"
            )
        factors = np.asarray(class_weights)
        if dataset.task == "classification":
            weight *= factors[dataset.labels]
        else:
            # a row weighs as much as the heaviest of the labels it carries
            weight *= np.where(dataset.labels > 0, factors, 1.0).max(axis=1)
    return (weight / weight[counts > 0].mean()).astype(np.float32)


def batches(stream: np.ndarray, steps: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The rows of an epoch in random order, cut into ``steps`` nearly equal batches."""
    order = np.random.default_rng([seed, epoch]).permutation(stream)
    yield from np.array_split(order, steps)


def take(inputs: Mapping[str, np.ndarray], rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """Raw rows as tensors on ``device``; pictures channels-last, no float64 where there is none."""
    batch = {name: to_device(values[rows], device) for name, values in inputs.items()}
    if "image" in batch:
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    if device.type == "mps" and tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.to(device, non_blocking=True)


def stop_outputs(
    dataset: Dataset, plan: Plan, learner: Learner, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(logits, target) of a member's own stop rows, in evaluation mode."""
    rows = plan.rows(learner.index, STOP)
    logits, target = [], []
    learner.network.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            logits.append(learner.network(take(dataset.inputs, part, device)).float())
            target.append(learner.network.standardise(to_device(dataset.labels[part], device)))
    learner.network.train()
    return torch.cat(logits), torch.cat(target)


def evaluate_stop(dataset: Dataset, plan: Plan, learner: Learner, device: torch.device) -> float:
    """Mean loss of a member on its own stop rows."""
    logits, target = stop_outputs(dataset, plan, learner, device)
    return learner.stop_loss(logits, target).double().mean().item()


def predict_rows(network: Network, inputs: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(rows, outputs) float32: probabilities or values of one network in evaluation mode."""
    device = network.shift.device
    parts = [np.zeros((0, network.spec.outputs), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rows), PREDICT_ROWS):
            batch = take(inputs, rows[start : start + PREDICT_ROWS], device)
            parts.append(network.predict(batch).cpu().numpy())
    return np.concatenate(parts)


def predict(members: list[Member], dataset: Dataset, plan: Plan) -> Predictions:
    """What every member says of the rows that neither taught nor stopped it."""
    start = time.monotonic()
    unseen = ~((plan.roles.T > 0) & (plan.roles.T <= STOP))
    outputs = members[0].network.spec.outputs
    values = np.full((len(members), len(dataset), outputs), np.nan, np.float32)
    for member in members:
        rows = np.flatnonzero(unseen[member.index])
        values[member.index, rows] = predict_rows(member.network, dataset.inputs, rows)
    trained = sum(member.seconds for member in members)
    return Predictions(values, unseen, seconds=time.monotonic() - start, seconds_train=trained)


def pick_device(name: str) -> torch.device:
    """``auto``: CUDA, then MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def seed_of(*key: int) -> int:
    """A seed that follows from numbers alone.

    >>> seed_of(0, 1, 2) == seed_of(0, 1, 2), seed_of(0, 1, 2) == seed_of(0, 2, 1)
    (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


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


def _member(learner: Learner, dataset: Dataset, plan: Plan, device: torch.device) -> Member:
    """The member with its best weights, calibrated on its own stop rows."""
    progress, network = learner.progress, learner.network
    # a member that never had a finite loss keeps its first weights, and its reason says so
    network.load_state_dict(learner.best or learner.good[0])
    if dataset.task != "regression":
        logits, target = stop_outputs(dataset, plan, learner, device)
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
