"""Maps against scikit-learn's measure and plain formulas; what they do with copies and few rows."""

from __future__ import annotations

import argparse
import importlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from ayatori.explore import believe, maps, tsne, umap
from ayatori.explore.believe import how_far
from ayatori.explore.maps import draw_maps, principal
from ayatori.explore.neighbours import find_neighbours
from ayatori.explore.springs import make_springs, pull
from ayatori.records import Graph, Map, Representation


def digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.data[:n].astype(np.float32), data.target[:n].astype(np.int64)


def drawn(
    values: np.ndarray, labels: np.ndarray | None = None, seed: int = 0, **options: object
) -> list[Map]:
    labels = np.zeros(len(values), np.int64) if labels is None else labels
    known = np.ones(len(values), bool)
    return draw_maps(Representation("raw", values), labels, known, seed, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def of_digits() -> list[Map]:
    return drawn(*digits(450))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, where it does not matter how good the map is."""
    monkeypatch.setattr(maps, "tsne", partial(tsne.tsne, steps=(10, 20)))
    monkeypatch.setattr(maps, "umap", partial(umap.umap, steps=30))


def test_every_map_of_digits_can_be_believed(of_digits: list[Map]) -> None:
    assert [(one.name, one.points.shape) for one in of_digits] == [
        ("pca", (450, 3)),
        ("tsne", (450, 2)),
        ("tsne", (450, 3)),
        ("umap", (450, 2)),
        ("umap", (450, 3)),
    ]
    pca, *others = of_digits
    for one in others:
        assert one.points.dtype == np.float32
        assert one.trustworthiness > 0.97 > pca.trustworthiness
        assert one.continuity > 0.95
        assert one.agreement > 0.93
        assert one.agreement_full == pca.agreement_full > 0.85


def test_trustworthiness_is_that_of_scikit_learn(of_digits: list[Map]) -> None:
    values, _ = digits(450)
    for one in of_digits:
        assert one.trustworthiness == pytest.approx(
            trustworthiness(values, one.points, n_neighbors=15), abs=2e-3
        )
        # continuity asks the same with both spaces exchanged
        assert one.continuity == pytest.approx(trustworthiness(one.points, values, n_neighbors=15), abs=2e-3)


def test_a_sample_of_rows_is_as_trustworthy_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = digits(1000)
    drawing, known = principal(values, 2, 0), np.ones(1000, bool)
    (whole,) = how_far(values, [drawing], labels, known, seed=0)
    monkeypatch.setattr(believe, "ASKED", 300)
    monkeypatch.setattr(believe, "BLOCK", 20_000)
    monkeypatch.setattr(believe, "FULL", 50_000)
    monkeypatch.setattr(believe, "CHUNK", 300)
    (some,) = how_far(values, [drawing], labels, known, seed=0)
    assert some != whole
    assert some.trustworthiness == pytest.approx(whole.trustworthiness, abs=0.02)
    assert some.continuity == pytest.approx(whole.continuity, abs=0.02)
    assert some.agreement == pytest.approx(whole.agreement, abs=0.05)


@given(st.integers(0, 1000), st.integers(33, 80))
@settings(max_examples=20, deadline=None)
def test_trust_without_ties_is_exact(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    values, drawing = generator.normal(size=(n, 3)), generator.normal(size=(n, 2))
    (found,) = how_far(
        values.astype(np.float32), [drawing.astype(np.float32)], np.zeros(n, int), np.ones(n, bool), 0
    )
    assert found.trustworthiness == pytest.approx(trustworthiness(values, drawing, n_neighbors=15), abs=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_generators_alone(of_digits: list[Map]) -> None:
    before, numbers = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    threads = torch.get_num_threads()
    again = drawn(*digits(450))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numbers[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.get_num_threads() == threads
    for one, other in zip(of_digits, again, strict=True):
        assert one.points.tobytes() == other.points.tobytes()
        assert one.trustworthiness == other.trustworthiness


@pytest.mark.usefixtures("quick")
def test_another_seed_gives_another_map() -> None:
    one, other = drawn(*digits(100), seed=1), drawn(*digits(100), seed=2)
    assert one[3].points.tobytes() != other[3].points.tobytes()


@pytest.mark.usefixtures("quick")
def test_a_graph_that_is_there_already_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = digits(150)
    found, graph = drawn(values, labels), find_neighbours(values, 50)
    monkeypatch.setattr(maps, "find_neighbours", None)
    for one, other in zip(found, drawn(values, labels, graph=graph), strict=True):
        assert one.points.tobytes() == other.points.tobytes()


@pytest.mark.usefixtures("quick")
def test_labels_that_are_not_known_are_never_read() -> None:
    values, labels = digits(120)
    known = np.arange(120) % 2 == 0
    one = draw_maps(Representation("raw", values), labels, known, 0)
    other = draw_maps(Representation("raw", values), np.where(known, labels, 77), known, 0)
    assert [each.agreement for each in one] == [each.agreement for each in other]
    assert [each.agreement_full for each in one] == [each.agreement_full for each in other]


def test_rows_that_are_not_laid_out_lie_among_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "LAID_OUT", 500)
    monkeypatch.setattr(maps, "SOLID", 400)
    monkeypatch.setattr(maps, "DRAWN", 1000)
    values, labels = digits(1797)
    for one in drawn(values, labels)[1:]:
        assert len(one.rows) == len(np.unique(one.rows)) == len(one.points) == 1000
        assert np.isfinite(one.points).all()
        assert one.trustworthiness > 0.95
        assert one.trustworthiness == pytest.approx(
            trustworthiness(values[one.rows], one.points, n_neighbors=15), abs=2e-3
        )


def test_less_time_means_fewer_rows_by_a_rule() -> None:
    sizes = [len(maps.chosen(10**6, 0, seconds)[1]) for seconds in (None, 60, 10, 1, 0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == maps.LAID_OUT
    assert sizes[-1] == maps.FEWEST
    rows, base = maps.chosen(10**6, 0)
    assert len(rows) == maps.DRAWN
    np.testing.assert_array_equal(base, maps.chosen(10**6, 0)[1])
    assert base.max() < len(rows)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_rows_have_no_map(n: int) -> None:
    assert drawn(np.zeros((n, 2), np.float32)) == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("n", [3, 4, 7, 17])
@pytest.mark.parametrize("d", [1, 2, 9])
def test_a_handful_of_rows_is_drawn(n: int, d: int) -> None:
    found = drawn(np.random.default_rng(0).normal(size=(n, d)).astype(np.float32))
    assert len(found) == 5
    for one in found:
        assert np.isfinite(one.points).all()
        assert -1e-6 <= one.trustworthiness <= 1
    if d < 3:
        assert not found[0].points[:, d:].any()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("values", [np.zeros((80, 4)), np.eye(2)[np.arange(80) % 2], np.full((80, 1), 1e6)])
def test_copies_and_constants_are_drawn(values: np.ndarray) -> None:
    for one in drawn(values.astype(np.float32), np.arange(80) % 2):
        assert np.isfinite(one.points).all()
        assert one.points.shape[0] == 80


def test_copies_are_drawn_in_the_same_place() -> None:
    values, _ = digits(100)
    values = values.repeat(2, axis=0)
    for one in drawn(values):
        apart = np.linalg.norm(one.points[::2] - one.points[1::2], axis=1)
        assert np.median(apart) < 0.05 * one.points.std()


@pytest.mark.usefixtures("quick")
def test_numbers_as_labels_give_agreement_too() -> None:
    values, _ = digits(150)
    for one in drawn(values, values[:, 20:21].astype(np.float64)):
        assert 2 / 3 < one.agreement < 1


@pytest.mark.usefixtures("quick")
def test_progress_goes_up_to_one() -> None:
    told: list[float] = []
    drawn(digits(60)[0], progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_principal_components_are_those_of_scikit_learn() -> None:
    values, _ = digits(500)
    ours, theirs = principal(values, 5, 0), PCA(5).fit_transform(values.astype(np.float64))
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-2)


def test_wide_rows_have_principal_components_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values, _ = digits(300)
    exact = principal(values, 3, 0)
    monkeypatch.setattr(maps, "WIDE", 10)
    np.testing.assert_allclose(principal(values, 3, 0), exact, atol=0.05)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_repulsion_is_the_sum_over_all_pairs(dimensions: int) -> None:
    points = np.random.default_rng(0).normal(size=(dimensions, 300)).astype(np.float32) * 8
    force, total = tsne.pair_by_pair(points)
    apart = points[:, :, None].astype(np.float64) - points[:, None]
    near = 1 / (1 + (apart**2).sum(0))
    np.testing.assert_allclose(force, (near**2 * apart).sum(2), atol=1e-3)
    assert total == pytest.approx(near.sum() - 300, rel=1e-4)


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_the_grid_repels_as_the_pairs_do(spread: float) -> None:
    points = (np.random.default_rng(0).normal(size=(2, 400)) * spread + 50).astype(np.float32)
    force, total = tsne.on_a_grid(points)
    expected, whole = tsne.pair_by_pair(points - points.mean(axis=1, keepdims=True))
    assert total + 400 == pytest.approx(whole + 400, rel=0.01)  # all pairs, also each row with itself
    assert np.abs(force - expected).max() < 0.03 * np.abs(expected).max()


def test_a_row_far_away_makes_the_grid_coarse_but_not_large() -> None:
    points = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    points[:, 5] = 1e5
    force, total = tsne.on_a_grid(points)
    assert np.isfinite(force).all()
    assert total > 0


def test_springs_pull_at_both_ends() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(3, 200)).astype(np.float32)
    graph = find_neighbours(generator.normal(size=(200, 2)).astype(np.float32), 6)
    weights = generator.uniform(size=(200, 6)).astype(np.float32)
    found = pull(make_springs(graph, weights), points, lambda squares: 1 / (1 + squares))
    expected = np.zeros((3, 200))
    for row, (targets, strengths) in enumerate(zip(graph.indices, weights, strict=True)):
        for target, strength in zip(targets, strengths, strict=True):
            apart = points[:, target] - points[:, row]
            force = strength * apart / (1 + apart @ apart)
            expected[:, row] += force
            expected[:, target] -= force
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_affinities_have_the_perplexity_that_was_asked_for() -> None:
    distances = np.sort(np.random.default_rng(0).uniform(0.1, 9, size=(50, 45)), axis=1).astype(np.float32)
    weights = tsne.affinities(distances, 15).astype(np.float64)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(-(weights * np.log(weights)).sum(1)), 15, rtol=1e-3)


def test_memberships_sum_to_the_logarithm_of_the_neighbours() -> None:
    distances = np.sort(np.random.default_rng(0).uniform(1, 9, size=(50, 15)), axis=1).astype(np.float32)
    weights = umap.memberships(distances)
    np.testing.assert_allclose(weights.sum(1), np.log2(15), rtol=1e-4)
    np.testing.assert_array_equal(weights[:, 0], 1)


def test_both_directions_of_an_edge_are_joined_once() -> None:
    graph = Graph(np.arange(3), np.array([[1], [0], [0]]), np.ones((3, 1), np.float32))
    found = umap.joined(graph, np.array([[0.5], [0.2], [0.7]], np.float32))
    np.testing.assert_allclose(found[:, 0], [0.3, 0.3, 0.7])


def test_repulsion_of_umap_is_the_mean_of_what_was_drawn() -> None:
    points = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32) * 3
    drawn_rows = np.array([3, 7])
    found = umap.push(points, drawn_rows)
    a, b = float(umap.A), float(umap.B)
    for row in (0, 3, 29):
        forces = []
        for other in drawn_rows:
            apart = points[:, row] - points[:, other]
            d2 = float(apart @ apart)
            forces.append(np.clip(2 * b / ((0.001 + d2) * (1 + a * d2**b)) * apart, -4, 4))
        np.testing.assert_allclose(found[:, row], np.mean(forces, axis=0), rtol=1e-3, atol=1e-5)


def test_the_curve_is_the_one_that_umap_learn_fits() -> None:
    from scipy.optimize import curve_fit

    d = np.linspace(0, 3, 300)
    wanted = np.where(d < 0.1, 1.0, np.exp(-(d - 0.1)))
    fitted, _ = curve_fit(lambda x, a, b: 1 / (1 + a * x ** (2 * b)), d, wanted)
    np.testing.assert_allclose([umap.A, umap.B], fitted, rtol=1e-4)


@pytest.mark.parametrize("side", ["ayatori tsne", "ayatori umap"])
def test_the_benchmark_measures_trust_and_seconds(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    script = importlib.import_module("maps")
    options = argparse.Namespace(rows=120, dimensions=2, seed=0, calls=1)
    found = script.measure(side, "digits", options)
    assert found["trustworthiness"] > 0.9
    assert found["cold"] > 0
