"""Stage 7 as a run does it: what an ensemble says of a row comes from members that never saw it."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import ayatori
from ayatori import load
from ayatori.ensemble import KINDS, fold_members, grow
from ayatori.ensemble.say import last_says, say
from ayatori.ensemble.stacking import fit_last
from ayatori.model import deliver
from ayatori.model_files import load_model, save_model
from ayatori.plan import check_plan, make_plan
from ayatori.recipe import (
    EnsembleRecipe,
    EvaluateRecipe,
    ExploreRecipe,
    NetRecipe,
    PlanRecipe,
    Recipe,
    TrainRecipe,
    from_toml,
    to_toml,
)
from ayatori.records import SCORE, SEALED, STOP, UNUSED, AyatoriError, Dataset, Group, Plan
from ayatori.store import RunFolder

BASE = Recipe(
    plan=PlanRecipe(folds=3),
    explore=ExploreRecipe(look=False),
    net=NetRecipe("mlp", options={"width": 16, "depth": 1, "numbers": "plain"}),
    train=TrainRecipe(epochs=4),
    evaluate=EvaluateRecipe(baselines=("linear",)),
)


def rows(n: int = 240, seed: int = 0, task: str = "classification") -> Dataset:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4))
    if task == "regression":
        return load(x, y=x[:, 0] ** 2 + 0.3 * random.normal(size=n))
    if task == "multilabel":
        return load(x, y=(x[:, :2] + 0.5 * random.normal(size=(n, 2)) > 0).astype(int))
    return load(x, y=(x[:, 0] + x[:, 1] ** 2 + 0.5 * random.normal(size=n) > 0.7).astype(str))


def recipe(*kinds: str, **settings) -> Recipe:
    values = {"bags": 2, "rounds": 3, "stack_rivals": ("linear",), **settings}
    return dataclasses.replace(BASE, ensemble=EnsembleRecipe(kinds=kinds, **values))


def grown(data: Dataset, kinds: tuple[str, ...], folds: PlanRecipe = BASE.plan, **settings) -> Plan:
    plan = make_plan(data, folds, net="mlp")
    return grow(plan, data, EnsembleRecipe(kinds=kinds, **settings), folds, 0, ("linear",))


# --- the Plan of an ensemble -----------------------------------------------------------------------


def test_what_stands_beside_the_folds_leaves_their_columns_as_they_are() -> None:
    data = rows()
    alone, plan = make_plan(data, BASE.plan, net="mlp"), grown(data, ("bagging", "stacking"), bags=4)
    np.testing.assert_array_equal(plan.roles[:, :3], alone.roles)
    assert plan.columns[:3] == alone.columns
    kinds = [(column.kind, column.net) for column in plan.columns]
    assert kinds.count(("bag", "mlp")) == 12
    assert kinds.count(("pair", "mlp")) == kinds.count(("pair", "linear")) == 3
    assert kinds.count(("fold", "linear")) == 3


def test_a_bag_draws_from_the_training_rows_of_its_fold_and_nothing_else() -> None:
    plan = grown(rows(), ("bagging",), bags=5)
    for members in fold_members(plan, ("bag",)).values():
        own = next(m for m in range(3) if plan.columns[m].fold == plan.columns[members[0]].fold)
        for member in members:
            learn = plan.train_rows(own)
            for role in (STOP, SCORE, SEALED):
                np.testing.assert_array_equal(plan.rows(member, role), plan.rows(own, role))
            assert plan.counts(member).sum() == len(learn)
            assert set(plan.train_rows(member)) < set(learn)
            assert 0.25 < (plan.roles[learn, member] == UNUSED).mean() < 0.5
    assert len({plan.roles[:, m].tobytes() for m in range(3, plan.members)}) == 15


def test_a_pair_has_seen_nothing_of_its_two_folds() -> None:
    plan = grown(rows(), ("stacking",), folds=PlanRecipe(folds=4))
    folds = {plan.columns[m].fold: plan.rows(m, SCORE) for m in range(4)}
    pairs = [(m, c) for m, c in enumerate(plan.columns) if c.kind == "pair" and c.net == "mlp"]
    assert {(c.fold, c.other) for _, c in pairs} == set(itertools.combinations(range(4), 2))
    for member, column in pairs:
        judged = np.union1d(folds[column.fold], folds[column.other])
        np.testing.assert_array_equal(plan.rows(member, SCORE), judged)
        seen = np.union1d(plan.train_rows(member), plan.rows(member, STOP))
        assert len(np.intersect1d(seen, judged)) == 0
        assert len(seen) + len(judged) + plan.sealed.sum() == len(plan.roles)


def test_groups_stay_whole_in_bags_and_pairs() -> None:
    data = dataclasses.replace(rows(), groups=np.repeat(np.arange(60), 4))
    check_plan(grown(data, ("bagging", "stacking")), data)


def test_in_time_order_a_stack_needs_no_pairs() -> None:
    data = dataclasses.replace(rows(), order=np.arange(240.0))
    assert {column.kind for column in grown(data, ("stacking",)).columns} == {"fold"}


@pytest.mark.parametrize(
    ("settings", "task", "folds", "what"),
    [
        ({"kinds": ("bagging", "stackin")}, "classification", BASE.plan, "did you mean 'stacking'"),
        ({"kinds": ("bagging",), "bags": 0}, "classification", BASE.plan, "`bags` must be at least 1"),
        (
            {"kinds": ("bagging",), "bag_share": 1.5},
            "classification",
            BASE.plan,
            "`bag_share` must be above 0",
        ),
        ({"kinds": ("median",)}, "classification", BASE.plan, "use majority"),
        ({"kinds": ("majority",)}, "regression", BASE.plan, "use median"),
        ({"kinds": ("boosting",), "boost": "samme"}, "regression", BASE.plan, "must be one of auto, r2"),
        ({"kinds": ("bagging",)}, "classification", PlanRecipe(strategy="rotate"), "use --strategy kfold"),
        (
            {"kinds": ("stacking",)},
            "classification",
            PlanRecipe(strategy="holdout"),
            "`folds` must be 3 or more",
        ),
        ({"kinds": ("stacking",)}, "classification", PlanRecipe(folds=2), "`folds` must be 3 or more"),
        ({"kinds": ("stacking",)}, "classification", PlanRecipe(folds=3, repeats=2), "`repeats` 1"),
    ],
)
def test_what_cannot_be_made_is_refused_before_training(settings, task, folds, what) -> None:
    data = rows(task=task)
    with pytest.raises(AyatoriError, match=what):
        grow(make_plan(data, folds), data, EnsembleRecipe(**settings), folds, 0, ())


def test_every_kind_of_ensemble_is_written_into_the_recipe_and_read_again() -> None:
    wanted = dataclasses.replace(BASE, ensemble=EnsembleRecipe(kinds=KINDS, boost="samme.r", stack_rivals=()))
    assert from_toml(to_toml(wanted)) == wanted


# --- a run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> ayatori.run:
    """One run with every ensemble that classes can have, and its folder."""
    kinds = tuple(kind for kind in KINDS if kind != "median")
    wanted = recipe(*kinds, boost_threshold=0.0, distill=True)
    return ayatori.run(rows(), wanted, out=tmp_path_factory.mktemp("runs") / "all")


def lines(result, split: str) -> dict:
    return {blend.ensemble: blend for blend in result.blends if blend.split == split and blend.network}


def test_each_ensemble_has_a_line_on_held_out_rows_and_one_on_the_test(everything) -> None:
    held_out, test = lines(everything, "out_of_fold"), lines(everything, "test")
    assert {"mean", "bagging", "boosting", "weighted", "greedy", "majority", "stacking", "linear"} <= set(
        held_out
    )
    assert set(held_out) <= set(test)
    names = {(entry.name, entry.split) for entry in everything.leaderboard}
    assert {("stack, 3 folds", "out_of_fold"), ("stack, mean of 3 folds", "test")} <= names
    assert {("2 bags, 3 folds", "out_of_fold"), ("one network, taught", "test")} <= names


def test_held_out_rows_are_answered_by_members_of_their_own_fold_alone(everything) -> None:
    plan, values = everything.plan, everything.predictions.values
    blend = lines(everything, "out_of_fold")["bagging"]
    for members in fold_members(plan, ("bag",)).values():
        scored = plan.rows(members[0], SCORE)
        np.testing.assert_allclose(blend.values[scored], values[members][:, scored].mean(0), rtol=1e-6)
    test = lines(everything, "test")["bagging"]
    bags = [m for members in fold_members(plan, ("bag",)).values() for m in members]
    np.testing.assert_allclose(test.values[plan.sealed], values[bags][:, plan.sealed].mean(0), rtol=1e-6)


def test_a_fold_is_answered_by_a_last_model_that_met_none_of_its_labels(everything) -> None:
    """Done again by hand: fold j from pairs that know neither i nor j."""
    data, folds = everything.dataset, everything.plan
    scored = {folds.columns[m].fold: folds.rows(m, SCORE) for m in range(3)}
    two = dataclasses.replace(everything.recipe.ensemble, stack_rivals=())
    again = ayatori.run(data, dataclasses.replace(everything.recipe, ensemble=two))
    blend = lines(again, "out_of_fold")["stacking"]
    networks = again.predictions.values
    pairs = {
        (c.net, frozenset((c.fold, c.other))): networks[m]
        for m, c in enumerate(again.plan.columns)
        if c.kind == "pair"
    }
    for j, judged in scored.items():
        others = [i for i in scored if i != j]
        learn = np.concatenate([scored[i] for i in others])
        said = np.stack(
            [
                np.concatenate([pairs[net, frozenset((i, j))][scored[i]] for i in others])
                for net in ("mlp", "linear")
            ]
        )
        last = fit_last(said, data.labels[learn], "classification", "auto", None, 0)
        heard = np.stack(
            [
                np.mean([pairs[net, frozenset((i, j))][judged] for i in others], axis=0)
                for net in ("mlp", "linear")
            ]
        )
        np.testing.assert_allclose(
            blend.values[judged], last_says(last, heard, "classification", None), rtol=1e-6
        )


def test_the_rounds_of_a_fold_learn_from_its_own_rows_drawn_by_their_weights(everything) -> None:
    plan = everything.plan
    facts = everything.ensembles["boosting"]
    weak = "the weighted training error is no better than chance, 0.5"
    assert {fact["reason"] for fact in facts} <= {"all 3 rounds were done", weak}
    for fact in facts:
        own = next(m for m in range(3) if plan.columns[m].fold == fact["fold"])
        assert fact["members"][0] == own  # the fold's own network is the first round
        for member in fact["members"][1:]:
            assert plan.columns[member].kind == "round"
            assert set(plan.train_rows(member)) <= set(plan.train_rows(own))
            assert plan.counts(member).sum() == len(plan.train_rows(own))
        assert 1 <= fact["kept"] <= len(fact["members"]) == len(fact["stop_losses"])
        assert fact["kept"] == int(np.argmin(fact["stop_losses"])) + 1


def test_what_is_delivered_answers_as_the_test_line_says(everything, tmp_path: Path) -> None:
    """The model is written, read again without pickle, and asked about the sealed rows."""
    sealed = np.flatnonzero(everything.plan.sealed)
    inputs = everything.dataset.inputs["numbers"][sealed]
    assert everything.chosen in {blend.name for blend in everything.blends if blend.split == "test"}
    members = [m for m in everything.members if m.column.kind != "student"]
    for ensemble, blend in lines(everything, "test").items():
        if not ensemble:
            continue
        model = deliver(blend.name, everything.blends, members, everything.stacked, everything.dataset.schema)
        folder = RunFolder(tmp_path / ensemble)
        save_model(model, folder)
        again = load_model(folder.path)
        said = again.predict_values(again.read(inputs))
        np.testing.assert_allclose(said, blend.values[sealed], atol=2e-6, err_msg=ensemble)
    pickles = [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert not pickles


def test_the_run_folder_answers_as_the_result_does(everything) -> None:
    sealed = np.flatnonzero(everything.plan.sealed)
    inputs = everything.dataset.inputs["numbers"][sealed]
    chosen = next(b for b in everything.blends if b.name == everything.chosen and b.split == "test")
    for place, wanted in (("model", chosen.values[sealed]), ("distilled", None)):
        model = load_model(everything.folder / place)
        said = model.predict_values(model.read(inputs))
        if wanted is not None:
            np.testing.assert_allclose(said, wanted, atol=2e-6)
        else:
            taught = next(b for b in everything.blends if b.name == "one network, taught")
            assert len(model.networks) == 1
            np.testing.assert_allclose(said, taught.values[sealed], atol=2e-6)


def test_ensembles_are_compared_with_the_best_single_network(everything) -> None:
    for split in ("out_of_fold", "test"):
        entries = [e for e in everything.leaderboard if e.split == split and e.network]
        singles = {b.name for b in everything.blends if b.single and b.split == split}
        best = next(entry for entry in entries if entry.name in singles)
        assert best.paired == {}
        assert all({"difference", "n", "p"} <= set(e.paired) for e in entries if e is not best)


def test_how_far_members_differ_is_told(everything) -> None:
    facts = everything.ensembles["diversity"]
    assert set(facts) == {"bagging", "boosting", "stacking"}
    assert [one["name"] for one in facts["stacking"]["members"]] == [
        "network",
        "linear network",
        "logistic regression",
    ]
    assert 0 <= facts["bagging"]["disagreement_mean"] <= 1


def test_folds_learn_the_same_whether_others_stand_beside_them_or_not(everything) -> None:
    alone = ayatori.run(rows(), BASE)
    for member in range(3):
        np.testing.assert_allclose(
            alone.predictions.values[member], everything.predictions.values[member], atol=2e-5
        )


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("regression", ("bagging", "boosting", "stacking", "median", "weighted", "greedy")),
        ("multilabel", ("bagging", "boosting", "stacking", "majority", "weighted", "greedy")),
    ],
)
def test_numbers_and_several_labels_have_ensembles_too(
    task: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    result = ayatori.run(rows(task=task), recipe(*kinds), out=tmp_path / task)
    assert set(kinds) <= set(lines(result, "test"))
    model = load_model(result.folder)
    sealed = np.flatnonzero(result.plan.sealed)
    said = model.predict_values(model.read(result.dataset.inputs["numbers"][sealed]))
    chosen = next(b for b in result.blends if b.name == result.chosen and b.split == "test")
    np.testing.assert_allclose(said, chosen.values[sealed], atol=1e-5)


@pytest.mark.parametrize("boost", ["samme.r", "gradient"])
def test_boosting_has_several_ways(boost: str) -> None:
    result = ayatori.run(rows(), recipe("boosting", boost=boost, boost_threshold=0.0))
    groups = [fact["members"] for fact in result.ensembles["boosting"]]
    if boost == "gradient":  # every round is a step of its own; the fold's network is none of them
        assert all(result.plan.columns[member].kind == "round" for group in groups for member in group)
    losses = [fact["stop_losses"] for fact in result.ensembles["boosting"]]
    assert all(np.isfinite(loss).all() for loss in losses)
    blend = lines(result, "out_of_fold")["boosting"]
    np.testing.assert_allclose(blend.values[blend.rows].sum(1), 1, atol=1e-5)


def test_networks_that_fit_their_training_rows_are_not_boosted_but_a_weaker_one_is_offered() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 3))
    data = load(x, y=(x[:, 0] > 0).astype(str))
    long = dataclasses.replace(BASE, train=TrainRecipe(epochs=60, learning_rate=0.02))
    result = ayatori.run(
        data, dataclasses.replace(long, ensemble=EnsembleRecipe(kinds=("boosting",), boost_threshold=0.05))
    )
    assert all(fact["kept"] == 1 for fact in result.ensembles["boosting"])
    assert any("a weaker network boosts: --boost-depth 1" in note for note in result.ensembles["notes"])


def test_without_a_test_the_chosen_ensemble_is_still_delivered(tmp_path: Path) -> None:
    plain = dataclasses.replace(recipe("bagging", "stacking"), plan=PlanRecipe(folds=3, test=0.0))
    result = ayatori.run(rows(), plain, out=tmp_path / "run")
    model = load_model(result.folder)
    assert model.predict_values(model.read(result.dataset.inputs["numbers"])).shape == (240, 2)
    assert {entry.split for entry in result.leaderboard} == {"out_of_fold"}


@pytest.mark.slow
def test_random_labels_stay_at_chance_in_every_ensemble() -> None:
    """A stack that learned to turn its voices round would be better than chance here."""
    outside = []
    for seed in range(6):
        random = np.random.default_rng(seed)
        data = load(random.normal(size=(150, 3)), y=random.permutation(np.arange(150) % 2).astype(str))
        small = dataclasses.replace(
            recipe("bagging", "boosting", "stacking", "greedy", stack_rivals=("neighbours", "linear")),
            train=TrainRecipe(epochs=3),
            evaluate=EvaluateRecipe(baselines=()),
            seed=seed,
        )
        result = ayatori.run(data, small)
        for entry in result.leaderboard:
            score = entry.scores["accuracy"]
            outside.append(not score.low <= 0.5 <= score.high)
    assert np.mean(outside) < 0.12


def test_groups_of_voices_are_asked_as_one() -> None:
    values = np.random.default_rng(0).dirichlet([1, 1, 1], size=(4, 7)).astype(np.float32)
    group = Group((0, 2), (0.25, 0.75))
    np.testing.assert_allclose(
        say(values, group, "classification"), 0.25 * values[0] + 0.75 * values[2], rtol=1e-5
    )


def test_the_estimators_make_ensembles_too() -> None:
    data = rows()
    x, y = data.inputs["numbers"], data.labels
    clf = ayatori.Classifier(
        "mlp",
        options=dict(BASE.net.options),
        folds=3,
        epochs=4,
        ensemble=("bagging", "stacking"),
        bags=2,
        stack_model=LogisticRegression(C=0.5),
        stack_rivals="linear",
    ).fit(x, y)
    assert clf.predict_proba(x).shape == (240, 2)
    assert np.isfinite(clf.out_of_fold_).all()
    assert clf.model_.vote is not None
    with pytest.raises(AyatoriError, match="did you mean 'bagging'"):
        ayatori.Classifier("mlp", folds=3, ensemble="baging").fit(x, y)


def test_a_last_model_that_a_recipe_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wanted = recipe("stacking", stack_model=LogisticRegression(C=0.5))
    with pytest.raises(AyatoriError, match="keep the run in memory"):
        ayatori.run(rows(), wanted, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("logistic", "classification"),
        ("network", "multilabel"),
        ("sklearn.ensemble:ExtraTreesClassifier", "classification"),
    ],
)
def test_a_last_model_of_another_kind_is_delivered_without_pickle(
    model: str, task: str, tmp_path: Path
) -> None:
    wanted = recipe("stacking", stack_model=model, stack_inputs=True, stack_rivals=("neighbours",))
    result = ayatori.run(rows(task=task), wanted, out=tmp_path / "run")
    assert "stack, mean of 3 folds" in {entry.name for entry in result.leaderboard}
    members = [member for member in result.members if member.column.kind != "student"]
    line = lines(result, "test")["stacking"]
    save_model(
        deliver(line.name, result.blends, members, result.stacked, result.dataset.schema),
        RunFolder(tmp_path / "again"),
    )
    again = load_model(tmp_path / "again")
    sealed = np.flatnonzero(result.plan.sealed)
    said = again.predict_values(again.read(result.dataset.inputs["numbers"][sealed]))
    np.testing.assert_allclose(said, line.values[sealed], atol=1e-5)


class Foreign(LogisticRegression):
    """A model of somebody's own."""


def test_a_last_model_of_foreign_code_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(AyatoriError, match="must be of scikit-learn's own parts"):
        ayatori.run(rows(), recipe("stacking", stack_model=Foreign()), out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_model_folder_that_was_tampered_with_is_refused(everything, tmp_path: Path) -> None:
    members = [m for m in everything.members if m.column.kind != "student"]
    stacked = deliver(
        "stack, mean of 3 folds", everything.blends, members, everything.stacked, everything.dataset.schema
    )
    save_model(stacked, RunFolder(tmp_path))
    rival = tmp_path / "model" / "rival-000.skops"
    rival.write_bytes(rival.read_bytes() + b" ")
    with pytest.raises(AyatoriError, match="its content has changed"):
        load_model(tmp_path)
    rival.unlink()
    with pytest.raises(AyatoriError, match="it is missing"):
        load_model(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("boost", ["samme", "gradient"])
def test_pictures_have_ensembles_too(boost: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 3, 150)
    pixels = random.integers(0, 150, size=(150, 1, 6, 6)) + 40 * target[:, None, None, None]
    wanted = dataclasses.replace(
        recipe("bagging", "boosting", "stacking", "majority", boost=boost, boost_threshold=0.0, rounds=2),
        net=NetRecipe("cnn", options={"width": 8, "depth": 0}),
    )
    data = load(pixels.astype(np.uint8), y=target.astype(str))
    result = ayatori.run(data, wanted, out=tmp_path / "run")
    assert {"bagging", "boosting", "stacking", "majority"} <= set(lines(result, "test"))
    model = load_model(result.folder)
    sealed = np.flatnonzero(result.plan.sealed)
    chosen = next(b for b in result.blends if b.name == result.chosen and b.split == "test")
    said = model.predict_values(model.read(result.dataset.inputs["image"][sealed]))
    np.testing.assert_allclose(said, chosen.values[sealed], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"kinds": ("stacking",), "stack_nets": ("cnn",)}, "net must be mlp, linear"),
        ({"kinds": ("stacking",), "stack_rivals": ("boost",)}, "did you mean 'boosting'"),
        ({"kinds": ("stacking",), "stack_model": "logistc"}, "did you mean 'logistic'"),
        ({"kinds": ("boosting",), "boost_depth": 2}, "must be 0 unless the network is our mlp or cnn"),
        ({"kinds": ("boosting",), "boost_epochs": -1}, "must be positive"),
    ],
)
def test_parts_that_nobody_knows_are_refused_before_training(settings, what, tmp_path: Path) -> None:
    wanted = dataclasses.replace(BASE, net=NetRecipe("linear"), ensemble=EnsembleRecipe(**settings))
    with pytest.raises(AyatoriError, match=what):
        ayatori.run(rows(), wanted, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())
