"""Stage 4, pretrained. A network -> the chain of its parts, found by trying whether it is one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ayatori.nets.dropout import Dropout, global_chance
from ayatori.nets.mlp import TableMLP
from ayatori.nets.network import Network
from ayatori.records import AyatoriError

CLOSE = 1e-3  # how near a chain must come to its network, of the largest feature


class Whole(nn.Module):
    """A network of timm as one part: features, then what its head does before the classifier."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(self.model.forward_features(x), pre_logits=True)


class Beginning(nn.Module):
    """What a transformer does before its blocks: patches, class token, positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = {**model._modules, "blocks": nn.Sequential(), "norm": nn.Identity()}

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)


class End(nn.Module):
    """What a transformer does after its blocks: norm, pooling."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm, self.model = model.norm, copy.copy(model)
        self.model._modules = {k: v for k, v in model._modules.items() if k in ("fc_norm", "head_drop")}
        self.model._parameters = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(self.norm(x), pre_logits=True)


class Scaled(nn.Module):
    """The columns of a table behind the scale that was learned for them."""

    def __init__(self, body: TableMLP) -> None:
        super().__init__()
        self.columns, self.scale = body.columns, body.scale

    def forward(self, features: Any) -> Tensor:
        return self.columns(features) * self.scale


def chain_of(model: nn.Module, image: Sequence[int]) -> tuple[list[nn.Module], bool, int]:
    """The parts of a network of timm, whether it is a chain of them, and how many features it gives."""
    with global_chance(), torch.no_grad():
        chance = torch.Generator().manual_seed(0)
        pictures = torch.randn(2, *image, generator=chance)
        whole = Whole(model).eval()
        expected = whole(pictures)
        for make in (_children, _blocks):
            parts = make(model)
            if len(parts) > 1 and _is_chain(parts, pictures, expected):
                return [part.eval() for part in _merged(parts)], True, expected.shape[1]
    return [whole], False, expected.shape[1]


def _is_chain(parts: Sequence[nn.Module], x: Any, expected: Tensor) -> bool:
    try:
        for part in parts:
            x = part.eval()(x)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError):
        return False
    return (
        isinstance(x, Tensor)
        and x.shape == expected.shape
        and bool((x - expected).abs().max() <= CLOSE * expected.abs().max() + 1e-6)
    )


def _children(model: nn.Module) -> list[nn.Module]:
    return [part for child in model.children() for part in _flat(child)]


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    """Sequences taken apart, down to their blocks."""
    if type(module) is nn.Sequential:
        for child in module:
            yield from _flat(child)
    else:
        yield module


def _blocks(model: Any) -> list[nn.Module]:
    """The beginning, blocks and end of a transformer."""
    if not all(hasattr(model, name) for name in ("blocks", "norm", "patch_embed")):
        return []
    return [Beginning(model), *model.blocks, End(model)]


def _merged(parts: Sequence[nn.Module]) -> list[nn.Module]:
    """Each layer or block together with the norms, activations and pools behind it."""
    groups: list[list[nn.Module]] = []
    for part in parts:
        mixes = any(value.ndim > 1 for value in part.parameters())
        if groups and not mixes:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]


def parts_of_own(network: Network) -> tuple[list[nn.Module], int]:
    """The parts of a network of ours, its last layer left out, and how many features they give."""
    body = network.body
    if isinstance(body, TableMLP):
        return [Scaled(body), *body.layers], body.last.in_features
    layers = list(body.children()) if isinstance(body, nn.Sequential) else []
    last = layers[-1] if layers else None
    mixing = [part for part in layers[:-1] if any(value.ndim > 1 for value in part.parameters())]
    if not isinstance(last, nn.Linear) or not mixing:
        raise AyatoriError(
            "a run must have learned features to be built upon, however its network is "
            f"{network.spec.name!r}; use a run of an mlp or a cnn"
        )
    kept = [part for part in layers[:-1] if not isinstance(part, Dropout)]
    return _merged(kept), last.in_features
