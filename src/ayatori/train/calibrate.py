"""Stage 6. Logits and target of a member's own stop rows -> the temperature that makes its shares true."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

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
