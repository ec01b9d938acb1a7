"""The convex problem of a linear head: all members, for all penalties, at once.

Classes and labels by L-BFGS (Nocedal 1980; two-loop recursion of Nocedal & Wright, "Numerical Optimization",
2006, algorithm 7.4), a problem of its own for each member and penalty, with one product for all of them;
numbers by ridge regression in closed form, one eigendecomposition a member for all penalties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ayatori.records import Task

# of standardised features: from one that leaves little but the means of classes, to hardly any; below, the
# rounding of float32 is seen
PENALTIES = tuple(10.0**power for power in (1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3))
MEMORY, MOST = 12, 400  # steps remembered, steps at most
TOLERANCE, ROUNDING = 3e-4, 1e-7  # of the gradient's largest entry: as a share of the penalty's, and at all
# share of the decrease that the slope promises (Armijo); shortest step; share of a value that rounding hides
SUFFICIENT, SHORTEST, UNSEEN = 1e-4, 1e-3, 1e-6
CELLS = 2**25  # rows x problems x outputs of one product
OnShare = Callable[[float], None]


@dataclass(frozen=True)
class Solved:
    """m members, s penalties, c outputs, d features; in terms of each member's standardised features."""

    weight: Tensor  # (m, s, c, d) float32
    bias: Tensor  # (m, s, c)
    train_loss: Tensor  # (m, s): mean over rows by their weights, without the penalty
    iterations: int


@dataclass(frozen=True)
class _Problems:
    """p problems on the same features. ``penalty`` (p,), ``weight`` (p, n) sums to 1 for each."""

    features: Tensor
    target: Tensor
    weight: Tensor
    centre: Tensor
    scale: Tensor
    penalty: Tensor
    task: Task

    def only(self, some: Tensor) -> _Problems:
        return _Problems(
            self.features,
            self.target,
            self.weight[some],
            self.centre[some],
            self.scale[some],
            self.penalty[some],
            self.task,
        )


@torch.no_grad()
def solve(
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    centre: Tensor,
    scale: Tensor,
    task: Task,
    outputs: int,
    penalties: Sequence[float] = PENALTIES,
    on_share: OnShare | None = None,
) -> Solved:
    """Minimise sum(weight * loss) / sum(weight) + penalty / 2 * |W|^2, for each member and penalty.

    The loss is cross entropy of a softmax, the sum of binary cross entropies, or half of the squared error,
    summed over outputs. The bias is not penalised. Two classes have two outputs, whose weights come out
    opposite, so that a penalty is twice that of a logistic regression with one.

    **Shape** ``features`` (n, d) float32, shared; ``target`` (n,) int64, or (n, c) float; ``weight`` (m, n):
    0 where a row is not the member's; ``centre``, ``scale`` (m, d): the member sees
    ``(features - centre) * scale``.
    """
    members, steps = len(weight), torch.tensor(penalties, dtype=torch.float32, device=features.device)
    share = weight / weight.sum(1, keepdim=True)
    if task == "regression":
        return _ridge(features, target, share, centre, scale, steps, on_share)
    count = len(penalties)
    together = max(1, CELLS // max(1, len(features) * outputs * count))
    parts: list[tuple[Tensor, Tensor, int]] = []
    for first in range(0, members, together):
        own = torch.arange(first, min(first + together, members)).repeat_interleave(count)
        problems = _Problems(
            features, target, share[own], centre[own], scale[own], steps.repeat(len(own) // count), task
        )
        parts.append(_lbfgs(problems, outputs))
        if on_share:
            on_share(min(first + together, members) / members)
    theta, loss = (torch.cat([part[place] for part in parts]) for place in (0, 1))  # type: ignore[misc]
    found = theta.view(members, count, outputs, -1)
    return Solved(
        found[..., :-1].contiguous(),
        found[..., -1].contiguous(),
        loss.view(members, count),
        max(part[2] for part in parts),
    )


def _ridge(
    features: Tensor,
    target: Tensor,
    share: Tensor,
    centre: Tensor,
    scale: Tensor,
    penalties: Tensor,
    on_share: OnShare | None,
) -> Solved:
    """Ridge regression on the smaller of the two Gram matrices, in float64."""
    weights, biases, losses = [], [], []
    for number, (own, middle, size) in enumerate(zip(share, centre, scale, strict=True)):
        rows = own > 0
        part = own[rows].double()[:, None]
        x = ((features[rows] - middle) * size).double()
        y = target[rows].double()
        mean_x, mean_y = (part * x).sum(0), (part * y).sum(0)
        a, b = part.sqrt() * (x - mean_x), part.sqrt() * (y - mean_y)
        wide = a.shape[1] > a.shape[0]
        values, vectors = torch.linalg.eigh(a @ a.T if wide else a.T @ a)
        inner = vectors.T @ (b if wide else a.T @ b)
        shrunk = inner / (values.clamp(min=0)[None, :, None] + penalties.double()[:, None, None])
        found = vectors @ shrunk
        found = (a.T @ found if wide else found).mT  # (s, c, d)
        bias = mean_y - found @ mean_x
        error = (x @ found.mT + bias[:, None] - y).square().sum(2) / 2
        weights.append(found.float())
        biases.append(bias.float())
        losses.append((error @ part[:, 0]).float())
        if on_share:
            on_share((number + 1) / len(share))
    return Solved(torch.stack(weights), torch.stack(biases), torch.stack(losses), 1)


def _losses(problems: _Problems, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``theta`` (p, c, d + 1) -> objectives (p,), losses without penalty (p,), gradients like ``theta``."""
    x, weight = problems.features, problems.weight.T[:, :, None]
    count, outputs, _ = theta.shape
    own, bias = theta[..., :-1], theta[..., -1]
    scaled = own * problems.scale[:, None]
    offset = bias - (scaled * problems.centre[:, None]).sum(-1)
    logits = (x @ scaled.reshape(count * outputs, -1).T).view(len(x), count, outputs) + offset
    if problems.task == "classification":
        said = logits.log_softmax(-1)
        hit = problems.target[:, None, None].expand(-1, count, 1)
        losses = -said.gather(2, hit)[..., 0]
        slope = said.exp_()
        slope.scatter_add_(2, hit, slope.new_full((1, 1, 1), -1.0).expand_as(hit))
    else:
        wanted = problems.target[:, None].expand_as(logits)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)
        slope = logits.sigmoid() - wanted
    loss = (losses * weight[..., 0]).sum(0)
    slope = slope * weight
    of_bias = slope.sum(0)
    gradient = torch.empty_like(theta)
    raw = (slope.view(len(x), -1).T @ x).view_as(own)
    penalty = problems.penalty[:, None, None]
    gradient[..., :-1] = (raw - of_bias[..., None] * problems.centre[:, None]) * problems.scale[:, None]
    gradient[..., :-1] += penalty * own
    gradient[..., -1] = of_bias
    return loss + problems.penalty / 2 * own.square().sum((1, 2)), loss, gradient


def _lbfgs(problems: _Problems, outputs: int) -> tuple[Tensor, Tensor, int]:
    """Each problem to its minimum: parameters (p, c, d + 1), losses (p,), how many steps the slowest made."""
    count, width = len(problems.penalty), problems.features.shape[1] + 1
    answer = problems.features.new_zeros(count, outputs, width)
    answer_loss = answer.new_zeros(count)
    active = torch.arange(count, device=answer.device)
    theta = answer.clone()
    value, loss, gradient = _losses(problems, theta)
    moves: list[
        tuple[Tensor, Tensor, Tensor]
    ] = []  # how it moved, how the gradient changed, 1 / their product
    number = 0
    for number in range(1, MOST + 1):  # noqa: B007 (told)
        direction = _direction(gradient, moves)
        slope = (direction * gradient).sum((1, 2))
        length = torch.ones_like(value)
        if not moves:
            length = 1 / gradient.flatten(1).norm(dim=1).clamp(min=1.0)
        fresh, found = _search(problems, theta, value, direction, slope, length)
        move, change = fresh - theta, found[2] - gradient
        product = (move * change).sum((1, 2))
        # a problem that no longer moves has nothing to remember
        inverse = torch.where(product > 1e-12, 1 / product.clamp(min=1e-12), 0.0)
        moves = [*moves, (move, change, inverse)][-MEMORY:]
        theta, (value, loss, gradient) = fresh, found
        largest = problems.penalty * theta[..., :-1].abs().amax((1, 2))
        done = gradient.abs().amax((1, 2)) < TOLERANCE * largest + ROUNDING
        done |= product <= 1e-12 * value
        answer[active], answer_loss[active] = theta, loss
        if bool(done.all()):
            break
        if 4 * int(done.sum()) >= len(done):
            some = ~done
            active, problems = active[some], problems.only(some)
            theta, value, loss, gradient = theta[some], value[some], loss[some], gradient[some]
            moves = [(a[some], b[some], c[some]) for a, b, c in moves]
    return answer, answer_loss, number


def _direction(gradient: Tensor, moves: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    direction, kept = -gradient, []
    for move, change, inverse in reversed(moves):
        along = inverse * (move * direction).sum((1, 2))
        kept.append(along)
        direction = direction - along[:, None, None] * change
    if moves:
        _, change, inverse = moves[-1]
        size = inverse * change.square().sum((1, 2))
        direction = direction / torch.where(size > 0, size, 1.0)[:, None, None]
    for (move, change, inverse), along in zip(moves, reversed(kept), strict=True):
        back = inverse * (change * direction).sum((1, 2))
        direction = direction + (along - back)[:, None, None] * move
    return direction


def _search(
    problems: _Problems, theta: Tensor, value: Tensor, direction: Tensor, slope: Tensor, length: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """A step that each problem gains by; those that gain nothing however short it is stay where they are.

    Near a minimum rounding hides the gain, and the slope is asked (Hager & Zhang 2005, "approximate Wolfe").
    """
    fresh = theta + length[:, None, None] * direction
    found = _losses(problems, fresh)
    rest = torch.arange(len(value), device=value.device)
    while True:
        at, now = value[rest], found[0][rest]
        enough = now <= at + SUFFICIENT * length[rest] * slope[rest]
        ahead = (found[2][rest] * direction[rest]).sum((1, 2))
        enough |= (ahead <= (2 * SUFFICIENT - 1) * slope[rest]) & (now <= at + UNSEEN * at.abs())
        rest = rest[~enough & (length[rest] > 0)]
        if not len(rest):
            return fresh, found
        length[rest] = torch.where(length[rest] < SHORTEST, 0.0, length[rest] / 2)
        fresh[rest] = theta[rest] + length[rest][:, None, None] * direction[rest]
        for whole, part in zip(found, _losses(problems.only(rest), fresh[rest]), strict=True):
            whole[rest] = part
