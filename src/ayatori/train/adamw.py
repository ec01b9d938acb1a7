"""Parameters that step alike -> one AdamW for them (Loshchilov and Hutter 2019, arXiv 1711.05101).

The arithmetic is torch's own; ``torch.optim.AdamW`` around it loads torch's whole compiler (one to two
seconds) when it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETA1, EPSILON = 0.9, 1e-8


@dataclass(frozen=True)
class Group:
    """Parameters with the same factors of learning rate and weight decay.

    ``moments``: the two moments of each; ``steps``: how many each has made, a float32 scalar.
    """

    parameters: Sequence[Tensor]
    moments: tuple[Sequence[Tensor], Sequence[Tensor]]
    steps: Sequence[Tensor]
    factor: float
    decay: float

    @torch.no_grad()
    def step(self, rate: float, decay: float, beta2: float) -> None:
        """One step by the gradients that are there, in place."""
        own = [k for k, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if not own:
            return
        gradients = [self.parameters[k].grad for k in own]
        adamw(
            [self.parameters[k] for k in own],
            [gradient for gradient in gradients if gradient is not None],
            [self.moments[0][k] for k in own],
            [self.moments[1][k] for k in own],
            [],
            [self.steps[k] for k in own],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=beta2,
            lr=rate,
            weight_decay=decay,
            eps=EPSILON,
            maximize=False,
        )

    def forget(self) -> None:
        """The gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None
