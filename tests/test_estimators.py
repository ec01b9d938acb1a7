"""Classifier and Regressor: scikit-learn's own checks, and what they promise besides."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import ayatori.estimators
from ayatori import AyatoriError, Classifier, Regressor
from ayatori.data import load
from ayatori.recipe import Recipe
from ayatori.records import SCORE, STOP
from ayatori.run import run
from ayatori.train import predict_rows

QUICK: dict[str, Any] = {"folds": 2, "epochs": 4, "batch_size": 32}
LEARN: dict[str, Any] = {"folds": 2, "epochs": 12, "batch_size": 16}


def table(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(n, 3))
    return X, np.where(X[:, 0] + X[:, 1] > 0, "dog", "cat")


def frame(n: int = 80) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(1)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "age": np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 9, n)),
            "colour": pd.Categorical(rng.choice(["red", "blue", "green"], n)),
            "town": pd.Series(rng.choice(["Oslo", "Lima", None], n), dtype=object),
            "born": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        }
    )
    return X, np.where(X["colour"] == "red", "yes", "no")


class Narrow(nn.Sequential):
    """A network of the user's own."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(nn.Linear(shape[0], 8), nn.ReLU(), nn.Linear(8, outputs))


def own_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, target, reduction="none")


@parametrize_with_checks([Classifier(**QUICK), Regressor(**QUICK)])
def test_scikit_learn_finds_nothing_to_complain_about(estimator: Any, check: Any) -> None:
    check(estimator)


def test_defaults_learn_too() -> None:
    X, y = load_iris(return_X_y=True)
    clf = Classifier(preset="quick", patience=10).fit(X, y)
    assert clf.plan_.members == 5
    assert clf.out_of_fold_score_ > 0.9
    assert clf.score(X, y) > 0.9


def test_a_row_is_scored_by_the_one_network_that_never_saw_it() -> None:
    X, y = table(60)
    clf = Classifier(**{**QUICK, "folds": 3}).fit(X, y)
    dataset = load(X, y=y)
    for member in clf.members_:
        rows = clf.plan_.rows(member.index, SCORE)
        said = predict_rows(member.network, dataset.inputs, rows)
        # small networks answer as one, which rounds otherwise than one by one
        np.testing.assert_allclose(clf.out_of_fold_[rows], said, rtol=1e-5)
    scored = np.concatenate([clf.plan_.rows(member, SCORE) for member in range(3)])
    assert sorted(scored) == list(range(60))
    guess = clf.classes_[clf.out_of_fold_.argmax(axis=1)]
    assert clf.out_of_fold_score_ == pytest.approx(accuracy_score(y, guess))
    assert clf.out_of_fold_scores_["accuracy"].n == 60


def test_the_target_of_a_held_out_row_changes_nothing_in_its_prediction() -> None:
    X, _ = table(60)
    y = X[:, 0]
    before = Regressor(**QUICK).fit(X, y)
    rows = before.plan_.rows(0, SCORE)
    other = y.copy()
    other[rows] = np.random.default_rng(1).permutation(y[rows]) * 100
    after = Regressor(**QUICK).fit(X, other)
    np.testing.assert_array_equal(after.out_of_fold_[rows], before.out_of_fold_[rows])
    rest = before.plan_.rows(1, SCORE)
    assert (after.out_of_fold_[rest] != before.out_of_fold_[rest]).any()


def test_new_rows_are_told_by_the_mean_of_all_networks() -> None:
    X, y = table()
    clf = Classifier(**QUICK).fit(X[:60], y[:60])
    inputs, rows = {"numbers": X[60:]}, np.arange(20)
    each = [predict_rows(member.network, inputs, rows) for member in clf.members_]
    np.testing.assert_allclose(clf.predict_proba(X[60:]), np.mean(each, axis=0), rtol=1e-6)
    assert set(clf.predict(X[60:])) <= {"cat", "dog"}
    assert clf.classes_.tolist() == ["cat", "dog"]


def test_an_estimator_does_what_a_run_does() -> None:
    X, _ = table(60)
    y = X @ [1.0, 2.0, 3.0]
    reg = Regressor(**QUICK, random_state=5).fit(X, y)
    recipe = ayatori.estimators.from_flat({**QUICK, "seed": 5, "test": 0.0, "baselines": ()})
    result = run(X, recipe, y=y)
    np.testing.assert_array_equal(reg.out_of_fold_, result.blends[0].values[:, 0])
    assert reg.out_of_fold_score_ == pytest.approx(r2_score(y, reg.out_of_fold_), abs=1e-6)


def test_it_works_in_pipelines_and_searches() -> None:
    X, y = table()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Classifier(**QUICK)),
        {"classifier__epochs": np.array([1, 6]), "classifier__learning_rate": [1e-2]},
        cv=2,
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 2
    assert search.best_params_["classifier__epochs"] == 6
    assert search.best_estimator_.predict_proba(X).shape == (80, 2)
    said = cross_val_predict(Classifier(**LEARN), X, y, cv=2)
    assert accuracy_score(y, said) > 0.75


def test_a_clone_learns_the_same() -> None:
    X, y = table()
    clf = Classifier(Narrow, loss=own_loss, options={}, **QUICK)
    np.testing.assert_array_equal(
        clone(clf).fit(X, y).predict_proba(X), clone(clf).fit(X, y).predict_proba(X)
    )


def test_the_random_state_decides_the_networks() -> None:
    X, y = table()

    def said(state: Any) -> bytes:
        made = Classifier("linear", folds=2, epochs=2, random_state=state)
        return made.fit(X, y).predict_proba(X).tobytes()

    assert said(3) == said(np.int64(3)) == said(3)
    assert said(3) != said(4)
    assert said(None) != said(None)
    generator = np.random.RandomState(0)
    assert said(generator) != said(generator)
    assert said(np.random.RandomState(0)) == said(np.random.RandomState(0))


def test_no_global_state_is_left_changed() -> None:
    X, y = table()
    torch.set_num_threads(2)
    try:
        before = random.getstate(), np.random.get_state()[1].tobytes(), torch.random.get_rng_state()  # noqa: NPY002
        clf = Classifier(**QUICK, random_state=None).fit(X, y)
        clf.predict(X)
        with pytest.raises(AyatoriError, match="net must be"):
            Classifier("mpl").fit(X, y)
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
        assert torch.equal(torch.random.get_rng_state(), before[2])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_tables_of_all_kinds_of_columns_are_read() -> None:
    X, y = frame()
    clf = Classifier(**LEARN).fit(X, y)
    assert clf.feature_names_in_.tolist() == list(X)
    assert clf.score(X, y) > 0.9
    new = X.head(5).assign(colour="violet", town=None, age=np.nan)
    assert np.isfinite(clf.predict_proba(new)).all()
    np.testing.assert_allclose(clf.predict_proba(X.head(8)), clf.predict_proba(X)[:8], rtol=1e-5)
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(X.rename(columns={"size": "length"}))
    with pytest.raises(AyatoriError, match="'size' must hold finite numbers"):
        clf.predict(X.assign(size=np.inf))
    with pytest.raises(AyatoriError, match="at least 4 rows, however it has 3"):
        Classifier(**QUICK).fit(X.head(3), y[:3])


def test_words_stay_words_even_where_they_read_as_numbers() -> None:
    X, _ = frame()
    X["boat"] = np.where(np.arange(80) == 7, "D", (np.arange(80) % 4).astype(str))
    y = X["boat"].isin(["1", "3"])
    clf = Classifier(**LEARN).fit(X, y)
    assert "boat" in clf.model_.schema.categories
    assert clf.score(X, y) > 0.9
    assert "boat" in Classifier(**QUICK).fit(X[40:], y[40:]).model_.schema.categories


def test_a_table_is_also_read_from_its_bare_values() -> None:
    X, y = frame()
    clf = Classifier(**QUICK).fit(X[["size", "town"]], y)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        said = clf.predict(X[["size", "town"]].to_numpy())
    np.testing.assert_array_equal(said, clf.predict(X[["size", "town"]]))


def test_a_frame_of_numbers_is_read_like_its_array() -> None:
    X, y = table()
    named = pd.DataFrame(X, columns=["a", "b", "c"])
    clf = Classifier(**QUICK).fit(named, y)
    assert clf.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(clf.predict_proba(named), Classifier(**QUICK).fit(X, y).predict_proba(X))


def test_missing_numbers_are_welcome_and_infinite_ones_are_not() -> None:
    X, y = table()
    X[::7, 1] = np.nan
    assert np.isfinite(Classifier(**QUICK).fit(X, y).predict_proba(X)).all()
    X[3, 0] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity or a value too large"):
        Classifier(**QUICK).fit(X, y)


def test_a_column_vector_as_target_is_a_warning() -> None:
    X, y = table()
    for made, target in ((Classifier(**QUICK), y), (Regressor(**QUICK), X[:, 0])):
        with pytest.warns(DataConversionWarning, match="column-vector"):
            made.fit(X, target[:, None])
        assert made.predict(X).shape == (80,)


def test_several_values_a_row() -> None:
    X, _ = table(120)
    y = np.stack([X[:, 0] * 10, X[:, 1] - 5], axis=1)
    reg = Regressor(**LEARN).fit(X, y)
    assert reg.predict(X).shape == reg.out_of_fold_.shape == (120, 2)
    assert reg.out_of_fold_score_ == pytest.approx(r2_score(y, reg.out_of_fold_), abs=1e-6)
    assert reg.score(X, y) > 0.6


def test_several_labels_a_row() -> None:
    X, _ = table(120)
    y = (X[:, :2] > 0).astype(int)
    clf = Classifier(**LEARN, class_weights=(1.0, 2.0)).fit(X, y)
    assert clf.predict_proba(X).shape == clf.out_of_fold_.shape == (120, 2)
    assert clf.score(X, y) > 0.7
    assert clf.out_of_fold_score_ == pytest.approx(accuracy_score(y, clf.out_of_fold_ > 0.5))
    with pytest.raises(AyatoriError, match="fit one Classifier for each column"):
        Classifier(**QUICK).fit(X, y + np.arange(120)[:, None] % 2)


@pytest.mark.parametrize("shape", [(40, 1, 12, 12), (40, 12, 12, 3), (40, 12, 12)])
def test_pictures_are_arrays_of_more_axes(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    y = np.repeat([True, False], 20)
    pixels[y] //= 8
    clf = Classifier("cnn", folds=2, epochs=3, batch_size=8, augment="none").fit(pixels, y)
    assert clf.predict(pixels).dtype == bool
    assert clf.predict_proba(pixels[:3]).shape == (3, 2)
    with pytest.raises(ValueError, match="must have the shape"):
        clf.predict(pixels[..., :-1])


def test_rows_of_a_group_stay_together() -> None:
    X, y = table()
    groups = np.repeat(np.arange(20), 4).astype(str)
    clf = Classifier(**QUICK).fit(X, y, groups=groups)
    for member in range(2):
        scored = set(groups[clf.plan_.rows(member, SCORE)])
        learned = set(groups[clf.plan_.train_rows(member)]) | set(groups[clf.plan_.rows(member, STOP)])
        assert not scored & learned
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Classifier(**QUICK).fit(X, y, groups=groups[:-1])
    few = Regressor(**{**QUICK, "folds": 9}).fit(X, X[:, 0], groups=np.arange(80) % 4)
    assert few.plan_.members == 4


def test_folds_are_taken_down_to_the_smallest_class() -> None:
    X, _ = table(30)
    y = np.where(np.arange(30) < 3, "rare", "common")
    assert Classifier(epochs=1).fit(X, y).plan_.members == 3
    with pytest.raises(AyatoriError, match=r"at least 2 rows, however class 'rare' has 1; .*holdout"):
        Classifier(epochs=1).fit(X, np.where(np.arange(30) < 1, "rare", "common"))
    with pytest.raises(AyatoriError, match="at least 2 classes, however every row says 'a'"):
        Classifier().fit(X, ["a"] * 30)
    with pytest.raises(ValueError, match="minimum of 4 is required"):
        Regressor().fit(X[:3], [1.0, 2.0, 3.0])
    assert np.isfinite(Regressor(epochs=1).fit(X[:4], X[:4, 0]).predict(X)).all()


@pytest.mark.parametrize(
    ("settings", "members", "scored"),
    [
        ({"strategy": "holdout"}, 1, (1, 39)),
        ({"strategy": "rotate", "folds": 3}, 3, (0, 0)),
        ({"repeats": 2, "folds": 2}, 4, (60, 60)),
        ({"splitter": ShuffleSplit(2, test_size=0.25, random_state=0)}, 2, (15, 30)),
    ],
    ids=str,
)
def test_other_ways_to_share_the_rows(settings: dict, members: int, scored: tuple[int, int]) -> None:
    X, _ = table(60)
    reg = Regressor(**{**QUICK, **settings}).fit(X, X[:, 0])
    assert reg.plan_.members == members == len(reg.members_)
    said = np.isfinite(reg.out_of_fold_)
    assert scored[0] <= said.sum() <= scored[1]
    assert np.isfinite(reg.out_of_fold_score_) == said.any()
    assert np.isfinite(reg.predict(X)).all()


def test_a_rotation_keeps_the_network_that_did_best_on_its_own_stopping_rows() -> None:
    X, _ = table(60)
    reg = Regressor(**{**QUICK, "folds": 3}, strategy="rotate").fit(X, X[:, 0])
    best = reg.history_.loc[reg.history_["stop_loss"].idxmin(), "member"]
    said = predict_rows(reg.members_[best].network, {"numbers": X}, np.arange(60))
    np.testing.assert_array_equal(reg.predict(X), said[:, 0])


def test_every_parameter_reaches_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    splitter = ShuffleSplit(2)
    given = {
        "data": {"series": "row"},
        "plan": {"folds": 3, "repeats": 2, "strategy": "kfold", "stop": 0.3, "splitter": splitter},
        "net": {"activation": "relu", "options": {"width": 8}},
        "loss": {"label_smoothing": 0.3, "gamma": 1.5, "delta": 0.5, "quantile": 0.9},
        "train": {
            **{"epochs": 3, "batch_size": 7, "learning_rate": 0.5, "weight_decay": 0.1, "patience": 2},
            **{"clip": 0.5, "augment": "none", "device": "cpu", "tta": 3},
        },
        "ensemble": {
            **{"bags": 3, "bag_share": 0.5, "bag_features": 0.6, "rounds": 4, "boost": "samme.r"},
            **{"boost_threshold": 0.1, "boost_depth": 1, "boost_epochs": 2},
            **{"stack_nets": ("mlp",), "stack_rivals": ("trees",), "stack_model": "logistic"},
        },
        "pretrained": {"finetune": "last", "views": 2},
        "balance": {"balance_rule": "effective", "balance_strength": 0.5, "balance_both": True},
    }
    whole = {"preset": "best", "time_limit": 9}
    flat = {name: value for stage in given.values() for name, value in stage.items()}
    names = {"net", "loss", "ensemble", "pretrained", "class_weights", "random_state", "verbose"}
    names |= {"balance", "decide", "costs", "balance_shares"}
    assert {*flat, *whole, *names} == set(Classifier().get_params())
    seen: list[Recipe] = []

    def caught(data: Any, recipe: Recipe, **other: Any) -> None:
        seen.append(recipe)
        raise AyatoriError("caught")

    monkeypatch.setattr(ayatori.estimators, "run", caught)
    X, y = table()
    with pytest.raises(AyatoriError, match="caught"):
        Classifier(
            "linear", loss="focal", pretrained="a run", class_weights=[1, 2], random_state=7, **flat, **whole
        ).fit(X, y)
    (recipe,) = seen
    for stage, values in given.items():
        for name, value in values.items():
            assert getattr(getattr(recipe, stage), name) == value, name
    assert (recipe.net.name, recipe.loss.name, recipe.loss.class_weights) == ("linear", "focal", (1.0, 2.0))
    assert (recipe.seed, recipe.preset, recipe.time_limit) == (7, "best", 9.0)
    assert recipe.pretrained.name == "a run"
    assert (recipe.plan.test, recipe.evaluate.baselines) == (0.0, ())


def test_rare_classes_can_weigh_more() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(800, 2)), np.where(np.arange(800) < 80, 1, 0)
    X[y == 1] += 1

    def found(weights: Any) -> int:
        clf = Classifier(**{**QUICK, "epochs": 8}, class_weights=weights).fit(X, y)
        return int(clf.predict(X)[y == 1].sum())

    assert found(None) < found("balanced") < found({0: 0.1, 1: 10.0})
    with pytest.raises(AyatoriError, match="one weight for each of the 2 classes, however: 3"):
        Classifier(**QUICK, class_weights=[1, 2, 3]).fit(X, y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"net": "mpl"}, "did you mean 'mlp'"),
        ({"loss": "crossentropy"}, "did you mean 'cross_entropy'"),
        ({"epochs": "many"}, "'train.epochs' must be int, however: 'many'"),
        ({"folds": 2.5}, "'plan.folds' must be int"),
        ({"folds": 1}, "`folds` must be at least 2"),
        ({"strategy": "bootstrap"}, "`strategy` must be"),
    ],
    ids=str,
)
def test_settings_are_checked_when_fitting_and_not_before(wrong: dict, message: str) -> None:
    X, y = table()
    made = Classifier(**{**QUICK, **wrong})
    with pytest.raises(AyatoriError, match=message):
        made.fit(X, y)


def test_a_fitted_estimator_does_not_carry_the_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 400))
    clf = Classifier("linear", folds=2, epochs=1).fit(X, np.arange(500) % 2)
    assert len(pickle.dumps(clf)) < X.nbytes / 4


def test_progress_is_told_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = table()
    Classifier(**QUICK).fit(X, y)
    assert capsys.readouterr().out == ""
    Classifier(**QUICK, verbose=1).fit(X, y)
    assert "2 folds" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [["cat", "dog"], [3, -1], [True, False], [1.0, 2.0]], ids=str)
def test_what_was_saved_predicts_the_same(tmp_path: Path, labels: list) -> None:
    X, _ = table()
    y = np.where(X[:, 0] > 0, *np.array(labels))
    clf = Classifier(**QUICK, class_weights=(1.0, np.float64(2.0))).fit(X, y)
    assert clf.save(tmp_path / "models" / "mine") == tmp_path / "models" / "mine"
    back = Classifier.load(tmp_path / "models" / "mine")
    np.testing.assert_array_equal(back.predict_proba(X), clf.predict_proba(X))
    assert (back.predict(X) == clf.predict(X)).all()
    assert back.predict(X).dtype == clf.predict(X).dtype
    assert (back.out_of_fold_score_, back.n_features_in_) == (clf.out_of_fold_score_, 3)
    assert back.get_params() == {**clf.get_params(), "class_weights": [1.0, 2.0]}
    assert (clone(back).fit(X, y).predict_proba(X) == clf.predict_proba(X)).all()
    with pytest.raises(ValueError, match="expecting 3 features"):
        back.predict(X[:, :2])


def test_frames_and_words_survive_saving(tmp_path: Path) -> None:
    X, y = frame()
    reg = Regressor(**QUICK).fit(X, X["size"] * 3)
    reg.save(tmp_path / "mine")
    back = Regressor.load(tmp_path / "mine", epochs=9)
    np.testing.assert_array_equal(back.predict(X), reg.predict(X))
    assert back.feature_names_in_.tolist() == list(X)
    assert back.epochs == 9
    words = Classifier(**QUICK).fit(X, pd.Series(y, dtype=object))
    words.save(tmp_path / "words")
    assert (Classifier.load(tmp_path / "words").predict(X) == words.predict(X)).all()


def test_saved_folders_hold_no_pickle_and_choose_no_code(tmp_path: Path) -> None:
    X, y = table()
    clf = Classifier(Narrow, loss=own_loss, **QUICK).fit(X, y)
    clf.save(tmp_path / "mine")
    files = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for missing, given in (("net", {"loss": own_loss}), ("loss", {"net": Narrow})):
        with pytest.raises(AyatoriError, match=rf"`{missing}` was an object of your own.*{missing}=\.\.\."):
            Classifier.load(tmp_path / "mine", **given)
    back = Classifier.load(tmp_path / "mine", net=Narrow, loss=own_loss)
    np.testing.assert_array_equal(back.predict_proba(X), clf.predict_proba(X))


def test_folders_from_elsewhere_are_refused(tmp_path: Path) -> None:
    X, y = table()
    clf, path = Classifier(**QUICK).fit(X, y), tmp_path / "mine"
    with pytest.raises(NotFittedError):
        Classifier().save(path)
    clf.save(path)
    with pytest.raises(AyatoriError, match=r"must be new, however .* exists"):
        clf.save(path)
    with pytest.raises(
        AyatoriError, match="must hold a Regressor of format 1, however it holds a Classifier"
    ):
        Regressor.load(path)
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        Classifier.load(path, epoch=3)
    with pytest.raises(AyatoriError, match=r"must hold estimator\.json"):
        Classifier.load(tmp_path / "nothing")
    facts = json.loads((path / "estimator.json").read_text())
    for broken in ({**facts, "params": {"epoch": 1}}, {**facts, "classes": ["V9", ["a"]]}, [], {"format": 1}):
        (path / "estimator.json").write_text(json.dumps(broken))
        with pytest.raises(AyatoriError, match="must describe a Classifier"):
            Classifier.load(path)
    (path / "estimator.json").write_text(json.dumps(facts))
    next((path / "model").glob("*.safetensors")).write_bytes(b"other weights")
    with pytest.raises(AyatoriError, match="content has changed"):
        Classifier.load(path)
