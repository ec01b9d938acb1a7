"""How members run together: decided by a rule over the network and the machine, never by a clock.

The limits below were fitted to ``benchmarks/modes.py``; a stopwatch inside a run would break "same seed,
same bytes". ``--tune`` times the choices on real batches instead, and writes the winner into the recipe.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Literal

import torch

from ayatori.nets.traits import Traits
from ayatori.recipe import EngineRecipe

Mode = Literal["auto", "stacked", "turns"]
STACKED_BELOW = 100e6  # floating-point operations of one call of a layer, forward and backward
BF16_FROM, BF16_STACKED = 60e6, 5e6  # of one step of one member, in turn and in a stack
BF16_TILES = 30e6  # the same in a stack, where products are done by tiles, which small ones cannot fill
TURNS_FROM = 60e6  # of one step of one member, for each to have a thread where they take turns
THREADS_FROM = 2.5e9  # of one step of all members, where they are stacked
# where threads that wait sleep at once: of one step of each thread's stack, an operation in bfloat16 counting
# half; a row of a member costs as much as so many operations beside
PATIENT_FROM, PATIENT_ROW = 120e6, 50e3
ALONE_FROM = 1e9  # of one step of a network, for threads that sleep to share each of its operations


@dataclass(frozen=True)
class Machine:
    """What the rule needs to know of the machine."""

    device: str  # cpu, cuda, mps
    cores: int  # that torch may use
    bf16: bool  # whether matrix products in bfloat16 are faster than in float32
    patient: bool = False  # threads that wait for one another sleep, as those of the command do
    tiles: bool = False  # whether those products are done by tiles (AMX)


def look(device: torch.device) -> Machine:
    """The machine as torch sees it."""
    if device.type == "cuda":
        return Machine("cuda", 1, torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return Machine(device.type, 1, False)
    tiles = bool(torch.cpu._is_amx_tile_supported())
    fast = tiles or bool(torch.cpu._is_avx512_bf16_supported())
    return Machine("cpu", torch.get_num_threads(), fast, _patient(), tiles)


def _patient() -> bool:
    return os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"


def one_core(engine: EngineRecipe, device: torch.device, flops: float) -> bool:
    """Whether members whose step takes so many ``flops`` keep to one core, though all are free.

    Waking a thread for each small operation costs more than it brings (titanic, five networks: 30 s on two
    cores that sleep, 10 s on one).
    """
    small = engine.mode == "stacked" or flops < ALONE_FROM
    return small and device.type == "cpu" and _patient()


def pieces(members: int, threads: int) -> int:
    """How many stacks: one for each thread, or one more where they would be of unequal length."""
    even = members % threads == 0 or members > 8 * threads
    return min(threads if even else threads + 1, members)


def choose(
    engine: EngineRecipe, traits: Traits, batch_size: int, members: int, shared: bool, machine: Machine
) -> EngineRecipe:
    """The recipe with everything decided, and why. ``shared``: members take their rows from one batch.

    >>> small = Traits(flops=13_568, layers=5)
    >>> choose(EngineRecipe(), small, 128, 50, False, Machine("cpu", 2, False)).mode
    'stacked'
    """
    flops = 3 * batch_size * traits.flops  # the way back costs twice the way forward
    mode, why = _mode(traits, flops, members, shared, machine)
    if engine.mode == "turns" or (engine.mode == "stacked" and not cannot_stack(traits, members, shared)):
        mode, why = engine.mode, engine.why or "it was asked for"
    dtype = engine.dtype
    if dtype == "auto":
        stacked = BF16_TILES if machine.tiles else BF16_STACKED
        fast = machine.bf16 and flops > (stacked if mode == "stacked" else BF16_FROM)
        dtype = "bfloat16" if fast else "float32"
    cost = flops / 2 if dtype == "bfloat16" else flops
    threads = engine.threads or _threads(mode, flops, cost + PATIENT_ROW * batch_size, members, machine)
    if traits.draws_globally:
        threads = 1  # threads cannot share a generator without losing "same seed, same bytes"
    return dataclasses.replace(
        engine,
        mode=mode,
        threads=threads,
        workers=engine.workers or 1,
        dtype=dtype,
        layout="channels_last" if engine.layout == "auto" else engine.layout,
        why=why,
    )


def _threads(mode: Mode, flops: float, patient_cost: float, members: int, machine: Machine) -> int:
    threads = min(machine.cores, members) if machine.device == "cpu" else 1
    if mode == "turns":
        enough = flops >= TURNS_FROM
    elif machine.patient:
        enough = members * patient_cost >= PATIENT_FROM * pieces(members, threads)
    else:
        enough = members * flops >= THREADS_FROM
    return threads if enough else 1


def cannot_stack(traits: Traits, members: int, shared: bool) -> str:
    """Why these members take turns whatever is asked for; "" if they need not."""
    if members == 1:
        return "there is one network"
    if traits.alone:
        return f"this network cannot be stacked: {traits.alone}"
    if shared and traits.mixes_rows:
        return "it looks at a batch as a whole, and each member must see its own rows alone"
    return ""


def _mode(traits: Traits, flops: float, members: int, shared: bool, machine: Machine) -> tuple[Mode, str]:
    alone = cannot_stack(traits, members, shared)
    if alone:
        return "turns", alone
    if machine.device != "cpu":
        return "stacked", "an accelerator is filled by many members at once"
    if traits.convolves:
        return "turns", "convolutions of several networks as one are slower on a CPU"
    call = flops / max(traits.layers, 1)
    if call > STACKED_BELOW:
        return "turns", f"a layer of one network ({call / 1e6:.0f} million operations a step) fills a core"
    many = f"{call / 1e6:.2g} million" if call >= 1e5 else f"{call:,.0f}"
    return "stacked", f"a layer of one network ({many} operations a step) is small"


def sentence(engine: EngineRecipe, members: int) -> str:
    """What was chosen, in one line."""
    how = f"{members} networks as stacks" if engine.mode == "stacked" else f"{members} networks in turn"
    if members == 1:
        how = "one network"
    how += f", {engine.threads} at a time" if engine.threads > 1 else ""
    how += f", in {engine.workers} processes" if engine.workers > 1 else ""
    how += f", {engine.together} in memory at once" if 0 < engine.together < members else ""
    how += ", bfloat16" if engine.dtype == "bfloat16" else ""
    return f"{how}: {engine.why}"
