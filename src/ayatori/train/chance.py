"""Where a network's random numbers come from: a generator of its own, so that threads cannot mix them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ayatori.nets.network import Network


def give_chance(network: Network) -> torch.Generator:
    """A generator for every part of ``network`` that can draw from one."""
    chance = torch.Generator()
    for part in network.modules():
        if hasattr(part, "generator"):
            part.generator = chance  # type: ignore[assignment]
    return chance


def take_chance(network: Network) -> None:
    """A finished network carries no generator."""
    for part in network.modules():
        if hasattr(part, "generator"):
            part.generator = None  # type: ignore[assignment]


def draws_from_torch(network: Network, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether a training pass draws from torch's global generator: found by trying, on two rows (or one)."""
    rows = {name: torch.from_numpy(values[:2]) for name, values in inputs.items()}
    if len(next(iter(rows.values()))) < network.least_rows:
        return True
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    before = torch.get_rng_state()
    network.train()
    with torch.no_grad():
        network(rows)
    network.load_state_dict(weights)
    drew = not torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(before)
    return drew
