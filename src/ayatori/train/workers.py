"""Stage 6. Members in several processes: who gets which, what they say, and what becomes of it.

A worker says through a connection what happens (epochs, share of the steps, checkpoints), and hears there
whether a member, or all, shall stop. All chance follows from (seed, epoch, step, member), so that a member
learns there what it would have learned here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ayatori.nets import NetSpec, Network, find_net, kind_of, lay_out, rebuild
from ayatori.nets.dropout import forked
from ayatori.processes import dumped, needs_main, processes, uninterrupted, why_not_sent
from ayatori.recipe import Recipe, change
from ayatori.records import AyatoriError, Dataset, Epoch
from ayatori.train.learner import Progress, restore_progress
from ayatori.train.loop import Checkpoint, Job, OnEpoch, OnStep
from ayatori.train.work import POLL, Task, mapped, to_bytes, work

GRACE = 20.0  # seconds that workers have, after Ctrl-C, to save their last epochs
Keep = Callable[[dict[int, dict], dict[str, Tensor]], None]
Trained = tuple[int, Network, Progress]  # number, with its best weights, why it stopped


def why_not_workers(recipe: Recipe) -> str:
    """Why no other process can train the network of ``recipe``, found by trying; "" if it can."""
    why = why_not_sent(_needed(recipe))
    return f"the network or the loss cannot be sent to another process: {why}" if why else ""


def train_in_workers(
    job: Job,
    workers: int,
    found: Checkpoint | None,
    keep: Keep | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> list[Trained]:
    """Train all members in ``workers`` processes; ``keep(progress, tensors)`` is given their checkpoints."""
    key = os.urandom(32)
    desk = Desk(workers, found or ({}, {}), job.recipe.train.checkpoint_seconds, keep, on_epoch, on_step)
    with tempfile.TemporaryDirectory(prefix="ayatori-", ignore_cleanup_errors=True) as folder:
        address = f"{folder}/line" if os.name == "posix" else None
        with Listener(address, backlog=workers, authkey=key) as listener:
            tasks = _tasks(job, workers, desk.checkpoint, Path(folder), str(listener.address), key)
            try:
                with processes(workers, folder, needs_main(tasks[0].recipe)) as pool:
                    specs = _run(pool, tasks, desk, listener)
            finally:
                desk.write()
    return [_trained(job, index, specs[index], desk.checkpoint) for index in range(job.plan.members)]


@dataclass
class Desk:
    """Where the parent hears its workers, answers them, and keeps what they have learned."""

    workers: int
    checkpoint: Checkpoint
    every: float  # seconds between two checkpoints of a worker
    keep: Keep | None
    on_epoch: OnEpoch | None
    on_step: OnStep | None
    lines: list[Connection] = field(default_factory=list)
    shares: dict[Connection, float] = field(default_factory=dict)
    stopping: bool = False
    news: bool = False
    kept: float = field(default_factory=time.monotonic)

    def listen(self, listener: Listener, calls: int) -> None:
        """Take so many calls."""
        for _ in range(calls):
            # who is killed while it calls is missed by the pool
            with contextlib.suppress(OSError, EOFError, AuthenticationError):
                self.lines.append(listener.accept())

    def attend(self) -> None:
        """Hear everything that was said up to now, or what is said next."""
        if not self.lines:
            time.sleep(POLL)
            return
        for line in wait(list(self.lines), POLL):
            assert isinstance(line, Connection)
            try:
                with uninterrupted():
                    said = line.recv()
            except (EOFError, OSError):
                self.lines.remove(line)
                line.close()
                continue
            self._hear(line, said)

    def _hear(self, line: Connection, said: Epoch | float | tuple[dict[int, dict], bytes]) -> None:
        if isinstance(said, tuple):
            self.news = True
            self.checkpoint = _merged(self.checkpoint, (said[0], safetensors.torch.load(said[1])))
            if time.monotonic() - self.kept > self.every / self.workers:
                self.write()
        elif isinstance(said, Epoch) and not self.stopping:
            answer = bool(self.on_epoch and self.on_epoch(said))
            with contextlib.suppress(OSError):  # it has died: the pool says so
                line.send(answer)
        elif isinstance(said, float) and self.on_step and not self.stopping:
            self.shares[line] = said
            self.on_step(sum(self.shares.values()) / self.workers)

    def write(self) -> None:
        if self.keep and self.news:
            self.keep(*self.checkpoint)
        self.news, self.kept = False, time.monotonic()

    def stop(self) -> None:
        """Ask all for their last complete epochs, and hear them."""
        self.stopping, deadline = True, time.monotonic() + GRACE
        for line in list(self.lines):
            with contextlib.suppress(OSError):
                line.send(None)
        while self.lines and time.monotonic() < deadline:
            self.attend()


def _run(pool: Executor, tasks: Sequence[Task], desk: Desk, listener: Listener) -> dict[int, NetSpec]:
    """Hand out the tasks and attend to the workers until all is done."""
    door = threading.Thread(target=desk.listen, args=(listener, len(tasks)), daemon=True)
    door.start()
    try:
        futures: list[Future] = [pool.submit(work, task) for task in tasks]
        while desk.lines or door.is_alive() or not all(future.done() for future in futures):
            desk.attend()
            for future in futures:
                if future.done():
                    future.result()
    except KeyboardInterrupt:
        desk.stop()
        raise
    finally:
        while door.is_alive():  # waiting for calls that will not come
            with contextlib.suppress(OSError), Client(listener.address):
                door.join(POLL)
    return {index: spec for future in futures for index, spec in future.result().items()}


def _tasks(job: Job, workers: int, found: Checkpoint, folder: Path, address: str, key: bytes) -> list[Task]:
    """Neighbouring members go to one worker; what is large goes into ``folder``."""
    dataset, recipe, plan = job.dataset, job.recipe, job.plan
    threads = max(1, torch.get_num_threads() // workers)
    engine = recipe.engine
    own = dataclasses.replace(
        engine, threads=min(engine.threads, threads), together=max(1, engine.together // workers), workers=1
    )
    sent = dumped(_needed(dataclasses.replace(recipe, engine=own)))
    arrays = {**dataset.inputs, "target": dataset.labels, "roles": plan.roles}
    none = np.zeros(0)
    empty = Dataset({}, None, dataset.schema, none)
    tasks = []
    try:
        on_disk = {name: mapped(values, folder / f"{name}.npy") for name, values in arrays.items()}
        for number, members in enumerate(np.array_split(np.arange(plan.members), workers)):
            names = {int(index) for index in members}
            tensors = {name: value for name, value in found[1].items() if _member_of(name) in names}
            path = folder / f"checkpoint-{number}.safetensors"
            path.write_bytes(to_bytes(tensors))
            progress = {index: values for index, values in found[0].items() if index in names}
            tasks.append(
                Task(
                    members=tuple(sorted(names)),
                    threads=threads,
                    recipe=sent,
                    dataset=empty,
                    plan=dataclasses.replace(plan, roles=none),
                    arrays=on_disk,
                    progress=progress,
                    tensors=path,
                    address=address,
                    key=key,
                )
            )
    except OSError as error:
        raise AyatoriError(
            f"the data must fit into the folder for temporary files to be shared by {workers} workers, "
            f"however '{folder.parent}': {error.strerror or error}; set TMPDIR to another, or use one worker"
        ) from None
    return tasks


def _needed(recipe: Recipe) -> Recipe:
    """Without what the Plan has been made from."""
    return change(recipe, "plan", splitter=None)


def _member_of(name: str) -> int:
    """The member that a tensor of a checkpoint belongs to."""
    return int(name.partition("/")[0])


def _merged(old: Checkpoint, new: Checkpoint) -> Checkpoint:
    """``new`` in place of what ``old`` says of the same members."""
    others = {name: value for name, value in old[1].items() if _member_of(name) not in new[0]}
    return {**old[0], **new[0]}, {**others, **new[1]}


def _trained(job: Job, index: int, spec: NetSpec, checkpoint: Checkpoint) -> Trained:
    """The network of a member that is done, out of its last checkpoint."""
    progress, tensors = checkpoint
    _, own = find_net(job.recipe.net, kind_of(job.dataset))
    with forked():
        network = rebuild(spec, own).to(job.device)
    if "image" in job.dataset.inputs and job.recipe.engine.layout == "channels_last":
        lay_out(network)
    prefix = f"{index}/best/"
    network.load_state_dict(
        {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    )
    return index, network, restore_progress(progress[index])
