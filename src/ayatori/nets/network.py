"""Stage 4. Input shapes, outputs -> a network: a front that knows the data, a body that learns.

A front turns raw inputs (missing values, unknown categories, 0..255 pixels) into what the body
eats. Its statistics are buffers, fitted on the member's own training rows, so that they travel with the
weights, stack with them, and are exported with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Task

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class NetSpec:
    """All that is needed to build a network anew, as plain JSON values.

    ``sizes``: what the front measured on the member's own training rows (see each front's ``measure``).
    ``task`` of a step (see ``build``) is "regression", whatever is learned.
    """

    name: str  # mlp, linear, cnn, gru, lstm, transformer or package:factory
    task: Task
    outputs: int
    sizes: Mapping[str, Any]
    activation: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


class Front(Protocol):
    """What every front offers besides ``forward(inputs) -> Tensor``."""

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers from a member's own training rows (raw, row first)."""


class Network(nn.Module):
    """``front`` then ``body``; softmax only at the output.

    **Shape** ``forward``: inputs with b rows -> logits (b, outputs). ``predict``: the same rows ->
    probabilities (classification: each row sums to 1; multilabel: each label apart) or values in
    the units of the target.

    ``temperature`` divides the logits of a finished network, so that its probabilities mean what they say.
    Regression targets are standardised inside: ``shift`` and ``scale`` (outputs,) are those of
    the member's own training rows. Elsewhere ``shift`` leads logits back to the true shares of the classes,
    where rare ones counted more.
    """

    temperature: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, front: nn.Module, body: nn.Module, spec: NetSpec) -> None:
        super().__init__()
        self.front = front
        self.body = body
        self.spec = spec
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("shift", torch.zeros(spec.outputs))
        self.register_buffer("scale", torch.ones(spec.outputs))

    def forward(self, inputs: Inputs) -> Tensor:
        return self.body(self.front(inputs))

    def predict(self, inputs: Inputs) -> Tensor:
        return self.answer(self(inputs).float())

    def answer(self, logits: Tensor) -> Tensor:
        """Logits (b, outputs) -> probabilities or values, see ``predict``."""
        if self.spec.task == "classification":
            return (self.led_back(logits) / self.temperature).softmax(-1)
        if self.spec.task == "multilabel":
            return (self.led_back(logits) / self.temperature).sigmoid()
        return logits * self.scale + self.shift

    def led_back(self, logits: Tensor) -> Tensor:
        """Logits of classes (b, outputs) as they are under the true shares; others as they are."""
        return logits if self.spec.task == "regression" else logits + self.shift

    def fit(self, inputs: Mapping[str, np.ndarray], target: np.ndarray | None) -> None:
        """Fit the front, and the target's scale where it has one, to a member's own training rows."""
        self.front.fit(inputs)  # type: ignore[operator]
        if self.spec.task == "regression" and target is not None:
            spread = target.std(axis=0)
            self.shift.copy_(torch.from_numpy(target.mean(axis=0)))
            self.scale.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))

    def standardise(self, target: Tensor) -> Tensor:
        """The target as the loss sees it: codes as they are, values in standard deviations, float32."""
        if self.spec.task != "regression" or not target.is_floating_point():
            return target
        return ((target - self.shift) / self.scale).float()

    def rates(self) -> dict[str, tuple[float, float]]:
        """Factors (learning rate, weight decay) of each parameter; a body may say its own by ``rates()``."""
        own: dict[str, tuple[float, float]] = getattr(self.body, "rates", dict)()
        return {
            name: own.get(name.removeprefix("body."), (1.0, 1.0 if value.ndim > 1 else 0.0))
            for name, value in self.named_parameters()
        }


def lay_out(network: nn.Module) -> None:
    """Keep the channels of a pixel side by side in the weights of convolutions, in place.

    Those of scans stay as they are: their gradients come so, and it is no slower.
    """
    for value in network.parameters():
        if value.ndim == 4:
            # copied, as `contiguous` finds nothing to do where there is one channel; its convolution would
            # give channels that lie apart, which pooling and all that follows take ten times as long for
            apart = value.data
            value.data = torch.empty_like(apart, memory_format=torch.channels_last).copy_(apart)


def activation(name: str) -> nn.Module:
    """Any activation of ``torch.nn`` by its name, in any case.

    >>> activation("relu")
    ReLU()
    """
    known = {key.lower(): key for key in dir(nn.modules.activation) if key[0].isupper() and hasattr(nn, key)}
    known.pop("module", None), known.pop("tensor", None), known.pop("parameter", None)
    if name.lower() not in known:
        hint = nearest(name.lower(), list(known))
        raise AyatoriError(f"activation must be a class of torch.nn, however: {name!r}{hint}")
    return getattr(nn, known[name.lower()])()


def own_options(spec: NetSpec, known: dict[str, float]) -> dict[str, Any]:
    """The options of ``spec``, with those that are ``known`` where it has none; others are refused."""
    for name, value in spec.options.items():
        if name not in known:
            hint = nearest(name, list(known))
            raise AyatoriError(
                f"options of the network '{spec.name}' must be among {sorted(known)}, however: '{name}'{hint}"
            )
        whole = isinstance(known[name], int)
        if type(value) not in ((int,) if whole else (int, float)) or not 0 <= value < (2**20 if whole else 1):
            must = "a whole number" if whole else "at least 0 and below 1"
            raise AyatoriError(f"the network's option '{name}' must be {must}, however: {value!r}")
    return known | dict(spec.options)
