"""Stage 6. Dataset, Plan, recipe -> members. The only training loop: all members, one stream of data.

Members step in stacks (see ``Stack``; a stack may be one member). Pictures are read, moved and augmented
once for everybody; rows of a table, which cost nothing, each member draws in an order of its own. All
chance follows from (seed, epoch, step, member) alone, so that a killed run goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import augment
from ayatori.nets import build, find_traits, lay_out, measure
from ayatori.nets.dropout import forked, own_chance
from ayatori.nets.joined import Joined
from ayatori.nets.traits import Traits
from ayatori.nets.words import begin_texts
from ayatori.recipe import Recipe
from ayatori.records import STOP, Dataset, Epoch, Plan
from ayatori.train.balance import balance_rows
from ayatori.train.crew import crew
from ayatori.train.engine import one_core, pieces
from ayatori.train.learner import (
    Learner,
    clone,
    finish_epoch,
    fresh_moments,
    pack,
    remember,
    retire,
    schedule,
    unpack,
)
from ayatori.train.lesson import outputs_of, own_values
from ayatori.train.loss import make_loss
from ayatori.train.memory import steady_heap
from ayatori.train.predict import logits_of
from ayatori.train.stack import Stack
from ayatori.train.stream import (
    Batch,
    Given,
    Stream,
    batches,
    own_inputs,
    own_order,
    read_batch,
    sampled_order,
    seed_of,
    take,
    to_device,
    views_of,
)
from ayatori.train.vary import pair_own, vary_own

AHEAD = 4  # shared batches that are read together; at most three times as many wait in memory
LEAST_SHARED = 32  # own rows of a shared batch: with fewer, one may hold none
# steps that repay notes (a tenth of a second) of a stack's step; of a network alone so many times as many
NOTED_FROM, NOTED_ALONE = 20, 5
OWN_AHEAD = 16  # steps that a stack makes before it looks up
DRAWN_BYTES = 2**26  # up to so many of all members, a stack's rows of an epoch are picked at once
Checkpoint = tuple[dict[int, dict], dict[str, Tensor]]  # progress of each member, tensors
OnEpoch = Callable[[Epoch], bool | None]
OnStep = Callable[[float], None]  # share of all steps that is done


@dataclass(frozen=True)
class Job:
    """What a training run is about; the same for every epoch."""

    dataset: Dataset
    plan: Plan
    recipe: Recipe
    stream: Stream
    device: torch.device
    note_at_once: bool = False  # each stack's step, as in a long training
    offsets: np.ndarray | None = None  # (members, n, outputs): what each member adds a step to
    soft: np.ndarray | None = None  # (n, outputs) or (members, n, outputs): what they learn instead of labels
    start: Sequence[
        Mapping[str, Tensor] | None
    ] = ()  # what each member begins with, by name, in place of chance


def train_members(
    job: Job,
    members: Sequence[int],
    found: Checkpoint | None,
    save: Callable[[Sequence[Learner]], None],
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> list[Learner]:
    """Train these members to the end, from ``found`` on where it knows of them.

    ``save(learners)`` is called at the end of some epochs, with all who train or have trained, and at Ctrl-C.
    """
    devices = [torch.cuda.current_device()] if job.device.type == "cuda" else []
    everyone: list[Learner] = []
    together = job.recipe.engine.together or len(members)
    with forked(devices), steady_heap():
        try:
            for first in range(0, len(members), together):
                learners = new_learners(job, members[first : first + together])
                load(learners, found)
                everyone += learners
                part = _part(on_step, first / len(members), len(learners) / len(members))
                _epochs(job, learners, everyone, save, on_epoch, part)
        except KeyboardInterrupt:
            save(everyone)
            raise
        save(everyone)
    return everyone


def _part(on_step: OnStep | None, start: float, length: float) -> OnStep | None:
    return on_step and (lambda done: on_step(start + length * done))


def _epochs(
    job: Job,
    learners: Sequence[Learner],
    everyone: Sequence[Learner],
    save: Callable[[Sequence[Learner]], None],
    on_epoch: OnEpoch | None,
    on_step: OnStep | None,
) -> None:
    """All epochs of ``learners``; ``everyone``: they, and who has trained before them."""
    recipe, settings = job.recipe, job.recipe.train
    began, saved = time.monotonic(), time.monotonic()
    spent = sum(learner.progress.seconds for learner in everyone)
    stacks: list[Stack] = []
    flops = 3 * job.stream.size * learners[0].traits.flops
    with crew(recipe.engine.threads, one_core(recipe.engine, job.device, flops)) as hands:
        begin = min((one.progress.epoch for one in learners if not one.done), default=settings.epochs)
        for epoch in range(begin, settings.epochs):
            active = [one for one in learners if not one.done and one.progress.epoch == epoch]
            if not active:
                break
            start = time.monotonic()
            stacks = form(active, job, stacks)
            for done in _pass(job, stacks, epoch, hands):
                if on_step:
                    on_step((epoch + done) / settings.epochs)
            judged = [hands.submit(stop_losses, stack, job) for stack in stacks]
            losses = {index: loss for future in judged for index, loss in future.result().items()}
            factor = schedule((epoch + 1) / settings.epochs, settings.warmup)
            seconds = (time.monotonic() - start) / len(active)
            for learner, state in (pair for stack in stacks for pair in stack.states()):
                line = finish_epoch(learner, state, losses[learner.index], seconds, settings.epochs, factor)
                if on_epoch and on_epoch(line) and not learner.done:
                    learner.progress.reason = "it was asked to stop"
            if recipe.time_limit and spent + time.monotonic() - began > recipe.time_limit:
                for learner in active:
                    learner.progress.reason = (
                        learner.progress.reason or f"the time limit of {recipe.time_limit:g} s"
                    )
            for learner in active:
                if learner.done:
                    retire(learner)
            if time.monotonic() - saved > settings.checkpoint_seconds:
                save(everyone)
                saved = time.monotonic()


def form(active: Sequence[Learner], job: Job, before: Sequence[Stack]) -> list[Stack]:
    """The stacks of an epoch, which follow from its members alone; a stack that stays is kept as it is."""
    engine = job.recipe.engine
    alike: dict[tuple, list[Learner]] = {}
    for learner in active:
        together = engine.mode == "stacked" and _stacks(learner, job.stream)
        own = repr((learner.network.spec, learner.progress.steps)) if together else learner.index
        alike.setdefault((own, learner.progress.step_scale, learner.column.augment), []).append(learner)
    parts = [
        [group[number] for number in numbers]
        for group in alike.values()
        for numbers in np.array_split(np.arange(len(group)), pieces(len(group), engine.threads))
    ]
    kept = {tuple(one.index for one in stack.learners): stack for stack in before}
    stacks = []
    for part in parts:
        stack = kept.get(tuple(one.index for one in part))
        if stack is None:
            stack = Stack(part, engine)
        if job.stream.shared is None and not stack.asked_to_note and _notes_pay(stack, job):
            given = _given(stack, job, Batch((job.recipe.seed, part[0].progress.epoch, 0), 0.0))
            if given is not None:
                stack.note(given)
        stacks.append(stack)
    return stacks


def _notes_pay(stack: Stack, job: Job) -> bool:
    """Whether so many steps are sure that notes are repaid, or so many were made without (as one who rents
    skis, and does not know for how long, buys them once the rent has come to their price)."""
    if job.note_at_once:
        return True
    settings, steps = job.recipe.train, job.stream.steps
    price = NOTED_FROM * (NOTED_ALONE if stack.joined.alone else 1)
    epochs = settings.epochs - stack.learners[0].progress.epoch
    waited = max(one.progress.epoch - max(one.progress.best_epoch, 0) for one in stack.learners)
    sure = min(epochs, settings.patience - waited) * steps
    return epochs * steps >= price and max(sure, stack.made) >= price


def _stacks(learner: Learner, stream: Stream) -> bool:
    """Whether a learner may stand in a stack: of a shared batch it must have rows, and not see others'."""
    if stream.shared is None:
        return not learner.traits.alone
    rows = len(learner.rows) / stream.steps
    # a loss of the user's own may look at all rows that it is given, and some of them are there to fill up
    by_row = getattr(learner.loss, "of_rows", False) and not learner.traits.mixes_rows
    return by_row and not learner.traits.alone and rows >= LEAST_SHARED


def _pass(job: Job, stacks: Sequence[Stack], epoch: int, hands: Executor) -> Iterator[float]:
    """One pass over the stream; yields the share that is done. Shared batches are read once, a few ahead."""
    stream, seed = job.stream, job.recipe.seed
    waiting: deque[list[Future]] = deque()
    last: dict[Stack, Future] = {}
    ways = {stack.learners[0].column.augment: stack.vary for stack in stacks}
    shared = None if stream.shared is None else batches(stream.shared, stream.steps, seed, epoch)
    ahead = AHEAD if shared else OWN_AHEAD
    for first in range(0, stream.steps, ahead):
        ready = []
        for number in range(first, min(first + ahead, stream.steps)):
            whole = job.recipe.train.epochs * stream.steps
            factor = schedule((epoch * stream.steps + number + 0.5) / whole, job.recipe.train.warmup)
            key = (seed, epoch, number)
            if shared:
                layout = job.recipe.engine.layout
                ready.append(read_batch(job.dataset, next(shared), ways, factor, key, job.device, layout))
            else:
                ready.append(Batch(key, factor))
        for stack in stacks:
            last[stack] = hands.submit(steps_of, stack, job, ready, last.get(stack))
        waiting.append(list(last.values()))
        if len(waiting) > 2:
            _finish(waiting.popleft())
        yield min(first + ahead, stream.steps) / stream.steps
    for futures in waiting:
        _finish(futures)


def _finish(futures: list[Future]) -> None:
    for future in futures:
        future.result()


def steps_of(stack: Stack, job: Job, ready: Sequence[Batch], before: Future | None) -> None:
    """A stack's steps on the rows of these batches that are its members' own, after its earlier steps."""
    if before is not None:
        before.result()
    for batch in ready:
        given = _given(stack, job, batch)
        if given is None:
            continue
        if stack.draws:
            stack.seed(_seeds(stack, batch))
        stack.step(given, batch.factor)


def _given(stack: Stack, job: Job, batch: Batch) -> Given | None:
    """What a step is made on; None where none of the rows are the members' own."""
    given = shared_rows(stack, batch) if batch.target is not None else own_rows(stack, job, batch)
    if given is None or not stack.vary.pairs:
        return given
    return pair_own(stack.vary, given, _seeds(stack, batch), outputs_of(job.dataset))


def _seeds(stack: Stack, batch: Batch) -> list[int]:
    """What a member draws in a step does not depend on who trains beside it."""
    return [seed_of(*batch.key, learner.column.seed) for learner in stack.learners]


def own_rows(stack: Stack, job: Job, batch: Batch) -> Given:
    """Every member's next rows, in its own order."""
    _, epoch, number = batch.key
    if stack.epoch != epoch:
        stack.epoch = epoch
        stack.orders = np.stack([_order(one, job.stream, epoch) for one in stack.learners], axis=1)
        stack.views = views_of(job.dataset.inputs, job.recipe.seed, epoch)
        row = sum(values[:1].nbytes for values in job.dataset.inputs.values())
        everyone = row * job.stream.steps * job.stream.size * job.plan.members
        stack.drawn = _read(stack, job, stack.orders) if everyone <= DRAWN_BYTES else None
    rows = stack.orders[number]
    weight = None
    if stack.weighs:
        own = [one.weight[mine] for one, mine in zip(stack.learners, rows, strict=True)]
        weight = to_device(np.stack(own), job.device)
    if stack.drawn is None:
        inputs, labels = _read(stack, job, rows)
    else:
        inputs, labels = (
            {name: values[number] for name, values in stack.drawn[0].items()},
            stack.drawn[1][number],
        )
    if stack.vary.pictures or stack.vary.tables:
        inputs = vary_own(stack.vary, inputs, _seeds(stack, batch))
    offset, target = (own_values(stack.learners, kind, rows, job.device) for kind in ("offset", "soft"))
    return Given(inputs, labels if target is None else target, weight, rows.shape[1], offset)


def _read(stack: Stack, job: Job, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and labels of rows, of any shape."""
    inputs = take(job.dataset.inputs, rows, job.device, job.recipe.engine.layout, stack.views)
    return inputs, to_device(job.dataset.labels[rows], job.device)


def _order(learner: Learner, stream: Stream, epoch: int) -> np.ndarray:
    if learner.share is None:
        return own_order(learner.drawn, stream, learner.column.seed, epoch)
    return sampled_order(learner.rows, learner.share[learner.rows], stream, learner.column.seed, epoch)


def shared_rows(stack: Stack, batch: Batch) -> Given | None:
    """Of a shared batch every member's own rows; who has fewer than others gets some that weigh nothing."""
    assert batch.rows is not None
    assert batch.target is not None
    own = [np.flatnonzero(one.counts[batch.rows]) for one in stack.learners]
    sizes = [len(mine) for mine in own]
    if len(own) == 1 and sizes[0] < stack.learners[0].least_rows:
        return None
    most = max(sizes)
    stack.span(most, len(batch.rows))
    index = np.stack([np.resize(mine, most) if len(mine) else np.zeros(most, np.int64) for mine in own])
    device = batch.target.device
    place = torch.from_numpy(index.reshape(-1)).to(device)
    varied = batch.inputs[stack.learners[0].column.augment]
    inputs = {n: v.index_select(0, place).unflatten(0, index.shape) for n, v in varied.items()}
    numbers = batch.rows[index]
    offset, target = (own_values(stack.learners, kind, numbers, device) for kind in ("offset", "soft"))
    if target is None:
        target = batch.target.index_select(0, place).unflatten(0, index.shape)
    if min(sizes) == most and not stack.weighs:
        return Given(inputs, target, None, most, offset)
    weight = np.stack([one.weight[mine] for one, mine in zip(stack.learners, numbers, strict=True)])
    there = np.arange(most) < np.array(sizes)[:, None]
    weight *= there if weight.ndim == 2 else there[..., None]
    rows = most if min(sizes) == most else torch.tensor(sizes, device=device)
    return Given(inputs, target, to_device(weight, device), rows, offset)


def stop_losses(stack: Stack, job: Job) -> dict[int, float]:
    """The end of an epoch: mean loss of every member on its own stop rows."""
    stack.end_epoch()
    rows = [job.plan.rows(one.index, STOP) for one in stack.learners]
    found = {}
    logits = logits_of(stack.logits, job.dataset.inputs, rows, job.device)
    for learner, mine, own in zip(stack.learners, logits, rows, strict=True):
        target = learner.network.standardise(to_device(job.dataset.labels[own], job.device))
        if learner.offset is not None:
            mine = mine + learner.network.standardise(to_device(learner.offset[own], job.device))
        mine = learner.network.led_back(mine)
        found[learner.index] = learner.stop_loss(mine, target).double().mean().item()
    return found


def new_learners(job: Job, members: Iterable[int]) -> list[Learner]:
    """Fresh members; networks of one shape are tried out once."""
    known: dict[str, Traits] = {}
    return [new_learner(job, index, known) for index in members]


def new_learner(job: Job, index: int, known: dict[str, Traits]) -> Learner:
    """A fresh member: built with its own seed, its front fitted on its own training rows alone."""
    dataset, recipe, shared, offsets, soft = job.dataset, job.recipe, job.stream.shared, job.offsets, job.soft
    column, counts = job.plan.columns[index], job.plan.counts(index)
    own = np.repeat(np.arange(len(counts)), counts)
    smoothing = recipe.loss.label_smoothing
    inputs = own_inputs(dataset, own, column.seed)
    sizes = measure(inputs, dataset.schema, column.features)
    network = build(recipe.net, dataset, sizes, column.seed, step=offsets is not None)
    network.fit(inputs, dataset.labels[own] if dataset.task == "regression" else None)
    if offsets is None and "words" in inputs:
        begin_texts(network, inputs["words"], dataset.labels[own])
    if job.start and (start := job.start[index]) is not None:
        network.load_state_dict({**network.state_dict(), **start})
    spec = repr(network.spec)
    if spec not in known:
        known[spec] = find_traits(network, inputs)
    chance = torch.Generator(job.device)
    own_chance(network, [chance])
    network.to(job.device)
    if "image" in dataset.inputs and recipe.engine.layout == "channels_last":
        lay_out(network)
    taught = soft is not None
    balance = balance_rows(dataset, counts, shared is None, recipe, column, taught or offsets is not None)
    if balance.back is not None:
        network.shift.copy_(torch.from_numpy(balance.back))
    vary = augment(column.augment or recipe.train.augment, deep=dataset.schema.slices)
    learner = Learner(
        index=index,
        column=column,
        network=network,
        counts=counts,
        weight=balance.weight,
        share=balance.share,
        vary=vary,
        loss=make_loss(recipe.loss, dataset.task, 0.0 if taught else smoothing, taught or vary.pairs),
        stop_loss=make_loss(recipe.loss, dataset.task),
        recipe=recipe.train,
        chance=chance,
        traits=known[spec],
        moments=fresh_moments(network),
        offset=None if offsets is None else offsets[index],
        soft=None if soft is None else soft[index] if soft.ndim == 3 else soft,
    )
    if job.start and job.start[index] is not None:
        _judge_start(learner, job)
    remember(learner)
    return learner


def _judge_start(learner: Learner, job: Job) -> None:
    """What a member begins with is the best that it has, until an epoch is better."""
    rows = job.plan.rows(learner.index, STOP)
    logits = logits_of(Joined([learner.network]).logits, job.dataset.inputs, [rows], job.device)[0]
    target = learner.network.standardise(to_device(job.dataset.labels[rows], job.device))
    logits = learner.network.led_back(logits)
    learner.progress.best_loss = learner.stop_loss(logits, target).double().mean().item()
    learner.progress.best_epoch = 0
    learner.best = clone(learner.network.state_dict())


def packed(learners: Sequence[Learner]) -> Checkpoint:
    """The last complete epoch of every member, by its number."""
    progress: dict[int, dict] = {}
    tensors: dict[str, Tensor] = {}
    for learner in learners:
        values, state = pack(learner)
        progress[learner.index] = values
        tensors |= {f"{learner.index}/{name}": value for name, value in state.items()}
    return progress, tensors


def load(learners: Sequence[Learner], found: Checkpoint | None) -> None:
    """Go on from the checkpoint, where it knows of these members."""
    progress, tensors = found or ({}, {})
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, rest = name.partition("/")
        states.setdefault(int(index), {})[rest] = value
    for learner in learners:
        if learner.index in progress:
            unpack(learner, progress[learner.index], states[learner.index])
