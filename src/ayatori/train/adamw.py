"""Parameters that step alike -> one AdamW for them (Loshchilov and Hutter 2019, arXiv 1711.05101).

The arithmetic is torch's own, called as it is: ``torch.optim.AdamW`` around it loads torch's whole compiler
(one to two seconds) when it is made, and takes .05 ms more for each group, as long as the arithmetic of a
small network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BETA1, EPSILON = 0.9, 1e-8


@dataclass(frozen=True)
class Group:
    """Parameters of one dtype with the same factors of learning rate and weight decay.

    ``moments``: the two moments of each; ``steps``: how many they have made, a float32 scalar.
    """

    parameters: Sequence[Tensor]
    moments: tuple[Sequence[Tensor], Sequence[Tensor]]
    steps: Tensor
    factor: float
    decay: float

    @torch.no_grad()
    def step(self, rate: float, decay: float, beta2: float) -> None:
        """One step by the gradients that are there, in place."""
        own = [k for k, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if not own:
            return
        gradients = [self.parameters[k].grad for k in own]
        self.steps.add_(1)
        torch._fused_adamw_(
            [_as_it_lies(self.parameters[k]) for k in own],
            [_as_it_lies(gradient) for gradient in gradients if gradient is not None],
            [_as_it_lies(self.moments[0][k]) for k in own],
            [_as_it_lies(self.moments[1][k]) for k in own],
            [],
            [self.steps] * len(own),
            lr=rate,
            beta1=BETA1,
            beta2=beta2,
            weight_decay=decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def forget(self) -> None:
        """The gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None


def _as_it_lies(value: Tensor) -> Tensor:
    """In the order of memory, where torch would copy its channels apart first."""
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return value.permute(0, 2, 3, 1) if last and not value.is_contiguous() else value
