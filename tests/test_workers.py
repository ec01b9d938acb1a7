"""Members in several processes: what they learn, how they are stopped, and that none is left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from helpers import mlp, pictures, settled, table
from torch import Tensor
from torch.nn import functional as F

from ayatori.recipe import Recipe, change
from ayatori.records import SCORE, SEALED, AyatoriError, Epoch, Member
from ayatori.train import settle, train
from ayatori.train.work import mapped
from ayatori.train.workers import why_not_workers


def split(recipe: Recipe, workers: int = 2) -> Recipe:
    return change(recipe, "engine", workers=workers)


def spawned(process: psutil.Process) -> list[psutil.Process]:
    alive = [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "spawn_main" in " ".join(child.cmdline())]


def assert_same(first: Member, second: Member) -> None:
    """Byte for byte, but for the seconds."""
    for name, value in first.network.state_dict().items():
        assert value.numpy().tobytes() == second.network.state_dict()[name].numpy().tobytes(), name
    told = [[dataclasses.replace(line, seconds=0.0) for line in one.history] for one in (first, second)]
    assert told[0] == told[1]
    assert (first.index, first.column, first.reason) == (second.index, second.column, second.reason)


class Memory:
    """A keeper of checkpoints."""

    def __init__(self) -> None:
        self.kept: tuple[dict[int, dict], dict[str, Tensor]] | None = None

    def save_checkpoint(self, progress: dict[int, dict], tensors: dict[str, Tensor]) -> None:
        self.kept = progress, tensors

    def load_checkpoint(self) -> tuple[dict[int, dict], dict[str, Tensor]] | None:
        return self.kept

    @property
    def epochs(self) -> dict[int, int]:
        return {index: values["epoch"] for index, values in (self.kept or ({}, {}))[0].items()}


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process, and no file in the folder for temporary ones."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not spawned(psutil.Process())
    assert not list(tmp_path.glob("ayatori-*"))


def test_stacks_on_mapped_pictures_learn_in_processes_what_they_learn_on_threads(tmp_path: Path) -> None:
    dataset = pictures(600)
    store = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, dataset.inputs["image"].shape)
    store[:] = dataset.inputs["image"]
    dataset = dataclasses.replace(dataset, inputs={"image": store})
    plan, recipe = settled(
        dataset, engine="stacks on threads", folds=4, augment="light", batch_size=100, epochs=5
    )
    assert recipe.engine.mode == "stacked"

    def stop_some(line: Epoch) -> bool:
        return line.member in (1, 3) and line.epoch == 2  # so that equal stacks remain

    lines: list[tuple[int, int]] = []
    shares: list[float] = []

    def watch(line: Epoch) -> bool:
        lines.append((line.member, line.epoch))
        return stop_some(line)

    here = train(dataset, plan, recipe, on_epoch=stop_some)
    before = torch.get_rng_state()
    there = train(dataset, plan, split(recipe), on_epoch=watch, on_step=shares.append)
    assert torch.equal(torch.get_rng_state(), before)
    for first, second in zip(here, there, strict=True):
        assert_same(first, second)
    assert there[1].reason == "it was asked to stop"
    assert sorted(lines) == [(m, e) for m in range(4) for e in range(1, 3 if m in (1, 3) else 6)]
    assert shares[-1] == 1.0
    assert all(0 < share <= 1 for share in shares)


def test_rows_that_a_member_may_not_see_change_no_bit_of_it_in_a_worker() -> None:
    dataset = table()
    plan, recipe = settled(dataset, net="mlp")
    hidden = np.isin(plan.roles[:, 2], (SCORE, SEALED))
    numbers, target = dataset.inputs["numbers"].copy(), dataset.labels.copy()
    numbers[hidden], target[hidden] = np.nan, 0
    spoiled = dataclasses.replace(dataset, inputs={**dataset.inputs, "numbers": numbers}, target=target)
    here, there = train(dataset, plan, recipe), train(spoiled, plan, split(recipe))
    assert_same(here[2], there[2])
    with pytest.raises(AssertionError):
        assert_same(here[0], there[0])  # it learns from some of these rows


def test_a_killed_worker_and_control_c_lose_no_epoch_that_was_saved() -> None:
    dataset, keeper = table(), Memory()
    plan, recipe = settled(dataset, epochs=60, checkpoint_seconds=0.0)
    whole = train(dataset, plan, recipe)

    killed: list[psutil.Process] = []

    def kill(line: Epoch) -> None:
        if line.epoch == 4 and not killed:
            killed.append(spawned(psutil.Process())[0])
            killed[0].kill()

    with pytest.raises(AyatoriError, match=r"all 2 workers must live .* \(signal 9\); .* use fewer workers"):
        train(dataset, plan, split(recipe), keeper, kill)
    assert keeper.epochs
    assert max(keeper.epochs.values()) >= 3

    at: list[Epoch] = []

    def interrupt(line: Epoch) -> None:
        if line.epoch == 59:
            at.append(line)
            raise KeyboardInterrupt

    earlier = keeper.epochs
    with pytest.raises(KeyboardInterrupt):
        train(dataset, plan, split(recipe), keeper, interrupt)
    assert all(keeper.epochs[index] >= epoch for index, epoch in earlier.items())
    assert len(at) == 1
    assert keeper.epochs[at[0].member] >= 59  # the epoch at whose end it came
    lines: list[Epoch] = []
    for first, second in zip(whole, train(dataset, plan, split(recipe), keeper, lines.append), strict=True):
        assert_same(first, second)
    assert keeper.epochs == {0: 60, 1: 60, 2: 60}
    assert len(lines) <= 180 - 59


def failing(logits: Tensor, target: Tensor) -> Tensor:
    raise ArithmeticError("this loss is broken")


def test_an_error_in_a_worker_ends_all_of_them_and_is_raised_here() -> None:
    dataset = table()
    plan, recipe = settled(dataset, epochs=100_000)
    with pytest.raises(ArithmeticError, match="this loss is broken"):
        train(dataset, plan, split(change(recipe, "loss", name=failing)))


def count_processes(seen: list[int]) -> Callable[[Epoch], None]:
    return lambda line: seen.append(len(spawned(psutil.Process())))


def test_what_cannot_be_sent_to_another_process_trains_in_this_one_and_the_recipe_says_why() -> None:
    dataset = table()
    plan, recipe = settled(dataset)
    assert settle(split(recipe), dataset, plan).engine.workers == 2
    own = split(change(recipe, "net", name=lambda shape, outputs: mlp(shape, outputs)))
    decided = settle(own, dataset, plan).engine
    assert decided.workers == 1
    assert "one process: the network or the loss cannot be sent to another process: " in decided.why
    assert "lambda" in decided.why
    assert settle(dataclasses.replace(own, engine=decided), dataset, plan).engine == decided
    # also where somebody has changed the recipe since
    seen: list[int] = []
    loss = split(change(recipe, "loss", name=lambda logits, target: F.cross_entropy(logits, target)))
    train(dataset, plan, loss, on_epoch=count_processes(seen))
    assert set(seen) == {0}


@pytest.mark.parametrize("file", [None, "<stdin>"], ids=["notebook", "standard input"])
def test_a_network_that_was_typed_in_cannot_be_sent(
    file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = types.ModuleType("__main__")
    exec("def net(shape, outputs): pass", typed.__dict__)
    typed.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", typed)
    why = why_not_workers(change(Recipe(), "net", name=typed.net))
    assert "not defined in a file that another process could import" in why
    assert not why_not_workers(Recipe())


def test_an_array_that_lies_in_a_file_is_not_written_again(tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(6, 4)
    np.save(tmp_path / "there.npy", values)
    there = np.load(tmp_path / "there.npy", mmap_mode="r")
    changed = np.load(tmp_path / "there.npy", mmap_mode="c")
    changed[0] = -1.0
    cases = {
        "map": (there, False),
        "part of a map": (there[2:], True),
        "map with changes in memory": (changed, True),
        "array": (values, True),
        "columns first": (np.asfortranarray(values), True),
        "no columns": (values[:, :0], True),
    }
    for name, (array, written) in cases.items():
        again = mapped(array, tmp_path / f"{name}.npy")()
        assert (tmp_path / f"{name}.npy").exists() == written, name
        assert isinstance(again, np.memmap)
        assert not again.flags.writeable
        assert again.dtype == array.dtype
        assert again.flags.f_contiguous == array.flags.f_contiguous
        np.testing.assert_array_equal(again, array, err_msg=name)


# as most people write it: without a guard that keeps another process from running it again
SCRIPT = """
import numpy as np
import ayatori
from ayatori.recipe import EngineRecipe, ExploreRecipe, PlanRecipe, Recipe, TrainRecipe

print("begins", flush=True)
values = np.random.default_rng(0).normal(size=(120, 3))
recipe = Recipe(
    plan=PlanRecipe(folds=2),
    explore=ExploreRecipe(look=False),
    train=TrainRecipe(epochs=10**6, patience=10**6, checkpoint_seconds=0.0),
    engine=EngineRecipe(workers=2),
)
ayatori.run(values, recipe, "run", y=values[:, 0] > 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_no_worker_outlives_a_script(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    said = tmp_path / "said.txt"
    with said.open("w") as output:
        script = subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    saved, deadline = tmp_path / "run" / "checkpoint.safetensors", time.monotonic() + 120
    while not saved.exists() and script.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert saved.exists(), said.read_text()
    workers = spawned(psutil.Process(script.pid))
    assert len(workers) == 2
    if how is signal.SIGINT:
        os.killpg(script.pid, how)  # as a terminal does: to all of them
    else:
        script.send_signal(how)
    assert script.wait(60) != 0
    _, alive = psutil.wait_procs(workers, 0.1 if how is signal.SIGINT else 5)
    assert not alive
    text = said.read_text()
    assert text.count("begins") == 1
    assert text.count("Traceback") == (how is signal.SIGINT), text
    assert not [path for path in tmp_path.glob("ayatori-*") if _stays(path)]


def _stays(path: Path, seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.exists()
