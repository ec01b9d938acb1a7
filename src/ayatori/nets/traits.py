"""What a network can do beside others, found by trying it on a few rows."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ayatori.nets.dropout import global_chance, own_chance, seed_globally
from ayatori.nets.flops import Flops
from ayatori.nets.joined import Joined
from ayatori.nets.network import Network
from ayatori.nets.noted import UNNOTED

ROWS, LOOK = 4, 64  # that a network is tried on, and that they are chosen from
TOLERANCE = 1e-3  # of the largest gradient: how far a stack may be from its networks one by one


@dataclass(frozen=True)
class Traits:
    """``alone``: why this kind of network cannot be stacked; "" where it can."""

    draws_globally: bool = False  # it draws from a generator that all threads share
    mixes_rows: bool = False  # what it says of a row depends on the other rows of a batch
    convolves: bool = False
    flops: float = 0.0  # of a row, forward; a multiplication and an addition are two
    activations: float = 0.0  # values that layers hand on for a row
    layers: int = 0  # parts without parts: so many calls, about
    alone: str = ""


def find_traits(network: Network, inputs: Mapping[str, np.ndarray]) -> Traits:
    """Try a copy of ``network`` in training, on a few rows of ``inputs`` (raw, row first)."""
    with global_chance():
        return _find_traits(_nudged(network, 0).train(), _different_rows(inputs))


def convolves(network: nn.Module) -> bool:
    """Whether convolutions are among its layers."""
    return any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in network.modules())


def _find_traits(network: Network, rows: Mapping[str, Tensor]) -> Traits:
    leaves = [part for part in network.modules() if next(part.children(), None) is None]
    sizes: list[int] = []
    hooks = [leaf.register_forward_hook(lambda *given: sizes.append(_size(given[-1]))) for leaf in leaves]
    # the last rows are replaced by the first: whoever looks at one row at a time does not see it
    other = {name: value[[0, 1, 0, 0]] for name, value in rows.items()}
    with Flops() as counted:
        first, draws = _logits(network, rows)
    for hook in hooks:
        hook.remove()
    again, _ = _logits(network, other)
    return Traits(
        draws_globally=draws,
        mixes_rows=not torch.allclose(again[:2], first[:2], rtol=1e-4, atol=1e-5, equal_nan=True),
        convolves=convolves(network),
        flops=counted.total / ROWS,
        activations=sum(sizes) / ROWS,
        layers=len(leaves),
        alone="it draws from a generator that everybody shares" if draws else _why_alone(network, rows),
    )


def _different_rows(inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """ROWS rows that differ, where there are such: of equal rows nobody can say whether they are mixed."""
    places = np.linspace(0, len(next(iter(inputs.values()))) - 1, LOOK).astype(int).tolist()
    different = {b"".join(v[place].tobytes() for v in inputs.values()): place for place in places}
    chosen = np.resize(list(different.values())[:ROWS], ROWS)
    return {name: torch.from_numpy(values[chosen]) for name, values in inputs.items()}


def _nudged(network: Network, seed: int) -> Network:
    """A copy with slightly different weights: a layer that begins at zero shows what it does as well."""
    network, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
    return network


def _size(output: Any) -> int:
    return sum(value.numel() for value in tree_leaves(output) if isinstance(value, Tensor))


def _logits(network: Network, rows: Mapping[str, Tensor]) -> tuple[Tensor, bool]:
    """What a fresh copy says, and whether it drew from a generator that everybody shares."""
    own_chance(network, [torch.Generator().manual_seed(0)])
    seed_globally(0)
    before = _global_state()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        logits = network(rows)
    network.load_state_dict(state)
    return logits, _global_state() != before


def _why_alone(network: Network, rows: Mapping[str, Tensor]) -> str:
    """Why two such networks do not learn as one call what they learn one by one; "" if they do."""
    pair = [copy.deepcopy(network), _nudged(network, 1)]
    chances = [torch.Generator().manual_seed(number) for number in (1, 2)]
    expected: list[Tensor] = []
    for one, chance in zip(pair, chances, strict=True):
        own_chance(one, [chance])
        logits = one(rows)
        expected += [logits.detach(), *_gradients(logits, list(one.parameters()))]
        chance.manual_seed(chance.initial_seed())
    buffers = [dict(one.named_buffers()) for one in pair]
    after = [value.clone() for own in buffers for value in own.values()]
    for one, source in zip(pair, [network, network], strict=True):
        for name, value in source.named_buffers():
            one.get_buffer(name).copy_(value)
    try:
        with warnings.catch_warnings():
            # torch warns where it would fall back to a loop over the networks
            warnings.simplefilter("error")
            joined = Joined(pair, share=True)
            logits = joined.logits({name: torch.stack([value, value]) for name, value in rows.items()}, True)
            gradients = _gradients(logits, list(joined.parameters.values()))
    except (*UNNOTED, UserWarning) as error:
        return str(error).strip().split("\n")[0].split(". ")[0][:160] or type(error).__name__
    found: list[Tensor] = []
    for number in range(2):
        found += [logits[number].detach(), *(gradient[number] for gradient in gradients)]
    now = [value for one in pair for value in one.buffers()]
    same = all(_close(a, b) for a, b in zip([*expected, *after], [*found, *now], strict=True))
    return "" if same else "two of it together give other results than one by one"


def _gradients(logits: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    learned = [weight for weight in weights if weight.requires_grad]
    found = torch.autograd.grad(logits.square().sum(), learned, allow_unused=True, materialize_grads=True)
    return list(found)


def _close(expected: Tensor, found: Tensor) -> bool:
    if not expected.numel() or not expected.is_floating_point():
        return torch.equal(expected, found)
    difference = (expected - found).abs().max()
    return bool(difference <= TOLERANCE * expected.abs().max() + 1e-6)


def _global_state() -> tuple[Any, ...]:
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (it is watched, not used)
    of_torch = torch.default_generator.get_state().numpy().tobytes()
    return random.getstate(), np.asarray(keys).tobytes(), rest, of_torch
