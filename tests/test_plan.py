"""The Plan: who learns from which row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit, KFold, LeaveOneGroupOut

from ayatori.data import load
from ayatori.plan import check_plan, make_plan, strata
from ayatori.recipe import PlanRecipe
from ayatori.records import SCORE, SEALED, STOP, AyatoriError, Dataset, Plan
from ayatori.sentences import of_rows


def rows(n: int = 100, classes: int = 2, **columns: np.ndarray) -> Dataset:
    values = np.random.default_rng(0).normal(size=(n, 2))
    dataset = load(values, y=np.array([f"class {i % classes}" for i in range(n)]))
    return dataclasses.replace(dataset, **columns)


def numbers(n: int = 100, **columns: np.ndarray) -> Dataset:
    values = np.random.default_rng(0).normal(size=(n, 2))
    return dataclasses.replace(load(values, y=values[:, 0]), **columns)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(20, 300),
    classes=st.integers(2, 4),
    folds=st.integers(2, 5),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    strategy=st.sampled_from(["kfold", "holdout", "rotate"]),
    seed=st.integers(0, 1000),
)
def test_every_row_has_one_honest_role_for_every_member(
    n: int, classes: int, folds: int, test: float, strategy: str, seed: int
) -> None:
    dataset = rows(n, classes)
    recipe = PlanRecipe(strategy=strategy, folds=folds, test=test)  # type: ignore[arg-type]
    smallest = np.bincount(dataset.labels).min() * (1 - test)
    assume(strategy == "holdout" or smallest > folds + 1)
    plan = make_plan(dataset, recipe, seed)
    sealed = plan.sealed
    assert abs(sealed.mean() - test) < 0.15
    assert (plan.roles[sealed] == SEALED).all()
    assert (plan.roles[~sealed] != SEALED).all()
    scored = (plan.roles[~sealed] == SCORE).sum(axis=1)
    if strategy == "kfold":
        assert (scored == 1).all(), "k-fold scores every development row exactly once"
    if strategy == "rotate":
        assert (scored == 0).all()
        assert ((plan.roles[~sealed] == STOP).sum(axis=1) == 1).all()
    for member in range(plan.members):
        assert len(plan.train_rows(member)) > 0
        assert len(plan.rows(member, STOP)) > 0


def test_folds_keep_the_shares_of_the_classes() -> None:
    target = np.repeat(["rare", "common"], [50, 450])
    dataset = load(np.arange(1000.0).reshape(500, 2), y=target)
    plan = make_plan(dataset, PlanRecipe(folds=5))
    for member in range(5):
        for part in (plan.train_rows(member), plan.rows(member, STOP), plan.rows(member, SCORE)):
            assert np.mean(dataset.labels[part] == dataset.classes.index("rare")) == pytest.approx(
                0.1, abs=0.03
            )


@pytest.mark.parametrize("strategy", ["kfold", "holdout", "rotate"])
@pytest.mark.parametrize("make", [rows, numbers])
def test_a_group_stays_on_one_side_of_every_split(strategy: str, make) -> None:
    groups = np.random.default_rng(1).integers(0, 25, size=200)
    dataset = make(200, groups=groups)
    plan = make_plan(dataset, PlanRecipe(strategy=strategy, folds=4))  # type: ignore[arg-type]
    for group in range(25):
        roles = plan.roles[groups == group]
        assert (roles == roles[0]).all(), "all rows of a group share their role for every member"


@pytest.mark.parametrize("strategy", ["kfold", "holdout"])
def test_members_learn_from_the_past_and_are_scored_on_the_future(strategy: str) -> None:
    order = np.random.default_rng(2).permutation(200).astype(float)
    dataset = rows(200, order=order)
    plan = make_plan(dataset, PlanRecipe(strategy=strategy, folds=4))  # type: ignore[arg-type]
    assert order[plan.sealed].min() > order[~plan.sealed].max()
    for member in range(plan.members):
        learned, stopped = order[plan.train_rows(member)], order[plan.rows(member, STOP)]
        assert learned.max() < stopped.min()
        assert stopped.max() < order[plan.rows(member, SCORE)].min()


@given(
    seed=st.integers(0, 10_000),
    folds=st.integers(2, 4),
    strategy=st.sampled_from(["kfold", "holdout", "rotate"]),
    last=st.floats(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_in_time_order_no_group_is_judged_by_what_it_taught(
    seed: int, folds: int, strategy: str, last: float
) -> None:
    chance = np.random.default_rng(seed)
    order = chance.permutation(240).astype(float)
    groups = ((order + chance.uniform(0, last, 240)) // 10).astype(np.int64)  # they come, stay a while and go
    dataset = rows(240, order=order, groups=groups)
    try:
        plan = make_plan(dataset, PlanRecipe(strategy=strategy, folds=folds))  # type: ignore[arg-type]
    except AyatoriError:  # groups that stay longer than a part of the folds leave nothing of it
        assert last > 10
        return
    for member in range(plan.members):
        learned, stopped = plan.train_rows(member), plan.rows(member, STOP)
        seen = np.concatenate([learned, stopped])
        judged = np.concatenate([plan.rows(member, SCORE), np.flatnonzero(plan.sealed)])
        assert order[seen].max() < order[judged].min()
        assert not set(groups[seen]) & set(groups[judged])
        assert not set(groups[learned]) & set(groups[stopped])
        assert len(learned) >= 4


def test_a_test_of_groups_that_others_are_of_is_refused_in_a_sentence() -> None:
    fixed = np.arange(100) >= 80
    groups = np.arange(100) // 5
    assert make_plan(rows(100, fixed_test=fixed, groups=groups), PlanRecipe(folds=3)).sealed.sum() == 20
    groups[[0, 1, 2]] = groups[-1]
    with pytest.raises(AyatoriError, match="however 1 of its 4 groups have rows to learn from too"):
        make_plan(rows(100, fixed_test=fixed, groups=groups), PlanRecipe(folds=3))


def test_only_rows_that_time_and_groups_leave_out_are_said_to_be() -> None:
    order, groups = np.arange(240.0), (np.arange(240) + 7) // 12
    by_time = rows(240, order=order, groups=groups)
    said = " ".join(text for _, text in of_rows(by_time, make_plan(by_time, PlanRecipe(folds=3)), ()))
    assert "rows teach and judge nobody: their groups come back" in said
    assert "rows, later ones on more" in said
    few = rows(240, groups=np.arange(240) // 4)  # a splitter of the user's own may leave out what it likes
    own = make_plan(
        few, PlanRecipe(splitter=GroupShuffleSplit(2, test_size=0.1, train_size=0.2, random_state=0))
    )
    assert (own.roles == 0).all(axis=1).any()
    said = " ".join(text for _, text in of_rows(few, own, ()))
    assert "teach and judge nobody" not in said
    assert "later ones" not in said


def test_groups_that_last_all_the_time_are_refused_in_a_sentence() -> None:
    order = np.arange(200.0)
    dataset = rows(200, order=order, groups=np.arange(200) % 7)
    with pytest.raises(AyatoriError, match="only 0 of 160 rows are of other groups; leave out --time or"):
        make_plan(dataset, PlanRecipe(folds=3))


def test_rows_of_one_moment_are_never_split_between_past_and_future() -> None:
    order = np.repeat(np.arange(20.0), 10)
    dataset = rows(200, order=order)
    plan = make_plan(dataset, PlanRecipe(folds=3))
    for member in range(plan.members):
        seen = np.concatenate([plan.train_rows(member), plan.rows(member, STOP)])
        assert order[seen].max() < order[plan.rows(member, SCORE)].min()


def test_any_scikit_learn_splitter_gives_the_rows_that_are_scored() -> None:
    groups = np.arange(120) % 6
    dataset = rows(120, groups=groups)
    splitter = LeaveOneGroupOut()
    plan = make_plan(dataset, PlanRecipe(splitter=splitter, test=0))
    assert plan.members == 6
    for member, (_, judged) in enumerate(splitter.split(np.zeros((120, 1)), None, groups)):
        np.testing.assert_array_equal(plan.rows(member, SCORE), judged)


def test_a_splitter_that_tears_groups_apart_is_refused() -> None:
    class Careless:
        def split(self, X, y, groups):
            return KFold(3).split(X)

    dataset = rows(120, groups=np.arange(120) % 6)
    with pytest.raises(AyatoriError, match="a group must stay on one side"):
        make_plan(dataset, PlanRecipe(splitter=Careless(), test=0))


def test_a_splitter_may_score_a_row_more_than_once() -> None:
    dataset = rows(120, groups=np.arange(120) % 12)
    plan = make_plan(dataset, PlanRecipe(splitter=GroupShuffleSplit(7, random_state=0), test=0.2))
    assert plan.members == 7


def test_repeats_draw_the_folds_anew() -> None:
    plan = make_plan(rows(), PlanRecipe(folds=4, repeats=2))
    assert plan.members == 8
    assert [column.repeat for column in plan.columns] == [0] * 4 + [1] * 4
    assert (plan.roles[:, 0] != plan.roles[:, 4]).any()
    assert len({column.seed for column in plan.columns}) == 8


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    first, again, other = (make_plan(rows(), PlanRecipe(), seed).roles for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_rows_of_a_test_file_are_the_sealed_rows() -> None:
    fixed = np.zeros(100, bool)
    fixed[70:] = True
    plan = make_plan(rows(100, fixed_test=fixed), PlanRecipe())
    np.testing.assert_array_equal(plan.sealed, fixed)


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    target = np.repeat(["cat", "dog"], [4, 96])
    dataset = load(np.arange(200.0).reshape(100, 2), y=target)
    with pytest.raises(AyatoriError, match=r"folds=5 and class 'cat' has \d rows .*; use --folds \d"):
        make_plan(dataset, PlanRecipe(folds=5))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"test": 1.5}, "`test` must be a share"),
        ({"folds": 1}, "`folds` must be at least 2"),
        ({"stop": 0.0}, "`stop` must be a share"),
        ({"repeats": 0}, "`repeats` must be at least 1"),
        ({"strategy": "magic"}, "`strategy` must be"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_value(change: dict, sentence: str) -> None:
    with pytest.raises(AyatoriError, match=sentence):
        make_plan(rows(), PlanRecipe(**change))


def test_a_plan_that_leaks_is_refused() -> None:
    dataset = rows(20)
    plan = make_plan(dataset, PlanRecipe(folds=2))
    sealed_row = int(np.flatnonzero(plan.sealed)[0])
    leaking = plan.roles.copy()
    leaking[sealed_row, 0] = 1
    with pytest.raises(AyatoriError, match="sealed for every member"):
        check_plan(Plan(leaking, plan.columns), dataset)
    without_stop = np.where(plan.roles == STOP, 1, plan.roles).astype(np.uint8)
    with pytest.raises(AyatoriError, match="rows to stop by"):
        check_plan(Plan(without_stop, plan.columns), dataset)


def test_counts_say_how_often_a_row_is_trained_on() -> None:
    roles = np.array([[2], [0], [STOP], [SCORE], [SEALED], [250]], np.uint8)
    plan = Plan(roles, make_plan(rows(), PlanRecipe()).columns[:1])
    np.testing.assert_array_equal(plan.counts(0), [2, 0, 0, 0, 0, 250])
    np.testing.assert_array_equal(plan.train_rows(0), [0, 5])


def test_rare_sets_of_labels_are_kept_together_when_rows_are_dealt() -> None:
    labels = np.zeros((40, 2), np.float32)
    labels[:20, 0] = 1
    labels[39] = 1
    dataset = load(np.arange(80.0).reshape(40, 2), y=labels)
    assert dataset.task == "multilabel"
    assert set(strata(dataset)[[0, 25]]) == set(strata(dataset)[:39])
    assert strata(dataset)[39] == 0


def test_a_fold_whose_rows_are_one_group_is_refused_in_a_sentence() -> None:
    grouped = numbers(30, groups=np.repeat([0, 1], 15))
    with pytest.raises(AyatoriError, match=r"15 rows that are to be parted are one group; use fewer"):
        make_plan(grouped, PlanRecipe(test=0.0, folds=2), 0)


def test_few_times_of_many_rows_are_split_as_wholes_or_refused_by_a_sentence() -> None:
    random = np.random.default_rng(0)
    when = np.repeat([2018.0, 2019, 2020, 2021, 2022], [300, 10, 10, 10, 10])
    data = load(random.normal(size=(len(when), 2)), y=random.normal(size=len(when)))
    data = dataclasses.replace(data, order=when)
    plan = make_plan(data, PlanRecipe(folds=3, test=0.03))
    for member in range(plan.members):
        learned = (plan.roles[:, member] > 0) & (plan.roles[:, member] <= STOP)
        assert learned.any()
        assert when[learned].max() < when[plan.rows(member, SCORE)].min()
    with pytest.raises(AyatoriError, match="only 4 different times for folds=5; use --folds 3"):
        make_plan(data, PlanRecipe(folds=5, test=0.03))
    two = dataclasses.replace(data, order=(when > 2018).astype(float))
    with pytest.raises(AyatoriError, match="every fold must have earlier rows"):
        make_plan(two, PlanRecipe(folds=2, test=0))
