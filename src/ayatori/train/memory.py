"""How much memory members take, how many may train at once, and when it ran out after all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ayatori.nets import Network
from ayatori.nets.traits import Traits

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
SHARE = 0.4  # of the memory: the rest is for the data, evaluation, other programs, and what was not foreseen
COPIES = 9  # of a member's weights: itself, gradient, two moments, best, and the last good state of three


def member_bytes(network: Network, traits: Traits, rows: int, batch_size: int) -> int:
    """About what a member takes in memory while it trains; ``rows`` of the data, ``batch_size`` of a step."""
    weights = sum(value.numel() * value.element_size() for value in network.parameters())
    # roles, row weights, own rows and their order; what a step keeps for its way back
    return COPIES * weights + 21 * rows + int(12 * batch_size * traits.activations)


def at_once(members: int, bytes_each: int, device: torch.device) -> int:
    """How many of ``members`` may train together in their share of the memory."""
    return max(1, min(members, int(SHARE * memory_bytes(device)) // max(bytes_each, 1)))


def memory_bytes(device: torch.device) -> int:
    """All memory of the device, or all that this process may have.

    Not what is free just now: the stacks, and with them the last digits of the weights, would depend on
    how busy the machine is.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_group_limits()])


def _group_limits() -> Iterator[int]:
    """Of the control group that a container runs in, where it has a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdigit():
            yield int(text)


@contextlib.contextmanager
def steady_heap() -> Iterator[None]:
    """Freed memory stays with the process meanwhile, and goes back to the system at the end.

    glibc gives back what a step frees, and asks for it again at the next: a fifth of the time of a CNN or
    a stack (dev/LOG.md). Elsewhere nothing happens.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    for threshold in (TRIM_THRESHOLD, MMAP_THRESHOLD):
        libc.mallopt(threshold, 2**30)
    try:
        yield
    finally:
        # where glibc's own thresholds end when large arrays have come and gone; once they were set, they do
        # not move any more, and at their first value each array of 128 KiB would be asked for anew
        for threshold, size in ((TRIM_THRESHOLD, 2**26), (MMAP_THRESHOLD, 2**25)):
            libc.mallopt(threshold, size)
        libc.malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a name for it on accelerators, and on the CPU only a sentence."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
