"""The solver of linear heads beside scikit-learn's, and beside the conditions of a minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from torch.nn import functional as F

from ayatori.train.convex import PENALTIES, Solved, solve

SOME = (0, 3, 6, 8)  # of the penalties


def problem(n: int, d: int, classes: int, members: int, seed: int = 0, bags: bool = False) -> tuple:
    chance = np.random.default_rng(seed)
    y = chance.integers(0, classes, n)
    x = 0.5 * chance.normal(size=(classes, d))[y] + chance.normal(size=(n, d)) * chance.uniform(0.2, 3, d) + 2
    shape = (members, n)
    weight = chance.poisson(1, shape) if bags else chance.random(shape) < 0.7
    weight = weight.astype(np.float32)
    x = x.astype(np.float32)
    centre = np.stack([x[own > 0].mean(0) for own in weight])
    scale = np.stack([1 / x[own > 0].std(0) for own in weight])
    return x, y, weight, centre, scale


def solved(x, y, weight, centre, scale, task: str = "classification", outputs: int = 2, **given) -> Solved:
    target = torch.from_numpy(y if task == "classification" else y.astype(np.float32))
    arrays = [torch.from_numpy(np.asarray(a, np.float32)) for a in (weight, centre, scale)]
    return solve(torch.from_numpy(x), target, *arrays, task, outputs, **given)


def logits_of(found: Solved, member: int, place: int, seen: np.ndarray) -> np.ndarray:
    return seen @ found.weight[member, place].numpy().T + found.bias[member, place].numpy()


def near(found: np.ndarray, expected: np.ndarray, share: float = 2e-3) -> None:
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize(("n", "d", "classes"), [(200, 20, 2), (60, 150, 2), (200, 12, 4), (50, 80, 4)])
def test_classes_are_told_apart_as_by_scikit_learn(n: int, d: int, classes: int, bags: bool) -> None:
    x, y, weight, centre, scale = problem(n, d, classes, 3, bags=bags)
    found = solved(x, y, weight, centre, scale, outputs=classes)
    for member, own in enumerate(weight):
        seen, rows = ((x - centre[member]) * scale[member]).astype(np.float64), own > 0
        for place in SOME:
            strength = 1 / (PENALTIES[place] * own.sum()) * (2 if classes == 2 else 1)
            model = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000)
            model.fit(seen[rows], y[rows], sample_weight=own[rows])
            said, wanted = logits_of(found, member, place, seen), model.decision_function(seen)
            if classes == 2:
                near(said[:, 1] - said[:, 0], wanted)
            else:
                near(said - said.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True))


def test_each_label_is_a_problem_as_by_scikit_learn() -> None:
    x, _, weight, centre, scale = problem(200, 20, 2, 2)
    y = (x[:, :3] + np.random.default_rng(1).normal(size=(200, 3)) > 2).astype(np.float32)
    found = solved(x, y, weight, centre, scale, "multilabel", 3)
    for member, own in enumerate(weight):
        seen, rows = ((x - centre[member]) * scale[member]).astype(np.float64), own > 0
        for place in SOME:
            said = logits_of(found, member, place, seen)
            for label in range(3):
                model = LogisticRegression(C=1 / (PENALTIES[place] * own.sum()), tol=1e-10, max_iter=20_000)
                near(said[:, label], model.fit(seen[rows], y[rows, label]).decision_function(seen))


@pytest.mark.parametrize("d", [15, 120])
def test_values_are_told_as_by_ridge_regression(d: int) -> None:
    x, _, weight, centre, scale = problem(80, d, 2, 3, bags=True)
    y = (x[:, :2] * [3, -10] + np.random.default_rng(1).normal(size=(80, 2))).astype(np.float64)
    found = solved(x, y, weight, centre, scale, "regression", 2)
    for member, own in enumerate(weight):
        seen = ((x - centre[member]) * scale[member]).astype(np.float64)
        for place in SOME:
            model = Ridge(alpha=PENALTIES[place] * own.sum(), solver="cholesky").fit(
                seen, y, sample_weight=own
            )
            near(logits_of(found, member, place, seen), model.predict(seen), 1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(2, 30), st.integers(0, 10_000))
def test_at_the_solution_nothing_pulls_any_more(classes: int, d: int, seed: int) -> None:
    x, y, weight, centre, scale = problem(50, d, classes, 2, seed)
    found = solved(x, y, weight, centre, scale, outputs=classes, penalties=PENALTIES[:8])
    for member, own in enumerate(weight):
        seen = torch.from_numpy((x - centre[member]) * scale[member]).double()
        share = torch.from_numpy(own / own.sum()).double()
        for place, penalty in enumerate(PENALTIES[:8]):
            w = found.weight[member, place].double().requires_grad_()
            b = found.bias[member, place].double().requires_grad_()
            losses = F.cross_entropy(seen @ w.T + b, torch.from_numpy(y), reduction="none")
            (share @ losses + penalty / 2 * w.square().sum()).backward()
            allowed = 2e-3 * penalty * w.detach().abs().max() + 1e-5
            assert w.grad.abs().max() < allowed
            assert b.grad.abs().max() < allowed


def test_who_is_solved_beside_whom_does_not_matter() -> None:
    x, y, weight, centre, scale = problem(120, 30, 3, 6, bags=True)
    together = solved(x, y, weight, centre, scale, outputs=3)
    for member in (0, 5):
        some = slice(member, member + 1)
        alone = solved(x, y, weight[some], centre[some], scale[some], outputs=3)
        for place in range(len(PENALTIES)):
            seen = (x - centre[member]) * scale[member]
            near(logits_of(together, member, place, seen), logits_of(alone, 0, place, seen), 3e-3)


def test_the_same_twice_gives_the_same_bits() -> None:
    given_ = problem(120, 30, 3, 4)
    first, again = solved(*given_, outputs=3), solved(*given_, outputs=3)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)


def test_a_class_without_rows_is_unlikely_and_rows_that_a_line_tells_apart_stay_finite() -> None:
    x, y, weight, centre, scale = problem(80, 40, 3, 2)
    weight[0, y == 2] = 0
    x[:, 0] = 100 * y
    found = solved(x, y, weight, centre, scale, outputs=3)
    assert torch.isfinite(found.weight).all()
    said = torch.from_numpy(logits_of(found, 0, 8, (x - centre[0]) * scale[0])).softmax(-1)
    assert said[y < 2, 2].max() < 0.05
    assert (found.train_loss.diff(dim=1) < 1e-4).all()  # a weaker penalty fits better


def test_a_row_of_another_member_changes_nothing() -> None:
    x, y, weight, centre, scale = problem(80, 10, 2, 2)
    first = solved(x, y, weight, centre, scale)
    spoiled = x.copy()
    spoiled[weight[0] == 0] = 1e3
    again = solved(spoiled, y, weight[:1], centre[:1], scale[:1])
    seen = (x - centre[0]) * scale[0]
    near(logits_of(again, 0, 5, seen), logits_of(first, 0, 5, seen))
