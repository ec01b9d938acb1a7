"""How voices answer together, how boosting and bagging weigh rows: against scikit-learn and the papers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats
from sklearn.datasets import load_diabetes, load_wine, make_classification
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ayatori.ensemble import say as say_module
from ayatori.ensemble.bagging import bootstrap
from ayatori.ensemble.boosting import draw, ended, r2, rounds_to_keep, samme, samme_r, start_of
from ayatori.ensemble.say import answer, last_says, say
from ayatori.records import AyatoriError, Group, Last, Vote

RANDOM = np.random.default_rng(0)


def chances(k: int = 5, n: int = 40, c: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(c), (k, n)).astype(np.float32)


def weights_of(k: int, seed: int = 0) -> tuple[float, ...]:
    return tuple(np.random.default_rng(seed).dirichlet(np.ones(k)))


# --- say


@pytest.mark.parametrize("weights", [(), weights_of(3)])
def test_a_mean_takes_the_voices_of_its_group_alone(weights: tuple[float, ...]) -> None:
    values = chances()
    said = say(values, Group((4, 0, 2), weights), "classification")
    expected = np.average(values[[4, 0, 2]].astype(float), axis=0, weights=weights or None)
    assert said.dtype == np.float32
    np.testing.assert_allclose(said, expected, rtol=1e-6)
    np.testing.assert_array_equal(say(values, Group((3,)), "classification"), values[3])


def test_a_geometric_mean_is_the_softmax_of_the_mean_logarithm() -> None:
    values, weights = chances(), weights_of(5)
    expected = special.softmax(np.tensordot(weights, np.log(values.astype(float)), 1), axis=1)
    said = say(values, Group(range(5), weights, "geometric"), "classification")
    np.testing.assert_allclose(said, expected, rtol=1e-5)
    labels = special.expit(np.tensordot(weights, special.logit(values.astype(float)), 1))
    np.testing.assert_allclose(
        say(values, Group(range(5), weights, "geometric"), "multilabel"), labels, rtol=1e-4
    )


def test_a_majority_counts_votes_and_lets_the_probability_break_ties() -> None:
    values = np.array([[[0.9, 0.1]], [[0.45, 0.55]], [[0.48, 0.52]]])
    outvoted = say(values, Group((0, 1, 2), how="majority"), "classification")
    np.testing.assert_allclose(outvoted, [[(1 + 0.61) / 4, (2 + 0.39) / 4]], rtol=1e-6)
    tied = say(values, Group((0, 1), how="majority"), "classification")
    np.testing.assert_allclose(tied, [[(1 + 0.675) / 3, (1 + 0.325) / 3]], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(2, 4), st.booleans(), st.integers(0, 10**6))
def test_a_majority_is_a_distribution_whose_first_class_has_the_most_votes(
    k: int, c: int, weighted: bool, seed: int
) -> None:
    values = chances(k, 30, c, seed).astype(np.float64)
    weights = weights_of(k, seed) if weighted else ()
    said = say(values, Group(tuple(range(k)), weights, "majority"), "classification").astype(float)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)
    votes = np.tensordot(weights or np.full(k, 1 / k), np.eye(c)[values.argmax(axis=2)], 1)
    first = votes >= votes.max(axis=1, keepdims=True) - 1e-9
    mean = np.average(values, axis=0, weights=weights or None)
    np.testing.assert_array_equal(said.argmax(axis=1), np.where(first, mean, -1).argmax(axis=1))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.booleans(), st.integers(0, 10**6))
def test_a_majority_of_labels_says_yes_where_most_do(k: int, weighted: bool, seed: int) -> None:
    values = np.random.default_rng(seed).random((k, 30, 2))
    weights = weights_of(k, seed) if weighted else ()
    said = say(values, Group(tuple(range(k)), weights, "majority"), "multilabel")
    yes = np.tensordot(weights or np.full(k, 1 / k), values >= 0.5, 1)
    mean = np.average(values, axis=0, weights=weights or None)
    expected = np.where(np.abs(yes - 0.5) < 1e-9, mean >= 0.5, yes > 0.5)
    np.testing.assert_array_equal(said >= 0.5, expected)
    assert ((said > 0) & (said < 1)).all()


def test_a_median_is_the_middle_of_equal_voices_and_the_lower_weighted_one_of_others() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])[:, None, None]
    assert say(values, Group((0, 1, 2), how="median"), "regression") == 2
    assert say(values, Group((0, 1, 2, 3), how="median"), "regression") == 3
    assert say(values, Group((3, 0, 1, 2), (0.1, 0.4, 0.1, 0.4), "median"), "regression") == 2


def test_a_sum_adds_steps_to_its_start() -> None:
    steps, lengths, start = RANDOM.normal(size=(4, 20, 3)), (0.3, 0.3, 0.3, 0.1), (0.5, -1.0, 0.2)
    total = np.tensordot(lengths, steps, 1) + start
    group = Group((0, 1, 2, 3), lengths, "sum", start)
    np.testing.assert_allclose(say(steps, group, "classification"), special.softmax(total, axis=1), rtol=1e-5)
    np.testing.assert_allclose(say(steps, group, "multilabel"), special.expit(total), rtol=1e-5)
    np.testing.assert_allclose(say(steps, group, "regression"), total, rtol=1e-5)
    unweighted = say(steps, Group((0, 1), how="sum"), "regression")
    np.testing.assert_allclose(unweighted, steps[0] + steps[1], rtol=1e-5)
    far = say(np.full((1, 1, 2), 1e4) * [1, -1], Group((0,), how="sum"), "multilabel")
    np.testing.assert_array_equal(far, [[1, 0]])


HOWS = {
    "classification": ("mean", "majority", "geometric", "sum"),
    "multilabel": ("mean", "majority", "geometric", "sum"),
    "regression": ("mean", "median", "sum"),
}


@pytest.mark.parametrize("task", HOWS)
def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, weights = chances(k=4, n=57), weights_of(4)
    votes = [Vote((Group((0, 1, 2, 3), weights, how),)) for how in HOWS[task]]
    votes.append(Vote((Group((0, 1)), Group((2, 3)))))
    votes.append(Vote(votes[-1].groups, Last((0.7, 0.4), (0.1, 0.0, -0.1))))
    whole = [answer(values, vote, task) for vote in votes]
    monkeypatch.setattr(say_module, "CELLS", 50)
    for vote, expected in zip(votes, whole, strict=True):
        np.testing.assert_array_equal(answer(values, vote, task), expected)
        np.testing.assert_array_equal(answer(values[:, 13:14], vote, task), expected[13:14])


def test_groups_answer_by_their_mean_or_by_a_last_model() -> None:
    values = chances(k=4)
    groups = (Group((0, 1)), Group((2, 3), (0.25, 0.75)))
    said = np.stack([say(values, group, "classification") for group in groups])
    np.testing.assert_allclose(answer(values, Vote(groups), "classification"), said.mean(0), rtol=1e-6)
    last = Last((0.7, 0.4), (0.1, 0.0, -0.1))
    logits = np.tensordot(last.weights, np.log(said.astype(float)), 1) + last.bias
    found = answer(values, Vote(groups, last), "classification")
    np.testing.assert_allclose(found, special.softmax(logits, axis=1), rtol=1e-5)
    straight = np.tensordot(last.weights, said, 1) + last.bias
    np.testing.assert_allclose(last_says(last, said, "regression"), straight, rtol=1e-5)
    logits = np.tensordot(last.weights, special.logit(said.astype(float)), 1) + last.bias
    np.testing.assert_allclose(last_says(last, said, "multilabel"), special.expit(logits), rtol=1e-4)


@pytest.mark.parametrize(
    ("group", "task", "reason"),
    [
        (Group((0,), how="median"), "classification", "the median is for numbers"),
        (Group((0,), how="median"), "multilabel", "the median is for numbers"),
        (Group((0,), how="majority"), "regression", "use median"),
        (Group(()), "classification", "some of the 5 voices"),
        (Group((5,)), "classification", "some of the 5 voices"),
        (Group((0, 1), (1.0,)), "classification", "one positive weight for each of its 2 voices"),
        (Group((0, 1), (1.5, -0.5)), "classification", "one positive weight"),
        (Group((0,), how="sum", start=(1.0,)), "classification", "must have 3 values"),
        (Group((0,), how="majorty"), "classification", "did you mean 'majority'"),  # type: ignore[arg-type]
    ],
)
def test_a_group_that_does_not_fit_is_refused(group: Group, task: str, reason: str) -> None:
    with pytest.raises(AyatoriError, match=reason):
        say(chances(), group, task)


def test_a_vote_that_does_not_fit_is_refused() -> None:
    with pytest.raises(AyatoriError, match="at least one group"):
        answer(chances(), Vote(()), "classification")
    with pytest.raises(AyatoriError, match="one weight for each of 5 groups"):
        last_says(Last((1.0,), (0.0, 0.0, 0.0)), chances(), "classification")


# --- boosting


class SeenClassifier(AdaBoostClassifier):
    def _boost(self, iboost, X, y, sample_weight, random_state):
        self.seen_ = [*(self.seen_ if iboost else ()), sample_weight.copy()]
        return super()._boost(iboost, X, y, sample_weight, random_state)


class SeenRegressor(AdaBoostRegressor):
    def _boost(self, iboost, X, y, sample_weight, random_state):
        self.seen_ = [*(self.seen_ if iboost else ()), sample_weight.copy()]
        return super()._boost(iboost, X, y, sample_weight, random_state)


@pytest.mark.parametrize(("classes", "rate"), [(2, 1.0), (3, 1.0), (4, 0.5)])
def test_samme_on_stumps_is_scikit_learns_round_by_round(classes: int, rate: float) -> None:
    x, y = make_classification(400, 8, n_informative=5, n_classes=classes, flip_y=0.05, random_state=classes)
    stump = DecisionTreeClassifier(max_depth=1)
    theirs = SeenClassifier(stump, n_estimators=25, learning_rate=rate, random_state=0).fit(x[:300], y[:300])
    assert len(theirs.estimators_) == 25
    weights, votes = np.full(300, 1 / 300), []
    for number, learner in enumerate(theirs.estimators_):
        np.testing.assert_allclose(weights, theirs.seen_[number], rtol=1e-6, atol=1e-12)
        one = samme(weights, learner.predict(x[:300]) != y[:300], classes, rate)
        assert one.error == pytest.approx(theirs.estimator_errors_[number], abs=1e-9)
        assert one.vote == pytest.approx(theirs.estimator_weights_[number], abs=1e-6)
        assert not one.reason
        weights = one.weights
        votes.append(one.vote)
    said = np.stack([learner.predict_proba(x) for learner in theirs.estimators_])
    group = Group(tuple(range(25)), tuple(np.array(votes) / sum(votes)), "majority")
    np.testing.assert_array_equal(say(said, group, "classification").argmax(1), theirs.predict(x))


def test_samme_ends_at_chance_and_leaves_a_faultless_round_to_the_caller() -> None:
    weights = np.full(6, 1 / 6)
    chance = samme(weights, np.arange(6) < 4, classes=3)
    assert (chance.vote, chance.error) == (0.0, pytest.approx(2 / 3))
    assert "no better than chance, 0.667" in chance.reason
    np.testing.assert_allclose(chance.weights, weights)
    assert not samme(weights, np.arange(6) < 3, classes=3).reason
    once = samme(weights, np.arange(6) < 2, classes=3)
    assert samme(once.weights, np.arange(6) < 2, classes=3).reason  # the same network again is of no use
    perfect = samme(weights, np.zeros(6, bool), classes=3)
    assert (perfect.error, perfect.vote, perfect.reason) == (0.0, 1.0, "")
    with pytest.raises(AyatoriError, match="finite and not all 0"):
        samme(np.zeros(3), np.zeros(3, bool), 2)


def test_rows_without_weight_stay_out_and_no_other_row_is_ever_lost() -> None:
    weights = np.array([0.0, 1e-300, 0.5, 0.5])
    wrong = np.array([True, False, True, False])
    for _ in range(50):
        weights = samme(weights, wrong, 2, rate=5.0).weights
        wrong = ~wrong
        assert weights[0] == 0
        assert (weights[1:] > 0).all()
        assert weights.sum() == pytest.approx(1)


def paper_samme_r(weights, probabilities, truth):
    """Zhu et al. 2009, algorithm 4, step 2 (c) to (e), as it stands there."""
    n, K = probabilities.shape
    h, after = np.empty((n, K)), np.empty(n)
    for i in range(n):
        logs = [np.log(probabilities[i, k]) for k in range(K)]
        for k in range(K):
            h[i, k] = (K - 1) * (logs[k] - sum(logs) / K)
        y = [1 if k == truth[i] else -1 / (K - 1) for k in range(K)]
        after[i] = weights[i] * np.exp(-(K - 1) / K * sum(y[k] * logs[k] for k in range(K)))
    return h, after / after.sum()


@pytest.mark.parametrize("classes", [2, 4])
def test_samme_r_is_the_published_algorithm_and_its_answer_the_geometric_mean(classes: int) -> None:
    rounds = np.clip(chances(6, 50, classes).astype(float), 1e-3, None)
    rounds /= rounds.sum(axis=2, keepdims=True)
    truth = RANDOM.integers(0, classes, 50)
    weights, total = np.full(50, 0.02), np.zeros((50, classes))
    for probabilities in rounds:
        h, expected = paper_samme_r(weights, probabilities, truth)
        one = samme_r(weights, probabilities, truth)
        assert one.error == pytest.approx(weights[probabilities.argmax(1) != truth].sum())
        assert (one.vote, one.reason) == (1.0, "")
        np.testing.assert_allclose(one.weights, expected, rtol=1e-9)
        weights, total = one.weights, total + h
    said = say(rounds, Group(tuple(range(6)), how="geometric"), "classification")
    np.testing.assert_array_equal(said.argmax(1), total.argmax(1))
    np.testing.assert_allclose(said, special.softmax(total / 6 / (classes - 1), axis=1), rtol=1e-5)


def test_samme_r_survives_a_network_that_is_sure_of_wrong_rows() -> None:
    sure = np.eye(3)[[0, 1, 2, 2]]
    weights = samme_r(np.full(4, 0.25), sure, np.array([0, 1, 2, 0])).weights
    assert weights.argmax() == 3
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


@pytest.mark.parametrize(("loss", "rate"), [("linear", 1.0), ("square", 1.0), ("exponential", 0.5)])
def test_r2_is_scikit_learns_round_by_round_and_so_is_the_weighted_median(loss: str, rate: float) -> None:
    x, y = load_diabetes(return_X_y=True)
    tree = DecisionTreeRegressor(max_depth=3)
    theirs = SeenRegressor(tree, n_estimators=12, loss=loss, learning_rate=rate, random_state=0)
    theirs.fit(x[:300], y[:300])
    assert len(theirs.estimators_) >= 8
    weights, votes = np.full(300, 1 / 300), []
    for number, learner in enumerate(theirs.estimators_):
        np.testing.assert_allclose(weights, theirs.seen_[number], rtol=1e-6, atol=1e-12)
        one = r2(weights, np.abs(learner.predict(x[:300]) - y[:300]), rate, loss)
        assert one.error == pytest.approx(theirs.estimator_errors_[number], abs=1e-9)
        assert one.vote == pytest.approx(theirs.estimator_weights_[number], abs=1e-6)
        weights = one.weights
        votes.append(one.vote)
    said = np.stack([learner.predict(x)[:, None] for learner in theirs.estimators_])
    group = Group(tuple(range(len(votes))), tuple(np.array(votes) / sum(votes)), "median")
    np.testing.assert_allclose(say(said, group, "regression")[:, 0], theirs.predict(x), rtol=1e-6)


def test_r2_ends_at_a_half_and_leaves_a_faultless_round_to_the_caller() -> None:
    ended_here = r2(np.full(4, 0.25), np.array([1.0, 1.0, 1.0, 0.0]))
    assert (ended_here.error, ended_here.vote) == (0.75, 0.0)
    assert "no better than chance" in ended_here.reason
    perfect = r2(np.full(4, 0.25), np.zeros(4))
    assert (perfect.error, perfect.vote, perfect.reason) == (0.0, 1.0, "")
    ignored = r2(np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 1e9]))  # that row has no weight
    assert ignored.error == pytest.approx(0.5)


def test_gradient_boosting_starts_at_the_shares_the_odds_or_the_mean() -> None:
    y = load_wine().target
    shares = np.exp(start_of(y, "classification", 4))
    np.testing.assert_allclose(shares, (np.bincount(y, minlength=4) + 1) / (len(y) + 4))
    labels = np.array([[1, 0], [1, 0], [0, 0]], np.float32)
    np.testing.assert_allclose(special.expit(start_of(labels, "multilabel", 2)), [3 / 5, 1 / 5])
    values = RANDOM.normal(size=(9, 2))
    np.testing.assert_allclose(start_of(values, "regression", 2), values.mean(axis=0))


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1).map(lambda w: w if w > 1e-9 else 0.0)),
    st.integers(1, 2000),
    st.integers(0, 100),
)
def test_drawn_counts_are_rounded_expectations_and_make_up_the_size(
    weights: np.ndarray, size: int, seed: int
) -> None:
    held = int((weights > 0).sum())
    if not held or size > 250 * held:
        with pytest.raises(AyatoriError):
            draw(weights, size, seed)
        return
    counts = draw(weights, size, seed)
    assert counts.dtype == np.uint8
    assert counts.sum() == size
    assert counts.max() <= 250
    assert not counts[weights == 0].any()
    expected = size * weights / weights.sum()
    if expected.max() <= 250:
        assert (counts >= np.floor(expected - 1e-9)).all()
        assert (counts <= np.ceil(expected + 1e-9)).all()
    else:
        assert (counts[expected > 250] == 250).all()
        assert (counts >= np.floor(expected - 1e-9))[expected <= 250].all()
    np.testing.assert_array_equal(counts, draw(weights, size, seed))


def test_a_row_is_drawn_on_average_as_often_as_its_weight_says() -> None:
    weights = np.random.default_rng(3).dirichlet(np.full(30, 0.5))
    drawn = np.array([draw(weights, 50, seed) for seed in range(2000)])
    # a count is one of two neighbours, so its standard deviation is at most a half
    np.testing.assert_allclose(drawn.mean(axis=0), 50 * weights, atol=5 * 0.5 / np.sqrt(2000))
    capped = draw(np.array([0.9, 0.05, 0.03, 0.02]), 400, 0)
    np.testing.assert_array_equal(capped, [250, 75, 45, 30])


def test_neighbouring_rows_are_drawn_no_more_apart_than_others() -> None:
    drawn = np.array([draw(np.full(20, 0.05), 10, seed) for seed in range(2000)])
    pairs = np.corrcoef(drawn.T)
    # in the order of the rows every second one would be drawn, whatever the seed: -1
    np.testing.assert_allclose(np.diag(pairs, 1), -1 / 19, atol=0.12)


def test_boosting_ends_when_the_stop_loss_sinks_no_more() -> None:
    losses = [0.9, 0.5, 0.6, 0.5, 0.55]
    assert rounds_to_keep(losses) == 2
    assert [ended(losses[:length], 2) for length in range(6)] == [False, False, False, False, True, True]
    assert not ended(losses, 4)
    assert not ended([0.5], 0)
    assert ended([0.5, 0.6], 0)
    assert rounds_to_keep([float("nan"), 0.3]) == 2
    assert rounds_to_keep([]) == 0


# --- bagging


def test_counts_of_a_bag_follow_the_multinomial() -> None:
    n, bags = 60, 4000
    counts = np.array([bootstrap(np.zeros(n, int), stratified=False, seed=seed) for seed in range(bags)])
    assert counts.dtype == np.uint8
    assert (counts.sum(axis=1) == n).all()
    assert stats.chisquare(counts.sum(axis=0)).pvalue > 1e-3  # every row as likely as another
    seen = np.bincount(np.minimum(counts, 5).ravel(), minlength=6)
    binomial = stats.binom(n, 1 / n)
    expected = np.append(binomial.pmf(range(5)), binomial.sf(4)) * counts.size
    np.testing.assert_allclose(seen / counts.size, expected / counts.size, atol=0.003)
    assert (counts == 0).mean() == pytest.approx((1 - 1 / n) ** n, abs=0.002)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)
    assert counts.var() == pytest.approx(1 - 1 / n, rel=0.02)
    pairs = np.cov(counts.T)[np.triu_indices(n, 1)]
    assert pairs.mean() == pytest.approx(-1 / n, rel=0.02)
    single = stats.chisquare(
        np.bincount(np.minimum(counts[:, 0], 4), minlength=5),
        bags * np.append(binomial.pmf(range(4)), binomial.sf(3)),
    )
    assert single.pvalue > 1e-3


def test_a_large_bag_leaves_out_36_8_percent() -> None:
    counts = bootstrap(np.arange(100_000) % 7, seed=1)
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)


@settings(max_examples=80, deadline=None)
@given(
    arrays(np.int64, st.integers(1, 80), elements=st.integers(0, 6)),
    st.floats(0.05, 2.0),
    st.integers(0, 100),
)
def test_a_stratified_bag_holds_every_stratum_in_its_proportion(
    strata: np.ndarray, share: float, seed: int
) -> None:
    counts = bootstrap(strata, share, True, seed)
    sizes = np.bincount(strata)
    drawn = np.bincount(strata, counts, len(sizes))[sizes > 0]
    total = max(round(share * len(strata)), 1)
    assert drawn.sum() == max(total, len(drawn))
    assert (drawn >= 1).all()
    wanted = total * sizes[sizes > 0] / len(strata)
    if (wanted >= 1).all():
        assert (np.abs(drawn - wanted) < 1).all()
    np.testing.assert_array_equal(counts, bootstrap(strata, share, True, seed))


def test_a_bag_within_a_stratum_is_uniform_and_its_size_is_a_share() -> None:
    strata = np.repeat([0, 3, 9], [30, 20, 10])[np.random.default_rng(0).permutation(60)]
    counts = np.array([bootstrap(strata, 0.5, True, seed) for seed in range(2000)])
    for stratum, size in ((0, 15), (3, 10), (9, 5)):
        own = counts[:, strata == stratum]
        assert (own.sum(axis=1) == size).all()
        assert stats.chisquare(own.sum(axis=0)).pvalue > 1e-3
