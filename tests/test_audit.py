"""The audit: what is planted is found, what is sound is left in peace, and no sealed label is ever read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import command
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ayatori.data import load
from ayatori.data.twins import bind, find_twins
from ayatori.explore.audit import Audit, audit
from ayatori.explore.columns import odd_columns
from ayatori.explore.giveaways import step_of
from ayatori.explore.shift import shift, two_sample
from ayatori.explore.suspects import suspect_classes, suspect_sets, suspect_values
from ayatori.plan import make_plan
from ayatori.recipe import DataRecipe, PlanRecipe
from ayatori.records import Dataset, Graph, Representation


def graph_of(values: np.ndarray, k: int = 15) -> Graph:
    points = StandardScaler().fit_transform(np.nan_to_num(values))
    distances, indices = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
    return Graph(np.arange(len(values)), indices, distances.astype(np.float32))


def audited(dataset: Dataset, graph: bool = True, said: np.ndarray | None = None, test: float = 0.2) -> Audit:
    twins = find_twins(dataset)
    bound, _ = bind(dataset, twins, PlanRecipe(test=test))
    plan = make_plan(bound, PlanRecipe(test=test))
    values = dataset.inputs["numbers"]
    way = Representation("columns, standardised", values.astype(np.float32))
    return audit(bound, plan, twins, graph_of(values) if graph else None, way, said)


def whats(dataset: Dataset) -> dict[str, str]:
    return {one["column"]: one["what"] for one in odd_columns(dataset, np.arange(len(dataset)))}


# --- columns


def odd_table(n: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    target = random.integers(0, 2, n)
    frame = pd.DataFrame({"plain": random.normal(size=n), "other": random.normal(size=n)})
    frame["kind"] = random.choice(["red", "green", "blue"], n)
    frame["seldom"] = np.where(random.random(n) < 0.8, np.nan, random.normal(size=n))
    frame["case"] = 1000 + np.arange(n)
    frame["again"] = frame["plain"]
    frame["colour"] = frame["kind"].map({"red": "rouge", "green": "vert", "blue": "bleu"})
    frame["cause"] = target + 0.2 * random.normal(size=n)
    frame["y"] = np.where(target, "ill", "well")
    return frame, target


def test_each_odd_column_is_named_for_what_it_is_and_no_other() -> None:
    frame, _ = odd_table()
    frame["constant"] = 7.0
    assert whats(load(frame, target="y")) == {
        "seldom": "mostly missing",
        "case": "identifier",
        "again": "copy of another",
        "colour": "copy of another",
        "cause": "gives the target away",
        "constant": "constant",
    }


def test_a_constant_column_of_an_array_is_found() -> None:
    values = np.random.default_rng(1).normal(size=(60, 3))
    values[:, 1] = 4.0
    assert whats(load(values, y=np.arange(60) % 2)) == {"x1": "constant"}


def test_a_column_that_gives_a_number_away_is_found_and_a_merely_good_one_is_not() -> None:
    random = np.random.default_rng(2)
    target = random.normal(size=800)
    frame = pd.DataFrame({"noise": random.normal(size=800), "good": target + 0.3 * random.normal(size=800)})
    frame["cents"] = 100 * target + 5
    frame["y"] = target
    assert whats(load(frame, target="y")) == {"cents": "gives the target away"}


def lifeboats(n: int = 600) -> pd.DataFrame:
    """Columns that say a little of who was saved, and the boat, which was written down afterwards."""
    random = np.random.default_rng(5)
    signs = random.normal(size=(n, 6))
    saved = signs.sum(axis=1) + 4 * random.normal(size=n) > 0.8
    frame = pd.DataFrame(signs, columns=[f"sign {at}" for at in range(6)])
    boats = random.choice(["1", "2", "A", "B", "C"], n)
    frame["the boat"] = np.where(saved ^ (random.random(n) < 0.03), boats, "")
    frame["saved"] = np.where(saved, "yes", "no")
    return frame


def test_a_column_without_which_little_is_left_is_named_and_an_honest_one_is_not() -> None:
    frame = lifeboats()
    assert whats(load(frame, target="saved")) == {"the boat": "tells nearly all"}
    assert whats(load(frame.drop(columns="the boat"), target="saved")) == {}
    few = frame[["sign 0", "sign 1", "the boat", "saved"]]  # where one of three leads, nothing is odd
    assert "tells nearly all" not in whats(load(few, target="saved")).values()


def test_what_may_have_been_written_down_afterwards_is_said_with_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifeboats(300).to_csv(tmp_path / "passengers.csv", index=False)
    words = ("--target", "saved", "--preset", "quick", "--epochs", "1", "--baselines", "none")
    assert not command(monkeypatch, "run", tmp_path / "passengers.csv", *words, "-o", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "report.json").read_text())["answer"]
    assert "Careful: nearly all that is told of the target comes from column 'the boat' alone" in said["text"]
    assert said["next"].endswith("leave it out: --drop 'the boat'.")


@pytest.mark.parametrize("descending", [False, True])
def test_a_column_that_counts_rows_in_the_order_of_the_target_is_named_first(descending: bool) -> None:
    frame = lifeboats().drop(columns="the boat").sort_values("saved", ascending=not descending)
    frame["number"] = np.arange(1, 601)
    dataset = load(frame.sample(frac=1.0, random_state=0), target="saved")
    facts = odd_columns(dataset, np.flatnonzero(np.arange(600) % 5))
    assert [(one["column"], one["what"]) for one in facts] == [
        ("number", "counts the rows, which are sorted")
    ]
    assert "(accuracy 0.99" in facts[0]["sentence"] or "(accuracy 1.000)" in facts[0]["sentence"]
    assert step_of(facts)["step"] == "Leave out column 'number', which counts the rows: --drop number."


def test_a_column_that_counts_rows_in_any_order_is_an_identifier_no_more() -> None:
    frame = lifeboats().drop(columns="the boat").assign(number=np.arange(600))
    assert whats(load(frame, target="saved")) == {"number": "identifier"}


def test_numbers_that_count_rows_in_the_order_of_a_value_are_named() -> None:
    random = np.random.default_rng(4)
    frame = pd.DataFrame({"a": random.normal(size=300), "year": np.arange(1700, 2000)})
    frame["y"] = np.arange(300) / 100 + random.normal(size=300) / 4
    assert whats(load(frame, target="y")) == {"year": "counts the rows, which are sorted"}


def test_an_easy_task_and_a_rare_class_are_no_giveaway() -> None:
    random = np.random.default_rng(3)
    kinds = np.arange(400) % 2
    easy = kinds[:, None] + 0.05 * random.normal(size=(400, 4))
    assert whats(load(easy, y=kinds)) == {}
    rare = (np.arange(400) % 100 == 0).astype(int)
    assert whats(load(random.normal(size=(400, 3)), y=rare)) == {}
    assert whats(load(load_breast_cancer().data, y=load_breast_cancer().target)) == {}


def test_a_column_that_tells_as_much_as_the_others_together_is_named_as_an_easy_task() -> None:
    random = np.random.default_rng(3)
    first, second = random.integers(0, 2, (2, 400))
    frame = pd.DataFrame({"first": first, "second": second, "noise": random.normal(size=400)})
    frame["both"] = 10.0 * first + second
    frame["y"] = np.where(first & second, "yes", "no")
    (fact,) = odd_columns(load(frame, target="y"), np.arange(400))
    assert (fact["column"], fact["what"]) == ("both", "tells the target")
    assert "and so do the others without it" in fact["sentence"]


@pytest.mark.parametrize("classes", [False, True])
def test_dates_along_which_the_target_changes_slowly_are_told_and_others_are_not(classes: bool) -> None:
    random = np.random.default_rng(4)
    slow, order = np.cumsum(random.normal(size=300)), random.permutation(300)
    frame = pd.DataFrame(
        {"sold on": pd.date_range("2020-01-01", periods=300), "size": random.normal(size=300)}
    )
    frame["y"] = np.where(slow > np.median(slow), "high", "low") if classes else slow
    mixed = frame.iloc[order]
    (fact,) = odd_columns(load(mixed, target="y"), np.arange(300))
    assert (fact["column"], fact["what"]) == ("sold on", "slow in time")
    assert fact["sentence"].endswith("--time 'sold on' scores that")
    quick = frame.assign(y=frame["y"].to_numpy()[order])
    assert odd_columns(load(quick, target="y"), np.arange(300)) == []
    assert odd_columns(load(mixed, recipe=DataRecipe(target="y", time="sold on")), np.arange(300)) == []
    # what is sealed is never looked at: it alone is slow here
    half = np.arange(150)
    late = pd.concat([quick.iloc[half], frame.iloc[150:]])
    assert odd_columns(load(late, target="y"), half) == []


def test_numbers_that_happen_to_be_whole_are_no_identifiers() -> None:
    random = np.random.default_rng(4)
    values = np.stack([random.integers(0, 100_000, 500), np.sort(random.normal(size=500))], axis=1)
    assert whats(load(values.astype(float), y=np.arange(500) % 2)) == {}


# --- shift


def test_a_shifted_test_raises_an_alarm_and_a_random_split_hardly_ever_does() -> None:
    random = np.random.default_rng(5)
    alarms = 0
    for seed in range(12):
        side = np.arange(200) >= 150
        alarms += two_sample(random.normal(size=(200, 4)), side, seed)[1] < 0.01
    assert alarms <= 1
    moved = random.normal(size=(300, 4)) + np.where(np.arange(300) >= 240, 1.0, 0.0)[:, None]
    dataset = load(moved, y=np.arange(300) % 2)
    found = shift(dataset, np.arange(300) >= 240)
    assert found is not None
    assert found["alarm"]
    assert found["auc"] > 0.7
    assert "clearly differ" in found["sentence"]
    assert shift(dataset, np.arange(300) >= 290) is None, "ten rows say nothing"


def test_copies_that_are_held_together_are_not_taken_for_a_shift() -> None:
    values = np.random.default_rng(6).normal(size=(150, 4))
    dataset = load(np.repeat(values, 4, axis=0), y=np.repeat(np.arange(150) % 2, 4))
    twins = find_twins(dataset)
    bound, _ = bind(dataset, twins, PlanRecipe())
    sealed = make_plan(bound, PlanRecipe()).sealed
    found = shift(bound, sealed, twins.groups)
    assert found is not None
    assert found["p"] > 0.01
    naive = shift(dataset, sealed)
    assert naive is not None
    assert naive["p"] < 1e-6, "with all copies taking part, this is what one would have said"


# --- wrong labels


def flipped(target: np.ndarray, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = target.max() + 1
    wrong = random.random(len(target)) < rate
    return np.where(wrong, (target + random.integers(1, classes, len(target))) % classes, target), wrong


@pytest.mark.parametrize("name", ["digits", "breast cancer", "clusters"])
def test_flipped_labels_of_separable_classes_are_found(name: str) -> None:
    makers = {
        "digits": lambda: load_digits(return_X_y=True),
        "breast cancer": lambda: load_breast_cancer(return_X_y=True),
        "clusters": lambda: make_blobs(800, centers=5, n_features=8, random_state=0),
    }
    values, target = makers[name]()
    labels, wrong = flipped(target, 0.05, 0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    said = cross_val_predict(model, values, labels, cv=4, method="predict_proba")
    dataset = load(values, y=labels)
    found = audited(dataset, said=said, test=0.0)
    flagged = found.suspects["row"].to_numpy()
    assert wrong[flagged].sum() >= 0.8 * wrong.sum()
    assert wrong[flagged].mean() >= 0.6
    right = np.array([int(name) for name in found.suspects["likely"]]) == target[flagged]
    assert right[wrong[flagged]].mean() >= 0.9, "what is likely is what it was"
    assert (np.diff(found.suspects["score"]) <= 0).all()
    assert found.suspects["score"].between(0, 1).all()
    alone = audited(dataset, test=0.0).suspects["row"].to_numpy()
    assert wrong[alone].sum() >= 0.8 * wrong.sum(), "neighbours alone find them too"


def test_classes_that_overlap_have_hardly_a_suspect() -> None:
    random = np.random.default_rng(7)
    target = random.integers(0, 2, 1500)
    values = random.normal(size=(1500, 4))
    values[:, 0] += target
    said = cross_val_predict(LogisticRegression(), values, target, cv=4, method="predict_proba")
    wrong = (said.argmax(axis=1) != target).mean()
    assert wrong > 0.25
    assert suspect_classes(target, said, graph=graph_of(values)).flagged.mean() < 0.03


def test_a_copy_cannot_vouch_for_a_wrong_label() -> None:
    values, target = make_blobs(300, centers=3, random_state=1)
    copies = np.repeat(values[:1], 12, axis=0)
    wrong = (target[0] + 1) % 3
    rows = np.concatenate([values, copies])
    labels = np.concatenate([target, np.full(12, wrong)])
    labels[0] = wrong
    groups = np.full(len(rows), -1)
    groups[[0, *range(300, 312)]] = 0
    said = np.full((len(rows), 3), 0.3)
    said[np.arange(len(rows)), np.concatenate([target, np.full(12, target[0])])] = 0.4
    graph = graph_of(rows, 30)
    assert not suspect_classes(labels, said, graph=graph).flagged[0]
    assert suspect_classes(labels, said, graph=graph, apart=groups).flagged[0]


def test_a_label_of_a_set_is_suspected_alone() -> None:
    random = np.random.default_rng(8)
    labels = random.integers(0, 2, (400, 3)).astype(np.float32)
    said = np.clip(np.where(labels > 0, 0.9, 0.1) + 0.02 * random.normal(size=labels.shape), 0, 1)
    said[5, 2] = np.where(labels[5, 2] > 0, 0.97, 0.03)
    labels[5, 2] = 1 - labels[5, 2]
    found = suspect_sets(labels, said)
    assert np.flatnonzero(found.flagged).tolist() == [5]
    assert (found.likely[5] != labels[5]).tolist() == [False, False, True]
    assert found.score.argmax() == 5


def test_a_value_far_from_what_is_said_is_suspected() -> None:
    random = np.random.default_rng(9)
    truth = random.normal(size=(500, 1))
    said = truth + 0.1 * random.normal(size=(500, 1))
    truth[42] += 3
    said[7] = np.nan
    found = suspect_values(truth, said)
    assert np.flatnonzero(found.flagged).tolist() == [42]
    assert np.isnan(found.score[7])


# --- the whole


def test_sealed_labels_are_never_read() -> None:
    random = np.random.default_rng(10)
    values = random.normal(size=(300, 4)).round(1)
    values[250:] = values[:50]
    kinds = random.integers(0, 3, 300)
    for target in (kinds.astype(str), values[:, 0] + kinds, np.eye(3)[kinds]):
        dataset = load(values, y=target)
        twins = find_twins(dataset)
        plan = make_plan(dataset, PlanRecipe())
        said = random.random((300, dataset.labels[:1].size if dataset.task != "classification" else 3))
        labels = dataset.labels.copy()
        labels[plan.sealed] = -(2**40) if dataset.task == "classification" else np.nan
        poisoned = dataclasses.replace(dataset, target=labels)
        one, other = (audit(data, plan, twins, graph_of(values), None, said) for data in (dataset, poisoned))
        assert json.dumps(one.facts) == json.dumps(other.facts)
        assert not plan.sealed[one.suspects["row"].to_numpy(int)].any()
        for name in ("duplicates", "leaks", "suspects", "outliers"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
        hidden = one.duplicates[plan.sealed[one.duplicates["a"]] | plan.sealed[one.duplicates["b"]]]
        assert len(hidden) > 0
        assert hidden["same_label"].isna().all()


def test_copies_of_a_given_test_are_reported_and_leak_nowhere() -> None:
    values = np.random.default_rng(11).normal(size=(200, 5))
    values[180:] = values[:20]
    dataset = dataclasses.replace(load(values, y=np.arange(200) % 2), fixed_test=np.arange(200) >= 150)
    found = audited(dataset)
    assert found.facts["counts"] == {**found.facts["counts"], "duplicates": 20, "leaks": 0, "bound": 0}
    assert "copies of rows of the given test: 20; nobody learns from them" in found.facts["sentences"]
    assert all(line["across"] and line["same_label"] is None for line in found.facts["duplicates"])


def test_copies_that_are_bound_leak_nowhere() -> None:
    values = np.random.default_rng(12).normal(size=(200, 5))
    values[180:] = values[:20]
    found = audited(load(values, y=np.arange(200) % 2))
    counts = found.facts["counts"]
    assert (counts["duplicates"], counts["leaks"], counts["bound"]) == (20, 0, 40)
    assert len(found.leaks) == 0
    assert "splits hold 40 rows together" in found.facts["sentences"][0]


def test_the_error_that_contradicting_labels_force_is_exact() -> None:
    values = np.random.default_rng(13).normal(size=(100, 4))
    rows = np.concatenate([np.arange(100), [0, 0, 1]])
    labels = np.array(["a", "b"] * 50 + ["a", "b", "a"])
    found = audited(load(values[rows], y=labels), test=0.0)
    # row 0: a a b, row 1: b a: one of each must be wrong
    assert found.facts["counts"]["conflicts"] == 5
    assert found.facts["error_floor"] == pytest.approx(2 / 103)
    numbers = np.concatenate([np.arange(100.0), [1.0, 5.0, 1.0]])
    found = audited(load(values[rows], y=numbers), test=0.0)
    within = np.square(np.array([0.0, 1.0, 5.0]) - 2.0).sum()
    total = np.square(numbers - numbers.mean()).sum()
    assert found.facts["error_floor"] == pytest.approx(within / total)
    assert found.facts["counts"]["conflicts"] == 3


def test_far_rows_are_outliers_and_a_normal_cloud_has_few() -> None:
    values = np.random.default_rng(14).normal(size=(600, 5))
    values[:3] *= 12
    found = audited(load(values, y=np.arange(600) % 2), test=0.0)
    assert set(found.outliers["row"][:3]) == {0, 1, 2}
    assert len(found.outliers) <= 15
    assert (found.outlier[found.outliers["row"]] > 1).all()


def test_a_small_class_is_named() -> None:
    random = np.random.default_rng(15)
    target = np.array(["rare"] * 10 + ["common", "usual"] * 300)
    facts = audited(load(random.normal(size=(610, 3)), y=target), test=0.0).facts
    assert facts["classes"]["smallest"] == ["rare", 10]
    assert "class 'rare' has 10 of 610 rows" in facts["classes"]["sentence"]
    assert facts["classes"]["sentence"] in facts["sentences"]


def test_sound_data_get_a_clean_sheet() -> None:
    values, target = make_blobs(400, centers=3, n_features=5, cluster_std=0.5, random_state=2)
    facts = audited(load(values, y=target)).facts
    counts = facts["counts"]
    assert counts == dict.fromkeys(counts, 0) | {"outliers": counts["outliers"]}
    assert facts["columns"] == []
    assert [line for line in facts["sentences"] if "far from" not in line] == []


def test_small_and_odd_data_are_audited_without_a_word() -> None:
    for values, target in (
        (np.arange(24.0).reshape(8, 3), np.arange(8) % 2),
        (np.zeros((40, 2)), np.arange(40) % 2),
        (np.full((40, 2), np.nan), np.arange(40.0)),
        (load_iris().data, load_iris().target),
    ):
        dataset = load(values, y=target)
        plan = make_plan(dataset, PlanRecipe(folds=2))
        json.dumps(audit(dataset, plan, find_twins(dataset)).facts, allow_nan=False)


def test_a_column_whose_values_may_belong_together_is_told_before_anybody_trains() -> None:
    chance = np.random.default_rng(0)
    who = np.repeat(np.arange(30), 8)
    frame = pd.DataFrame(chance.normal(size=(240, 3)), columns=list("abc"))
    frame["patient_id"] = who + 1000
    frame["sick"] = np.where(chance.normal(size=30)[who] > 0, "yes", "no")
    found = odd_columns(load(frame, target="sick"), np.arange(240))
    assert "may be groups" in [one["what"] for one in found if one["column"] == "patient_id"]
    named = odd_columns(load(frame, recipe=DataRecipe(target="sick", groups="patient_id")), np.arange(240))
    assert not [one for one in named if one["what"] == "may be groups"]


def test_where_a_rare_class_is_improbable_everywhere_its_rows_are_no_suspects() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(2000, 4))
    chance = 1 / (1 + np.exp(2 - 0.7 * values[:, 0]))
    target = (random.random(2000) < chance).astype(np.int64)  # no label is wrong; a sixth are 1
    said = np.stack([1 - chance, chance], axis=1)
    assert not suspect_classes(target, said, graph=graph_of(values)).flagged.any()


def test_wrong_labels_of_a_rare_class_are_found_where_it_can_be_told() -> None:
    random = np.random.default_rng(4)
    target = (random.random(3000) < 0.05).astype(np.int64)
    values = random.normal(size=(3000, 4))
    values[:, 0] += 5 * target
    turned = random.choice(3000, 45, replace=False)
    given = target.copy()
    given[turned] = 1 - target[turned]
    said = cross_val_predict(LogisticRegression(), values, given, cv=4, method="predict_proba")
    flagged = suspect_classes(given, said, graph=graph_of(values)).flagged
    assert flagged[turned].mean() > 0.8
    assert np.isin(np.flatnonzero(flagged), turned).mean() > 0.8


def test_large_values_that_are_hard_to_tell_are_no_suspects_and_a_wrong_small_one_is() -> None:
    random = np.random.default_rng(7)
    said = np.exp(random.uniform(0, 3, (600, 1)))
    values = said * (1 + 0.1 * random.normal(size=said.shape))
    low = int(np.argmin(np.abs(said[:, 0] - 2.0)))
    values[low] += 8.0
    flagged = np.flatnonzero(suspect_values(values, said).flagged)
    assert low in flagged
    assert len(flagged) <= 3
