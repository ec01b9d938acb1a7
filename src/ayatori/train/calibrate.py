"""Stage 6. Logits and target of a member's own stop rows -> the temperature that makes its shares true."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH = 1.0  # of the prior of a class's shift: an odd of e to one
DOUBT = 2.0  # nats: what a few stop rows must outweigh before the temperature moves by a factor of e


def temperature(logits: Tensor, target: Tensor) -> float:
    """What logits (b, outputs) are divided by before the softmax (or the sigmoid, where there are labels).

    The minimum of the log loss of the b rows plus ``DOUBT`` times the squared logarithm of the
    temperature (Guo et al. 2017, arXiv 1706.04599, with a weak prior at 1, since stop rows can be few).

    >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).repeat(1000, 1)
    >>> target = torch.tensor([0, 0, 1, 1]).repeat(1000)  # sure of itself, and right in three of four
    >>> round(float((logits / temperature(logits, target)).softmax(-1)[0, 0]), 2)
    0.75
    """
    from scipy.optimize import minimize_scalar  # here: workers start sooner without it

    logits = logits.double()
    if not bool(torch.isfinite(logits).all()):
        return 1.0

    def cost(log_temperature: float) -> float:
        scaled = logits * math.exp(-log_temperature)
        if target.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(scaled, target.double(), reduction="sum")
        else:
            loss = F.cross_entropy(scaled, target, reduction="sum")
        return loss.item() + DOUBT * log_temperature**2

    return math.exp(minimize_scalar(cost, bounds=(-3.0, 3.0), method="bounded").x)


def shift_and_temperature(logits: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """(outputs,) added to logits (b, outputs), and what they are divided by then, for the lowest log loss.

    For networks whose rare classes counted more: they have often learned those rows by heart, and say too
    little of new ones, which no temperature mends (bias-corrected temperature scaling, Alexandari, Kundaje,
    Shrikumar 2020, arXiv 1901.06852). Normal priors hold both near 0 and 1 where stop rows are few.

    >>> logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(500, 1)
    >>> target = torch.tensor([0, 1, 0, 0]).repeat(250)  # the second class is believed too often
    >>> shift, _ = shift_and_temperature(logits, target)
    >>> bool(shift[0] > shift[1])
    True
    """
    from scipy.optimize import minimize  # here: workers start sooner without it

    logits, size = logits.double(), logits.shape[1]
    if not bool(torch.isfinite(logits).all()):
        return torch.zeros(size), 1.0

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.tensor(values, requires_grad=True)
        scaled = (logits + free[1:]) * torch.exp(-free[0])
        if target.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(scaled, target.double(), reduction="sum")
        else:
            loss = F.cross_entropy(scaled, target, reduction="sum")
        whole = loss + DOUBT * free[0] ** 2 + free[1:].square().sum() / (2 * WIDTH**2)
        (slope,) = torch.autograd.grad(whole, free)
        return whole.item(), slope.numpy()

    bounds = [(-3.0, 3.0)] + [(-10.0, 10.0)] * size
    found = minimize(cost, np.zeros(size + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return torch.from_numpy(found[1:]).float(), math.exp(found[0])
