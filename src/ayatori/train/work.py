"""Stage 6. What one of several processes does: train some of the members, and tell of it.

A plain function of small values that can be pickled, so that anything with ``submit`` on this machine can
run it. Arrays lie in files, which all processes map.
"""

from __future__ import annotations

import dataclasses
import mmap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Client, Connection
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ayatori.nets import NetSpec
from ayatori.processes import loaded
from ayatori.records import Dataset, Epoch, Plan
from ayatori.train.learner import Learner
from ayatori.train.loop import Job, packed, train_members
from ayatori.train.stream import make_stream, pick_device

POLL = 0.1  # seconds between two words about the share of steps that is done
MapArray = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Task:
    """What one worker is to do; large arrays are named, not held."""

    members: tuple[int, ...]
    threads: int
    recipe: bytes
    dataset: Dataset
    plan: Plan
    arrays: dict[str, MapArray]
    progress: dict[int, dict]
    tensors: Path  # of the checkpoint to go on from
    address: str
    key: bytes


def work(task: Task) -> dict[int, NetSpec]:
    """Train the members of ``task``; what they have learned goes out as their last checkpoint."""
    torch.set_num_threads(task.threads)
    recipe = loaded(task.recipe)
    arrays = {name: array() for name, array in task.arrays.items()}
    roles, target = arrays.pop("roles"), arrays.pop("target")
    ids = np.broadcast_to(np.str_(), len(roles))
    dataset = dataclasses.replace(task.dataset, inputs=arrays, target=target, ids=ids)
    plan = dataclasses.replace(task.plan, roles=roles)
    stream = make_stream(dataset, plan, recipe)
    job = Job(dataset, plan, recipe, stream, pick_device(recipe.train.device))
    found = task.progress, safetensors.torch.load_file(task.tensors)
    with Client(task.address, authkey=task.key) as line:
        parent = _Parent(line)
        try:
            learners = train_members(job, task.members, found, parent.save, parent.on_epoch, parent.on_step)
        except KeyboardInterrupt:
            return {}
    return {learner.index: learner.network.spec for learner in learners}


class _Parent:
    """A worker's line to the parent."""

    def __init__(self, line: Connection) -> None:
        self.line = line
        self.stopped = False
        self.told = 0.0

    def save(self, learners: Sequence[Learner]) -> None:
        progress, tensors = packed(learners)
        self.line.send((progress, to_bytes(tensors)))

    def on_epoch(self, line: Epoch) -> bool:
        if not self.stopped:
            self.line.send(line)
            answer = self.line.recv()
            self.stopped = answer is None
            return bool(answer)
        return False

    def on_step(self, share: float) -> None:
        # only here, where all members have done the same epochs, it is stopped
        if self.stopped or self.line.poll():
            raise KeyboardInterrupt
        if share >= 1 or time.monotonic() - self.told > POLL:
            self.line.send(float(share))
            self.told = time.monotonic()


def mapped(values: np.ndarray, path: Path) -> MapArray:
    """How another process maps ``values``; only what does not lie in a file yet is written."""
    # a view of a map names its file too, but not its own place in it
    if isinstance(values, np.memmap) and isinstance(values.base, mmap.mmap) and values.mode != "c":
        source = str(values.filename)
        if Path(source).is_file() and values.flags.c_contiguous:
            values.flush()
            place = {"mode": "r", "offset": values.offset, "shape": values.shape}
            return partial(np.memmap, source, values.dtype, **place)
    np.save(path, values, allow_pickle=False)
    return partial(np.load, str(path), mmap_mode="r", allow_pickle=False)


def to_bytes(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: v.detach().cpu().contiguous() for name, v in tensors.items()})
