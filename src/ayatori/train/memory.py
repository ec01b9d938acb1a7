"""How much memory members take, how many may train at once, and when it ran out after all."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ayatori.nets import Network
from ayatori.nets.traits import Traits

SHARE = 0.5  # of what is free: the rest is for reading, evaluation, and what was not foreseen
COPIES = 9  # of a member's weights: itself, gradient, two moments, best, and the last good state of three


def member_bytes(network: Network, traits: Traits, rows: int, batch_size: int) -> int:
    """About what a member takes in memory while it trains; ``rows`` of the data, ``batch_size`` of a step."""
    weights = sum(value.numel() * value.element_size() for value in network.parameters())
    # roles, row weights, own rows and their order; what a step keeps for its way back
    return COPIES * weights + 21 * rows + int(12 * batch_size * traits.activations)


def at_once(members: int, bytes_each: int, device: torch.device) -> int:
    """How many of ``members`` may train together in the memory that is free."""
    return max(1, min(members, int(SHARE * free_bytes(device)) // max(bytes_each, 1)))


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return min(_available(), _group_limit())


def _available() -> int:
    """Of this machine: what can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        # elsewhere a third of all there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3


def _group_limit() -> int:
    """Of the control group that a container runs in, if it has a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        return max(int(limit) - used, 0)
    except (OSError, ValueError):
        return 2**62


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a name for it on accelerators, and on the CPU only a sentence."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
