"""Rare rows: how much they count, how often they are drawn, the way back to true shares, and what is said."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score
from sklearn.utils.class_weight import compute_class_weight

import ayatori
from ayatori import Classifier, Recipe, load
from ayatori.evaluate.decision import cost_rule, fit_rule, leaning
from ayatori.model_files import load_model
from ayatori.plan import make_plan
from ayatori.recipe import BalanceRecipe, LossRecipe, PlanRecipe, change, from_flat
from ayatori.records import SCORE, AyatoriError, Column, Dataset
from ayatori.report import facts
from ayatori.train import settle, train
from ayatori.train.balance import balance_rows, density, rarity, way_back
from ayatori.train.stream import Stream, sampled_order

QUICK = {"net": "mlp", "epochs": 15, "baselines": (), "look": False, "folds": 3, "preset": "quick"}


def uneven(rows: int = 900, rare: float = 0.06, seed: int = 0, shift: float = 1.5) -> Dataset:
    """Two clouds that overlap; the second class is rare. p(rare | x) is known: see ``posterior``."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < rare).astype(int)
    x = rng.normal(size=(rows, 2)) + shift * y[:, None]
    return load(x, y=np.where(y == 1, "rare", "usual"))


def posterior(x: np.ndarray, rare: float = 0.06, shift: float = 1.5) -> np.ndarray:
    odds = rare / (1 - rare) * np.exp(shift * x.sum(1) - shift**2)
    return odds / (1 + odds)


def pictures(rows: int = 240, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    y = (np.arange(rows) % 12 == 0).astype(int)
    x = rng.integers(0, 120, (rows, 1, 8, 8))
    x[y == 1, :, 2:6, 2:6] += 60
    return load(x.astype(np.uint8), y=np.where(y == 1, "rare", "usual"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_the_weight_of_a_class_is_scikit_learns_balanced_one(sizes: list[int]) -> None:
    y = np.repeat(np.arange(len(sizes)), sizes)
    data = load(np.arange(len(y))[:, None].astype(float), y=np.array([f"class {code}" for code in y]))
    counts = np.ones(len(y), np.uint8)
    balance = balance_rows(data, counts, True, Recipe(balance=BalanceRecipe("weight")), Column())
    wanted = compute_class_weight("balanced", classes=np.unique(data.labels), y=data.labels)[data.labels]
    np.testing.assert_allclose(balance.weight, wanted, rtol=1e-5)


def test_the_effective_number_lies_between_none_and_inverse() -> None:
    data, counts = uneven(), np.ones(900, np.uint8)
    lean = {}
    for name, recipe in {
        "inverse": BalanceRecipe("weight"),
        "half": BalanceRecipe("weight", balance_strength=0.5),
        "effective": BalanceRecipe("weight", balance_rule="effective", balance_beta=0.99),
        "nothing": BalanceRecipe("weight", balance_strength=0.0),
    }.items():
        weight = rarity(data, counts, recipe)
        lean[name] = weight[data.labels == 0].mean() / weight[data.labels == 1].mean()
    n = np.bincount(data.labels)
    assert lean["inverse"] == pytest.approx(n[1] / n[0])
    assert lean["half"] == pytest.approx(np.sqrt(n[1] / n[0]))
    assert lean["effective"] == pytest.approx((1 - 0.99 ** n[1]) / (1 - 0.99 ** n[0]))
    assert lean["nothing"] == pytest.approx(1.0)
    assert lean["nothing"] < lean["effective"] < lean["inverse"]


def test_weights_by_hand_are_named_and_by_name_the_others_weigh_one() -> None:
    data, counts = uneven(60, 0.3), np.ones(60, np.uint8)
    for given_ in ((7.0, 1.0), {"rare": 7.0}):
        recipe = Recipe(balance=BalanceRecipe("weight"), loss=LossRecipe(class_weights=given_))
        weight = balance_rows(data, counts, True, recipe, Column()).weight
        ratio = (
            weight[data.labels == data.classes.index("rare")][0]
            / weight[data.labels == data.classes.index("usual")][0]
        )
        assert ratio == pytest.approx(7.0)
    with pytest.raises(AyatoriError, match="did you mean 'rare'"):
        settle(
            Recipe(loss=LossRecipe(class_weights={"rar": 2.0})), data, make_plan(data, PlanRecipe(folds=2))
        )


def test_the_way_back_undoes_what_weights_and_draws_make_of_the_shares() -> None:
    data, counts = uneven(), np.ones(900, np.uint8)
    for name in ("weight", "sample"):
        balance = balance_rows(data, counts, True, Recipe(balance=BalanceRecipe(name)), Column())
        assert balance.back is not None
        pulls = balance.weight if balance.share is None else balance.share
        made = np.bincount(data.labels, weights=pulls) / pulls.sum()
        np.testing.assert_allclose(made, 0.5, rtol=1e-4)
        true = np.bincount(data.labels) / 900
        back = made * np.exp(balance.back)
        np.testing.assert_allclose(back / back.sum(), true, rtol=1e-4)


def test_classes_learn_with_the_shares_that_are_asked_for() -> None:
    y = np.repeat(["a", "b", "c", "d"], [50, 30, 15, 5])
    data, counts = load(np.arange(100.0)[:, None], y=y), np.ones(100, np.uint8)
    for name in ("weight", "sample"):
        recipe = Recipe(balance=BalanceRecipe(name, balance_shares={"d": 0.4, "c": 0.2}))
        settle(recipe, data, make_plan(data, PlanRecipe(folds=2)))
        balance = balance_rows(data, counts, True, recipe, Column())
        pulls = balance.weight if balance.share is None else balance.share
        shares = np.bincount(data.labels, weights=pulls) / pulls.sum()
        np.testing.assert_allclose(shares, [0.25, 0.15, 0.2, 0.4], rtol=1e-4)
    for wrong, message in (
        ({"dd": 0.5}, "must name classes"),
        ({"d": 1.0}, "below 1"),
        ({"a": 0.5, "b": 0.2, "c": 0.2, "d": 0.2}, "1 together"),
    ):
        bad, plan = (
            Recipe(balance=BalanceRecipe("weight", balance_shares=wrong)),
            make_plan(data, PlanRecipe(folds=2)),
        )
        with pytest.raises(AyatoriError, match=message):
            settle(bad, data, plan)


def test_each_label_of_a_row_has_a_balance_of_its_own() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((400, 3)) < (0.5, 0.1, 0.02)).astype(int)
    data, counts = load(rng.normal(size=(400, 2)), y=y), np.ones(400, np.uint8)
    recipe = Recipe(balance=BalanceRecipe("weight"))
    balance = balance_rows(data, counts, True, recipe, Column())
    assert balance.weight.shape == (400, 3)
    for label in range(3):
        weight, yes = balance.weight[:, label], y[:, label] == 1
        assert weight[yes].sum() == pytest.approx(weight[~yes].sum(), rel=1e-4)
    share = y.mean(0)
    np.testing.assert_allclose(balance.back, np.log(share / (1 - share)), rtol=1e-4)


def test_a_loss_with_a_weight_for_each_label_is_that_of_plain_pytorch() -> None:
    from ayatori.train.loss import make_loss

    loss = make_loss(LossRecipe(), "multilabel")
    logits, target = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(loss.each(logits, target), wanted)  # type: ignore[attr-defined]
    torch.testing.assert_close(loss(logits, target), wanted.mean(1))


def test_rare_values_of_a_number_count_more_up_to_ten_times() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(size=980), rng.normal(8, 1, size=20)])
    data = load(rng.normal(size=(1000, 2)), y=y)
    counts = np.ones(1000, np.uint8)
    dense = density(data.labels, counts)
    weight = rarity(data, counts, BalanceRecipe("weight"))
    assert weight[980:].mean() > 4 * weight[np.abs(y) < 0.5].mean()
    assert dense.min() >= 0.1 - 1e-9
    assert way_back(data, counts, weight) is None
    # rows of others say nothing
    few = counts.copy()
    few[500:] = 0
    moved = dataclasses.replace(data, target=np.where(few[:, None] > 0, data.labels, 1e3))
    np.testing.assert_array_equal(density(data.labels, few)[:500], density(moved.labels, few)[:500])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 40), st.integers(1, 6), st.integers(1, 9))
def test_over_epochs_every_row_is_drawn_as_often_as_its_share(
    seed: int, n: int, steps: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, share = np.sort(rng.choice(1000, n, replace=False)), rng.dirichlet(np.ones(n))
    stream, epochs = Stream(steps, size, None), 30
    orders = [sampled_order(rows, share, stream, seed, epoch) for epoch in range(epochs)]
    assert all(order.shape == (steps, size) for order in orders)
    drawn = np.concatenate([order.ravel() for order in orders])
    assert np.isin(drawn, rows).all()
    often = np.array([(drawn == row).sum() for row in rows])
    # to within one, and what an epoch had too many or too few of
    spread = 1 + 4 * np.sqrt(epochs * np.sqrt(n))
    assert np.abs(often - share * len(drawn)).max() <= spread
    np.testing.assert_array_equal(orders[7], sampled_order(rows, share, stream, seed, 7))


@pytest.mark.parametrize("way", ["weight", "sample"])
def test_corrected_probabilities_are_those_of_the_true_shares(way: str) -> None:
    """Of two normal clouds the true probabilities are known."""
    data = uneven(6000, seed=1)
    result = ayatori.run(data, from_flat({**QUICK, "balance": way, "balance_price": False, "epochs": 10}))
    fresh = uneven(4000, seed=2)
    said = result.model.predict_values(fresh)[:, data.classes.index("rare")]
    true = posterior(fresh.inputs["numbers"])
    assert abs(said.mean() - true.mean()) < 0.012
    assert np.abs(said - true).mean() < 0.02
    raw = ayatori.run(
        data,
        from_flat({**QUICK, "balance": way, "balance_price": False, "balance_correct": False, "epochs": 10}),
    )
    assert raw.model.predict_values(fresh)[:, data.classes.index("rare")].mean() > 2 * true.mean()


@pytest.mark.parametrize("way", ["weight", "sample"])
def test_the_rare_class_is_found_more_often_and_its_price_is_on_the_page(way: str, tmp_path: Path) -> None:
    data = uneven(1500)
    result = ayatori.run(data, from_flat({**QUICK, "balance": way}), out=tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    own = table[(table["name"] == "one network, 3 folds") & (table["split"] == "out_of_fold")]
    plain = table[(table["name"] == "not balanced, 3 folds") & (table["split"] == "out_of_fold")]
    recalls = [
        recall_score(part["true"], part["said"], labels=["rare"], average=None)[0] for part in (own, plain)
    ]
    assert recalls[0] > recalls[1] + 0.2
    page = facts(tmp_path / "run")["balanced"]
    assert page["way"] == way
    assert [line["name"] for line in page["lines"]] == ["rare", "usual"]
    for part, at in ((own, 0), (plain, 1)):
        for line in page["lines"]:
            for figure, reference in (("recall", recall_score), ("precision", precision_score)):
                wanted = reference(
                    part["true"], part["said"], labels=[line["name"]], average=None, zero_division=0
                )[0]
                found = line[figure][at]
                assert found is None or found["value"] == pytest.approx(wanted)
                assert found is None or found["low"] <= found["value"] <= found["high"]
    held_out = next(
        e for e in result.leaderboard if e.name == "one network, 3 folds" and e.split == "out_of_fold"
    )
    assert held_out.scores["balanced_accuracy"].value == pytest.approx(
        balanced_accuracy_score(own["true"], own["said"])
    )
    assert "not balanced" not in result.chosen
    # what is delivered says of new rows what the run would say
    model = load_model(tmp_path / "run")
    answer = model.predict_table(data)
    sealed = table[(table["name"] == result.chosen) & (table["split"] == "test")]
    np.testing.assert_array_equal(answer["label"].to_numpy()[sealed["row"]], sealed["said"].to_numpy())
    np.testing.assert_allclose(answer["p_rare"].to_numpy()[sealed["row"]], sealed["p_rare"], atol=1e-5)


@pytest.mark.parametrize("way", ["weight", "sample"])
@pytest.mark.parametrize("make", [uneven, pictures])
def test_what_is_rare_only_a_members_own_rows_say(way: str, make) -> None:  # type: ignore[no-untyped-def]
    """Other labels of the rows that a member is scored on change nothing about it."""
    data = make(240)
    plan = make_plan(data, PlanRecipe(folds=3, test=0.0))
    recipe = from_flat({**QUICK, "net": "auto", "epochs": 3, "balance": way, "augment": "standard"})
    recipe = settle(recipe, data, plan)
    scored = plan.rows(0, SCORE)
    other = data.labels.copy()
    other[scored] = 1 - other[scored]
    first = train(data, plan.only([0]), recipe)[0]
    again = train(dataclasses.replace(data, target=other), plan.only([0]), recipe)[0]
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_copies_of_a_row_never_stand_on_both_sides_of_a_split() -> None:
    data = uneven(400)
    doubled = load(
        np.concatenate([data.inputs["numbers"]] * 2),
        y=np.concatenate([np.asarray(data.classes)[data.labels]] * 2),
    )
    result = ayatori.run(doubled, from_flat({**QUICK, "epochs": 2, "balance": "sample"}))
    roles = result.plan.roles
    for member in range(result.plan.members):
        learn = (roles[:, member] > 0) & (roles[:, member] <= 250)
        judged = (roles[:, member] == SCORE) | (roles[:, member] == 253)
        pairs = np.arange(400)
        assert not (learn[pairs] & judged[pairs + 400]).any()
        assert not (learn[pairs + 400] & judged[pairs]).any()


def test_both_at_once_is_refused_unless_it_is_meant() -> None:
    data = uneven(120, 0.3)
    both = {**QUICK, "epochs": 1, "balance": "sample", "class_weights": {"rare": 2.0}}
    with pytest.raises(AyatoriError, match="handled once"):
        ayatori.run(data, from_flat(both))
    ayatori.run(data, from_flat({**both, "balance_both": True, "balance_price": False}))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"balance": "wieght"}, "did you mean 'weight'"),
        ({"balance": "weight", "balance_strength": 3.0}, "from 0"),
        ({"balance": "weight", "balance_beta": 1.0}, "between 0 and 1"),
        ({"decide": "macro-f1"}, "did you mean 'macro_f1'"),
        ({"costs": {"rare>usuall": 2.0}}, "true>said"),
        ({"costs": {"rare>usual": -2.0}}, "must not be negative"),
        ({"decide": "accuracy", "costs": {"rare>usual": 2.0}}, "decided one way"),
        ({"class_weights": (1.0, -1.0)}, "positive"),
        ({"class_weights": (1.0,)}, "one weight for each"),
        ({"tta": 3}, "do not see pictures"),
        ({"augment": "standrd"}, "did you mean 'standard'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(settings_: dict, message: str) -> None:
    with pytest.raises(AyatoriError, match=message):
        ayatori.run(uneven(120, 0.3), from_flat({**QUICK, **settings_}))


# what is said


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31))
def test_a_rule_of_costs_says_what_costs_least(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = tuple("abcde"[:classes])
    prices = {
        f"{t}>{s}": float(rng.integers(0, 9)) for t in names for s in names if t != s and rng.random() < 0.7
    }
    values = rng.dirichlet(np.ones(classes), 20)
    said = leaning(values, cost_rule(prices, names), "classification").argmax(1)
    for row, choice in zip(values, said, strict=True):
        expected = [
            sum(p * (prices.get(f"{t}>{s}", 1.0) if t != s else 0.0) for p, t in zip(row, names, strict=True))
            for s in names
        ]
        assert expected[choice] == pytest.approx(min(expected))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["accuracy", "balanced_accuracy", "macro_f1"]))
def test_thresholds_are_never_worse_on_the_rows_that_they_are_chosen_on(seed: int, figure: str) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, 150, p=(0.7, 0.2, 0.1))
    values = rng.dirichlet(np.ones(3), 150) * 0.5 + 0.5 * (
        0.6 * np.eye(3)[truth] + 0.4 * np.array([0.7, 0.2, 0.1])
    )
    rule = fit_rule(values, truth, figure, "classification")
    own = {
        "accuracy": lambda t, s: (t == s).mean(),
        "balanced_accuracy": balanced_accuracy_score,
        "macro_f1": lambda t, s: f1_score(t, s, average="macro", zero_division=0),
    }[figure]
    before, after = (
        own(truth, values.argmax(1)),
        own(truth, leaning(values, rule, "classification").argmax(1)),
    )
    assert after >= before - 1e-9


def test_the_threshold_of_a_label_is_found() -> None:
    rng = np.random.default_rng(0)
    said = rng.random((2000, 1)) * 0.4
    truth = (said > 0.1).astype(float)
    rule = fit_rule(said, truth, "macro_f1", "multilabel")
    told = leaning(said, rule, "multilabel") > 0.5
    assert (told == (truth > 0.5)).mean() > 0.97


def test_costs_move_labels_and_leave_probabilities_alone() -> None:
    data = uneven(900, 0.2)
    plain = ayatori.run(data, from_flat(QUICK))
    dear = ayatori.run(data, from_flat({**QUICK, "costs": {"rare>usual": 20.0}}))
    np.testing.assert_array_equal(plain.predictions.values, dear.predictions.values)
    fresh = uneven(500, 0.2, seed=5)
    rare = [(run.model.predict_table(fresh)["label"] == "rare").sum() for run in (plain, dear)]
    assert rare[1] > 1.5 * rare[0]


def test_each_folds_thresholds_come_from_its_own_stop_rows() -> None:
    """Other labels of the scored rows of a fold leave what is said of them as it was."""
    data = uneven(600, 0.2)
    recipe = change(from_flat({**QUICK, "decide": "macro_f1", "test": 0.0}), "train", epochs=4)
    first = ayatori.run(data, recipe)
    blend = next(b for b in first.blends if b.name == "one network, 3 folds")
    assert blend.decided is not None
    scored = first.plan.rows(0, SCORE)
    other = data.labels.copy()
    other[scored] = 1 - other[scored]
    from ayatori.decide import find_rules

    moved = dataclasses.replace(data, target=other)
    before = find_rules(data, first.plan, first.members, first.recipe)[0]
    after = find_rules(moved, first.plan, first.members, first.recipe)[0]
    np.testing.assert_array_equal(before, after)


def test_the_estimator_balances_and_says_what_it_was_trained_to_say() -> None:
    data = uneven(900)
    x, y = data.inputs["numbers"], np.asarray(data.classes)[data.labels]
    plain = Classifier(net="mlp", folds=2, epochs=10, preset="quick").fit(x, y)
    clf = Classifier(net="mlp", folds=2, epochs=10, preset="quick", balance="weight").fit(x, y)
    assert (clf.predict(x) == "rare").sum() > 2 * max(1, (plain.predict(x) == "rare").sum())
    share = clf.predict_proba(x)[:, list(clf.classes_).index("rare")].mean()
    assert share == pytest.approx((y == "rare").mean(), abs=0.03)
    assert len(clf.members_) == 2


def test_a_taught_network_says_labels_by_the_rule_of_its_run(tmp_path: Path) -> None:
    data = uneven(900)
    recipe = from_flat({**QUICK, "balance": "weight", "balance_price": False, "distill": True})
    result = ayatori.run(data, recipe, out=tmp_path / "run")
    line = next(blend for blend in result.blends if blend.name == "one network, taught")
    assert line.rule is not None
    assert line.decided is not None
    student = load_model(tmp_path / "run" / "distilled")
    sealed = np.flatnonzero(result.plan.sealed)
    table = student.predict_table(student.read(data.inputs["numbers"][sealed]))
    classes = np.asarray(data.classes)
    assert table["label"].tolist() == classes[line.decided[sealed].argmax(axis=1)].tolist()
    assert (table["label"] == "rare").sum() > (table["p_rare"] > 0.5).sum()
