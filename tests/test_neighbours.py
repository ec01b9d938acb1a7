"""The neighbour graph against scikit-learn and brute force; what permuted labels can and cannot reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from ayatori.explore import neighbours
from ayatori.explore.neighbours import agreement, find_apart, find_neighbours, structure
from ayatori.records import AyatoriError, Graph


def brute(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours from all distances in float64, equally near ones by number."""
    wide = values.astype(np.float64)
    squares = ((wide[:, None] - wide[None]) ** 2).sum(2)
    np.fill_diagonal(squares, np.inf)
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return order, np.sqrt(np.take_along_axis(squares, order, 1))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that even 300 rows fill several."""
    monkeypatch.setattr(neighbours, "ASKED", 64)
    monkeypatch.setattr(neighbours, "SEEN", 100)
    monkeypatch.setattr(neighbours, "GROUPED", 4)
    monkeypatch.setattr(neighbours, "SPARE", (2, 5))
    monkeypatch.setattr(neighbours, "FEW", 50)


def test_neighbours_and_distances_are_those_of_scikit_learn() -> None:
    values = np.random.default_rng(0).normal(size=(1500, 20)).astype(np.float32)
    graph = find_neighbours(values, 7)
    wide = values.astype(np.float64)
    distances, indices = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(wide).kneighbors(wide)
    np.testing.assert_array_equal(graph.indices, indices[:, 1:])
    np.testing.assert_allclose(graph.distances, distances[:, 1:], rtol=1e-6)
    assert (graph.indices.dtype, graph.distances.dtype) == (np.int64, np.float32)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("columns", [1, 3, 40])
def test_blocks_and_groups_change_nothing(columns: int) -> None:
    values = np.random.default_rng(1).normal(size=(333, columns)).astype(np.float32)
    graph = find_neighbours(values, 3)
    indices, distances = brute(values, 3)
    np.testing.assert_array_equal(graph.indices, indices)
    np.testing.assert_allclose(graph.distances, distances, rtol=1e-5, atol=1e-7)


def test_wide_blocks_are_searched_by_groups() -> None:
    values = np.random.default_rng(2).normal(size=(6000, 4)).astype(np.float32)
    rows = np.array([5999, 0, 3000])
    graph = find_neighbours(values, 10, rows)
    np.testing.assert_array_equal(graph.rows, rows)
    for row, found in zip(rows, graph.indices, strict=True):
        squares = ((values.astype(np.float64) - values[row]) ** 2).sum(1)
        squares[row] = np.inf
        np.testing.assert_array_equal(found, np.argsort(squares, kind="stable")[:10])


@given(
    arrays(np.float32, st.tuples(st.integers(1, 130), st.integers(1, 3)), elements=st.integers(0, 3)),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def check_ties(values: np.ndarray, k: int) -> None:
    graph = find_neighbours(values, k)
    indices, distances = brute(values, min(k, len(values) - 1))
    np.testing.assert_array_equal(graph.indices, indices)
    np.testing.assert_allclose(graph.distances, distances, rtol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_copies_are_at_distance_zero_and_ties_go_by_number() -> None:
    check_ties()


def test_few_groups_of_many_copies_are_settled_without_all_distances() -> None:
    values = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32).repeat(1000, axis=0)
    graph = find_neighbours(values, 4, np.array([2500, 0]))
    np.testing.assert_array_equal(graph.indices, [[2000, 2001, 2002, 2003], [1, 2, 3, 4]])
    assert not graph.distances.any()


def test_an_offset_far_from_zero_costs_no_neighbour() -> None:
    values = np.random.default_rng(4).normal(size=(400, 6)).astype(np.float32)
    far = (values + np.float32(4096)).astype(np.float32)
    np.testing.assert_array_equal(find_neighbours(far, 5).indices, brute(far, 5)[0])


def test_an_outlier_costs_no_neighbour() -> None:
    values = np.random.default_rng(5).normal(size=(400, 6)).astype(np.float32)
    values[7] = 1e6
    np.testing.assert_array_equal(find_neighbours(values, 5).indices, brute(values, 5)[0])


def test_only_the_named_rows_are_looked_at() -> None:
    values = np.random.default_rng(6).normal(size=(500, 3)).astype(np.float32)
    among, rows = np.arange(0, 500, 5), np.array([1, 499, 33])
    graph = find_neighbours(values, 4, rows, among=among)
    squares = ((values[rows][:, None].astype(np.float64) - values[among][None]) ** 2).sum(2)
    np.testing.assert_array_equal(graph.indices, among[np.argsort(squares, 1)[:, :4]])
    assert find_neighbours(values, 4, rows, among=among[:2]).indices.shape == (3, 2)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_rows_has_as_many_neighbours_as_there_are(n: int) -> None:
    graph = find_neighbours(np.arange(n, dtype=np.float32)[:, None], 15)
    assert graph.indices.shape == graph.distances.shape == (n, n - 1)


def test_points_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(AyatoriError, match="finite"):
        find_neighbours(np.array([[0.0], [np.nan]], np.float32), 1)


def test_progress_ends_at_all() -> None:
    told: list[float] = []
    find_neighbours(np.zeros((1100, 2), np.float32), 2, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 1


def clumps(distance: float, n: int = 200, seed: int = 0) -> tuple[Graph, np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    values = np.random.default_rng(seed).normal(size=(n, 3)) + distance * labels[:, None]
    return find_neighbours(values.astype(np.float32), 10), labels, np.ones(n, bool)


def test_agreement_counts_the_neighbours_of_the_same_class() -> None:
    graph, labels, known = clumps(1.0)
    expected = np.mean([(labels[found] == labels[row]).mean() for row, found in enumerate(graph.indices)])
    assert agreement(graph, labels, known) == pytest.approx(expected)


def test_unknown_labels_are_never_read() -> None:
    graph, labels, known = clumps(1.0)
    known[::3] = False
    for task in (labels, labels.astype(np.float64)[:, None] * 7, np.eye(2, dtype=np.float32)[labels]):
        other = np.where(known.reshape(-1, *[1] * (task.ndim - 1)), task, 99).astype(task.dtype)
        assert agreement(graph, task, known) == agreement(graph, other, known)
        assert structure(graph, task, known, permutations=9) == structure(graph, other, known, permutations=9)


def test_nothing_known_is_no_structure() -> None:
    graph, labels, known = clumps(1.0)
    reached, by_chance, p = structure(graph, labels, ~known)
    assert np.isnan([reached, by_chance]).all()
    assert p == 1.0


def test_numbers_agree_by_their_ranks() -> None:
    values = np.random.default_rng(0).uniform(size=(400, 1)).astype(np.float32)
    graph, known = find_neighbours(values, 5), np.ones(400, bool)
    smooth, noise = np.exp(9 * values.astype(np.float64)), np.random.default_rng(1).normal(size=(400, 1))
    assert agreement(graph, smooth, known) > 0.98
    assert agreement(graph, noise, known) == pytest.approx(2 / 3, abs=0.02)
    assert agreement(graph, smooth, known) == agreement(graph, values.astype(np.float64), known)
    assert structure(graph, smooth, known)[2] == 0.005
    assert structure(graph, noise, known)[2] > 0.01


def test_classes_that_lie_apart_have_structure() -> None:
    reached, by_chance, p = structure(*clumps(2.0))
    assert p == 0.005
    assert reached > 0.9
    assert by_chance == pytest.approx(0.5, abs=0.03)


def test_p_values_of_unrelated_labels_are_uniform() -> None:
    p = [structure(*clumps(0.0, 60, seed), permutations=19, seed=seed)[2] for seed in range(200)]
    for level in (0.05, 0.25, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.11)
    assert min(p) == 0.05


def test_whole_groups_change_labels_with_one_another() -> None:
    """Rows of one patient lie close and share a label that says nothing of another patient."""
    generator = np.random.default_rng(0)
    p_rows, p_groups = [], []
    for _ in range(20):
        patients = np.repeat(np.arange(20), generator.integers(5, 15, 20))
        labels = generator.integers(0, 2, 20)[patients]
        values = generator.normal(size=(20, 4))[patients] + 0.1 * generator.normal(size=(len(patients), 4))
        graph, known = find_neighbours(values.astype(np.float32), 5), np.ones(len(patients), bool)
        p_rows.append(structure(graph, labels, known, permutations=99)[2])
        p_groups.append(structure(graph, labels, known, patients, permutations=99)[2])
    assert max(p_rows) == 0.01
    assert np.mean(np.array(p_groups) <= 0.1) <= 0.3


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_group_gets_the_labels_of_one_other_group(seed: int, groups: int) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.permutation(np.repeat(np.arange(groups), generator.integers(1, 5, groups)))
    taken = neighbours._exchanges(codes, len(codes), generator)()
    for group in range(groups):
        assert len(set(codes[taken[codes == group]])) == 1
    givers = {codes[taken[codes == group][0]] for group in range(groups)}
    assert len(givers) == groups


def test_structure_is_the_same_with_the_same_seed() -> None:
    assert structure(*clumps(0.3), seed=5) == structure(*clumps(0.3), seed=5)


@given(data=st.data(), n=st.integers(4, 40), k=st.integers(1, 12), spare=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_neighbours_of_other_groups_are_those_of_brute_force(
    data: st.DataObject, n: int, k: int, spare: int
) -> None:
    draws = st.lists(st.integers(-9, 9), min_size=2 * n, max_size=2 * n)
    values = np.array(data.draw(draws), np.float32).reshape(n, 2)
    groups = np.array(data.draw(st.lists(st.sampled_from("aaabcde"), min_size=n, max_size=n)))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "SPARE_APART", spare)  # so that rows of large groups are looked up apart
        graph = find_apart(values, k, rows, groups)
    width = min(k, n - np.unique(groups, return_counts=True)[1].max())
    assert graph.indices.shape == graph.distances.shape == (len(rows), width)
    wide = values.astype(np.float64)
    squares = ((wide[rows, None] - wide[None]) ** 2).sum(2)
    squares[groups[rows][:, None] == groups] = np.inf
    order = np.argsort(squares, axis=1, kind="stable")[:, :width]
    np.testing.assert_array_equal(graph.indices, order)
    np.testing.assert_allclose(graph.distances, np.sqrt(np.take_along_axis(squares, order, 1)), rtol=1e-6)
