"""What a network can do beside others, found by trying it on a few rows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ayatori.nets.dropout import global_chance, own_chance, seed_globally
from ayatori.nets.joined import Joined
from ayatori.nets.network import Network

ROWS = 4  # that a network is tried on
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
    with global_chance(), torch.no_grad():
        return _find_traits(_nudged(network, 0).train(), _different_rows(inputs))


def _find_traits(network: Network, rows: Mapping[str, Tensor]) -> Traits:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    leaves = [part for part in network.modules() if next(part.children(), None) is None]
    before = _global_state()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        draws_before = torch.get_rng_state()
        sizes: list[int] = []
        hooks = [leaf.register_forward_hook(lambda *given: sizes.append(_size(given[-1]))) for leaf in leaves]
        with FlopCounterMode(display=False) as counter:
            first = _logits(network, rows)
        for hook in hooks:
            hook.remove()
        draws = not torch.equal(torch.get_rng_state(), draws_before) or _global_state() != before
        network.load_state_dict(state)
        # the last rows are replaced by the first: whoever looks at one row at a time does not see it
        other = {name: value[[0, 1, 0, 0]] for name, value in rows.items()}
        torch.set_rng_state(draws_before)
        mixes = not torch.allclose(
            _logits(network, other)[:2], first[:2], rtol=1e-4, atol=1e-5, equal_nan=True
        )
        network.load_state_dict(state)
    _restore(before)
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    return Traits(
        draws_globally=draws,
        mixes_rows=mixes,
        convolves=any(isinstance(part, kinds) for part in leaves),
        flops=counter.get_total_flops() / ROWS,
        activations=sum(sizes) / ROWS,
        layers=len(leaves),
        alone="it draws from torch's global generator" if draws else _why_alone(network, rows),
    )


def _size(output: Any) -> int:
    return sum(value.numel() for value in tree_leaves(output) if isinstance(value, Tensor))


def _logits(network: Network, rows: Mapping[str, Tensor]) -> Tensor:
    own_chance(network, [torch.Generator().manual_seed(0)])
    return network(rows)


def _why_alone(network: Network, rows: Mapping[str, Tensor]) -> str:
    """Why two such networks do not learn as one call what they learn one by one; "" if they do."""
    pair = [copy.deepcopy(network), copy.deepcopy(network)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in pair[1].parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
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
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, UserWarning) as error:
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


def _global_state() -> tuple[Any, tuple[Any, ...]]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (it is watched, not used)
    return random.getstate(), (name, np.asarray(keys).tobytes(), *rest)


def _restore(state: tuple[Any, tuple[Any, ...]]) -> None:
    """Global generators are left as found."""
    python, (name, keys, *rest) = state
    random.setstate(python)
    np.random.set_state((name, np.frombuffer(keys, np.uint32), *rest))  # noqa: NPY002
