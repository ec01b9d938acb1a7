"""Networks that add a step to what others say: they learn what is missing, and nothing else changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ENGINES, assert_close, bootstrapped, mlp, normed, pictures, plain_loop, settled, table
from test_stack import (
    CutError,
    Memory,
    assert_like,
    labels_to_predict,
    mixed_columns,
    numbers_to_predict,
    own_scalar,
    same_bits,
    told,
)
from torch import Tensor
from torch.nn import functional as F

from ayatori.model import Model
from ayatori.model_files import load_model, save_model
from ayatori.recipe import Recipe, change
from ayatori.records import STOP, AyatoriError, Dataset, Plan
from ayatori.store import RunFolder
from ayatori.train import answers, predict, settle, train


def outputs(dataset: Dataset) -> int:
    return len(dataset.classes) or dataset.labels.shape[1]


def offsets_of(dataset: Dataset, plan: Plan, seed: int = 1, kind: type = np.float32) -> np.ndarray:
    """Something that already knows a little, in logits or in the units of the target."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(plan.members, len(dataset), outputs(dataset)))
    if dataset.task == "regression":
        return (0.5 * dataset.labels + dataset.labels.std() * noise).astype(kind)
    return noise.astype(kind)


def seen(plan: Plan) -> np.ndarray:
    """(members, n): rows that teach or stop a member."""
    return (plan.roles.T > 0) & (plan.roles.T <= STOP)


def plain(recipe: Recipe) -> Recipe:
    return change(recipe, "loss", label_smoothing=0.0)


def squared(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).square().mean(1)


def standard(values: np.ndarray, dataset: Dataset, plan: Plan, member: int) -> np.ndarray:
    """In standard deviations of a member's own training rows, each as often as it counts."""
    own = np.repeat(dataset.labels, plan.counts(member), axis=0)
    return ((values - own.mean(0)) / own.std(0)).astype(np.float32)


# 1: what is learned


CASES = [
    *[(table, mlp, engine) for engine in ENGINES],
    (table, "mlp", "stacked"),
    (pictures, mlp, "turns on threads"),
    (pictures, mlp, "stacks on threads"),
    (pictures, "cnn", "turns"),
]


@pytest.mark.parametrize(("make", "net", "engine"), CASES)
def test_a_step_learns_what_a_plain_loop_learns_that_adds_the_offset_to_the_logits(
    make: Callable[[], Dataset], net, engine: str
) -> None:
    dataset = make()
    rate = 0.01 if net is mlp else 0.002
    plan, recipe = settled(dataset, net, engine, learning_rate=rate, epochs=4 if net is mlp else 1)
    plan, recipe = bootstrapped(plan) if net is mlp else plan, plain(recipe)
    given = offsets_of(dataset, plan)
    for member in train(dataset, plan, recipe, offsets=given):
        index = member.index
        assert_close(member, plain_loop(dataset, plan, recipe, index, offset=given[index]))
        assert member.network.temperature == 1


@pytest.mark.parametrize("engine", ["turns", "stacked"])
def test_a_step_of_numbers_is_what_a_plain_loop_on_standardised_numbers_learns(engine: str) -> None:
    dataset = numbers_to_predict()
    plan, recipe = settled(dataset, mlp, engine)
    plan = bootstrapped(plan)
    given = offsets_of(dataset, plan)
    for member in train(dataset, plan, recipe, offsets=given):
        target, offset = (
            standard(v, dataset, plan, member.index) for v in (dataset.labels, given[member.index])
        )
        expected = plain_loop(
            dataset, plan, recipe, member.index, squared, target.astype(np.float32), offset=offset
        )
        assert_close(member, expected | {"shift": torch.zeros(2)})


TASKS = {
    "labels": (labels_to_predict, mlp, {}),
    "labels by our own network": (labels_to_predict, "mlp", {"class_weights": (1.0, 3.0, 0.5)}),
    "smoothing and focal": (table, mlp, {"name": "focal"}),
    "a loss that gives a number": (table, mlp, {"name": own_scalar}),
    "numbers by our own network": (numbers_to_predict, "mlp", {"name": "huber"}),
    "quantiles": (numbers_to_predict, mlp, {"name": "quantile", "quantile": 0.9}),
    "words and gaps": (mixed_columns, mlp, {}),
    "statistics of a batch": (table, normed, {}),
}


@pytest.mark.parametrize("case", TASKS)
def test_a_stack_of_steps_gives_what_steps_in_turn_give(case: str) -> None:
    make, net, loss = TASKS[case]
    dataset, found = make(), []
    rate = 0.002 if net == "mlp" else 0.01
    for engine in ("turns", "stacks on threads"):
        plan, recipe = settled(dataset, net, engine, epochs=2, clip=0.5, learning_rate=rate)
        plan = bootstrapped(plan)
        given = offsets_of(dataset, plan)
        found.append(train(dataset, plan, change(recipe, "loss", **loss), offsets=given))
    for expected, member in zip(*found, strict=True):
        assert_like(member, expected)


@pytest.mark.parametrize("name", ["mse", "quantile"])
def test_a_step_from_a_constant_is_a_network_on_what_is_left(name: str) -> None:
    dataset = numbers_to_predict()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=3)
    recipe = change(recipe, "loss", name=name)
    constant = np.array([3e3, -500.0])
    left = dataclasses.replace(dataset, target=dataset.labels - constant)
    rows = [np.arange(len(dataset))]
    for member in train(left, plan, recipe)[:2]:
        # a network begins at the mean of its target, and a step where it is told to
        mean = member.network.shift.numpy()
        given = np.broadcast_to(constant + mean, (plan.members, len(dataset), 2))
        step = train(dataset, plan, recipe, offsets=given)[member.index]
        [found], [expected] = answers([step], dataset, rows), answers([member], dataset, rows)
        np.testing.assert_allclose(found + mean, expected, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("make", [table, labels_to_predict, pictures])
def test_a_step_from_nowhere_has_the_weights_of_a_network(make: Callable[[], Dataset]) -> None:
    dataset = make()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=3)
    nothing = np.zeros((plan.members, len(dataset), outputs(dataset)), np.float32)
    steps = train(dataset, plan, recipe, offsets=nothing)
    for step, member in zip(steps, train(dataset, plan, recipe), strict=True):
        assert told(step) == told(member)
        for name, value in member.network.named_parameters():
            assert torch.equal(value, step.network.get_parameter(name))


@pytest.mark.parametrize(("make", "net"), [(table, "mlp"), (table, "linear"), (pictures, "cnn")])
def test_a_step_of_our_own_network_begins_as_none_at_all(make: Callable[[], Dataset], net: str) -> None:
    dataset = make()
    plan, recipe = settled(dataset, net, epochs=1, learning_rate=1e-9, warmup=0.0)
    steps = train(dataset, plan, recipe, offsets=offsets_of(dataset, plan))
    for found in answers(steps, dataset, [np.arange(len(dataset))] * plan.members):
        np.testing.assert_allclose(found, 0, atol=1e-4)


# 2: what it answers


def test_a_step_answers_with_raw_logits_and_with_values_without_their_mean() -> None:
    for dataset in (table(), labels_to_predict(), numbers_to_predict(), pictures()):
        plan, recipe = settled(dataset, mlp, "stacked", epochs=2)
        rows = [np.flatnonzero(own) for own in seen(plan)]
        steps = train(dataset, plan, recipe, offsets=offsets_of(dataset, plan))
        for member, own, found in zip(steps, rows, answers(steps, dataset, rows), strict=True):
            inputs = {name: torch.from_numpy(values[own]) for name, values in dataset.inputs.items()}
            with torch.no_grad():
                expected = member.network(inputs).numpy()
            scale = (
                np.repeat(dataset.labels, plan.counts(member.index), axis=0).std(0)
                if dataset.task == "regression"
                else 1.0
            )
            np.testing.assert_allclose(found, expected * scale, rtol=1e-4, atol=1e-5 * np.max(scale))


def test_answers_for_given_rows_are_what_predict_says_of_them() -> None:
    dataset = table()
    plan, recipe = settled(dataset, "mlp", "stacked", epochs=2)
    members = train(dataset, plan, recipe)
    predictions = predict(members, dataset, plan)
    rows = [np.flatnonzero(unseen)[:: number + 1] for number, unseen in enumerate(predictions.unseen)]
    for number, found in enumerate(answers(members, dataset, rows)):
        np.testing.assert_allclose(found, predictions.values[number, rows[number]], rtol=1e-5, atol=1e-6)
    # a member that is asked nothing says nothing
    one, none = answers([m.network for m in members[:2]], dataset, [rows[0], rows[0][:0]])
    assert (one.shape, none.shape) == ((len(rows[0]), 3), (0, 3))


def test_the_sum_of_start_and_steps_comes_nearer_to_the_labels_round_by_round() -> None:
    for dataset in (table(400), numbers_to_predict()):
        plan, recipe = settled(dataset, mlp, "stacked", epochs=5)
        everywhere = [np.arange(len(dataset))] * plan.members
        total = np.zeros((plan.members, len(dataset), outputs(dataset)), np.float32)
        losses = []
        for _ in range(3):
            members = train(dataset, plan, recipe, offsets=total)
            best = [min(line.stop_loss for line in member.history) for member in members]
            total = total + np.stack(answers(members, dataset, everywhere))
            losses.append(np.mean(best))
            for member, says in zip(members, total, strict=True):
                rows = plan.rows(member.index, STOP)
                if dataset.task == "classification":
                    logits, target = torch.from_numpy(says[rows]), torch.from_numpy(dataset.labels[rows])
                    again = F.cross_entropy(logits, target).item()
                else:
                    error = (says[rows] - dataset.labels[rows]) / member.network.scale.numpy()
                    again = np.square(error).mean()
                assert again == pytest.approx(best[member.index], rel=1e-3)
        assert losses[2] < losses[0]


def test_a_saved_step_answers_as_before(tmp_path: Path) -> None:
    for number, dataset in enumerate((table(), numbers_to_predict())):
        plan, recipe = settled(dataset, "linear", "turns", epochs=1)
        steps = train(dataset, plan, recipe, offsets=offsets_of(dataset, plan))
        path = tmp_path / str(number)
        path.mkdir()
        save_model(Model("steps", dataset.schema, tuple(m.network for m in steps)), RunFolder(path))
        again = load_model(path, device="cpu").networks
        rows = [np.arange(len(dataset))] * plan.members
        for before, after in zip(answers(steps, dataset, rows), answers(again, dataset, rows), strict=True):
            np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)


# 3: nothing of what a member may not see


@pytest.mark.parametrize("engine", ["turns", "stacks on threads"])
@pytest.mark.parametrize("make", [table, pictures, numbers_to_predict])
def test_offsets_of_rows_that_a_member_may_not_see_change_nothing(
    make: Callable[[], Dataset], engine: str
) -> None:
    dataset = make()
    plan, recipe = settled(dataset, mlp, engine, epochs=2)
    given = offsets_of(dataset, plan)
    before = train(dataset, plan, recipe, offsets=given)
    for value in (np.nan, 1e30):
        spoiled = np.where(seen(plan)[:, :, None], given, np.float32(value))
        for first, second in zip(before, train(dataset, plan, recipe, offsets=spoiled), strict=True):
            assert same_bits(first, second)


def test_offsets_of_one_member_are_nothing_to_another() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=2)
    given = offsets_of(dataset, plan)
    before = train(dataset, plan, recipe, offsets=given)
    other = given.copy()
    other[1] += 1
    after = train(dataset, plan, recipe, offsets=other)
    assert [same_bits(*pair) for pair in zip(before, after, strict=True)] == [True, False, True]


# 4: killed, resumed, split


@pytest.mark.parametrize(
    ("make", "engine"),
    [(table, "turns"), (numbers_to_predict, "stacks on threads"), (pictures, "stacks on threads")],
)
def test_steps_that_are_cut_go_on_to_the_same_bytes(make: Callable[[], Dataset], engine: str) -> None:
    dataset = make()
    plan, recipe = settled(
        dataset, mlp, engine, epochs=6, patience=2, learning_rate=0.05, checkpoint_seconds=0.0
    )
    given = offsets_of(dataset, plan)
    whole = train(dataset, plan, recipe, offsets=given)
    keeper = Memory(fatal=3, written=True)
    with pytest.raises(CutError):
        train(dataset, plan, recipe, keeper, offsets=given)
    # what is done is found done the second time
    for _ in range(2):
        for first, second in zip(whole, train(dataset, plan, recipe, keeper, offsets=given), strict=True):
            assert same_bits(first, second)
            assert told(first) == told(second)


def test_steps_keep_to_one_process() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, "turns", epochs=2)
    given = offsets_of(dataset, plan)
    split = change(recipe, "engine", workers=2)
    pairs = zip(
        train(dataset, plan, recipe, offsets=given), train(dataset, plan, split, offsets=given), strict=True
    )
    assert all(same_bits(*pair) for pair in pairs)


def test_a_run_trains_several_plans_one_after_another() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=2)
    whole = train(dataset, plan, recipe)
    part = plan.only([2, 0])
    lines = []
    members = train(dataset, part, settle(recipe, dataset, part), on_epoch=lines.append)
    assert [member.index for member in members] == [0, 1]
    assert {line.member for line in lines} == {0, 1}
    for member, expected in zip(members, (whole[2], whole[0]), strict=True):
        assert member.column == expected.column
        assert_like(member, expected)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda given, rows: given[1:], "must be floating-point numbers"),
        (lambda given, rows: given.astype(int), "must be floating-point numbers"),
        (lambda given, rows: np.where(rows, np.nan, given), "member 0 has .* rows where they are not"),
    ],
)
def test_offsets_that_cannot_be_added_are_refused(spoil: Callable, sentence: str) -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp)
    given = offsets_of(dataset, plan)
    with pytest.raises(AyatoriError, match=sentence):
        train(dataset, plan, recipe, offsets=spoil(given, seen(plan)[:, :, None]))
