"""Stage 4. Features of a table -> outputs: a multi-layer perceptron, and a linear model.

What is known to work for tables, after RealMLP (Holzmüller, Grinsztajn, Steinwart, NeurIPS 2024):
periodic embeddings of numbers, a learned scale in front, activations that may fade towards the
identity, and a learning rate for each kind of parameter.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from ayatori.nets.dropout import Dropout
from ayatori.nets.network import activation
from ayatori.nets.table_front import Features, TableFront
from ayatori.nets.words import Said

Rates = dict[str, tuple[float, float]]

FREQUENCIES, PARTS, EMBEDDING = 16, 4, 8
# Learning rates are told for a layer with 256 inputs; weights move as in the NTK parametrisation
REFERENCE = 256


class Periodic(nn.Module):
    """Each number x -> (x, A cos(2 pi w x + c) + d), with w, c, A, d of its own ("PBLD").

    **Shape** (b, p) -> (b, p * parts), with the rows last in memory: products with so few numbers a column
    take a fifth of the time, and the layers of a stack lie so too.
    """

    def __init__(self, numbers: int, frequencies: int, parts: int, sigma: float) -> None:
        super().__init__()
        bound = frequencies**-0.5
        self.frequency = nn.Parameter(torch.randn(numbers, frequencies) * sigma * 2 * math.pi)
        self.phase = nn.Parameter(torch.empty(numbers, frequencies).uniform_(-math.pi, math.pi))
        self.weight = nn.Parameter(torch.empty(numbers, frequencies, parts - 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(numbers, parts - 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT.contiguous().unsqueeze(1)  # (p, 1, b)
        waves = torch.cos(torch.addcmul(self.phase.unsqueeze(-1), x, self.frequency.unsqueeze(-1)))
        mixed = torch.bmm(self.weight.mT, waves) + self.bias.unsqueeze(-1)
        return torch.cat([x, mixed], 1).flatten(0, 1).mT


class Linear(nn.Linear):
    """``nn.Linear`` that learns by the same products as in a stack of networks (see ``Joined``).

    So it rounds as there, and a network whose rates are high comes to the same weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.ndim != 2:
            return super().forward(x)
        return torch.addmm(self.bias.unsqueeze(1), self.weight, x.mT).mT


class Fading(nn.Module):
    """An activation that each unit may weigh against the identity: x + weight (f(x) - x)."""

    def __init__(self, units: int, name: str) -> None:
        super().__init__()
        self.function = activation(name)
        self.weight = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.training and type(self.function) is nn.SiLU:
            return _FadingSilu.apply(x, weight)[0]
        return torch.lerp(x, self.function(x), weight)


class _FadingSilu(torch.autograd.Function):
    """The same, with a way back that fades what comes back as what went: seven eighths of the time.

    Under ``vmap`` all networks are one call, of ``weight`` (k, 1, units).
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        active = nn.functional.silu(x)
        return torch.lerp(x, active, weight), active

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, active = ctx.saved_tensors
        back = torch.lerp(gradient, torch.ops.aten.silu_backward(gradient, x), weight)
        return back, (gradient * (active - x)).sum_to_size(weight.shape)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, weight: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        x, weight = (
            value.unsqueeze(0) if dim is None else value.movedim(dim, 0)
            for value, dim in zip((x, weight), in_dims, strict=True)
        )
        return _FadingSilu.apply(x, weight.unsqueeze(1)), (0, 0)


class Columns(nn.Module):
    """Features -> one vector a row: embedded numbers, flags, embedded categories.

    **Shape** Features of b rows -> (b, ``width``).
    """

    def __init__(self, front: TableFront, numbers: str, sigma: float) -> None:
        super().__init__()
        periodic = numbers == "periodic" and front.numbers > 0
        self.numbers = Periodic(front.numbers, FREQUENCIES, PARTS, sigma) if periodic else nn.Identity()
        self.categories = nn.Embedding(front.embedding_rows, EMBEDDING)
        nn.init.normal_(self.categories.weight, std=EMBEDDING**-0.5)
        with torch.no_grad():
            self.categories.weight[front.embedding_start] = 0.0  # unknown
        self.widths = (front.numbers * (PARTS if periodic else 1), front.flags, front.embedded * EMBEDDING)
        self.width = sum(self.widths)

    def forward(self, features: Features) -> Tensor:
        numbers, flags, embedded = self.widths
        parts = [self.numbers(features.numbers)] if numbers else []
        parts += [features.flags] if flags else []
        parts += [self.categories(features.codes).flatten(1)] if embedded else []
        return parts[0] if len(parts) == 1 else torch.cat([part.mT for part in parts]).mT


class TableMLP(nn.Module):
    """Embedded columns -> scale -> ``depth`` layers of ``width`` units -> outputs; and what texts say.

    Terms of texts take no part in the layers: with as many weights as terms they only learned by heart there.

    **Shape** Features of b rows -> (b, outputs).
    """

    def __init__(
        self,
        front: TableFront,
        outputs: int,
        activation_name: str,
        *,
        width: int = 256,
        depth: int = 3,
        dropout: float = 0.15,
        numbers: str = "periodic",
        sigma: float = 0.1,
    ) -> None:
        super().__init__()
        self.columns = Columns(front, numbers, sigma)
        self.scale = nn.Parameter(torch.ones(self.columns.width))
        widths = [self.columns.width] + [width] * depth
        self.layers = nn.ModuleList(
            nn.Sequential(_linear(a, b), Fading(b, activation_name), Dropout(dropout))
            for a, b in itertools.pairwise(widths)
        )
        self.last = _linear(widths[-1], outputs)
        self.texts = None if front.words is None else Said(front.words, outputs)

    def forward(self, features: Features) -> Tensor:
        x = self.columns(features) * self.scale
        for layer in self.layers:
            x = layer(x)
        x = self.last(x)
        return x if self.texts is None else x + self.texts(features.terms)

    def rates(self) -> Rates:
        """Factors of learning rate and weight decay; a rate of 1 is that of a weight with 256 inputs."""
        unit = REFERENCE**0.5
        rates = {name: (0.1 * unit, 1 / unit) for name, _ in self.columns.named_parameters(prefix="columns")}
        rates["columns.categories.weight"] = (unit, 1 / unit)
        rates["scale"] = (6 * unit, 1 / unit)
        if self.texts is not None:
            rates["texts.weight"] = (2.0, 0.0)
        for prefix, module in self.named_modules():
            if isinstance(module, nn.Linear):
                rates[f"{prefix}.weight"] = _weight_rates(module)
                rates[f"{prefix}.bias"] = (0.1 * unit, 0.0)
            elif isinstance(module, Fading):
                rates[f"{prefix}.weight"] = (0.1 * unit, 1 / unit)
        return rates


class TableLinear(nn.Module):
    """One linear layer: a weight for each number and flag, category and term of texts.

    **Shape** Features of b rows -> (b, outputs).
    """

    def __init__(self, front: TableFront, outputs: int) -> None:
        super().__init__()
        self.numbers = nn.Linear(front.numbers + front.flags, outputs)
        self.categories = nn.Embedding(front.embedding_rows, outputs)
        self.texts = None if front.words is None else Said(front.words, outputs)
        for value in self.parameters():
            nn.init.zeros_(value)

    def forward(self, features: Features) -> Tensor:
        logits = self.numbers(torch.cat([features.numbers, features.flags], -1))
        if features.codes.shape[-1]:
            logits = logits + self.categories(features.codes).sum(1)
        return logits if self.texts is None else logits + self.texts(features.terms)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=max(inputs, 1) ** -0.5)
    nn.init.normal_(layer.bias, std=0.5)
    return layer


def _weight_rates(layer: nn.Linear) -> tuple[float, float]:
    factor = (REFERENCE / max(layer.in_features, 1)) ** 0.5
    return factor, 1 / factor
