"""``--tune``: the engine's choices timed on real batches; the fastest goes into the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from ayatori.nets.traits import Traits
from ayatori.recipe import EngineRecipe, Recipe, change
from ayatori.records import STOP, UNUSED, Dataset, Epoch, Plan
from ayatori.train.engine import Machine, Mode, cannot_stack
from ayatori.train.loop import Job, train_members
from ayatori.train.stream import make_stream, pick_device

WORK = 2e10  # operations of an epoch, unless those are more than MOST_STEPS or fewer than LEAST_STEPS
LEAST_STEPS, MOST_STEPS = 4, 64
EPOCHS, STOP_ROWS = 3, 64


def tune(
    recipe: Recipe, asked: EngineRecipe, dataset: Dataset, plan: Plan, traits: Traits, machine: Machine
) -> EngineRecipe:
    """The fastest way to run this plan here: mode and threads first, then type and layout of numbers.

    ``recipe.engine`` has been decided by the rule; what ``asked`` names is left as it is. What is trained
    here is thrown away. Workers are not tried, because processes take seconds to begin.
    """
    tried: dict[EngineRecipe, float] = {}
    best = recipe.engine
    pictures = "image" in dataset.inputs
    for candidates in (_ways, _numbers):
        for engine in candidates(best, asked, plan, traits, machine, pictures):
            if engine not in tried:
                changed = dataclasses.replace(recipe, engine=engine)
                tried[engine] = seconds_of_step(dataset, plan, changed, traits)
        best = min(tried, key=lambda engine: tried[engine])
    others = ", ".join(f"{1e3 * seconds:.3g}" for engine, seconds in tried.items() if engine != best)
    why = f"the fastest of {len(tried)} that were tried: {1e3 * tried[best]:.3g} ms a step of all ({others})"
    return dataclasses.replace(best, why=why, tune=False)


def _ways(
    engine: EngineRecipe, asked: EngineRecipe, plan: Plan, traits: Traits, machine: Machine, pictures: bool
) -> Iterator[EngineRecipe]:
    free = not asked.threads and not traits.draws_globally
    threads = {1, min(machine.cores, plan.members)} if free else {engine.threads}
    fixed = asked.mode != "auto" or cannot_stack(traits, plan.members, pictures)
    modes: tuple[Mode, ...] = (engine.mode,) if fixed else ("turns", "stacked")
    for mode in modes:
        for number in sorted(threads):
            yield dataclasses.replace(engine, mode=mode, threads=number)


def _numbers(
    engine: EngineRecipe, asked: EngineRecipe, plan: Plan, traits: Traits, machine: Machine, pictures: bool
) -> Iterator[EngineRecipe]:
    free = asked.dtype == "auto" and machine.bf16
    for dtype in ("float32", "bfloat16") if free else (engine.dtype,):
        for layout in (
            ("channels_last", "contiguous") if pictures and asked.layout == "auto" else (engine.layout,)
        ):
            yield dataclasses.replace(engine, dtype=dtype, layout=layout)


def seconds_of_step(dataset: Dataset, plan: Plan, recipe: Recipe, traits: Traits) -> float:
    """Seconds of one step of all members: short epochs, of which the first, a warm-up, does not count."""
    stream = make_stream(dataset, plan, recipe)
    work = max(3 * stream.size * plan.members * traits.flops, 1.0)
    steps = int(np.clip(WORK / work, LEAST_STEPS, MOST_STEPS))
    if stream.shared is not None:
        rows = np.resize(stream.shared, len(stream.shared) * steps // stream.steps)
        stream = dataclasses.replace(stream, shared=rows)
    stream = dataclasses.replace(stream, steps=steps)
    recipe = change(recipe, "train", epochs=EPOCHS, patience=EPOCHS + 1)
    lines: list[Epoch] = []
    few = _with_few_stop_rows(plan)
    job = Job(dataset, few, recipe, stream, pick_device(recipe.train.device), note_at_once=True)
    train_members(job, range(plan.members), None, lambda learners: None, lines.append)
    seconds = [sum(line.seconds for line in lines if line.epoch == epoch) for epoch in range(2, EPOCHS + 1)]
    return min(seconds) / steps


def _with_few_stop_rows(plan: Plan) -> Plan:
    """An epoch of few steps must not be one of judging."""
    roles = plan.roles.copy()
    for member in range(plan.members):
        roles[plan.rows(member, STOP)[STOP_ROWS:], member] = UNUSED
    return dataclasses.replace(plan, roles=roles)
