"""Several networks of one shape -> one call: their weights are stacked, and each sees its own rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ayatori.nets.dropout import own_chance
from ayatori.nets.mlp import Linear
from ayatori.nets.network import Inputs, Network


class Joined:
    """Networks with equal ``spec`` that answer in one call.

    **Shape** ``logits``: inputs (k networks, b rows, ...) -> (k, b, outputs).

    With ``share`` the networks' own tensors become views of the stacked ones, so that what is learned by
    the stack is at once in every network. One network alone is called as it is, and nothing is copied.
    """

    def __init__(self, networks: Sequence[Network], share: bool = False) -> None:
        self.networks = tuple(networks)
        self.alone = len(networks) == 1
        first = networks[0]
        if self.alone:
            self.parameters: dict[str, Tensor] = dict(first.named_parameters())
            self.buffers: dict[str, Tensor] = dict(first.named_buffers())
            self.base = first
            return
        self.parameters = _stack_each([dict(one.named_parameters()) for one in networks], share)
        self.buffers = _stack_each([dict(one.named_buffers()) for one in networks], share)
        chances = [chance for one in networks for chance in _generators(one)]
        # a generator is not copied but handed on
        self.base = copy.deepcopy(first, {id(chance): chance for chance in chances}).to("meta")
        own_chance(self.base, chances)
        for part in self.base.modules():
            if type(part) is nn.Linear or type(part) is Linear:
                part.forward = _LinearCall(part)  # type: ignore[assignment]
        self._call = vmap(self._one, in_dims=(0, 0, 0), randomness="error")

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Inputs) -> Tensor:
        return functional_call(self.base, (parameters, buffers), (inputs,))

    def logits(self, inputs: Inputs, training: bool = False) -> Tensor:
        """What each network says of its own rows."""
        if self.alone:
            return _set(self.base, training)({name: value[0] for name, value in inputs.items()})[None]
        _set(self.base, training)
        return self._call(self.parameters, self.buffers, dict(inputs))

    def reseed(self) -> None:
        """What dropout draws next is always the same."""
        for network in self.networks:
            for chance in _generators(network):
                chance.manual_seed(0)


class _Linear(torch.autograd.Function):
    """A linear layer whose rule under ``vmap`` is one ``baddbmm``: half of the time of the built-in one."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, int, int], *tensors: Tensor) -> tuple[Tensor, int]:
        x, weight, bias = tensors
        # features first: so the gradient of the weight comes as the weight lies, and needs no copy
        return torch.baddbmm(bias.unsqueeze(2), weight, x.mT).mT, 0


class _LinearCall:
    """``forward`` of a linear layer in a stack."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        if x.ndim != 2 or layer.bias is None:
            return nn.functional.linear(x, layer.weight, layer.bias)
        return _Linear.apply(x, layer.weight, layer.bias)


def _set(network: nn.Module, training: bool) -> nn.Module:
    return network if network.training == training else network.train(training)


def _stack_each(tensors: Sequence[dict[str, Tensor]], share: bool) -> dict[str, Tensor]:
    return {name: _stack([own[name] for own in tensors], share) for name in tensors[0]}


def _stack(tensors: Sequence[Tensor], share: bool) -> Tensor:
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    if share:
        for tensor, view in zip(tensors, stacked, strict=True):
            tensor.data = view
    return stacked.requires_grad_(tensors[0].requires_grad)


def _generators(network: Network) -> tuple[torch.Generator, ...]:
    """What a network's dropout draws from: one generator, or none."""
    found = {id(chance): chance for part in network.modules() for chance in getattr(part, "generators", ())}
    return tuple(found.values())
