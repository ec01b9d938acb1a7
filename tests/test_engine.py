"""Many members as one: whatever the mode, each member is what a plain loop over its own rows gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import ENGINES, assert_close, bootstrapped, normed, pictures, plain_loop, settled, table

from ayatori.nets import Traits
from ayatori.recipe import EngineRecipe, Recipe, change
from ayatori.records import AyatoriError, Dataset, Plan
from ayatori.train import settle, train
from ayatori.train.crew import crew
from ayatori.train.engine import Machine, choose, look, one_core
from ayatori.train.stack import Stack
from ayatori.train.stream import make_stream
from ayatori.train.tune import tune

CASES: dict[str, tuple[Callable[[], Dataset], dict]] = {
    "table": (table, {}),
    "table without decay and clipping": (table, {"weight_decay": 0.0, "clip": 0.0}),
    "table, decayed and clipped hard": (table, {"weight_decay": 0.5, "clip": 0.05}),
    "table with batch normalisation": (table, {"net": normed}),
    "our own table network": (table, {"net": "mlp", "learning_rate": 0.002}),
    "pictures": (pictures, {}),
    "pictures, varied": (pictures, {"augment": "light"}),
}


@pytest.mark.parametrize("engine", ["stacked", "turns"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "pictures, varied"])
def test_a_stack_whose_operations_were_noted_gives_the_weights_of_a_plain_loop_too(
    case: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, taken = Stack.note, []
    monkeypatch.setattr("ayatori.train.loop.NOTED_FROM", 0)
    monkeypatch.setattr(Stack, "note", lambda *given: taken.append(note(*given)))
    make, settings = CASES[case]
    dataset = make()
    plan, recipe = settled(dataset, engine=engine, epochs=13, **settings)
    recipe = change(recipe, "loss", label_smoothing=0.0)
    members = train(dataset, plan, recipe)
    assert taken == [True] * (1 if engine == "stacked" else plan.members)
    assert_close(members[1], plain_loop(dataset, plan, recipe, 1))


@pytest.mark.parametrize("engine", ["stacked", "turns"])
def test_a_cnn_whose_operations_were_noted_has_the_same_bytes(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, taken, learned = Stack.note, [], []
    monkeypatch.setattr(Stack, "note", lambda *given: taken.append(note(*given)))
    dataset = pictures()
    plan, recipe = settled(dataset, net="cnn", engine=engine, epochs=6)
    for least in (0, 10**9):
        monkeypatch.setattr("ayatori.train.loop.NOTED_FROM", least)
        learned.append([member.network.state_dict() for member in train(dataset, plan, recipe)])
    assert taken == [True] * (1 if engine == "stacked" else plan.members)
    for noted, plain in zip(*learned, strict=True):
        assert all(torch.equal(value, plain[name]) for name, value in noted.items())


def test_a_loss_that_looks_at_values_is_not_noted_and_learns_as_it_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        return found * 2 if found.max().item() > 1 else found

    note, taken, learned = Stack.note, [], []
    monkeypatch.setattr(Stack, "note", lambda *given: taken.append(note(*given)))
    dataset = table()
    plan, recipe = settled(dataset, engine="stacked", epochs=3)
    recipe = change(recipe, "loss", name=loss)
    for least in (0, 10**9):
        monkeypatch.setattr("ayatori.train.loop.NOTED_FROM", least)
        learned.append(train(dataset, plan, recipe)[0].network.state_dict())
    assert taken == [False]
    assert all(torch.equal(value, learned[1][name]) for name, value in learned[0].items())


@pytest.mark.parametrize("weighted", [False, True], ids=["rows once", "rows weighted"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_every_mode_gives_the_weights_of_a_plain_loop_of_separate_networks(
    case: str, engine: str, weighted: bool
) -> None:
    make, settings = CASES[case]
    dataset = make()
    plan, recipe = settled(dataset, engine=engine, epochs=13, **settings)  # 4 steps an epoch: 52 steps
    plan = bootstrapped(plan) if weighted else plan
    recipe = change(recipe, "loss", label_smoothing=0.0)
    members = train(dataset, plan, recipe)
    for index in (0, 2):
        assert_close(members[index], plain_loop(dataset, plan, recipe, index))


SMALL = Traits(flops=13_568, layers=5)
MIDDLE = Traits(flops=152_576, layers=3)  # 256 and 256 units
WIDE = Traits(flops=4e6, layers=4)  # a thousand units and more
CNN = Traits(flops=1e6, layers=12, convolves=True, mixes_rows=True)
RULES = {
    "one network takes its turn": (SMALL, 1, False, "cpu", "turns", 1),
    "a few tiny ones are one stack": (Traits(flops=5000, layers=5), 5, False, "cpu", "stacked", 1),
    "many small ones are one stack too": (SMALL, 50, False, "cpu", "stacked", 1),
    "many larger ones are a stack for each core": (MIDDLE, 50, False, "cpu", "stacked", 2),
    "wide ones take turns": (WIDE, 5, False, "cpu", "turns", 2),
    "convolutions take turns on a CPU": (CNN, 5, True, "cpu", "turns", 2),
    "who cannot be stacked takes turns": (Traits(flops=4e6, alone="no"), 5, False, "cpu", "turns", 2),
    "tiny ones wait for Python, not for a core": (Traits(flops=5, alone="no"), 5, False, "cpu", "turns", 1),
    "an accelerator takes all at once": (WIDE, 5, False, "cuda", "stacked", 1),
    "even there a shared batch is not for who mixes rows": (CNN, 5, True, "cuda", "turns", 1),
    "who draws from torch itself gets no thread": (
        Traits(flops=5000, layers=5, draws_globally=True, alone="it draws"), 5, False, "cpu", "turns", 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_the_rule_follows_from_the_network_and_the_machine(case: str) -> None:
    traits, members, shared, device, mode, threads = RULES[case]
    machine = Machine(device, 2 if device == "cpu" else 1, bf16=False)
    chosen = choose(EngineRecipe(), traits, 128, members, shared, machine)
    assert (chosen.mode, chosen.threads, chosen.dtype) == (mode, threads, "float32")
    assert chosen.why
    assert choose(chosen, traits, 128, members, shared, machine) == chosen


@pytest.mark.parametrize(
    ("flops", "members", "bf16", "threads"),
    [(5000, 5, False, 1), (6_800, 55, False, 2), (152_576, 5, False, 2), (152_576, 5, True, 1)],
)
def test_where_threads_sleep_while_they_wait_a_stack_has_one_core_and_much_work_a_stack_a_core(
    flops: int, members: int, bf16: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    machine = replace(look(torch.device("cpu")), cores=2, bf16=bf16)
    chosen = choose(EngineRecipe(), Traits(flops=flops, layers=5), 256, members, False, machine)
    assert (chosen.mode, chosen.threads) == ("stacked", threads)
    assert one_core(chosen, torch.device("cpu"), 3 * 256 * flops)
    before = torch.get_num_threads()
    with crew(1, one_core=True) as hands:
        assert hands.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not one_core(chosen, torch.device("cpu"), 3 * 256 * flops)


def test_where_threads_sleep_a_small_network_alone_has_one_core_and_a_large_one_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    cpu, alone = torch.device("cpu"), EngineRecipe(mode="turns", threads=1)
    assert one_core(alone, cpu, 2e8)
    assert not one_core(alone, cpu, 1e10)
    assert not one_core(alone, torch.device("cuda"), 2e8)


def test_what_is_asked_for_is_done_unless_it_cannot_be() -> None:
    machine = Machine("cpu", 2, bf16=True)
    asked = EngineRecipe(mode="turns", threads=1, dtype="float32")
    assert choose(asked, SMALL, 128, 50, False, machine).mode == "turns"
    assert choose(EngineRecipe(mode="stacked"), WIDE, 128, 5, False, machine).mode == "stacked"
    refused = choose(EngineRecipe(mode="stacked"), Traits(alone="it looks back"), 128, 5, False, machine)
    assert (refused.mode, "it looks back" in refused.why) == ("turns", True)
    assert choose(EngineRecipe(), WIDE, 128, 5, False, machine).dtype == "bfloat16"
    assert choose(EngineRecipe(), SMALL, 16, 5, False, machine).dtype == "float32"


@pytest.mark.parametrize(("tiles", "dtype"), [(False, "bfloat16"), (True, "float32")])
def test_products_too_small_for_the_tiles_of_a_processor_stay_in_float32(tiles: bool, dtype: str) -> None:
    machine = Machine("cpu", 2, bf16=True, tiles=tiles)
    assert choose(EngineRecipe(), SMALL, 256, 5, False, machine).dtype == dtype
    assert choose(EngineRecipe(), MIDDLE, 256, 5, False, machine).dtype == "bfloat16"


def test_tuning_tries_the_ways_and_says_what_it_found_and_training_is_as_without_it() -> None:
    dataset = table()
    plan, recipe = settled(dataset, engine="turns")
    tuned = settle(change(recipe, "engine", mode="auto", threads=0, tune=True), dataset, plan)
    assert tuned.engine.dtype == recipe.engine.dtype  # as it was asked for
    assert re.match(r"the fastest of \d+ that were tried: .* ms a step of all \(.*\)", tuned.engine.why)
    assert not tuned.engine.tune
    first, second = train(dataset, plan, recipe)[0], train(dataset, plan, tuned)[0]
    for name, value in first.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "asked",
    [{"mode": "turns"}, {"mode": "stacked", "threads": 1}, {"threads": 3}, {"dtype": "float32"}],
    ids=str,
)
def test_tuning_leaves_what_was_asked_for(asked: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def clock(dataset: Dataset, plan: Plan, recipe: Recipe, traits: Traits) -> float:
        tried.append(recipe.engine)
        return float(len(tried))

    monkeypatch.setattr("ayatori.train.tune.seconds_of_step", clock)
    dataset = table()
    plan, recipe = settled(dataset)
    machine = Machine("cpu", 2, bf16=True)
    free = EngineRecipe(**asked, tune=True)
    decided = replace(recipe, engine=choose(free, SMALL, 128, plan.members, False, machine))
    tuned = tune(decided, free, dataset, plan, SMALL, machine)
    for name in ("mode", "threads", "dtype"):
        values = {getattr(engine, name) for engine in [*tried, tuned]}
        assert values == {asked[name]} if name in asked else len(values) == 2


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"mode": "stakced"}, "did you mean 'stacked'"), ({"threads": -1}, "`threads` must be positive")],
    ids=str,
)
def test_settings_of_the_engine_are_checked(setting: dict, said: str) -> None:
    plan, recipe = settled(table())
    with pytest.raises(AyatoriError, match=said):
        settle(change(recipe, "engine", **setting), table(), plan)


@pytest.mark.parametrize(
    ("epochs", "patience", "noted_in"),
    [(40, 40, 1), (4, 40, None), (40, 4, 6)],
    ids=["sure to pay", "too few steps", "once as many were made without"],
)
def test_a_stack_notes_its_step_where_that_is_repaid(
    epochs: int, patience: int, noted_in: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, seen = Stack.note, []
    monkeypatch.setattr(
        Stack, "note", lambda stack, given: seen.append(epoch_of(stack)) or note(stack, given)
    )
    dataset = table()
    plan, recipe = settled(dataset, engine="stacked", epochs=epochs, batch_size=16)
    recipe = change(recipe, "train", patience=patience, learning_rate=1e-4)
    steps = make_stream(dataset, plan, recipe).steps
    monkeypatch.setattr("ayatori.train.loop.NOTED_FROM", 5 * steps)
    train(dataset, plan, recipe)
    assert seen[:1] == ([noted_in] if noted_in else [])


def epoch_of(stack: Stack) -> int:
    return stack.learners[0].progress.epoch + 1
