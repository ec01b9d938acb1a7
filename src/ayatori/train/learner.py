"""One network while it learns: its step, its stopping, its way back from a bad step, its state on disk."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.network import Network
from ayatori.recipe import TrainRecipe
from ayatori.records import Column, Epoch
from ayatori.train.loss import Loss

STRIKES = 5  # a member that diverges more often than this stops
State = dict[str, Tensor]


@dataclass
class Progress:
    """Everything about a learner that is not a tensor; plain JSON values."""

    epoch: int = 0  # epochs finished
    best_epoch: int = -1
    best_loss: float = float("inf")
    step_scale: float = 1.0  # halved each time the loss was not finite
    strikes: int = 0
    seconds: float = 0.0
    reason: str = ""  # why it stopped; "" while it learns
    history: list[Epoch] = field(default_factory=list)


@dataclass
class Learner:
    """A member in training. ``counts`` (n,) uint8 says how often it trains on each row."""

    index: int
    column: Column
    network: Network
    counts: np.ndarray
    weight: Tensor  # (n,) float32: loss weight of each row, mean 1 over its own training rows
    loss: Loss  # what is minimised
    stop_loss: Loss  # what is watched: the same, without label smoothing
    optimizer: torch.optim.Optimizer
    recipe: TrainRecipe
    chance: torch.Generator  # what our own dropout draws from
    draws_globally: bool  # a network of the user's own may draw from torch's global generator
    progress: Progress = field(default_factory=Progress)
    best: State = field(default_factory=dict)
    good: tuple[State, dict[str, Any], dict[str, Any]] = ({}, {}, {})  # network, optimizer, progress
    sum_loss: float = 0.0
    sum_weight: float = 0.0

    def seed_chance(self, seed: int) -> None:
        """What this member draws next follows from ``seed`` alone."""
        self.chance.manual_seed(seed)
        if self.draws_globally:
            torch.manual_seed(seed)

    @property
    def done(self) -> bool:
        return bool(self.progress.reason)


def make_optimizer(network: nn.Module, recipe: TrainRecipe, rates: Mapping[str, tuple[float, float]]) -> Any:
    """AdamW with one group for each kind of parameter. Loshchilov and Hutter 2019 (arXiv 1711.05101)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rates.get(name, (1.0, 1.0)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "factor": rate, "weight_decay": recipe.weight_decay * decay, "lr": 0.0}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(0.9, recipe.beta2),
        fused=True,
    )


def schedule(progress: float, warmup: float) -> float:
    """Factor of the learning rate at ``progress`` (0..1): linear warm-up, then half a cosine to zero.

    >>> [round(schedule(p, 0.1), 2) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + float(np.cos(np.pi * (progress - warmup) / max(1 - warmup, 1e-9))))


def step(
    learner: Learner, inputs: Mapping[str, Tensor], target: Tensor, weight: Tensor, factor: float
) -> None:
    """One step of one member on its own rows of a batch: inputs (b, ...), target (b, ...), weight (b,)."""
    recipe, optimizer = learner.recipe, learner.optimizer
    rate = recipe.learning_rate * factor * learner.progress.step_scale
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    losses = learner.loss(learner.network(inputs), target)
    # divided by the rows, not by their weights: a batch of heavy rows must move the network further
    loss = (losses * weight).sum() / len(weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if recipe.clip:
        nn.utils.clip_grad_norm_(learner.network.parameters(), recipe.clip, foreach=True)
    optimizer.step()
    learner.sum_loss += loss.item() * len(weight)
    learner.sum_weight += float(len(weight))


def finish_epoch(learner: Learner, stop_loss: float, seconds: float, epochs: int, rate: float) -> Epoch:
    """Note the epoch, keep the best weights, decide whether to go on."""
    progress, recipe = learner.progress, learner.recipe
    train_loss = learner.sum_loss / max(learner.sum_weight, 1.0)
    learner.sum_loss = learner.sum_weight = 0.0
    note = ""
    if not (np.isfinite(train_loss) and np.isfinite(stop_loss)):
        note = _step_back(learner)
        progress = learner.progress
    progress.epoch += 1
    progress.seconds += seconds
    line = Epoch(learner.index, progress.epoch, train_loss, stop_loss, rate, seconds, note)
    progress.history.append(line)
    if not note and stop_loss < progress.best_loss - recipe.min_delta:
        progress.best_loss, progress.best_epoch = stop_loss, progress.epoch
        learner.best = clone(learner.network.state_dict())
    if progress.strikes > STRIKES:
        progress.reason = f"the loss was not finite {progress.strikes} times"
    elif progress.epoch - max(progress.best_epoch, 0) >= recipe.patience:
        progress.reason = f"the stop loss had not improved for {recipe.patience} epochs"
    elif progress.epoch >= epochs:
        progress.reason = f"all {epochs} epochs were done"
    remember(learner)
    return line


def remember(learner: Learner) -> None:
    """Keep the state at the end of an epoch: to go back to, and to save."""
    optimizer, progress = learner.optimizer.state_dict(), learner.progress
    learner.good = (
        clone(learner.network.state_dict()),
        {
            "state": {number: clone(values) for number, values in optimizer["state"].items()},
            "param_groups": [dict(group) for group in optimizer["param_groups"]],
        },
        {**vars(progress), "history": list(progress.history)},
    )


def _step_back(learner: Learner) -> str:
    network, optimizer, progress = learner.good
    learner.network.load_state_dict(network)
    learner.optimizer.load_state_dict(copy.deepcopy(optimizer))
    learner.progress = restore_progress(progress)
    learner.progress.strikes += 1
    learner.progress.step_scale /= 2
    scale = learner.progress.step_scale
    return f"the loss was not finite: back to epoch {progress['epoch']}, with steps {scale:g} times as long"


def restore_progress(values: Mapping[str, Any]) -> Progress:
    history = [line if isinstance(line, Epoch) else Epoch(**line) for line in values["history"]]
    return Progress(**{**values, "history": history})


def clone(state: Mapping[str, Tensor]) -> State:
    return {name: value.detach().clone() for name, value in state.items()}


def pack(learner: Learner) -> tuple[dict[str, Any], State]:
    """(JSON values, tensors) of the last good state, for a checkpoint."""
    network, optimizer, progress = learner.good
    tensors = {f"network/{name}": value for name, value in network.items()}
    tensors |= {f"best/{name}": value for name, value in learner.best.items()}
    for number, values in optimizer["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in values.items()}
    return {**progress, "history": [asdict(line) for line in progress["history"]]}, tensors


def unpack(learner: Learner, progress: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put a learner back where ``pack`` left it, bit for bit."""
    parts: dict[str, State] = {"network": {}, "best": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    learner.network.load_state_dict(parts["network"])
    learner.best = clone(parts["best"])
    state = learner.optimizer.state_dict()
    state["state"] = {}
    for key, value in parts["optimizer"].items():
        number, name = key.split("/")
        state["state"].setdefault(int(number), {})[name] = value
    learner.optimizer.load_state_dict(state)
    learner.progress = restore_progress(progress)
    remember(learner)
