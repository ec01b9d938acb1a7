"""Networks that learn what a teacher says: from probabilities, and still stopped and calibrated by labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import assert_close, bootstrapped, entropy, mlp, pictures, plain_loop, settled, table
from scipy.special import expit, log_softmax, softmax
from test_stack import (
    CutError,
    Memory,
    assert_like,
    labels_to_predict,
    numbers_to_predict,
    own_scalar,
    same_bits,
    told,
)
from torch.nn import functional as F

from ayatori.recipe import LossRecipe, change
from ayatori.records import STOP, AyatoriError, Dataset
from ayatori.train import settle, train, weaker
from ayatori.train.calibrate import temperature
from ayatori.train.lesson import TEACHER, soft_targets
from ayatori.train.loss import make_loss


def teacher_of(dataset: Dataset, seed: int = 2) -> np.ndarray:
    """Somebody who is often right."""
    random = np.random.default_rng(seed)
    if dataset.task == "regression":
        return (dataset.labels + dataset.labels.std() * random.normal(size=dataset.labels.shape) / 3).astype(
            np.float32
        )
    logits = random.normal(size=(len(dataset), len(dataset.classes)))
    if dataset.task == "multilabel":
        return expit(logits + 2 * dataset.labels - 1).astype(np.float32)
    return softmax(logits + 2 * np.eye(len(dataset.classes))[dataset.labels], axis=1).astype(np.float32)


def truth_of(dataset: Dataset) -> np.ndarray:
    return (
        np.eye(len(dataset.classes))[dataset.labels] if dataset.task == "classification" else dataset.labels
    )


# 1: the losses


def test_cross_entropy_of_probabilities_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    logits, target = random.normal(size=(9, 4)), random.dirichlet(np.ones(4), 9)
    losses = make_loss(LossRecipe(), "classification", soft=True)(
        torch.from_numpy(logits), torch.from_numpy(target)
    )
    np.testing.assert_allclose(losses.numpy(), -(target * log_softmax(logits, axis=1)).sum(1), rtol=1e-6)


def test_focal_loss_of_probabilities_is_the_mean_over_what_may_be_the_case() -> None:
    random = np.random.default_rng(0)
    logits, target = torch.from_numpy(random.normal(size=(9, 4))), random.dirichlet(np.ones(4), 9)
    recipe = LossRecipe(name="focal", gamma=1.5)
    hard, soft = (make_loss(recipe, "classification", soft=known) for known in (False, True))
    expected = sum(target[:, k] * hard(logits, torch.full((9,), k)).numpy() for k in range(4))
    np.testing.assert_allclose(soft(logits, torch.from_numpy(target)).numpy(), expected, rtol=1e-6)
    # of labels, each alone
    hard, soft = (make_loss(recipe, "multilabel", soft=known) for known in (False, True))
    chances, one = torch.from_numpy(random.random((9, 1))), logits[:, :1]
    yes, no = (hard(one, torch.full_like(one, value)) for value in (1.0, 0.0))
    torch.testing.assert_close(soft(one, chances), chances[:, 0] * yes + (1 - chances[:, 0]) * no)


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_probabilities_that_are_certain_give_the_loss_of_labels(name: str) -> None:
    logits, target = torch.randn(9, 4, generator=torch.manual_seed(0)), torch.arange(9) % 4
    hard, soft = (make_loss(LossRecipe(name=name), "classification", soft=known) for known in (False, True))
    torch.testing.assert_close(soft(logits, F.one_hot(target, 4).float()), hard(logits, target))


def test_a_target_is_a_mixture_of_teacher_and_label() -> None:
    for dataset in (table(), labels_to_predict(), numbers_to_predict()):
        plan, _ = settled(dataset)
        teacher = teacher_of(dataset)
        found = soft_targets(teacher, dataset, plan)
        np.testing.assert_allclose(found, TEACHER * teacher + (1 - TEACHER) * truth_of(dataset), rtol=1e-6)
        each = np.stack([teacher] * plan.members)
        np.testing.assert_array_equal(soft_targets(each, dataset, plan), np.stack([found] * plan.members))


# 2: what is learned


@pytest.mark.parametrize("engine", ["turns", "stacks on threads"])
@pytest.mark.parametrize("make", [table, pictures])
def test_a_student_learns_what_a_plain_loop_learns_on_probabilities(
    make: Callable[[], Dataset], engine: str
) -> None:
    dataset = make()
    plan, recipe = settled(dataset, mlp, engine, epochs=3)
    plan = bootstrapped(plan)
    soft = soft_targets(teacher_of(dataset), dataset, plan)
    for member in train(dataset, plan, recipe, teacher=teacher_of(dataset)):
        assert_close(member, plain_loop(dataset, plan, recipe, member.index, soft=soft))


def test_a_student_is_stopped_and_calibrated_by_labels() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=5)
    for member in train(dataset, plan, recipe, teacher=teacher_of(dataset)):
        rows = plan.rows(member.index, STOP)
        with torch.no_grad():
            logits = member.network({"numbers": torch.from_numpy(dataset.inputs["numbers"][rows])})
        target = torch.from_numpy(dataset.labels[rows])
        best = member.history[member.best_epoch - 1].stop_loss
        assert entropy(logits, target).mean().item() == pytest.approx(best, rel=1e-5)
        assert member.network.temperature.item() == pytest.approx(temperature(logits, target), rel=1e-3)


TASKS = {
    "labels": (labels_to_predict, mlp, {}),
    "focal": (labels_to_predict, mlp, {"name": "focal"}),
    "numbers": (numbers_to_predict, mlp, {}),
    "focal of classes": (table, mlp, {"name": "focal"}),
    "class weights": (pictures, mlp, {"class_weights": (1.0, 4.0, 0.2)}),
    "a loss that knows codes only": (table, mlp, {"name": own_scalar}),
}


@pytest.mark.parametrize("case", TASKS)
def test_a_stack_of_students_gives_what_students_in_turn_give(case: str) -> None:
    make, net, loss = TASKS[case]
    dataset, found = make(), []
    for engine in ("turns", "stacked"):
        plan, recipe = settled(dataset, net, engine, epochs=2)
        plan = bootstrapped(plan)
        teacher = np.stack([teacher_of(dataset, seed) for seed in range(plan.members)])
        found.append(train(dataset, plan, change(recipe, "loss", **loss), teacher=teacher))
    for expected, member in zip(*found, strict=True):
        assert_like(member, expected)


def test_each_student_may_have_a_teacher_of_its_own() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=2)
    teachers = np.stack([teacher_of(dataset, seed) for seed in range(plan.members)])
    together = train(dataset, plan, recipe, teacher=teachers)
    for member, teacher in zip(together, teachers, strict=True):
        assert same_bits(member, train(dataset, plan, recipe, teacher=teacher)[member.index])


def test_a_step_may_be_a_student_too() -> None:
    for dataset in (table(), numbers_to_predict()):
        plan, recipe = settled(dataset, mlp, "stacked", epochs=2)
        offsets = np.zeros((plan.members, len(dataset), truth_of(dataset).shape[1]))
        for member, own in enumerate(offsets):
            # where a network of numbers begins
            own += dataset.labels[plan.train_rows(member)].mean(0) if dataset.task == "regression" else 0
        teacher = teacher_of(dataset)
        steps = train(dataset, plan, recipe, offsets=offsets, teacher=teacher)
        for step, student in zip(steps, train(dataset, plan, recipe, teacher=teacher), strict=True):
            np.testing.assert_allclose(np.array(told(step)), np.array(told(student)), rtol=1e-4)


# 3: nothing of what a member may not see


@pytest.mark.parametrize("engine", ["turns", "stacks on threads"])
@pytest.mark.parametrize("make", [table, pictures])
def test_what_a_teacher_says_of_rows_that_do_not_train_a_member_changes_nothing(
    make: Callable[[], Dataset], engine: str
) -> None:
    dataset = make()
    plan, recipe = settled(dataset, mlp, engine, epochs=2)
    teacher = teacher_of(dataset)
    before = train(dataset, plan, recipe, teacher=teacher)
    own = np.stack([plan.counts(member) > 0 for member in range(plan.members)])
    spoiled = np.where(own[:, :, None], teacher, np.nan).astype(np.float32)
    for first, second in zip(before, train(dataset, plan, recipe, teacher=spoiled), strict=True):
        assert same_bits(first, second)
    unseen = np.where(plan.sealed[:, None], np.nan, teacher).astype(np.float32)
    for first, second in zip(before, train(dataset, plan, recipe, teacher=unseen), strict=True):
        assert same_bits(first, second)


def test_students_that_are_cut_go_on_to_the_same_bytes_and_keep_to_one_process() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=5, checkpoint_seconds=0.0)
    teacher = teacher_of(dataset)
    whole = train(dataset, plan, recipe, teacher=teacher)
    keeper = Memory(fatal=2, written=True)
    with pytest.raises(CutError):
        train(dataset, plan, recipe, keeper, teacher=teacher)
    for given in ({"keeper": keeper}, {"recipe": change(recipe, "engine", workers=2)}):
        again = train(**{"dataset": dataset, "plan": plan, "recipe": recipe, "teacher": teacher} | given)
        assert all(same_bits(*pair) for pair in zip(whole, again, strict=True))


def test_a_teacher_of_another_shape_or_with_gaps_is_refused() -> None:
    dataset = table()
    plan, recipe = settled(dataset, mlp)
    teacher = teacher_of(dataset)
    with pytest.raises(AyatoriError, match=r"`teacher` must be floating-point numbers \(240, 3\), however"):
        train(dataset, plan, recipe, teacher=teacher[:, :2])
    teacher[plan.train_rows(1)[0]] = np.nan
    with pytest.raises(AyatoriError, match="`teacher` must be finite for every row"):
        train(dataset, plan, recipe, teacher=teacher)


# 4: weaker networks


def test_a_weaker_network_is_smaller_and_trains_for_fewer_epochs() -> None:
    dataset = table()
    plan, recipe = settled(dataset, "mlp", "stacked")
    assert weaker(recipe, dataset) == recipe
    small = weaker(recipe, dataset, depth=1, width=8, epochs=2)
    assert small.net.options == {"depth": 1, "width": 8}
    [first, *_] = train(dataset, plan, small)
    layers = [
        value.shape for name, value in first.network.named_parameters() if name.startswith("body.layers")
    ]
    assert layers == [(8, 16), (8,), (8,)]
    assert len(first.history) == 2
    again = weaker(change(recipe, "net", options={"dropout": 0.0}), dataset, width=8)
    assert again.net.options == {"dropout": 0.0, "width": 8}


def test_a_weaker_cnn_has_fewer_blocks_and_channels() -> None:
    dataset = pictures()
    plan, recipe = settled(dataset, "cnn", epochs=1)
    sizes = []
    for depth, width in ((0, 0), (2, 64), (1, 0), (1, 8)):
        [member, *_] = train(dataset, plan.only([0]), weaker(recipe, dataset, depth, width))
        sizes.append(sum(value.numel() for value in member.network.parameters()))
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3]


def test_how_weaker_members_run_together_is_decided_anew_unless_it_was_asked_for() -> None:
    dataset = table(2000)
    plan, recipe = settled(dataset, "mlp", batch_size=1024)
    asked = weaker(recipe, dataset, 1, 8, plan=plan)
    assert (asked.engine.mode, asked.engine.why) == ("turns", "it was asked for")
    recipe = change(recipe, "engine", mode="auto")
    recipe = settle(change(recipe, "net", options={"width": 512}), dataset, plan)
    assert recipe.engine.mode == "turns"
    small = weaker(recipe, dataset, 1, 8, plan=plan)
    assert small.engine.mode == "stacked"
    assert settle(small, dataset, plan) == small


@pytest.mark.parametrize("net", [mlp, "linear"])
def test_only_our_own_networks_can_be_made_weaker(net: Callable | str) -> None:
    dataset = table()
    _, recipe = settled(dataset, net)
    with pytest.raises(AyatoriError, match="must be 0 unless the network is our mlp or cnn, however it is"):
        weaker(recipe, dataset, depth=1)
    assert weaker(recipe, dataset, epochs=2).train.epochs == 2
    with pytest.raises(AyatoriError, match="`boost_width` must be positive"):
        weaker(recipe, dataset, width=-1)
