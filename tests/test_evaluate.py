"""Stage 8: figures agree with scikit-learn, intervals cover, the leaderboard opens the test last and once."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from ayatori.evaluate import LOWER, METHODS, chosen, leaderboard, paired, score, score_folds, score_split
from ayatori.evaluate.compare import lower_loss
from ayatori.evaluate.intervals import sample, wilson
from ayatori.evaluate.metrics import _curves, _f1s, _precisions
from ayatori.records import AyatoriError, Blend, Dataset, Entry, Plan, Schema, Score, Task


def classified(seed: int, n: int, classes: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), truth] += skill
    # rounded, so that there are ties
    values = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 2) + 0.01
    return truth, values / values.sum(1, keepdims=True)


def labelled(seed: int, n: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    values = np.round(generator.random((n, labels)), 2)
    return (generator.random((n, labels)) < values).astype(np.float32), values


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(40, 300), st.integers(2, 6))
def test_figures_of_classes_agree_with_scikit_learn(seed: int, n: int, classes: int) -> None:
    truth, values = classified(seed, n, classes)
    found = score(truth, values, "classification")
    said, present = values.argmax(1), np.unique(truth)
    one_hot = np.eye(classes)[truth][:, present]
    ranked = values[:, present]
    if classes == 2:
        one_hot, ranked = truth, values[:, 1]
        brier = reference.brier_score_loss(truth, values[:, 1])
    else:
        brier = ((values - np.eye(classes)[truth]) ** 2).sum(1).mean()
    expected = {
        "accuracy": reference.accuracy_score(truth, said),
        "balanced_accuracy": np.mean([(said[truth == label] == label).mean() for label in present]),
        "macro_f1": reference.f1_score(truth, said, average="macro"),
        "log_loss": reference.log_loss(truth, values, labels=range(classes)),
        "roc_auc": reference.roc_auc_score(one_hot, ranked, average="macro"),
        "average_precision": reference.average_precision_score(one_hot, ranked, average="macro"),
        "brier": brier,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy_over_fifteen_bins() -> None:
    truth, values = classified(3, 500, 4)
    confidence, right = values.max(1), values.argmax(1) == truth
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert score(truth, values, "classification")["ece"].value == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(40, 200))
def test_figures_of_several_labels_agree_with_scikit_learn(seed: int, n: int) -> None:
    truth, values = labelled(seed, n, 3)
    found = score(truth, values, "multilabel")
    said = values > 0.5
    losses = [reference.log_loss(truth[:, k], values[:, k].clip(1.2e-7, 1 - 1.2e-7)) for k in range(3)]
    expected = {
        "accuracy": 1 - reference.hamming_loss(truth, said),
        "exact_match": reference.accuracy_score(truth, said),
        "macro_f1": reference.f1_score(truth, said, average="macro"),
        "log_loss": np.mean(losses),
        "roc_auc": reference.roc_auc_score(truth, values),
        "average_precision": reference.average_precision_score(truth, values),
        "brier": ((values - truth) ** 2).mean(),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("count", [1, 3])
def test_figures_of_numbers_agree_with_scikit_learn(count: int) -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(200, count)) * 5
    values = truth + generator.normal(size=(200, count)) * np.arange(1, count + 1)
    found = score(truth, values, "regression")
    assert found["rmse"].value == pytest.approx(reference.root_mean_squared_error(truth, values))
    assert found["mae"].value == pytest.approx(reference.mean_absolute_error(truth, values))
    assert found["r2"].value == pytest.approx(reference.r2_score(truth, values))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.integers(2, 5),
    st.floats(-3, 30),
    st.sampled_from(["classification", "multilabel", "regression"]),
    st.booleans(),
)
def test_every_interval_holds_its_value_and_is_valid_json(
    seed: int, n: int, outputs: int, skill: float, task: Task, grouped: bool
) -> None:
    truth, values = classified(seed, n, outputs, skill)
    if task == "multilabel":
        truth = np.eye(outputs)[truth]
    elif task == "regression":
        truth, values = truth[:, None] * 1.0, values[:, :1] * skill
    groups = np.random.default_rng(seed).integers(0, 5, n) if grouped else None
    for name, one in score(truth, values, task, groups=groups).items():
        assert one.low <= one.value <= one.high, name
        assert one.n == n
        assert name in METHODS
        json.dumps([one.value, one.low, one.high], allow_nan=False)
        if name not in ("rmse", "mae", "r2", "log_loss"):
            assert one.low >= 0, name
        if name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision", "ece"):
            assert one.high <= 1, name
            assert one.high - one.low > 0 or name == "ece", name


def test_accuracy_has_the_interval_of_wilson() -> None:
    for hits, n in [(0, 5), (5, 5), (37, 50), (9_500, 10_000)]:
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
        truth = np.ones(n, int)
        values = np.where(np.arange(n)[:, None] < hits, [0.2, 0.8], [0.8, 0.2])
        found = score(truth, values, "classification")["accuracy"]
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_variance_of_the_roc_area_is_that_of_delong() -> None:
    truth, values = classified(1, 80, 2)
    scores = values[:, 1]
    beats = (scores[truth == 1][:, None] > scores[truth == 0]) + 0.5 * (
        scores[truth == 1][:, None] == scores[truth == 0]
    )
    expected = beats.mean(1).var(ddof=1) / (truth == 1).sum() + beats.mean(0).var(ddof=1) / (truth == 0).sum()
    rows = sample(80)
    (found,) = _curves([(truth == 1, scores)], rows)
    assert rows.variance(found.pull) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("figure", "of"),
    [
        (_precisions, lambda own, scores, w: reference.average_precision_score(own, scores, sample_weight=w)),
        (_f1s, lambda own, scores, w: reference.f1_score(own, scores, sample_weight=w)),
    ],
)
def test_the_pull_of_a_row_is_the_derivative_by_its_weight(figure: Callable, of: Callable) -> None:
    truth, values = classified(2, 40, 2)
    own = truth == 1
    scores = values[:, 1] if figure is _precisions else values[:, 1] > 0.5
    (found,) = figure([(own, scores)], sample(40))
    step = 1e-5
    for row in range(40):
        up, down = (np.ones(40) + sign * step * (np.arange(40) == row) for sign in (1, -1))
        slope = (of(own, scores, up) - of(own, scores, down)) / (2 * step)
        assert found.pull[row] == pytest.approx(slope, abs=1e-6)


def covers(draw: Callable, truth: dict[str, float], times: int = 300) -> dict[str, float]:
    """Share of ``times`` samples whose interval holds the figure of the population."""
    hits = dict.fromkeys(truth, 0)
    for seed in range(times):
        found = draw(np.random.default_rng(seed))
        for name in hits:
            hits[name] += found[name].low <= truth[name] <= found[name].high
    return {name: count / times for name, count in hits.items()}


def test_intervals_of_classes_cover_in_about_95_of_100_samples() -> None:
    def draw(generator: np.random.Generator, n: int = 150) -> dict[str, Score]:
        truth = (generator.random(n) < 0.3).astype(int)
        evidence = generator.normal(size=n) + 1.5 * truth
        p = 1 / (1 + np.exp(-(1.5 * evidence - 1.125 + np.log(0.3 / 0.7))))
        return score(truth, np.stack([1 - p, p], 1), "classification")

    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "average_precision", "brier")
    population = draw(np.random.default_rng(10**6), 400_000)
    for name, share in covers(draw, {name: population[name].value for name in names}).items():
        assert 0.915 <= share <= 0.99, name


def test_intervals_of_numbers_cover_in_about_95_of_100_samples() -> None:
    def draw(generator: np.random.Generator, n: int = 60) -> dict[str, Score]:
        truth = generator.normal(size=(n, 1))
        return score(truth, 0.7 * truth + 0.5 * generator.normal(size=(n, 1)), "regression")

    population = draw(np.random.default_rng(10**6), 400_000)
    found = covers(draw, {name: population[name].value for name in ("rmse", "mae", "r2")})
    for name, share in found.items():
        assert 0.915 <= share <= 0.985, name


def test_rows_in_groups_need_wider_intervals_and_get_them() -> None:
    def draw(generator: np.random.Generator, units: int = 40, groups: bool = True) -> dict[str, Score]:
        unit = np.repeat(np.arange(units), 10)
        chance = generator.beta(2, 1, units)[unit]
        right = generator.random(len(unit)) < chance
        values = np.where(right[:, None], [0.3, 0.7], [0.7, 0.3])
        truth = np.ones(len(unit), int)
        return score(truth, values, "classification", groups=unit if groups else None)

    truth = {"accuracy": 2 / 3}
    assert covers(lambda generator: draw(generator, groups=False), truth)["accuracy"] < 0.85
    assert 0.92 <= covers(draw, truth)["accuracy"] <= 0.98


def test_a_calibrated_model_is_not_called_miscalibrated() -> None:
    wrong = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        values = generator.dirichlet([1, 1, 1], 200)
        truth = (generator.random(200)[:, None] > values.cumsum(1)).sum(1).clip(0, 2)
        wrong += score(truth, values, "classification")["ece"].low > 0
    assert wrong <= 6
    sharp = values**4 / (values**4).sum(1, keepdims=True)
    assert score(truth, sharp, "classification")["ece"].low > 0.05


def test_repeating_every_row_in_a_group_adds_no_certainty() -> None:
    truth, values = classified(5, 200, 3)
    once = score(truth, values, "classification")
    often = score(
        np.repeat(truth, 4), np.repeat(values, 4, 0), "classification", groups=np.repeat(np.arange(200), 4)
    )
    for name in once:
        assert often[name].value == pytest.approx(once[name].value), name
        width = once[name].high - once[name].low
        assert often[name].high - often[name].low == pytest.approx(width, rel=0.07), name


def test_what_cannot_be_said_is_left_out() -> None:
    alone = score(np.zeros(5, int), np.tile([0.8, 0.2], (5, 1)), "classification")
    assert "roc_auc" not in alone
    assert "average_precision" not in alone
    assert "balanced_accuracy" not in alone
    assert alone["accuracy"].value == 1.0
    assert "r2" not in score(np.ones((5, 1)), np.zeros((5, 1)), "regression")
    assert set(score(np.zeros(1, int), np.array([[0.8, 0.2]]), "classification")) == {"accuracy", "macro_f1"}
    assert score(np.zeros(0, int), np.zeros((0, 2)), "classification") == {}


def test_chance_is_covered_where_labels_are_random() -> None:
    inside = 0
    for seed in range(60):
        truth, values = classified(seed, 200, 4, skill=0.0)
        found = score(truth, values, "classification")
        inside += found["accuracy"].low <= 0.25 <= found["accuracy"].high
        inside += found["roc_auc"].low <= 0.5 <= found["roc_auc"].high
    assert inside >= 0.9 * 120


def test_predictions_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AyatoriError, match="finite, however 1"):
        score(np.array([0, 1]), np.array([[0.5, np.nan], [0.1, 0.9]]), "classification")
    with pytest.raises(AyatoriError, match="same rows, however: 2 and 1"):
        score(np.array([0, 1]), np.array([[0.5, 0.5]]), "classification")


def test_the_spread_is_the_deviation_over_folds() -> None:
    truth, values = classified(8, 300, 3)
    fold = np.arange(300) % 5
    found = score_folds(truth, values, fold, "classification")
    for name, one in found.items():
        each = [score(truth[fold == k], values[fold == k], "classification")[name].value for k in range(5)]
        assert one.spread == pytest.approx(np.std(each, ddof=1)), name
        assert one.value == score(truth, values, "classification")[name].value
    assert np.isnan(score_folds(truth, values, np.full(300, -1), "classification")["accuracy"].spread)


def test_scoring_leaves_the_global_generator_alone_and_repeats_itself() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    truth, values = classified(8, 300, 3)
    assert score(truth, values, "classification") == score(truth, values, "classification")
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_a_paired_comparison_of_classes_is_mcnemars() -> None:
    truth = np.zeros(100, int)
    right, wrong = np.array([0.9, 0.1]), np.array([0.1, 0.9])
    a, b = np.tile(right, (100, 1)), np.tile(right, (100, 1))
    b[:12], a[12:15] = wrong, wrong
    found = paired(truth, a, b, "classification")
    tail = stats.binom.pmf(range(4), 15, 0.5)
    assert found["difference"] == pytest.approx(0.09)
    assert found["p"] == pytest.approx(2 * (tail.sum() - tail[3] / 2))
    assert found["low"] > 0
    assert found["n"] == 100
    swapped = paired(truth, b, a, "classification")
    assert (swapped["difference"], swapped["low"], swapped["high"], swapped["p"]) == pytest.approx(
        (-found["difference"], -found["high"], -found["low"], found["p"])
    )
    assert paired(truth, a, a, "classification")["p"] == 1.0


def test_a_paired_comparison_of_numbers_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(80, 1))
    a, b = truth + 0.5 * generator.normal(size=(80, 1)), truth + generator.normal(size=(80, 1))
    expected = stats.ttest_rel(np.abs(b - truth)[:, 0], np.abs(a - truth)[:, 0])
    interval = expected.confidence_interval()
    found = paired(truth, a, b, "regression")
    assert found["p"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["difference"] > 0


def test_a_paired_interval_covers_the_true_difference() -> None:
    hits = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        truth = np.zeros(120, int)
        said = generator.choice(4, 120, p=[0.6, 0.1, 0.2, 0.1])  # both right, only b, only a, none
        a, b = (np.where(np.isin(said, keep)[:, None], [0.9, 0.1], [0.1, 0.9]) for keep in ((0, 2), (0, 1)))
        found = paired(truth, a, b, "classification")
        hits += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= hits / 300 <= 0.98


def test_equal_rivals_in_groups_differ_by_nothing() -> None:
    truth, values = classified(0, 60, 3)
    found = paired(truth, values, values, "classification", groups=np.arange(60) // 6)
    assert found == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 60.0}


def board(seed: int = 0) -> tuple[Dataset, Plan, list[Blend]]:
    """300 rows, 60 of them sealed; a good and a bad network, and a rival, out of fold and on the test."""
    truth, values = classified(seed, 300, 3, skill=2.0)
    sealed = np.arange(300) >= 240
    dataset = Dataset(
        {}, truth, Schema("arrays", "classification", ("a", "b", "c")), np.arange(300).astype(str)
    )
    plan = Plan(np.where(sealed, 253, 1).astype(np.uint8)[:, None].repeat(2, 1), ())
    noise = np.random.default_rng(1).dirichlet([1, 1, 1], 300)

    def blend(name: str, test: bool, weight: float, network: bool, members: tuple[int, ...]) -> Blend:
        rows = sealed if test else ~sealed
        said = np.where(rows[:, None], weight * values + (1 - weight) * noise, np.nan)
        fold = np.where(rows & ~sealed, np.arange(300) % 5, -1)
        return Blend(name, "test" if test else "out_of_fold", said, rows, fold, network, members)

    return (
        dataset,
        plan,
        [
            blend("bad network", False, 0.2, True, (0,)),
            blend("good network", False, 0.9, True, (1, 2)),
            blend("rival", False, 1.0, False, (0,)),
            blend("mean of bad", True, 1.0, True, (0,)),
            blend("mean of good", True, 0.1, True, (1, 2)),
        ],
    )


def test_the_leaderboard_is_sorted_and_compares_with_the_best_network() -> None:
    dataset, plan, made = board()
    entries = leaderboard(made, dataset, plan)
    assert [entry.name for entry in entries] == [
        "rival",
        "good network",
        "bad network",
        "mean of bad",
        "mean of good",
    ]
    assert entries[1].paired == {}
    assert entries[2].paired["difference"] < 0
    assert entries[2].paired["n"] == 240
    assert entries[0].scores["accuracy"].spread > 0
    assert all(entry.scores["accuracy"].n == (60 if entry.split == "test" else 240) for entry in entries)


def test_rivals_are_compared_on_the_test_with_what_was_chosen_not_with_its_best() -> None:
    dataset, plan, made = board()
    rival = dataclasses.replace(made[4], name="mean of rival", network=False)
    entries = leaderboard([*made, rival], dataset, plan)
    found = {entry.name: entry.against for entry in entries if entry.split == "test"}
    assert found["mean of rival"] == "mean of good"  # though "mean of bad" does better there
    assert {entry.name: entry.against for entry in entries}["rival"] == "good network"


def test_a_difference_of_log_losses_is_the_paired_t_test() -> None:
    truth, a = classified(0, 200, 3)
    _, b = classified(1, 200, 3)
    found = lower_loss(truth, a, b, "classification")
    rows = np.arange(200)
    expected = stats.ttest_rel(-np.log(b[rows, truth]), -np.log(a[rows, truth]))
    ends = expected.confidence_interval()
    assert found["loss"] == pytest.approx(np.log(a[rows, truth]).mean() - np.log(b[rows, truth]).mean())
    assert (found["loss_low"], found["loss_high"]) == pytest.approx((ends.low, ends.high), rel=0.01)
    assert found["loss_p"] == pytest.approx(expected.pvalue, rel=0.05)
    assert lower_loss(truth, a, b, "regression") == {}


def test_the_network_to_deliver_is_chosen_out_of_fold_never_by_the_test() -> None:
    dataset, plan, made = board()
    entries = leaderboard(made, dataset, plan)
    assert next(entry.name for entry in entries if entry.split == "test") == "mean of bad"
    assert chosen(entries, made, "classification") == "mean of good"
    assert chosen(entries[:3], made[:3], "classification") == "good network"
    only_test: list[Entry] = entries[3:]
    assert chosen(only_test, made[4:], "classification") == "mean of good"


def test_sealed_labels_are_opened_once_after_everything_else_and_only_where_needed() -> None:
    dataset, plan, made = board()
    poisoned = dataset.labels.copy()
    poisoned[240:] = 99  # would fail if it were read
    hidden = dataclasses.replace(dataset, target=poisoned)
    opened = []

    def open_test() -> np.ndarray:
        opened.append(True)
        return dataset.labels

    entries = leaderboard(made, hidden, plan, open_test)
    assert opened == [True]
    assert repr(entries) == repr(leaderboard(made, dataset, plan))
    assert len(leaderboard(made[:3], hidden, plan, open_test)) == 3
    assert opened == [True]


def test_a_blend_without_rows_is_not_scored() -> None:
    dataset, _, made = board()
    empty = dataclasses.replace(made[0], rows=np.zeros(300, bool))
    assert score_split([empty], dataset.labels, dataset, "out_of_fold") == []


def test_what_is_better_when_smaller_is_a_figure_that_exists() -> None:
    assert set(METHODS) > LOWER


def test_one_low_group_of_five_does_not_bend_the_interval_of_a_loss_beyond_reason() -> None:
    truth = np.zeros((50, 1))
    values = np.repeat([1.0, 1.02, 0.98, 1.01, 0.5], 10)[:, None]
    error = score(truth, values, "regression", groups=np.repeat(np.arange(5), 10))["mae"]
    plain = stats.t.ppf(0.975, 4) * np.std([1.0, 1.02, 0.98, 1.01, 0.5], ddof=1) / 5**0.5
    assert error.value - 1.7 * plain < error.low < error.value - 0.8 * plain
    assert error.high < error.value + 1.2 * plain
