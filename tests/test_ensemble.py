"""Stage 7: what many members say becomes one prediction a row, for the rows where it is honest."""

from __future__ import annotations

import numpy as np
import pytest

from ayatori.ensemble import blends
from ayatori.plan import make_plan
from ayatori.recipe import PlanRecipe
from ayatori.records import SCORE, AyatoriError, Dataset, Plan, Predictions, Schema


def made(recipe: PlanRecipe, name: str = "network") -> tuple[Plan, Predictions]:
    """A Plan of 60 rows, and members that know nothing of the rows that taught or stopped them."""
    target = np.arange(60) % 2
    data = Dataset(
        {"numbers": np.arange(60.0)[:, None]},
        target,
        Schema("arrays", "classification", ("a", "b")),
        np.arange(60).astype(str),
    )
    plan = make_plan(data, recipe)
    first = np.random.default_rng(0).random((plan.members, 60)).astype(np.float32)
    unseen = np.isin(plan.roles.T, (SCORE, 253))
    values = np.where(unseen[..., None], np.stack([first, 1 - first], axis=2), np.nan).astype(np.float32)
    return plan, Predictions(values, unseen, name, seconds=2.0, seconds_train=10.0)


def test_folds_give_one_network_out_of_fold_and_their_mean_on_the_test() -> None:
    plan, predictions = made(PlanRecipe(folds=5))
    one, mean = blends(predictions, plan)
    assert (one.name, one.split) == ("one network, 5 folds", "out_of_fold")
    assert (mean.name, mean.split) == ("mean of 5 folds", "test")
    assert (one.rows == ~plan.sealed).all()
    assert (mean.rows == plan.sealed).all()
    for row in np.flatnonzero(one.rows):
        (member,) = np.flatnonzero(plan.roles[row] == SCORE)
        np.testing.assert_array_equal(one.values[row], predictions.values[member, row])
        assert one.fold[row] == plan.columns[member].fold
    expected = predictions.values[:, plan.sealed].mean(0)
    np.testing.assert_array_equal(mean.values[plan.sealed], expected)
    assert (mean.fold == -1).all()
    assert one.members == mean.members == (0, 1, 2, 3, 4)
    for blend in (one, mean):
        assert blend.network
        assert np.isnan(blend.values[~blend.rows]).all()
        assert (blend.seconds_train, blend.seconds_predict) == (10.0, 2.0)


def test_without_sealed_rows_there_is_nothing_to_say_of_a_test() -> None:
    plan, predictions = made(PlanRecipe(folds=3, test=0))
    (one,) = blends(predictions, plan)
    assert one.split == "out_of_fold"
    assert one.rows.all()


def test_repeats_are_scored_one_by_one_and_as_their_mean() -> None:
    plan, predictions = made(PlanRecipe(folds=3, repeats=2))
    found = blends(predictions, plan)
    assert [(blend.name, blend.split) for blend in found] == [
        ("one network, 3 folds, repeat 1 of 2", "out_of_fold"),
        ("one network, 3 folds, repeat 2 of 2", "out_of_fold"),
        ("mean of 2 repeats, 3 folds", "out_of_fold"),
        ("mean of 2 x 3 folds", "test"),
    ]
    first, second, mean, test = found
    assert (first.members, second.members) == ((0, 1, 2), (3, 4, 5))
    assert first.seconds_train == 5.0
    rows = ~plan.sealed
    np.testing.assert_allclose(mean.values[rows], (first.values[rows] + second.values[rows]) / 2, rtol=1e-6)
    assert mean.members == test.members == (0, 1, 2, 3, 4, 5)


def test_a_hold_out_is_one_network_on_held_out_and_sealed_rows() -> None:
    plan, predictions = made(PlanRecipe(strategy="holdout"))
    found = blends(predictions, plan)
    assert [(blend.name, blend.split) for blend in found] == [
        ("one network, hold-out", "out_of_fold"),
        ("one network, hold-out", "test"),
    ]
    assert (np.flatnonzero(found[0].rows) == plan.rows(0, SCORE)).all()
    np.testing.assert_array_equal(found[1].values[plan.sealed], predictions.values[0, plan.sealed])


def test_rotation_keeps_the_network_with_the_lowest_validation_loss_and_scores_it_on_the_test() -> None:
    plan, predictions = made(PlanRecipe(strategy="rotate", folds=4))
    (best,) = blends(predictions, plan, [0.4, 0.3, float("nan"), 0.5])
    assert (best.name, best.split, best.members) == ("best of 4, rotated", "test", (1,))
    np.testing.assert_array_equal(best.values[plan.sealed], predictions.values[1, plan.sealed])
    with pytest.raises(AyatoriError, match="must be 4 losses, however there are 0"):
        blends(predictions, plan)


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (PlanRecipe(folds=3), ["gradient boosting, 3 folds", "gradient boosting, mean of 3 folds"]),
        (PlanRecipe(strategy="holdout"), ["gradient boosting, hold-out", "gradient boosting, hold-out"]),
        (PlanRecipe(strategy="rotate", folds=3), ["gradient boosting, all development rows"]),
    ],
)
def test_a_rival_is_named_in_front_and_is_no_network(recipe: PlanRecipe, names: list[str]) -> None:
    plan, predictions = made(recipe, "gradient boosting")
    found = blends(predictions, plan, [1.0] * plan.members)
    assert [blend.name for blend in found] == names
    assert not any(blend.network for blend in found)


def test_what_a_member_says_of_its_own_training_rows_reaches_no_blend() -> None:
    plan, predictions = made(PlanRecipe(folds=5))
    boasting = np.where(predictions.unseen[..., None], predictions.values, 7.0).astype(np.float32)
    bragging = Predictions(boasting, predictions.unseen)
    for honest, other in zip(blends(predictions, plan), blends(bragging, plan), strict=True):
        np.testing.assert_array_equal(honest.values, other.values)
