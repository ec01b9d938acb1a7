"""Losses: one value a row, so that one weighted sum serves every member."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ayatori.recipe import LossRecipe, nearest
from ayatori.records import AyatoriError, Task

Loss = Callable[[Tensor, Tensor], Tensor]

NAMES: dict[Task, tuple[str, ...]] = {
    "classification": ("cross_entropy", "focal"),
    "multilabel": ("binary", "focal"),
    "regression": ("mse", "mae", "huber", "quantile"),
}


def make_loss(recipe: LossRecipe, task: Task, smoothing: float = 0.0, soft: bool = False) -> Loss:
    """The function ``(logits (b, outputs), target) -> (b,)`` that training minimises.

    Targets: classification (b,) class codes; multilabel (b, labels) of 0 and 1; regression (b, values) in
    standard deviations of the member's own training rows. A function of the user's own may also
    return a single number, which then counts as the mean of its rows.

    ``soft``: targets of classes are probabilities (b, outputs). A function of the user's own knows codes,
    and cross entropy takes its place.

    Sources: focal loss, Lin et al. 2017 (arXiv 1708.02002), equation 4; quantile (pinball) loss, Koenker
    and Bassett 1978; Huber 1964.

    >>> loss = make_loss(LossRecipe(name="focal", gamma=0.0), "classification")
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> bool(torch.isclose(loss(logits, target), F.cross_entropy(logits, target)))
    True
    """
    name = recipe.name
    if callable(name) and soft and task == "classification":
        name = "cross_entropy"
    if callable(name):
        return _per_row(name)
    name = NAMES[task][0] if name == "auto" else name
    if name not in NAMES[task]:
        raise AyatoriError(
            f"`loss` for {task} must be one of {', '.join(NAMES[task])}, however: {name!r}"
            f"{nearest(name, NAMES[task])}"
        )
    losses: dict[str, Loss] = {
        "cross_entropy": lambda logits, target: _cross_entropy(logits, target, smoothing),
        "binary": lambda logits, target: _binary(logits, target, smoothing).mean(-1),
        "focal": lambda logits, target: (_soft_focal if soft else _focal)(logits, target, recipe.gamma, task),
        "mse": lambda logits, target: (logits - target).square().mean(-1),
        "mae": lambda logits, target: (logits - target).abs().mean(-1),
        "huber": lambda logits, target: F.huber_loss(
            logits, target, reduction="none", delta=recipe.delta
        ).mean(-1),
        "quantile": lambda logits, target: _pinball(logits, target, recipe.quantile),
    }
    loss = losses[name]
    loss.of_rows = True  # type: ignore[attr-defined]  # several members' rows at once: (k, b, outputs) -> (k, b)
    if task == "multilabel":
        each = (
            (lambda logits, target: _binary(logits, target, smoothing))
            if name == "binary"
            else (lambda logits, target: _focal_labels(logits, target, recipe.gamma))
        )
        each.of_rows = True  # type: ignore[attr-defined]
        loss.each = each  # type: ignore[attr-defined]  # (b, labels), whose mean over labels is the loss
    return loss


def _cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Of (b, classes), or of (k, b, classes), which a stack has in memory with the classes before the rows.

    Asked so, it is a fifth to two thirds of the time.
    """
    if logits.ndim == 3:
        logits, target = logits.mT, target.mT if target.is_floating_point() else target
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)


def _binary(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    soft = target * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, soft, reduction="none")


def _focal(logits: Tensor, target: Tensor, gamma: float, task: Task) -> Tensor:
    if task == "multilabel":
        return _focal_labels(logits, target, gamma).mean(-1)
    entropy = _cross_entropy(logits, target)
    return (1 - torch.exp(-entropy)) ** gamma * entropy


def _focal_labels(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """(b, labels): the mean of the losses that yes and no would have, by how likely the target says it is."""
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -(target * no.exp() ** gamma * yes + (1 - target) * yes.exp() ** gamma * no)


def _soft_focal(logits: Tensor, target: Tensor, gamma: float, task: Task) -> Tensor:
    """The mean of the losses that each outcome would have, by how likely the target says it is."""
    if task == "multilabel":
        return _focal_labels(logits, target, gamma).mean(-1)
    log_p = logits.log_softmax(-1)
    return -(target * (1 - log_p.exp()) ** gamma * log_p).sum(-1)


def _pinball(logits: Tensor, target: Tensor, quantile: float) -> Tensor:
    error = target - logits
    return torch.maximum(quantile * error, (quantile - 1) * error).mean(-1)


def _per_row(function: Callable[..., Tensor]) -> Loss:
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        value = function(logits, target)
        if value.ndim == 0:
            return value.expand(len(logits))
        if value.shape[:1] != logits.shape[:1]:
            raise AyatoriError(
                f"a loss must give one number, or one per row ({len(logits)}), however: {tuple(value.shape)}"
            )
        return value.flatten(1).mean(1) if value.ndim > 1 else value

    return loss
