"""Many members as one: whatever the mode, each member is what a plain loop over its own rows gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import ENGINES, assert_close, bootstrapped, normed, pictures, plain_loop, settled, table

from ayatori.recipe import change
from ayatori.records import Dataset
from ayatori.train import train
from ayatori.train.stack import Stack

CASES: dict[str, tuple[Callable[[], Dataset], dict]] = {
    "table": (table, {}),
    "table without decay and clipping": (table, {"weight_decay": 0.0, "clip": 0.0}),
    "table, decayed and clipped hard": (table, {"weight_decay": 0.5, "clip": 0.05}),
    "table with batch normalisation": (table, {"net": normed}),
    "our own table network": (table, {"net": "mlp", "learning_rate": 0.002}),
    "pictures": (pictures, {}),
    "pictures, varied": (pictures, {"augment": "light"}),
}


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("table", "our"))])
def test_a_traced_stack_gives_the_weights_of_a_plain_loop_too(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, traced = Stack.trace, []
    monkeypatch.setattr("ayatori.train.loop.TRACED_FROM", 0)
    monkeypatch.setattr(Stack, "trace", lambda *given: traced.append(trace(*given)))
    make, settings = CASES[case]
    dataset = make()
    plan, recipe = settled(dataset, engine="stacked", epochs=13, **settings)
    recipe = change(recipe, "loss", label_smoothing=0.0)
    members = train(dataset, plan, recipe)
    assert traced == [True]
    assert_close(members[1], plain_loop(dataset, plan, recipe, 1))


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
