"""Members in waves, steps in parts, bfloat16: less memory, the same members."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers import mlp, pictures, settled, table
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ayatori import load
from ayatori.nets import Traits, build, find_traits, measure
from ayatori.nets.joined import Joined
from ayatori.plan import make_plan
from ayatori.recipe import EngineRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe, change
from ayatori.records import AyatoriError, Dataset, Member
from ayatori.train import memory, predict, settle, train
from ayatori.train.predict import predict_rows
from ayatori.train.stack import Stack

ERRORS = {
    "of an accelerator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "of a CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "of Python": MemoryError(),
}


def plain(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 16), nn.Tanh(), nn.Linear(16, outputs))


def far(found: list[Member], expected: list[Member]) -> float:
    """The largest difference of any weight."""
    return max(
        (value - second.network.get_parameter(name)).abs().max().item()
        for first, second in zip(found, expected, strict=True)
        for name, value in first.network.named_parameters()
        if value.numel()
    )


@contextmanager
def little_memory(rows: int, error: BaseException, training: bool) -> Iterator[list[int]]:
    """No call on more than ``rows`` rows of each network fits; gives the rows of all calls that did."""
    logits, took = Joined.logits, []

    def short(joined: Joined, inputs: Mapping[str, Tensor], learns: bool = False) -> Tensor:
        there = next(iter(inputs.values())).shape[1]
        if learns == training:
            if there > rows:
                raise error
            took.append(there)
        return logits(joined, inputs, learns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Joined, "logits", short)
        yield took


@pytest.mark.parametrize("engine", ["stacked", "stacks on threads", "turns"])
@pytest.mark.parametrize("make", [table, pictures])
def test_members_in_waves_are_those_that_train_all_at_once(
    make: Callable[[], Dataset], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, step, sizes = make(), Stack.step, []
    plan, recipe = settled(dataset, mlp, engine, folds=5, epochs=5, patience=2)
    assert recipe.engine.together == 5
    at_once = train(dataset, plan, recipe)

    def watched(stack: Stack, *given) -> None:
        sizes.append(tuple(one.index for one in stack.learners))
        step(stack, *given)

    monkeypatch.setattr(Stack, "step", watched)
    waves = train(dataset, plan, change(recipe, "engine", together=2))
    assert max(len(size) for size in sizes) == (2 if engine == "stacked" else 1)
    assert sizes.index((4,)) > max(place for place, size in enumerate(sizes) if 4 not in size)
    # matrix products of fewer members at once round otherwise in the last digit
    assert far(waves, at_once) <= (0 if engine == "turns" else 1e-6)
    assert [one.reason for one in waves] == [one.reason for one in at_once]


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("stacked", "of an accelerator"),
        ("stacked", "of a CPU"),
        ("stacks on threads", "of a CPU"),
        ("turns", "of Python"),
    ],
)
@pytest.mark.parametrize("make", [table, pictures])
def test_a_step_that_does_not_fit_is_taken_in_parts(
    make: Callable[[], Dataset], engine: str, kind: str
) -> None:
    dataset = make()
    plan, recipe = settled(dataset, plain, engine, epochs=5)
    whole = train(dataset, plan, recipe)
    with little_memory(11, ERRORS[kind], training=True) as took:
        found = train(dataset, plan, recipe)
    assert max(took) <= 11
    assert far(found, whole) < 1e-5
    for member in found:
        notes = [line.note for line in member.history]
        assert notes[0].startswith("memory ran out: each batch is now taken in ")
        assert not any(notes[1:])  # said once, and kept
    assert not any(line.note for member in whole for line in member.history)


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    plan, recipe = settled(table(), plain, "stacked", epochs=1)
    with (
        little_memory(11, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), training=True),
        pytest.raises(RuntimeError, match="shapes"),
    ):
        train(table(), plan, recipe)


@pytest.mark.parametrize("engine", ["stacked", "stacks on threads", "turns"])
def test_a_row_that_does_not_fit_is_said_in_a_sentence(engine: str) -> None:
    plan, recipe = settled(table(), plain, engine, epochs=1)
    with (
        little_memory(0, ERRORS["of a CPU"], training=True),
        pytest.raises(AyatoriError, match="must fit into memory, however not even one row does"),
    ):
        train(table(), plan, recipe)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_prediction_that_does_not_fit_takes_fewer_rows_at_a_time(kind: str) -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, epochs=2)
    members = train(dataset, plan, recipe)
    expected = predict(members, dataset, plan).values
    with little_memory(7, ERRORS[kind], training=False) as took:
        found = predict(members, dataset, plan).values
        alone = predict_rows(members[0].network, dataset.inputs, np.arange(len(dataset)))
    assert max(took) <= 7
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    own = predict_rows(members[0].network, dataset.inputs, np.arange(len(dataset)))
    np.testing.assert_allclose(alone, own, rtol=1e-5, atol=1e-6)
    with (
        little_memory(0, ERRORS[kind], training=False),
        pytest.raises(type(ERRORS[kind])),
    ):
        predict(members, dataset, plan)


def test_as_many_members_train_together_as_fit_into_their_share_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    assert memory.memory_bytes(cpu) > 2**20
    monkeypatch.setattr(memory, "memory_bytes", lambda device: 1000)
    assert [memory.at_once(50, each, cpu) for each in (1, 8, 10, 100, 399, 400, 401, 10**9, 0)] == [
        50, 50, 40, 4, 1, 1, 1, 1, 50,
    ]  # fmt: skip
    monkeypatch.setattr(memory, "memory_bytes", lambda device: 0)
    assert memory.at_once(50, 10, cpu) == 1
    dataset = table()
    plan, recipe = settled(dataset, folds=5)
    monkeypatch.setattr(memory, "memory_bytes", lambda device: 2**40)
    assert settle(change(recipe, "engine", together=0), dataset, plan).engine.together == 5
    # who has decided is not asked again: a resumed run has the waves of the first
    assert settle(change(recipe, "engine", together=3), dataset, plan).engine.together == 3


def test_the_memory_of_a_member_counts_its_weights_rows_and_activations() -> None:
    dataset = table()
    network = build(NetRecipe(name=plain), dataset, measure(dataset.inputs, dataset.schema), 0)
    traits = find_traits(network, dataset.inputs)
    weights = 4 * sum(value.numel() for value in network.parameters())
    base = memory.member_bytes(network, traits, 1000, 100)
    assert memory.member_bytes(network, dataclasses.replace(traits, activations=0.0), 0, 100) == 9 * weights
    # learning takes weights, gradients, two moments, and keeps what layers hand on
    assert base > 4 * weights + 100 * 4 * (16 + 16 + 3)
    assert memory.member_bytes(network, traits, 2000, 100) - base == 21_000
    assert memory.member_bytes(network, traits, 1000, 200) > base
    assert memory.member_bytes(network, Traits(), 1000, 200) < base


# Linux hands ru_maxrss of who began a process on to it; its own peak stands in its status
MANY = """
import re, resource, sys
from pathlib import Path
import numpy as np
from ayatori import load
from ayatori.plan import make_plan
from ayatori.recipe import EngineRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.train import settle, train

random = np.random.default_rng(0)
target = random.integers(0, 6, 1500)
dataset = load(random.normal(size=(1500, 12)) + np.eye(6).repeat(2, 1)[target], y=target.astype(str))
recipe = Recipe(
    net=NetRecipe(options={"width": 64, "depth": 2, "numbers": "plain"}),
    plan=PlanRecipe(folds=20, repeats=10),
    train=TrainRecipe(epochs=1, batch_size=256),
    engine=EngineRecipe(mode="stacked", threads=1, together=200),
)
plan = make_plan(dataset, recipe.plan, 0)
members = train(dataset, plan, settle(recipe, dataset, plan))
if sys.platform == "linux":
    peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(len(members), all(np.isfinite(one.history[0].stop_loss) for one in members), peak)
"""


def test_two_hundred_members_train_in_two_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    members, finite, peak = done.stdout.split()
    assert (members, finite) == ("200", "True")
    assert int(peak) < 2 * 10**9, f"{int(peak) / 1e9:.2f} GB"


def accuracies(dtype: str, folds: int = 5) -> np.ndarray:
    """Accuracy of each fold of scikit-learn's digits, read as a table."""
    pixels, target = load_digits(return_X_y=True)
    dataset = load(pixels, y=target.astype(str))
    recipe = Recipe(
        net=NetRecipe(options={"width": 64, "depth": 2, "numbers": "plain"}),
        plan=PlanRecipe(folds=folds),
        train=TrainRecipe(epochs=10, batch_size=128),
        engine=EngineRecipe(mode="stacked", dtype=dtype, threads=1),  # type: ignore[arg-type]
        seed=3,
    )
    plan = make_plan(dataset, recipe.plan, recipe.seed)
    recipe = settle(recipe, dataset, plan)
    assert recipe.engine.dtype == dtype
    found = predict(train(dataset, plan, recipe), dataset, plan)
    right = (found.values.argmax(-1) == dataset.labels) & found.unseen & ~plan.sealed
    return right.sum(1) / (found.unseen & ~plan.sealed).sum(1)


def test_bfloat16_changes_the_accuracy_by_no_more_than_half_a_percent() -> None:
    single, half = accuracies("float32"), accuracies("bfloat16")
    assert single.mean() > 0.95
    assert abs(half.mean() - single.mean()) <= 0.005, (single, half)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_bfloat16_is_used_for_the_products_and_not_for_the_weights(
    monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    seen = []

    class Watched(nn.Module):
        def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(shape[0], 8), nn.Linear(8, outputs)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            seen.append((self.training, hidden.dtype))
            return self.last(hidden)

    dataset = table()
    if task == "regression":
        numbers = dataset.inputs["numbers"]
        dataset = load(numbers, y=numbers.sum(axis=1))
    plan, recipe = settled(dataset, Watched, "stacked", epochs=1)
    monkeypatch.setattr("ayatori.train.loop.NOTED_FROM", 10**9)
    seen.clear()
    members = train(dataset, plan, change(recipe, "engine", dtype="bfloat16"))
    assert (True, torch.bfloat16) in seen
    # stop rows of classes, too; values may be closer to the truth than bfloat16 has digits
    assert ((False, torch.bfloat16) in seen) == (task == "classification")
    seen.clear()
    predict(members, dataset, plan)
    assert {dtype for training, dtype in seen if not training} == {torch.float32}
    assert all(value.dtype == torch.float32 for one in members for value in one.network.parameters())
