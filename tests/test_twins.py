"""Copies of rows: equal, noisy and cropped ones are found, strangers are not; splits keep them together."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_sample_images
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier

from ayatori.data import load
from ayatori.data.alike import deal, most_alike, neighbours
from ayatori.data.likeness import lay_on
from ayatori.data.twins import Twins, bind, find_twins, known_rows
from ayatori.plan import make_plan
from ayatori.recipe import PlanRecipe
from ayatori.records import SCORE, STOP, UNUSED, AyatoriError, Dataset

Random = np.random.Generator


def table(values: np.ndarray, target: np.ndarray | None = None) -> Dataset:
    return load(values, y=np.arange(len(values)) % 2 if target is None else target)


def patches(side: int = 48, apart: int = 40) -> np.ndarray:
    """(n, 3, side, side) uint8: distinct parts of the two photos that scikit-learn ships."""
    cut = [
        photo[top : top + side, left : left + side].transpose(2, 0, 1)
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - side, apart)
        for left in range(0, photo.shape[1] - side, apart)
    ]
    # a patch of sky is like any other
    return np.stack([patch for patch in cut if patch.std(axis=(1, 2)).mean() > 25])


def as_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture.transpose(1, 2, 0))


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def noisy(picture: np.ndarray, random: Random) -> np.ndarray:
    return np.clip(picture + random.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def cropped(picture: np.ndarray, random: Random) -> np.ndarray:
    side = picture.shape[1]
    kept = side * random.uniform(0.85, 0.95)
    left, top = random.uniform(0, side - kept, 2)
    box = (left, top, left + kept, top + kept)
    return as_array(as_image(picture).resize((side, side), Image.Resampling.BILINEAR, box=box))


def brighter(picture: np.ndarray, random: Random) -> np.ndarray:
    return np.clip(picture * random.uniform(0.7, 1.25) + 10, 0, 255).astype(np.uint8)


def coded_again(picture: np.ndarray, random: Random) -> np.ndarray:
    file = io.BytesIO()
    as_image(picture).save(file, "JPEG", quality=int(random.integers(35, 70)))
    return as_array(Image.open(file))


def resized(picture: np.ndarray, random: Random) -> np.ndarray:
    side = picture.shape[1]
    small = as_image(picture).resize((side // 2, side // 2), Image.Resampling.BILINEAR)
    return as_array(small.resize((side, side), Image.Resampling.BICUBIC))


def found_of(twins: Twins) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in twins.pairs}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.5, np.nan]), st.integers(0, 3)), min_size=4, max_size=40)
)
def test_rows_are_exact_copies_where_pandas_says_so(rows: list[tuple[float, int]]) -> None:
    values = np.array(rows, np.float64)
    frame = pd.DataFrame(values + 0.0)
    expected = frame.groupby([0, 1], dropna=False).ngroup().to_numpy()
    twins = find_twins(table(values))
    same = expected[:, None] == expected
    found = (twins.groups[:, None] == twins.groups) & (twins.groups >= 0)
    np.testing.assert_array_equal(found | np.eye(len(values), dtype=bool), same)
    assert (twins.kind == "exact").sum() == len(values) - len(np.unique(expected))
    assert (twins.pairs[:, 0] < twins.pairs[:, 1]).all()


def test_categories_and_gaps_count_when_rows_are_compared() -> None:
    frame = pd.DataFrame({"size": [1.5, 1.5, 1.5, None, None] * 4, "kind": ["a", "b", "a", None, None] * 4})
    frame.loc[10:, "size"] += 7
    frame["y"] = [0.1 * at for at in range(len(frame))]
    twins = find_twins(load(frame, target="y"))
    assert twins.groups[0] == twins.groups[2] == twins.groups[5] != twins.groups[1]
    assert twins.groups[3] == twins.groups[4]
    assert twins.groups[0] != twins.groups[10]


def test_a_table_of_categories_alone_has_only_exact_copies() -> None:
    frame = pd.DataFrame(np.random.default_rng(0).choice(["a", "b", "c"], (90, 5)), columns=list("vwxyz"))
    twins = find_twins(load(frame, target="z"))
    assert len(twins.pairs) == 90 - len(frame[list("vwxy")].drop_duplicates())
    assert set(twins.kind) == {"exact"}


def test_every_equal_picture_is_found() -> None:
    pictures = patches()
    random = np.random.default_rng(0)
    taken = random.choice(len(pictures), 30, replace=False)
    twins = find_twins(table(np.concatenate([pictures, pictures[taken]])), near=False)
    assert found_of(twins) == {(row, len(pictures) + at) for at, row in enumerate(taken)}
    assert set(twins.kind) == {"exact"}


def test_noisy_cropped_and_coded_copies_are_found_and_strangers_are_not() -> None:
    pictures = patches()
    random = np.random.default_rng(1)
    copies, planted = [], []
    for make in (noisy, cropped, brighter, coded_again, resized):
        for row in random.choice(len(pictures), 20, replace=False):
            planted.append((int(row), len(pictures) + len(copies)))
            copies.append(make(pictures[row], random))
    root = np.array([*range(len(pictures)), *(row for row, _ in planted)])
    twins = find_twins(table(np.concatenate([pictures, np.stack(copies)])))
    near = [pair for pair in found_of(twins) if root[pair[0]] == root[pair[1]]]
    together = [twins.groups[a] == twins.groups[b] >= 0 for a, b in planted]
    for at, make in enumerate((noisy, cropped, brighter, coded_again, resized)):
        assert np.mean(together[20 * at : 20 * at + 20]) >= 0.9, make.__name__
    assert len(near) >= 0.9 * len(twins.pairs)


def test_pictures_that_are_only_alike_are_no_copies() -> None:
    digits = (load_digits().images * 15).astype(np.uint8)[:, None]
    assert len(find_twins(table(digits)).pairs) <= 5
    assert len(find_twins(table(patches())).pairs) <= 2


def alike(n: int = 260, side: int = 28) -> np.ndarray:
    """(n, 1, side, side) uint8: the same bright shape, each with folds and a fine pattern of its own."""
    random = np.random.default_rng(11)
    x, y = np.meshgrid(*[np.linspace(-1, 1, side)] * 2)
    wide = random.uniform(0.45, 0.7, (n, 1, 1))
    shape = 1 / (1 + np.exp(12 * (np.abs(x) / wide - 1))) / (1 + np.exp(12 * (np.abs(y) / 0.85 - 1)))
    folds = sum(
        random.normal(0, 0.25 / k, (n, 1, 1))
        * np.cos(np.pi * k * (x * random.normal(size=(n, 1, 1)) + y * random.normal(size=(n, 1, 1))))
        for k in (1, 2, 3, 4)
    )
    fine = gaussian_filter(random.normal(0, 0.3, (n, side, side)), (0, 0.9, 0.9))
    return (255 * (shape * (0.6 + folds + fine)).clip(0, 1)).astype(np.uint8)[:, None]


def without_border(picture: np.ndarray, cut: int) -> np.ndarray:
    side = picture.shape[1]
    inner = Image.fromarray(picture[0]).crop((cut, cut, side - cut, side - cut))
    return np.asarray(inner.resize((side, side)))[None]


@pytest.mark.parametrize("change", ["border 1", "border 2", "noise", "mirror"])
def test_changed_copies_are_found_among_pictures_that_are_all_alike(change: str) -> None:
    pictures, random = alike(), np.random.default_rng(12)
    taken = random.choice(len(pictures), 30, replace=False)
    changes = {
        "border 1": lambda picture: without_border(picture, 1),
        "border 2": lambda picture: without_border(picture, 2),
        "noise": lambda picture: np.clip(picture + random.normal(0, 8, picture.shape), 0, 255),
        "mirror": lambda picture: picture[:, :, ::-1],
    }
    copies = np.stack([changes[change](picture) for picture in pictures[taken]]).astype(np.uint8)
    found = found_of(find_twins(table(np.concatenate([pictures, copies]))))
    planted = {(int(row), len(pictures) + at) for at, row in enumerate(taken)}
    assert len(found & planted) >= 0.9 * len(planted)
    assert len(found & planted) >= 0.9 * len(found)


def test_pictures_that_are_all_alike_are_no_copies_of_each_other() -> None:
    assert len(find_twins(table(alike())).pairs) <= 1


@pytest.mark.parametrize(
    ("start", "close"), [((0.05, 0.95, 0.05, 0.95), True), ((0.3, 1.2, 0.3, 1.2), False)]
)
def test_a_part_is_laid_on_the_picture_that_shows_it(start: tuple[float, ...], close: bool) -> None:
    whole = patches(32, 60)[:8]
    box = (0.08 * 32, 0.03 * 32, 0.97 * 32, 0.9 * 32)  # left, top, right, bottom
    part = np.stack(
        [as_array(as_image(one).resize((32, 32), Image.Resampling.BILINEAR, box)) for one in whole]
    )
    a, b = whole.astype(np.float32), part.astype(np.float32)
    best, seen = lay_on(a, b, np.tile(np.float32(start), (8, 1)))
    flat, other = (one - one.mean(axis=(2, 3), keepdims=True) for one in (seen, b))
    again = (flat * other).sum(axis=(1, 2, 3)) / np.sqrt(
        np.square(flat).sum(axis=(1, 2, 3)) * np.square(other).sum(axis=(1, 2, 3))
    )
    np.testing.assert_allclose(best, again, atol=1e-4)
    assert (best > 0.97).all() == close


@pytest.mark.parametrize("n", [400, 9000])
def test_the_most_alike_is_that_of_a_full_search_where_it_is_close(n: int) -> None:
    random = np.random.default_rng(13)
    points = random.normal(size=(n, 12)).astype(np.float32)
    points[n // 2 :] = points[: n // 2] + 0.01 * random.normal(size=(n - n // 2, 12))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    indices, distances = most_alike(deal(points), points[:200], np.arange(200))
    apart = np.linalg.norm(points[:200, None] - points[None], axis=2)
    apart[np.arange(200), np.arange(200)] = np.inf
    assert (indices == apart.argmin(axis=1)).mean() > 0.98
    np.testing.assert_allclose(distances, apart[np.arange(200), indices], atol=1e-3)


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 1e-2])
def test_rows_of_a_table_that_differ_by_a_trace_are_found(noise: float) -> None:
    values, target = load_breast_cancer(return_X_y=True)
    random = np.random.default_rng(2)
    taken = random.choice(len(values), 60, replace=False)
    copies = values[taken] + noise * values.std(axis=0) * random.normal(size=(60, values.shape[1]))
    found = found_of(
        find_twins(table(np.concatenate([values, copies]), np.concatenate([target, target[taken]])))
    )
    planted = {(int(row), len(values) + at) for at, row in enumerate(taken)}
    assert len(found & planted) >= 0.9 * len(planted)
    assert len(found & planted) >= 0.9 * len(found)


@pytest.mark.parametrize("make", ["normal", "rounded", "whole", "heavy"])
def test_strangers_in_a_table_are_hardly_ever_called_copies(make: str) -> None:
    random = np.random.default_rng(3)
    values = random.standard_cauchy((3000, 4)) if make == "heavy" else random.normal(size=(3000, 4))
    values = {"rounded": values.round(1), "whole": (10 * values).round()}.get(make, values)
    twins = find_twins(table(values))
    assert (twins.kind == "near").sum() <= 3


def test_near_rows_must_have_the_same_categories() -> None:
    random = np.random.default_rng(4)
    values = random.normal(size=(300, 6))
    frame = pd.DataFrame(np.concatenate([values, values[:20] + 1e-5]))
    frame["kind"] = np.where(np.arange(len(frame)) < 310, "a", "b")
    frame["y"] = random.normal(size=len(frame))
    found = found_of(find_twins(load(frame, target="y")))
    assert found == {(at, 300 + at) for at in range(10)}


def test_neighbours_in_cells_are_those_of_a_full_search_where_rows_are_close() -> None:
    random = np.random.default_rng(5)
    points = random.normal(size=(6000, 8))
    points[3000:] = points[:3000] + 1e-3 * random.normal(size=(3000, 8))
    indices, distances = neighbours(points, 3)
    assert (indices[:3000, 0] == np.arange(3000, 6000)).mean() > 0.99
    apart = np.linalg.norm(points[indices[:, 0]] - points, axis=1)
    np.testing.assert_allclose(distances[:, 0], apart, rtol=1e-2, atol=1e-6)


def test_equal_rows_of_a_coarse_table_are_learned_from_though_a_given_test_has_them() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (400, 4)).astype(float)
    dataset = dataclasses.replace(load(rows, y=np.arange(400) % 2), fixed_test=np.arange(400) >= 300)
    bound, note = bind(dataset, find_twins(dataset), PlanRecipe())
    assert (bound.barred, note) == (None, "")


def test_equal_rows_of_a_coarse_table_are_told_but_not_bound() -> None:
    values = np.random.default_rng(6).integers(0, 3, size=(500, 4)).astype(float)
    dataset = table(values)
    twins = find_twins(dataset)
    assert twins.natural
    assert len(twins.pairs) == 500 - len(np.unique(values, axis=0))
    assert bind(dataset, twins, PlanRecipe()) == (dataset, "")
    assert find_twins(table(load_iris().data)).natural


def with_copies(n: int = 200, copies: int = 40, **columns: np.ndarray) -> Dataset:
    """Rows n and on are copies of the first ones, with the same label."""
    values = np.random.default_rng(7).normal(size=(n, 4))
    kinds = np.arange(n) % 2
    dataset = load(np.concatenate([values, values[:copies]]), y=np.concatenate([kinds, kinds[:copies]]))
    return dataclasses.replace(dataset, **columns)


@pytest.mark.parametrize("strategy", ["kfold", "holdout", "rotate"])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_copies_stay_on_one_side_of_every_split(strategy: str, kind: str) -> None:
    dataset = with_copies()
    if kind == "numbers":
        inputs = dataset.inputs["numbers"]
        dataset = load(inputs, y=inputs[:, 0])
    recipe = PlanRecipe(strategy=strategy)  # type: ignore[arg-type]
    bound, note = bind(dataset, find_twins(dataset), recipe)
    assert note == "80 rows are copies of one another (40 groups): copies stay on one side of every split"
    assert (bound.fingerprint, bound.notes) == (dataset.fingerprint, dataset.notes)
    for seed in range(3):
        plan = make_plan(bound, recipe, seed)
        np.testing.assert_array_equal(plan.roles[:40], plan.roles[200:])
        assert 0.12 < plan.sealed.mean() < 0.28
        free = make_plan(dataset, recipe, seed)
        assert (free.roles[:40] != free.roles[200:]).any(), "without binding copies are torn apart"


def test_data_without_copies_keep_their_plan() -> None:
    dataset = with_copies(copies=0)
    bound, note = bind(dataset, find_twins(dataset), PlanRecipe())
    assert bound is dataset
    assert note == ""


def test_copies_join_the_groups_of_the_user() -> None:
    groups = np.arange(240) // 4
    dataset = with_copies(groups=groups)
    bound, _ = bind(dataset, find_twins(dataset), PlanRecipe())
    assert bound.groups is not None
    for group in range(60):
        assert len(set(bound.groups[groups == group])) == 1
    np.testing.assert_array_equal(bound.groups[:40], bound.groups[200:])
    assert len(set(bound.groups)) == 50
    make_plan(bound, PlanRecipe())


@pytest.mark.parametrize("strategy", ["kfold", "holdout", "rotate"])
def test_nobody_learns_from_a_copy_of_a_row_of_a_given_test(strategy: str) -> None:
    fixed = np.arange(240) >= 190
    dataset = with_copies(fixed_test=fixed)
    twins = find_twins(dataset)
    leaks = twins.leaks(fixed)
    np.testing.assert_array_equal(leaks, np.stack([np.arange(200, 240), np.arange(40)], axis=1))
    bound, note = bind(dataset, twins, PlanRecipe())
    assert note == "40 rows are copies of rows of the test: nobody learns from them"
    assert len(twins.leaks(fixed, bound.barred)) == 0
    plan = make_plan(bound, PlanRecipe(strategy=strategy))  # type: ignore[arg-type]
    np.testing.assert_array_equal(plan.sealed, fixed)
    assert (plan.roles[:40] == UNUSED).all()
    assert (plan.roles[40:190] != UNUSED).all()


def test_nobody_learns_from_a_picture_that_is_nearly_one_of_a_given_test() -> None:
    shown = np.random.default_rng(3).uniform(0, 255, (80, 3, 12, 12))
    shown = gaussian_filter(shown, (0, 0, 2, 2))
    shown = (shown - shown.min()) / (shown.max() - shown.min()) * 200 + 20
    lighter = np.concatenate([shown, shown[:6] * 0.9 + 20]).astype(np.uint8)
    data = load(lighter, y=np.arange(86) % 2)
    data = dataclasses.replace(data, fixed_test=np.arange(86) >= 80)
    bound, _ = bind(data, find_twins(data), PlanRecipe())
    assert bound.barred is not None
    np.testing.assert_array_equal(np.flatnonzero(bound.barred), np.arange(6))


def test_a_test_that_holds_the_rows_to_learn_from_is_refused() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    data = load(np.concatenate([values, values]), y=np.arange(120) % 2)
    data = dataclasses.replace(data, fixed_test=np.arange(120) >= 60)
    with pytest.raises(AyatoriError, match="however of these 60 of 60 are copies of its rows; give other"):
        bind(data, find_twins(data), PlanRecipe())


def test_rows_that_judge_and_are_copies_of_rows_learned_from_are_counted() -> None:
    dataset = with_copies(order=np.arange(240.0))  # rows 200 to 239 are those of 0 to 39
    twins = find_twins(dataset)
    plan = make_plan(bind(dataset, twins, PlanRecipe())[0], PlanRecipe(test=0.1))
    taught = np.flatnonzero(((plan.roles > 0) & (plan.roles <= STOP)).any(axis=1))
    sealed = np.flatnonzero(plan.sealed)
    assert known_rows(twins, plan) == len(set(sealed - 200) & set(taught)) == 24
    free = make_plan(dataset, PlanRecipe(test=0, strategy="holdout"))
    own = np.flatnonzero((free.roles[:, 0] > 0) & (free.roles[:, 0] <= STOP))
    judged = np.flatnonzero(free.roles[:, 0] == SCORE)
    assert known_rows(twins, free) == len(set(judged - 200) & set(own)) > 0
    bound = make_plan(bind(with_copies(), twins, PlanRecipe())[0], PlanRecipe())
    assert known_rows(twins, bound) == 0
    assert known_rows(dataclasses.replace(twins, natural=True), plan) == 0


def test_labels_that_are_learned_by_heart_are_no_skill_on_copies_in_a_given_test() -> None:
    chance = np.random.default_rng(1)
    values, kinds = chance.normal(size=(400, 4)).round(6), np.where(chance.random(400) < 0.5, "a", "b")
    frame = pd.DataFrame(values, columns=list("wxyz")).assign(kind=kinds)
    data = load(frame, target="kind")
    again = load(pd.concat([frame, frame[:200]]), target="kind")
    again = dataclasses.replace(again, fixed_test=np.arange(600) >= 400)
    assert len(data) == 400
    skill = {}
    for name, barred in (("told apart", True), ("not", False)):
        bound = bind(again, find_twins(again), PlanRecipe())[0]
        bound = bound if barred else dataclasses.replace(bound, barred=None)
        plan = make_plan(bound, PlanRecipe(folds=2))
        rows = np.concatenate([plan.train_rows(0), plan.rows(0, STOP)])
        judge = KNeighborsClassifier(1).fit(bound.inputs["numbers"][rows], bound.labels[rows])
        test = np.flatnonzero(plan.sealed)
        skill[name] = (judge.predict(bound.inputs["numbers"][test]) == bound.labels[test]).mean()
    assert skill["told apart"] < 0.6 < 0.7 < skill["not"]


def test_copies_on_both_sides_of_a_given_test_are_bound_on_each_side() -> None:
    values = np.random.default_rng(8).normal(size=(100, 4))
    rows = np.concatenate([np.arange(100), np.arange(5), np.arange(5), np.arange(5)])
    fixed = np.arange(115) >= 105
    dataset = dataclasses.replace(table(values[rows], rows % 2), fixed_test=fixed)
    bound, _ = bind(dataset, find_twins(dataset), PlanRecipe())
    assert bound.groups is not None
    assert (bound.groups[:5] == bound.groups[100:105]).all()
    assert (bound.groups[105:110] == bound.groups[110:]).all()
    assert not np.isin(bound.groups[fixed], bound.groups[~fixed]).any()
    make_plan(bound, PlanRecipe())


def test_splits_by_time_and_splitters_of_the_user_are_left_alone() -> None:
    dataset = with_copies(order=np.arange(240.0))
    bound, note = bind(dataset, find_twins(dataset), PlanRecipe())
    assert bound is dataset
    assert "by time" in note
    dataset = with_copies()
    bound, note = bind(dataset, find_twins(dataset), PlanRecipe(splitter=KFold(4)))
    assert bound is dataset
    assert "your own" in note


def test_one_giant_group_is_not_bound() -> None:
    values = np.random.default_rng(9).normal(size=(100, 3))
    values[:60] = values[0]
    dataset = table(values)
    bound, note = bind(dataset, find_twins(dataset), PlanRecipe())
    assert bound is dataset
    assert "60 of them are not bound, as a group of them is larger than half a fold" in note
    make_plan(bound, PlanRecipe())


def test_a_class_of_few_different_rows_is_not_bound_but_others_are() -> None:
    random = np.random.default_rng(10)
    values = random.normal(size=(200, 5))
    rare = np.repeat(random.normal(size=(3, 5)), 10, axis=0)
    rows = np.concatenate([values, rare, values[:10]])
    target = np.array(["a", "b"] * 100 + ["rare"] * 30 + ["a", "b"] * 5)
    dataset = table(rows, target)
    bound, note = bind(dataset, find_twins(dataset), PlanRecipe())
    assert "class 'rare' would be left with too few different rows" in note
    assert bound.groups is not None
    assert len(set(bound.groups[200:230])) == 30
    assert (bound.groups[:10] == bound.groups[230:]).all()
    plan = make_plan(bound, PlanRecipe())
    for member in range(plan.members):
        assert set(dataset.labels[plan.train_rows(member)]) == {0, 1, 2}


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(20, 80),
    distinct=st.integers(1, 80),
    folds=st.integers(2, 5),
    test=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_binding_never_makes_a_plan_fail_that_could_be_made(
    n: int, distinct: int, folds: int, test: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, distinct, n)
    dataset = table(random.normal(size=(distinct, 3))[rows], np.arange(n) % 2)
    recipe = PlanRecipe(folds=folds, test=test)
    make_plan(dataset, recipe, seed)
    bound, _ = bind(dataset, find_twins(dataset), recipe)
    plan = make_plan(bound, recipe, seed)
    for member in range(plan.members):
        assert len(set(dataset.labels[plan.train_rows(member)])) == 2
