"""Stage 8: the simple rivals learn from their own rows alone, and speak about the rows they never saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import ExtraTreeClassifier, ExtraTreeRegressor

from ayatori.data import load
from ayatori.ensemble import blends
from ayatori.evaluate import fit_baselines, leaderboard
from ayatori.evaluate.baselines import Trees, _most, _subsample
from ayatori.evaluate.matrix import _pool
from ayatori.plan import make_plan
from ayatori.recipe import EvaluateRecipe, PlanRecipe
from ayatori.records import (
    SCORE,
    SEALED,
    STOP,
    AyatoriError,
    Column,
    Dataset,
    Plan,
    Predictions,
    Schema,
    Task,
)

ALL = EvaluateRecipe()


def dataset(
    target: np.ndarray,
    task: Task = "classification",
    classes: tuple[str, ...] = ("a", "b", "c"),
    **inputs: np.ndarray,
) -> Dataset:
    return Dataset(inputs, target, Schema("arrays", task, classes), np.arange(len(target)).astype(str))


def mixed(n: int = 150, seed: int = 0) -> Dataset:
    """Three classes seen in numbers with gaps and in a category."""
    generator = np.random.default_rng(seed)
    target = np.arange(n) % 3
    numbers = generator.normal(size=(n, 4)) + target[:, None]
    numbers[generator.random((n, 4)) < 0.1] = np.nan
    categories = np.where(generator.random((n, 1)) < 0.7, target[:, None], -1).astype(np.int32)
    return dataset(target.astype(np.int64), numbers=numbers, categories=categories)


def fit(data: Dataset, plan: Plan, recipe: EvaluateRecipe = ALL) -> dict[str, Predictions]:
    found, notes = fit_baselines(data, plan, recipe)
    assert not notes
    return {one.name: one for one in found}


def rows_of(plan: Plan, member: int, *roles: int) -> np.ndarray:
    return np.isin(plan.roles[:, member], roles)


def test_a_rival_speaks_about_scored_and_sealed_rows_only() -> None:
    data = mixed()
    plan = make_plan(data, PlanRecipe(folds=3))
    found = fit(data, plan)
    assert list(found) == ["majority class", "logistic regression", "nearest neighbours", "gradient boosting"]
    for one in found.values():
        assert one.values.shape == (3, 150, 3)
        for member in range(3):
            speaks = rows_of(plan, member, SCORE, SEALED)
            assert (one.unseen[member] == speaks).all()
            assert np.isnan(one.values[member, ~speaks]).all()
            np.testing.assert_allclose(one.values[member, speaks].sum(1), 1, atol=1e-5)


def test_labels_of_foreign_rows_change_nothing() -> None:
    data = mixed()
    plan = make_plan(data, PlanRecipe(folds=2))
    before = fit(data, plan)
    for member in range(2):
        foreign = ~rows_of(plan, member, 1, STOP)
        target = np.where(foreign, (data.labels + 1) % 3, data.labels)
        after = fit(dataclasses.replace(data, target=target), plan)
        for name in before:
            np.testing.assert_array_equal(before[name].values[member], after[name].values[member])


def test_values_of_foreign_rows_reach_no_scaler_encoder_or_component() -> None:
    data = mixed()
    images = np.random.default_rng(0).integers(0, 256, (150, 1, 20, 20), dtype=np.uint8)
    data = dataclasses.replace(data, inputs={**data.inputs, "image": images})
    plan = make_plan(data, PlanRecipe(folds=2))
    before = fit(data, plan)
    # every sealed and held-out row of member 0 but the last
    foreign = np.flatnonzero(~rows_of(plan, 0, 1, STOP))
    changed, kept = foreign[:-1], foreign[-1]
    inputs = {name: block.copy() for name, block in data.inputs.items()}
    inputs["numbers"][changed] = 1e6
    inputs["categories"][changed] = 7
    inputs["image"][changed] = 255
    after = fit(dataclasses.replace(data, inputs=inputs), plan)
    for name in before:
        np.testing.assert_array_equal(before[name].values[0, kept], after[name].values[0, kept])


def test_a_linear_rival_is_scikit_learns_fitted_on_training_and_stop_rows() -> None:
    generator = np.random.default_rng(0)
    target = np.arange(200) % 2
    numbers = generator.normal(size=(200, 3)) + target[:, None]
    data = dataset(target, classes=("a", "b"), numbers=numbers)
    plan = make_plan(data, PlanRecipe(folds=4))
    found = fit(data, plan, EvaluateRecipe(baselines=("majority", "linear")))
    for member in range(4):
        own, judged = rows_of(plan, member, 1, STOP), rows_of(plan, member, SCORE)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3))
        expected = model.fit(numbers[own], target[own]).predict_proba(numbers[judged])
        np.testing.assert_allclose(
            found["logistic regression"].values[member, judged], expected, rtol=0, atol=1e-5
        )
        shares = np.bincount(target[own]) / own.sum()
        np.testing.assert_allclose(
            found["majority class"].values[member, judged], np.tile(shares, (judged.sum(), 1)), atol=1e-6
        )


def test_rivals_learn_something_and_repeat_themselves() -> None:
    inputs, target = load_digits(return_X_y=True)
    keep = np.random.default_rng(0).permutation(len(target))[:400]
    data = dataset(target[keep], classes=tuple("0123456789"), numbers=inputs[keep])
    plan = make_plan(data, PlanRecipe(folds=2))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = fit(data, plan)
    entries = leaderboard([blend for one in found.values() for blend in blends(one, plan)], data, plan)
    figures = {entry.name: entry.scores["accuracy"].value for entry in entries}
    assert figures["majority class, 2 folds"] < 0.2
    assert min(figures[f"{name}, 2 folds"] for name in list(found)[1:]) > 0.8
    again = fit(data, plan)
    for name in found:
        np.testing.assert_array_equal(found[name].values, again[name].values)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_pictures_are_averaged_down_and_learned_from() -> None:
    generator = np.random.default_rng(0)
    target = np.arange(120) % 2
    image = generator.integers(0, 100, (120, 3, 30, 33), dtype=np.uint8)
    image[target == 1, 0, :15] += 60
    pooled = _pool(image)
    assert pooled.shape == (120, 3 * 10 * 11)
    assert pooled[7, 0] == pytest.approx(image[7, 0, :3, :3].mean() / 255, rel=1e-5)
    data = dataset(target, classes=("a", "b"), image=image)
    plan = make_plan(data, PlanRecipe(folds=2))
    for name, one in fit(data, plan).items():
        if name != "majority class":
            sealed = plan.sealed
            assert (one.values[0, sealed].argmax(1) == target[sealed]).mean() > 0.9, name


def test_several_labels_and_a_label_that_never_varies() -> None:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(120, 3))
    target = (numbers + 0.3 * generator.normal(size=(120, 3)) > 0).astype(np.float32)
    target[:, 2] = 1.0
    data = dataset(target, "multilabel", numbers=numbers)
    plan = make_plan(data, PlanRecipe(folds=2))
    found = fit(data, plan)
    assert list(found) == [
        "share of each label",
        "logistic regression",
        "nearest neighbours",
        "gradient boosting",
    ]
    for name, one in found.items():
        judged = plan.rows(0, SCORE)
        assert (one.values[0, judged, 2] == 1).all(), name
        if name != "share of each label":
            assert ((one.values[0, judged, :2] > 0.5) == target[judged, :2]).mean() > 0.75, name


def test_several_values() -> None:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(200, 3))
    target = numbers[:, :2] * [10.0, 0.1]
    data = dataset(target, "regression", (), numbers=numbers)
    plan = make_plan(data, PlanRecipe(folds=2))
    found = fit(data, plan)
    assert list(found) == ["always the mean", "ridge regression", "nearest neighbours", "gradient boosting"]
    judged = plan.rows(0, SCORE)
    own = np.union1d(plan.train_rows(0), plan.rows(0, STOP))
    np.testing.assert_allclose(found["always the mean"].values[0, judged[0]], target[own].mean(0), rtol=1e-5)
    for name, one in found.items():
        if name != "always the mean":
            errors = one.values[0, judged] - target[judged]
            assert (errors.std(0) < 0.6 * target.std(0)).all(), name


def test_columns_that_learn_from_the_same_rows_share_a_rival() -> None:
    data = mixed()
    plan = make_plan(data, PlanRecipe(strategy="rotate", folds=3))
    seen: list[str] = []
    found, _ = fit_baselines(data, plan, EvaluateRecipe(baselines=("linear",)), seen.append)
    assert seen == ["logistic regression, 1 of 1"]
    sealed = plan.sealed
    assert np.isfinite(found[0].values[:, sealed]).all()
    assert (found[0].values[:, sealed] == found[0].values[:1, sealed]).all()


def test_a_class_that_a_fold_lacks_is_given_no_chance_and_breaks_nothing() -> None:
    data = mixed()
    roles = np.where(data.labels == 2, SCORE, 1).astype(np.uint8)
    roles[:30] = SCORE
    plan = Plan(roles[:, None], (Column(),))
    for one in fit(data, plan).values():
        judged = plan.rows(0, SCORE)
        assert (one.values[0, judged, 2] == 0).all()
        np.testing.assert_allclose(one.values[0, judged].sum(1), 1, atol=1e-5)


def test_a_rival_that_cannot_be_fitted_is_left_out_and_named() -> None:
    data = mixed()
    roles = np.where(data.labels == 0, 1, SCORE).astype(np.uint8)
    found, notes = fit_baselines(data, Plan(roles[:, None], (Column(),)), ALL)
    assert [one.name for one in found] == ["majority class"]
    assert len(notes) == 3
    assert notes[0] == (
        "logistic regression is left out: it needs rows of at least 2 classes, and a fold has rows of 1"
    )


def test_many_rows_are_thinned_in_proportion_and_said() -> None:
    target = np.repeat([0, 1, 2], [800, 150, 50])
    data = dataset(target, numbers=np.random.default_rng(0).normal(size=(1000, 2)))
    picked = _subsample(data, np.arange(1000), 100, seed=1)
    assert np.bincount(target[picked]).tolist() == [80, 15, 5]
    assert len(np.unique(picked)) == 100
    assert not np.array_equal(picked, _subsample(data, np.arange(1000), 100, seed=2))
    plan = make_plan(data, PlanRecipe(folds=2))
    recipe = EvaluateRecipe(baselines=("majority", "linear", "neighbours"), baseline_rows=100)
    found, notes = fit_baselines(data, plan, recipe)
    assert notes == ["of the 400 rows of a fold, 100 are drawn for: logistic regression, nearest neighbours"]
    assert [one.drawn for one in found] == [0, 100, 100]
    assert found[1].only([0]).drawn == 100
    board = leaderboard(blends(found[1], plan), data, plan)
    assert {entry.drawn for entry in board} == {100}


def test_rivals_that_are_quick_learn_from_far_more_rows_than_slow_ones() -> None:
    two, many = (load(np.arange(400.0)[:, None], y=(np.arange(400) % n).astype(str)) for n in (2, 20))
    narrow = {"numbers": slice(0, 16), "categories": slice(16, 18)}
    assert _most("boosting", two, narrow) == 333_333
    assert _most("boosting", many, narrow) == 83_333
    assert _most("linear", two, narrow) == 169_491  # two categories are a hundred columns
    assert [_most(name, two, narrow) for name in ("neighbours", "trees", "perceptron")] == [20_000] * 3
    assert _most("boosting", two, {"pixels": slice(0, 3000)}) == 20_000  # never fewer


def test_an_unknown_rival_is_refused_with_a_hint() -> None:
    data = mixed()
    plan = make_plan(data, PlanRecipe(folds=2))
    with pytest.raises(AyatoriError, match=r"however: 'boost'; did you mean 'boosting'\?"):
        fit_baselines(data, plan, EvaluateRecipe(baselines=("boost",)))
    assert fit_baselines(data, plan, EvaluateRecipe(baselines=())) == ([], [])


@pytest.mark.parametrize("regression", [False, True])
def test_trees_are_those_of_scikit_learn(regression: bool) -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    ours = Trees(regression).fit(x[:200], y[:200])
    kind = ExtraTreeRegressor if regression else ExtraTreeClassifier
    share = 1.0 if regression else "sqrt"
    theirs = [
        kind(min_samples_leaf=2, max_features=share, random_state=seed).fit(x[:200], y[:200])
        for seed in range(60)
    ]
    np.testing.assert_array_equal(
        ours.predict(x[200:]) if regression else ours.predict_proba(x[200:]),
        np.mean(
            [one.predict(x[200:]) if regression else one.predict_proba(x[200:]) for one in theirs], axis=0
        ),
    )
