"""Weights of voices, the last model of a stack, and why voices help: against plain loops and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, make_classification, make_regression
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVC

from ayatori.ensemble import greedy as greedy_module
from ayatori.ensemble import stacking
from ayatori.ensemble.diversity import diversity
from ayatori.ensemble.greedy import by_loss, greedy
from ayatori.ensemble.losses import row_losses
from ayatori.ensemble.say import evidence, features, last_says, say
from ayatori.ensemble.stacking import fit_last, make_last, penalised
from ayatori.records import AyatoriError, Group, Last

TASKS = ("classification", "multilabel", "regression")


def voices(task: str, k: int = 4, n: int = 200, c: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What k voices of different worth say, and the truth."""
    random = np.random.default_rng(seed)
    noise = np.linspace(1.5, 3.5, k)[:, None, None] * random.normal(size=(k, n, c))
    if task == "classification":
        truth = random.integers(0, c, n)
        return special.softmax(1.5 * np.eye(c)[truth] + noise, axis=2).astype(np.float32), truth
    if task == "multilabel":
        truth = random.integers(0, 2, (n, c)).astype(np.float32)
        return special.expit(3 * truth - 1.5 + noise).astype(np.float32), truth
    truth = random.normal(size=(n, c)) * [1, 10, 0.1][:c]
    return (truth + noise * truth.std(axis=0)).astype(np.float32), truth


def loss_of(values: np.ndarray, truth: np.ndarray, task: str) -> float:
    return float(row_losses(values, truth, task).mean())


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_a_row_is_scikit_learns(task: str) -> None:
    values, truth = voices(task)
    said = values[0].astype(float)
    said /= said.sum(axis=1, keepdims=True) if task == "classification" else 1.0
    if task == "classification":
        expected = log_loss(truth, said, labels=range(3))
    elif task == "multilabel":
        expected = np.mean([log_loss(truth[:, label], said[:, label]) for label in range(3)])
    else:
        expected = np.mean(((said - truth) / truth.std(axis=0)) ** 2)
    assert loss_of(values[0], truth, task) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(row_losses(values, truth, task)[2], row_losses(values[2], truth, task))


# --- weights


def caruana(values: np.ndarray, truth: np.ndarray, task: str, rounds: int) -> np.ndarray:
    """Caruana et al. 2004 as it is told: bags of voices, all tried, the best bag on the way kept."""
    bags: list[list[int]] = []
    for _ in range(rounds + 1):
        tried = [[*(bags[-1] if bags else []), voice] for voice in range(len(values))]
        losses = [loss_of(values[bag].mean(axis=0), truth, task) for bag in tried]
        bags.append(tried[int(np.argmin(losses))])
    best = min(bags, key=lambda bag: loss_of(values[bag].mean(axis=0), truth, task))
    return np.bincount(best, minlength=len(values)) / len(best)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_the_greedy_search_is_caruanas(task: str, seed: int) -> None:
    values, truth = voices(task, k=5, n=60, seed=seed)
    values = values.astype(np.float64)
    found = greedy(values, truth, task, rounds=12)
    np.testing.assert_allclose(found, caruana(values, truth, task, 12), atol=1e-12)
    alone = min(loss_of(voice, truth, task) for voice in values)
    assert loss_of(np.tensordot(found, values, 1), truth, task) <= alone + 1e-12


def test_the_greedy_search_takes_the_first_of_equals_and_needs_not_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, truth = voices("classification", k=3, n=4000)
    assert greedy(values[[1, 1, 1]], truth, "classification").tolist() == [1, 0, 0]
    whole = greedy(values, truth, "classification")
    monkeypatch.setattr(greedy_module, "CELLS", 6000)
    np.testing.assert_allclose(greedy(values, truth, "classification"), whole, atol=0.15)


def test_voices_that_leave_rows_out_are_refused() -> None:
    values, truth = voices("classification")
    values[2, 7] = np.nan
    for refuse in (greedy, fit_last):
        with pytest.raises(AyatoriError, match="of 1 rows one does not"):
            refuse(values, truth, "classification")
        with pytest.raises(AyatoriError, match="each of the 9 rows"):
            refuse(values, truth[:9], "classification")


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_weights_by_loss_fall_with_the_loss_and_sum_to_one(losses: list[float]) -> None:
    weights = by_loss(losses)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    order = np.argsort(losses)
    assert (np.diff(weights[order]) <= 1e-12).all()
    assert weights[np.argmin(losses)] >= 1 / len(losses) - 1e-12


def test_weights_by_loss_are_the_fourth_power_of_ratios() -> None:
    np.testing.assert_allclose(by_loss([0.2, 0.4]), [16 / 17, 1 / 17])
    np.testing.assert_allclose(by_loss([0.0, 0.0, 1.0]), [0.5, 0.5, 0], atol=1e-12)
    with pytest.raises(AyatoriError, match="finite and not negative"):
        by_loss([0.1, float("nan")])


# --- stacking


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_the_gradient_of_the_last_model_is_that_of_its_loss(task: str) -> None:
    said, truth = voices(task, n=40)
    wanted = np.eye(3)[truth] if task == "classification" else truth
    point = np.random.default_rng(1).normal(size=7)
    arguments = (evidence(said, task), wanted, task)
    slope = optimize.approx_fprime(point, lambda at: penalised(at, *arguments)[0], 1e-6)
    np.testing.assert_allclose(penalised(point, *arguments)[1], slope, atol=1e-4)


def test_the_last_model_of_one_label_is_scikit_learns_logistic_regression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, truth = voices("multilabel", c=1, n=500)
    monkeypatch.setattr(stacking, "TOWARDS_MEAN", 0.0)
    monkeypatch.setattr(stacking, "TOWARDS_NOTHING", 0.0)
    last = fit_last(said, truth, "multilabel")
    theirs = LogisticRegression(C=1e9, tol=1e-8, max_iter=1000)
    theirs.fit(evidence(said, "multilabel")[:, :, 0].T, truth[:, 0])
    assert (theirs.coef_ > 0).all()
    np.testing.assert_allclose(last.weights, theirs.coef_[0], atol=2e-3)
    np.testing.assert_allclose(last.bias, theirs.intercept_, atol=2e-3)


def test_the_last_model_of_numbers_is_ridge_regression_towards_the_mean() -> None:
    said, truth = voices("regression", n=80)
    last = fit_last(said, truth, "regression")
    unit = truth.std(axis=0)
    table = ((said - said.mean(axis=1, keepdims=True)) / unit).reshape(4, -1).T
    wanted = ((truth - truth.mean(axis=0)) / unit).reshape(-1)
    s = np.mean(((said.mean(axis=0) - truth) / unit) ** 2)
    pull = 2.0 * s / 80
    stacked = np.vstack([table / np.sqrt(len(table)), np.sqrt(pull) * np.eye(4)])
    aim = np.concatenate([wanted / np.sqrt(len(table)), np.full(4, np.sqrt(pull) / 4)])
    expected = optimize.lsq_linear(stacked, aim, (0, np.inf), tol=1e-14).x
    np.testing.assert_allclose(last.weights, expected, atol=1e-5)
    residual = truth - last_says(last, said, "regression")
    np.testing.assert_allclose(residual.mean(axis=0) / unit, 0, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_voice_that_says_the_opposite_gets_no_weight_rather_than_a_negative_one(task: str) -> None:
    said, truth = voices(task, n=400)
    opposite = -said[0] if task == "regression" else (1 - said[0]) / (2 if task == "classification" else 1)
    last = fit_last(np.stack([said[1], opposite]), truth, task)
    assert last.weights[0] > 0.1
    assert last.weights[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_without_evidence_the_last_model_is_the_plain_mean(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, truth = voices(task)
    monkeypatch.setattr(stacking, "TOWARDS_MEAN", 1e9)
    monkeypatch.setattr(stacking, "TOWARDS_NOTHING", 1e9)
    last = fit_last(said, truth, task)
    np.testing.assert_allclose(last.weights, 0.25, atol=1e-3)
    if task != "regression":
        np.testing.assert_allclose(last.bias, 0, atol=1e-3)
        mean = say(said, Group((0, 1, 2, 3), how="geometric"), task)
        np.testing.assert_allclose(last_says(last, said, task), mean, atol=5e-3)
    few = fit_last(said[:, :9], np.zeros(9, int), "classification")
    assert few == Last((0.25,) * 4, (0.0,) * 3)


def out_of_fold(models: list, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """What models say of half the rows out of fold, and of the others when fitted on the first half."""
    here, there = train_test_split(np.arange(len(y)), test_size=0.5, random_state=seed)
    method = "predict_proba" if hasattr(models[0], "predict_proba") else "predict"
    said = [cross_val_predict(model, x[here], y[here], cv=5, method=method) for model in models]
    later = [getattr(clone(model).fit(x[here], y[here]), method)(x[there]) for model in models]
    shape = (len(models), len(here), -1)
    return np.reshape(said, shape), y[here], np.reshape(later, (len(models), len(there), -1)), y[there]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("source", ["cancer", "made"])
def test_memorising_and_noisy_voices_do_no_harm_among_classes(source: str, seed: int) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    if source == "made":
        x, y = make_classification(900, 12, n_informative=6, n_classes=3, class_sep=2, random_state=seed)
    x = StandardScaler().fit_transform(x)
    # a neighbour is right about every row that it learned from, and sure of all others
    models = [LogisticRegression(), KNeighborsClassifier(1), KNeighborsClassifier(1, metric="manhattan")]
    said, truth, later, true = out_of_fold(models, x, y, seed)
    random, c = np.random.default_rng(seed), said.shape[2]
    said = np.concatenate([said, random.dirichlet(np.ones(c), (3, len(truth)))])
    later = np.concatenate([later, random.dirichlet(np.ones(c), (3, len(true)))])
    alone = loss_of(later[0], true, "classification")
    last = fit_last(said, truth, "classification")
    assert loss_of(last_says(last, later, "classification"), true, "classification") < alone + 0.02
    # in which the plain mean fails, so that the test can
    assert loss_of(later.mean(axis=0), true, "classification") > alone + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_memorising_and_noisy_voices_do_no_harm_among_numbers(seed: int) -> None:
    x, y = make_regression(600, 12, n_informative=6, noise=40, random_state=seed)
    said, truth, later, true = out_of_fold([Ridge(), KNeighborsRegressor(1)], x, y, seed)
    random = np.random.default_rng(seed)
    said = np.concatenate([said, y.std() * random.normal(size=(3, len(truth), 1))])
    later = np.concatenate([later, y.std() * random.normal(size=(3, len(true), 1))])
    alone = loss_of(later[0], true, "regression")
    last = fit_last(said, truth, "regression")
    assert loss_of(last_says(last, later, "regression"), true, "regression") < alone * 1.03
    assert loss_of(later.mean(axis=0), true, "regression") > alone * 1.5


@pytest.mark.parametrize("kind", ["auto", "logistic", "network"])
def test_where_labels_are_random_a_stack_claims_little(kind: str) -> None:
    random = np.random.default_rng(5)
    said = random.dirichlet(np.ones(3), (4, 1200)).astype(np.float32)
    truth = random.integers(0, 3, 1200)
    last = fit_last(said[:, :800], truth[:800], "classification", kind)
    found = last_says(last, said[:, 800:], "classification")
    held = loss_of(found, truth[800:], "classification")
    assert held < np.log(3) + {"auto": 0.02, "logistic": 0.05, "network": 0.35}[kind]
    right = (found.argmax(axis=1) == truth[800:]).mean()
    assert abs(right - 1 / 3) < 3 * np.sqrt(2 / 9 / 400)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["auto", "logistic", "network"])
def test_every_named_last_model_beats_the_worst_voices_of_every_task(task: str, kind: str) -> None:
    said, truth = voices(task, n=900)
    last = fit_last(said[:, :600], truth[:600], task, kind, seed=3)
    found = last_says(last, said[:, 600:], task)
    assert found.dtype == np.float32
    assert found.shape == (300, 3)
    alone = sorted(loss_of(voice[600:], truth[600:], task) for voice in said)
    assert loss_of(found, truth[600:], task) < alone[0] * 1.05
    again = last_says(fit_last(said[:, :600], truth[:600], task, kind, seed=3), said[:, 600:], task)
    np.testing.assert_array_equal(found, again)


def test_an_estimator_gets_all_outputs_side_by_side() -> None:
    said, truth = voices("classification")
    forest = RandomForestClassifier(20, random_state=0)
    last = fit_last(said, truth, "classification", forest)
    table = np.concatenate(list(said), axis=1).astype(float)
    np.testing.assert_array_equal(features(said), table)
    expected = clone(forest).fit(table, truth).predict_proba(table)
    np.testing.assert_allclose(last_says(last, said, "classification"), expected, rtol=1e-6)
    assert not hasattr(forest, "estimators_")  # the user's own is left as it was
    named = fit_last(said, truth, "classification", "sklearn.ensemble:RandomForestClassifier", seed=7)
    assert named.model.random_state == 7


def test_a_class_that_the_last_model_never_saw_keeps_what_the_groups_say_of_it() -> None:
    said, truth = voices("classification", c=4)
    kept = truth != 1
    last = fit_last(said[:, kept], truth[kept], "classification", GaussianNB())
    found = last_says(last, said, "classification").astype(float)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], said.mean(axis=0)[:, 1], rtol=1e-5)
    known = last.model.predict_proba(features(said))
    np.testing.assert_allclose(found[:, [0, 2, 3]] / (1 - found[:, [1]]), known, atol=1e-6)
    auto = last_says(fit_last(said[:, kept], truth[kept], "classification"), said, "classification")
    assert (auto[:, 1] > 0).all()


def test_labels_are_scikit_learns_multi_output_and_one_that_never_varies_keeps_the_mean() -> None:
    said, truth = voices("multilabel")
    model = LogisticRegression()
    theirs = MultiOutputClassifier(model).fit(features(said), truth.astype(int))
    expected = np.stack([part[:, 1] for part in theirs.predict_proba(features(said))], axis=1)
    found = last_says(fit_last(said, truth, "multilabel", model), said, "multilabel")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    truth[:, 2] = 1
    for kind in (model, "logistic"):
        found = last_says(fit_last(said, truth, "multilabel", kind), said, "multilabel")
        np.testing.assert_allclose(found[:, 2], said.mean(axis=0)[:, 2], rtol=1e-5)


@pytest.mark.parametrize(
    "model", [LinearRegression(), SVR(), Lasso()], ids=lambda model: type(model).__name__
)
@pytest.mark.parametrize("c", [1, 3])
def test_numbers_come_from_any_regressor(model: object, c: int) -> None:
    said, truth = voices("regression", c=c)
    last = fit_last(said, truth[:, 0] if c == 1 else truth, "regression", model)
    expected = [clone(model).fit(features(said), column).predict(features(said)) for column in truth.T]
    found = last_says(last, said, "regression")
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=0.02, atol=0.02)


def test_the_last_model_sees_the_inputs_with_their_gaps_filled() -> None:
    random = np.random.default_rng(0)
    said = random.dirichlet(np.ones(2), (2, 400))
    inputs = random.normal(size=(400, 3))
    truth = (inputs[:, 0] > 0).astype(int)  # which only the inputs tell
    inputs[::10, 1] = np.nan
    inputs[:, 2] = np.nan
    knows_gaps = HistGradientBoostingClassifier(max_iter=10)
    for kind in ("auto", "logistic", "network", LogisticRegression(), knows_gaps):
        given = inputs[:, :2] if kind is knows_gaps else inputs
        last = fit_last(said, truth, "classification", kind, given)
        found = last_says(last, said, "classification", given)
        assert isinstance(last.model, HistGradientBoostingClassifier) == (kind is knows_gaps)
        assert (found.argmax(axis=1) == truth).mean() > 0.9
        with pytest.raises(AyatoriError, match="fitted on the inputs too"):
            last_says(last, said, "classification")
    assert fit_last(said, truth, "classification").inputs is False


@pytest.mark.parametrize(
    ("kind", "task", "reason"),
    [
        ("logistc", "classification", "must be auto, logistic, network, .* did you mean 'logistic'?"),
        ("sklearn.svm:Nothing", "classification", "can be made without arguments, however 'sklearn.svm:No"),
        ("no_such_package:Thing", "classification", "No module named"),
        ("sklearn.multioutput:MultiOutputClassifier", "classification", "without arguments"),
        (LinearSVC(), "classification", "must give probabilities .* however LinearSVC does not"),
        (Ridge(), "multilabel", "must give probabilities .* however Ridge does not"),
        (GaussianNB(), "regression", "must predict numbers, however GaussianNB does not"),
        (3.5, "classification", "however 3.5"),
    ],
)
def test_a_last_model_that_cannot_serve_is_refused_in_one_sentence(
    kind: object, task: str, reason: str
) -> None:
    with pytest.raises(AyatoriError, match=reason) as caught:
        make_last(kind, task, 1)
    assert str(caught.value).splitlines()[0].startswith("`stack_model` must")


def test_an_estimator_that_fails_is_said_in_one_sentence() -> None:
    said, truth = voices("classification")
    failing = make_pipeline(StandardScaler(), LogisticRegression(C=-1))
    with pytest.raises(AyatoriError, match="`stack_model` must be fitted on 12 numbers a row, however Pipel"):
        fit_last(said, truth, "classification", failing)


def test_a_named_last_model_learns_from_a_bounded_number_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    said, truth = voices("classification", n=3000)
    whole = fit_last(said, truth, "classification")
    monkeypatch.setattr(stacking, "CELLS", 12 * 1500)
    monkeypatch.setattr(stacking, "ROWS", 10)
    part = fit_last(said, truth, "classification", seed=1)
    assert part != whole
    np.testing.assert_allclose(part.weights, whole.weights, rtol=0.2, atol=0.1)


# --- diversity


@pytest.mark.parametrize("task", TASKS)
def test_diversity_says_what_plain_loops_say(task: str) -> None:
    values, truth = voices(task)
    values = values.astype(np.float64)
    found = diversity(values, truth, task, list("abcd"))
    assert found["n"] == 200
    mean = loss_of(values.mean(axis=0), truth, task)
    assert found["together"]["loss"] == pytest.approx(mean)
    for voice, member in enumerate(found["members"]):
        assert member["name"] == "abcd"[voice]
        assert member["loss"] == pytest.approx(loss_of(values[voice], truth, task))
        without = loss_of(np.delete(values, voice, axis=0).mean(axis=0), truth, task)
        assert member["gain"] == pytest.approx(without - mean)
    if task == "classification":
        told, off = values.argmax(axis=2), 1 - values[:, np.arange(200), truth]
        assert found["members"][1]["accuracy"] == (told[1] == truth).mean()
    elif task == "multilabel":
        told, off = values > 0.5, np.abs(values - truth).reshape(4, -1)
        assert found["members"][1]["accuracy"] == (told[1] == (truth > 0.5)).mean()
    else:
        off = ((values - truth) / truth.std(axis=0)).reshape(4, -1)
        assert found["members"][1]["r2"] == pytest.approx(1 - (off[1] ** 2).mean())
    np.testing.assert_allclose(found["correlation"], np.corrcoef(off), atol=1e-9)
    for a, b in itertools.combinations(range(4), 2):
        apart = (
            np.sqrt(((off[a] - off[b]) ** 2).mean()) if task == "regression" else (told[a] != told[b]).mean()
        )
        assert found["disagreement"][a][b] == found["disagreement"][b][a] == pytest.approx(apart)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TASKS), st.integers(2, 5), st.integers(0, 10**6))
def test_the_mean_is_never_worse_than_its_members_are_on_average(task: str, k: int, seed: int) -> None:
    values, truth = voices(task, k=k, n=30, seed=seed)
    found = diversity(values.astype(np.float64), truth, task, [str(voice) for voice in range(k)])
    assert found["ambiguity"] >= -1e-9
    assert found["ambiguity"] == pytest.approx(found["loss_of_members"] - found["together"]["loss"])
    if task == "regression":  # Krogh and Vedelsby: exactly the spread of the voices
        spread = values.astype(np.float64).var(axis=0) / truth.std(axis=0) ** 2
        assert found["ambiguity"] == pytest.approx(spread.mean())


def test_diversity_looks_at_the_rows_that_all_voices_speak_about() -> None:
    values, truth = voices("classification")
    values[0, :50] = np.nan
    values[3, 190:] = np.nan
    found = diversity(values, truth, "classification", list("abcd"))
    assert found["n"] == 140
    assert found == diversity(values[:, 50:190], truth[50:190], "classification", list("abcd"))
    values[1, 50:] = np.nan
    assert diversity(values, truth, "classification", list("abcd")) == {"n": 0, "members": [], "together": {}}


def test_diversity_of_one_voice_or_of_voices_that_are_never_wrong_says_none_where_it_knows_nothing() -> None:
    truth = np.array([0, 1, 1])
    right = np.eye(2)[truth][None]
    one = diversity(right, truth, "classification", ["a"])
    assert one["members"][0]["gain"] is None
    assert one["correlation_mean"] is None
    two = diversity(np.concatenate([right, right]), truth, "classification", ["a", "b"])
    assert two["correlation"] == [[None, None], [None, None]]
    assert two["disagreement_mean"] == 0
    constant = diversity(np.ones((1, 3, 1)), np.ones((3, 1)), "regression", ["a"])
    assert constant["members"][0]["r2"] is None
    with pytest.raises(AyatoriError, match="every voice needs a name"):
        diversity(right, truth, "classification", [])
