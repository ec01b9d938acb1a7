"""One network while it learns: why it stops, its way back from a bad step, its state on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import Augmentation
from ayatori.nets.network import Network
from ayatori.nets.traits import Traits
from ayatori.recipe import TrainRecipe
from ayatori.records import Column, Epoch
from ayatori.train.loss import Loss

STRIKES = 5  # a member that diverges more often than this stops
State = dict[str, Tensor]


@dataclass
class Progress:
    """Everything about a learner that is not a tensor; plain JSON values."""

    epoch: int = 0  # epochs finished
    steps: int = 0  # steps of the optimizer
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
    # loss weight of each row, mean 1 over its own training rows: (n,) float32, or (n, labels) of each label
    weight: np.ndarray
    loss: Loss  # what is minimised
    stop_loss: Loss  # what is watched: the same, without label smoothing
    recipe: TrainRecipe
    chance: torch.Generator  # what our own dropout draws from
    traits: Traits  # what was found by trying its network
    moments: State  # of the optimizer: exp_avg/NAME and exp_avg_sq/NAME, shaped as the parameters
    vary: Augmentation  # what happens to its rows
    share: np.ndarray | None = None  # (n,) of all draws, where rare rows are drawn more often
    progress: Progress = field(default_factory=Progress)
    best: State = field(default_factory=dict)
    good: tuple[State, State, dict[str, Any]] = ({}, {}, {})  # network, moments, progress
    offset: np.ndarray | None = None  # (n, outputs): what it adds a step to
    soft: np.ndarray | None = None  # (n, outputs): what it learns instead of labels
    train_loss: float = float("nan")  # of the epoch that has just ended
    note: str = ""  # what happened in it

    def __post_init__(self) -> None:
        self.rows = np.flatnonzero(self.counts)
        self.drawn = np.repeat(self.rows, self.counts[self.rows]).astype(np.int32)  # as often as it counts

    @property
    def done(self) -> bool:
        return bool(self.progress.reason)

    @property
    def least_rows(self) -> int:
        """Statistics of a batch cannot be had from a single row."""
        return 2 if self.traits.mixes_rows else 1

    @property
    def learning_rate(self) -> float:
        """That of this member, in its present state."""
        return (self.column.learning_rate or self.recipe.learning_rate) * self.progress.step_scale

    @property
    def weight_decay(self) -> float:
        decay = self.column.weight_decay
        return self.recipe.weight_decay if decay < 0 else decay


def schedule(progress: float, warmup: float) -> float:
    """Factor of the learning rate at ``progress`` (0..1): linear warm-up, then half a cosine to zero.

    >>> [round(schedule(p, 0.1), 2) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + float(np.cos(np.pi * (progress - warmup) / max(1 - warmup, 1e-9))))


def fresh_moments(network: Network) -> State:
    """The optimizer's memory before its first step."""
    return {
        f"{kind}/{name}": torch.zeros_like(parameter)
        for kind in ("exp_avg", "exp_avg_sq")
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }


def finish_epoch(
    learner: Learner, state: tuple[State, State], stop_loss: float, seconds: float, epochs: int, factor: float
) -> Epoch:
    """Note the epoch, keep the best weights, decide whether to go on.

    ``state``: a copy of the weights and of the moments that the epoch ended with.
    """
    progress, recipe = learner.progress, learner.recipe
    rate = learner.learning_rate * factor
    finite = bool(np.isfinite(learner.train_loss) and np.isfinite(stop_loss))
    note, learner.note = learner.note, ""
    if not finite:
        note = _step_back(learner)
        progress, state = learner.progress, learner.good[:2]
    progress.epoch += 1
    progress.seconds += seconds
    line = Epoch(learner.index, progress.epoch, learner.train_loss, stop_loss, rate, seconds, note)
    progress.history.append(line)
    if finite and (recipe.keep == "last" or stop_loss < progress.best_loss - recipe.min_delta):
        progress.best_loss, progress.best_epoch = stop_loss, progress.epoch
        learner.best = clone(state[0])  # of its own: a state may lie in one piece with those of a whole stack
    if progress.strikes > STRIKES:
        progress.reason = f"the loss was not finite {progress.strikes} times"
    elif progress.epoch - max(progress.best_epoch, 0) >= recipe.patience:
        progress.reason = f"the stop loss had not improved for {recipe.patience} epochs"
    elif progress.epoch >= epochs:
        kept = ", and the last one is kept" if recipe.keep == "last" else ""
        progress.reason = f"all {epochs} epochs were done{kept}"
    learner.good = (*state, _noted(progress))
    return line


def retire(learner: Learner) -> None:
    """A learner that is done keeps its best weights, in memory of its own, and nothing else."""
    # a member that never had a finite loss keeps its first weights, and its reason says so
    learner.best = learner.best or clone(learner.good[0])
    for name, value in [*learner.network.named_parameters(), *learner.network.named_buffers()]:
        # not a part of a stack's memory any more; what is not in a state is the same for all
        # as it lies in memory, and not as a file has it: products would differ in the last digit
        value.data = torch.empty_like(value).copy_(learner.best.get(name, value.data))
    learner.moments = {}
    learner.good = ({}, {}, _noted(learner.progress))


def remember(learner: Learner) -> None:
    """Keep the state as it is: to go back to, and to save."""
    learner.good = (*copied(learner), _noted(learner.progress))


def copied(learner: Learner) -> tuple[State, State]:
    """A copy of the weights, and of the optimizer's moments."""
    return clone(learner.network.state_dict()), clone(learner.moments)


def _noted(progress: Progress) -> dict[str, Any]:
    return {**vars(progress), "history": list(progress.history)}


def _step_back(learner: Learner) -> str:
    network, moments, progress = learner.good
    learner.network.load_state_dict(network)
    for name, value in moments.items():
        learner.moments[name].copy_(value)
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
    network, moments, progress = learner.good
    tensors = {f"network/{name}": value for name, value in network.items()}
    tensors |= {f"best/{name}": value for name, value in learner.best.items()}
    tensors |= {f"moments/{name}": value for name, value in moments.items()}
    return {**progress, "history": [asdict(line) for line in progress["history"]]}, tensors


def unpack(learner: Learner, progress: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put a learner back where ``pack`` left it, bit for bit."""
    parts: dict[str, State] = {"network": {}, "best": {}, "moments": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    learner.best = clone(parts["best"])
    learner.progress = restore_progress(progress)
    if learner.done:
        retire(learner)
        return
    learner.network.load_state_dict(parts["network"])
    for name, value in parts["moments"].items():
        learner.moments[name].copy_(value)
    remember(learner)
