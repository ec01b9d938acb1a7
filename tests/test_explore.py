"""What is said before training: honest, the same each time, and right where the truth is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

import ayatori
from ayatori.cli import main
from ayatori.data import load
from ayatori.evaluate.baselines import Trees
from ayatori.explore.bounds import _votes, calibration, predicted
from ayatori.explore.ceiling import cover_hart, pool
from ayatori.explore.curve import learning_curve
from ayatori.explore.features import representations
from ayatori.explore.probes import fit_probes, probe_plan, sample_rows, take_rows, thinned
from ayatori.explore.verdict import Evidence, verdict
from ayatori.plan import make_plan, strata
from ayatori.recipe import ExploreRecipe, PlanRecipe, Recipe, TrainRecipe, change
from ayatori.records import SCORE, STOP, AyatoriError, Graph, Look

QUICK = Recipe(explore=ExploreRecipe(permutations=99, look_rows=400), plan=PlanRecipe(folds=2))
NO_MAPS = change(QUICK, "explore", maps=False)


def clumps(rows: int, apart: float, seed: int = 0, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussians whose Bayes error is that of a normal beyond ``apart`` / 2."""
    chance = np.random.default_rng(seed)
    y = np.repeat(["cat", "dog"], rows // 2)
    x = chance.normal(size=(rows, columns))
    x[:, 0] += apart * (y == "dog")
    return x, y


@pytest.fixture(scope="module")
def look() -> Look:
    x, y = clumps(400, 2.5)
    return ayatori.explore(x, y=y, recipe=QUICK)


def test_labels_of_sealed_rows_change_nothing(look: Look) -> None:
    x, y = clumps(400, 2.5)
    data = load(x, y=y)
    sealed = make_plan(data, QUICK.plan, QUICK.seed).sealed
    assert sealed.sum() == 80
    other = data.labels.copy()
    other[sealed] = 1 - other[sealed]
    poisoned = dataclasses.replace(data, target=other)
    plan = make_plan(data, QUICK.plan, QUICK.seed)
    found = ayatori.explore(poisoned, plan, QUICK)
    assert _steady(found) == _steady(look)
    assert set(found.table.loc[sealed, "class"]) == {-1}


def _steady(look: Look) -> str:
    facts = {name: value for name, value in look.facts.items() if name != "seconds"}
    return json.dumps(facts, default=float) + look.table.to_json()


def test_the_same_seed_says_the_same_and_leaves_global_chance_alone(look: Look) -> None:
    x, y = clumps(400, 2.5)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = ayatori.explore(x, y=y, recipe=QUICK)
    assert _steady(again) == _steady(look)
    assert all(again.maps[name].tobytes() == look.maps[name].tobytes() for name in look.maps)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_a_look_knows_what_the_data_allow(look: Look) -> None:
    best = norm.cdf(1.25)  # 0.894
    assert look.ceiling is not None
    assert look.ceiling[0] <= best <= look.ceiling[1]
    assert look.expected is not None
    assert look.expected[0] < best
    assert look.verdict == "feasible"
    assert {name: points.shape for name, points in look.maps.items()} == {
        "pca": (400, 3),
        "tsne": (400, 3),
        "tsne_2d": (400, 2),
        "umap": (400, 3),
        "umap_2d": (400, 2),
    }


@pytest.mark.parametrize("seed", range(2))
def test_shuffled_labels_have_no_structure(seed: int) -> None:
    x, y = clumps(300, 3.0)
    shuffled = np.random.default_rng(seed).permutation(y)
    found = ayatori.explore(x, y=shuffled, recipe=dataclasses.replace(NO_MAPS, seed=seed))
    assert found.verdict == "no class structure"
    assert found.ceiling is not None
    assert found.ceiling[1] == 1.0


@pytest.mark.parametrize("copies", [False, True])
def test_rows_of_one_group_say_nothing_of_one_another(copies: bool) -> None:
    """Each patient is a place in space with a label at random: nothing can be said of a new one."""
    chance = np.random.default_rng(1)
    who = np.repeat(np.arange(60), 8)
    near = 0.0 if copies else 0.05
    frame = pd.DataFrame(chance.normal(size=(60, 4))[who] + near * chance.normal(size=(480, 4)))
    frame.columns = list("abcd")
    frame["sick"] = np.where(chance.permutation(60)[who] < 30, "yes", "no")
    frame["patient"] = who
    recipe = change(change(NO_MAPS, "data", target="sick"), "plan", test=0.0)
    # copies are found, and bound as groups, by themselves; patients must be named
    recipe = change(recipe, "data", **({"drop": ("patient",)} if copies else {"groups": "patient"}))
    look = ayatori.explore(frame, recipe=recipe)
    assert look.verdict == "no class structure"
    for probe in look.facts["probes"]:
        assert probe["value"] < 0.7
        assert probe["n"] == 400
        assert probe["high"] - probe["low"] > 0.18  # as of 60 patients, not of 400 rows (0.1)
    assert look.expected is None


def test_a_parity_of_three_bits_is_never_out_of_reach() -> None:
    chance = np.random.default_rng(0)
    bits = chance.integers(0, 2, (600, 8))
    asked = change(NO_MAPS, "explore", look_rows=10_000, target_accuracy=0.95)
    found = ayatori.explore(
        bits + 0.1 * chance.normal(size=bits.shape), y=bits[:, :3].sum(1) % 2, recipe=asked
    )
    assert found.verdict != "not with this data"
    assert found.ceiling is not None
    assert found.ceiling[1] > 0.95


def test_a_target_beyond_noisy_labels_is_said_to_be_beyond() -> None:
    x, y = clumps(1000, 9.0)
    chance = np.random.default_rng(0)
    y = np.where(chance.random(1000) < 0.3, chance.permutation(y), y)  # 15 % are wrong now
    asked = change(NO_MAPS, "explore", look_rows=10_000, target_accuracy=0.97)
    found = ayatori.explore(x, y=y, recipe=asked)
    assert found.verdict == "not with this data"
    assert "97 %" in found.sentence


def test_numbers_and_several_labels_are_looked_at_too() -> None:
    data = load_diabetes()
    found = ayatori.explore(data.data, y=data.target, recipe=NO_MAPS)
    assert found.facts["metric"] == "r2"
    assert found.expected is not None
    assert 0.2 < found.expected[0] < found.expected[1] < 0.8
    x, _ = clumps(300, 0.0)
    labels = np.stack([x[:, 0] > 0, x[:, 1] > 0], axis=1).astype(float)
    several = ayatori.explore(x, y=labels, recipe=NO_MAPS)
    assert several.expected is not None
    assert several.expected[1] > 0.8


@pytest.mark.parametrize(("step", "last"), [("1D", "2024-03-31"), ("90min", "2024-01-06 15:00")])
def test_a_row_of_a_table_is_told_as_it_was_read_dates_too(step: str, last: str) -> None:
    rows = 91
    days = pd.Series(pd.date_range("2024-01-01", periods=rows, freq=step))
    size = np.random.default_rng(0).normal(size=rows)
    frame = pd.DataFrame({"when": days, "size": size, "kind": np.resize(["a", "b", None], rows)})
    frame.loc[3, "when"] = None
    table = ayatori.explore(frame, y=size > 0, recipe=NO_MAPS).table.set_index("row")
    told = [name for name in table if name.startswith("in_")]
    assert told == ["in_when", "in_size", "in_kind"]
    assert table.loc[90, told].tolist() == [last, f"{size[90]:.6g}", "a"]
    assert (table.loc[3, "in_when"], table.loc[2, "in_kind"]) == ("", "")


@pytest.mark.parametrize("rows", [6, 12, 40])
def test_few_rows_get_no_number(rows: int) -> None:
    x, y = clumps(rows, 5.0)
    found = ayatori.explore(x, y=y, recipe=NO_MAPS)
    assert (found.verdict, found.expected) == ("too few rows", None)
    assert "too few" in found.sentence


@pytest.mark.parametrize("rare", ["ant", "zebra"])  # the first of the classes, and the last
def test_a_class_of_a_few_rows_does_not_end_a_look(rare: str) -> None:
    x, y = clumps(200, 2.5)
    seen = ayatori.explore(x, y=np.where(np.arange(200) % 50 == 0, rare, y), recipe=NO_MAPS)
    assert seen.verdict == "feasible"
    assert seen.expected is not None


def test_rows_become_points_by_what_development_rows_say() -> None:
    pictures = (load_digits().images[:120, None] * 15).astype(np.uint8)
    table = load_breast_cancer().data[:120]
    for values in (pictures, table):
        data = load(values, y=["a", "b"] * 60)
        changed = values.copy()
        changed[100:] = changed[100:] // 2 + 3 if values.dtype == np.uint8 else changed[100:] * 7 + 1
        own = np.arange(100)
        for one, other in zip(
            representations(data, own), representations(load(changed, y=["a", "b"] * 60), own), strict=True
        ):
            assert one.name == other.name
            np.testing.assert_array_equal(one.values[:100], other.values[:100])
            assert not np.array_equal(one.values[100:], other.values[100:])


def test_your_own_features_must_fit() -> None:
    x, y = clumps(60, 1.0)
    with pytest.raises(AyatoriError, match=r"59 lines for 60 rows"):
        representations(load(x, y=y), np.arange(60), given={"mine": x[:59]})
    assert representations(load(x, y=y), np.arange(60), given={"mine": x})[-1].name == "mine"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.8]), min_size=2, max_size=2))
def test_a_smaller_share_is_a_part_of_a_larger_one(seed: int, sizes: list[float]) -> None:
    x, y = clumps(120, 1.0, seed)
    data = load(x, y=y)
    plan = probe_plan(data, seed)
    small, large = (thinned(plan, strata(data), size, seed).roles for size in sorted(sizes))
    learned = (small > 0) & (small <= STOP)
    assert ((large > 0) & (large <= STOP))[learned].all()
    assert learned.any(axis=0).all()
    assert np.array_equal(small == SCORE, plan.roles == SCORE)


def test_probes_say_what_cross_validation_says() -> None:
    x, y = clumps(300, 2.0)
    data = load(x, y=y)
    probes, notes = fit_probes(data, probe_plan(data, 0), 0)(None)
    scores = {one.name: (one.values.argmax(1) == data.labels).mean() for one in probes if one.size == 1.0}
    reference = (cross_val_predict(LogisticRegression(), x, y, cv=5) == y).mean()
    assert abs(scores["logistic regression"] - reference) < 0.02
    assert not notes
    assert scores["majority class"] == 0.5


def test_trees_do_as_well_as_those_of_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    ours = Trees().fit(x[:900], y[:900])
    theirs = ExtraTreesClassifier(60, min_samples_leaf=2, random_state=0).fit(x[:900], y[:900])
    assert abs((ours.predict(x[900:]) == y[900:]).mean() - theirs.score(x[900:], y[900:])) < 0.02


def test_a_pool_beats_its_members_and_ignores_the_blind() -> None:
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 3, 3000)

    def told(rate: float) -> np.ndarray:
        said = np.full((3000, 3), (1 - rate) / 2)
        right = np.where(chance.random(3000) < rate, truth, chance.integers(0, 3, 3000))
        said[np.arange(3000), right] = rate
        return said

    one, other, blind = told(0.7), told(0.7), np.full((3000, 3), 1 / 3)
    pooled = pool([one, other, blind], truth)
    assert np.allclose(pooled.sum(axis=1), 1)
    losses = [-np.log(said[np.arange(3000), truth]).mean() for said in (pooled, one, other)]
    assert losses[0] < min(losses[1:]) - 0.05


def test_cover_and_hart_bound_is_tight_for_uniform_noise() -> None:
    for classes, rate in ((2, 0.1), (10, 0.3)):
        wrong = rate * (classes - 1) / classes
        twice = 2 * wrong - classes / (classes - 1) * wrong**2
        assert cover_hart(twice, classes) == pytest.approx(wrong)


def test_the_numbers_behind_the_intervals_are_in_order() -> None:
    assert set(calibration()) >= {"ceiling", "expected"}
    names = {name for line in calibration()["ceiling"].values() for name in line["weights"]}
    low, middle, high = predicted("ceiling", dict.fromkeys(names, 0.5))
    assert low <= middle <= high


def test_a_learning_curve_finds_its_floor() -> None:
    rows = np.array([250, 500, 1000, 2000])
    found = learning_curve(rows, 0.1 + 3 * rows**-0.6, 100_000, target=0.85)
    assert found is not None
    at = found["forecast"]["rows"].index(20_000)
    truth = 1 - (0.1 + 3 * 20_000**-0.6)
    assert found["forecast"]["low"][at] - 0.01 <= truth <= found["forecast"]["high"][at] + 0.01
    needed = (3 / 0.05) ** (1 / 0.6)  # rows until 0.85
    assert needed / 1.5 < found["needed"]["rows"] < needed * 1.5 if found["needed"] else needed < 2000
    far = learning_curve(rows, 0.3 + 0 * rows, 100_000, target=0.95)
    assert far is not None
    assert far["needed"] is None
    assert "will not reach it" in far["sentence"]


GOOD = (0.90, 0.93, 0.95), (0.93, 0.95, 0.97)


@pytest.mark.parametrize(
    ("target", "p", "rows", "word"),
    [
        (0.89, 0.0005, 1000, "feasible"),
        (0.92, 0.0005, 1000, "likely"),
        (0.96, 0.0005, 1000, "undecided"),
        (0.98, 0.0005, 1000, "not with this data"),
        (None, 0.0005, 1000, "feasible"),
        (0.98, 0.3, 1000, "no class structure"),
        (0.89, 0.0005, 50, "too few rows"),
    ],
)
def test_the_verdict_follows_from_the_figures(target: float | None, p: float, rows: int, word: str) -> None:
    said = verdict(Evidence("classification", rows, 2, 0.5, 0.92, "trees", p, *GOOD, target=target))
    assert said["word"] == word
    assert said["sentence"].endswith(".")
    assert said["next"].endswith(".")
    assert "impossible" not in json.dumps(said).lower()


def test_where_nobody_named_a_target_an_undecided_verdict_says_what_was_asked_for() -> None:
    ends = (0.6, 0.65, 0.7), (0.65, 0.7, 0.8)
    said = verdict(Evidence("classification", 1000, 2, 0.5, 0.64, "trees", 0.0005, *ends))
    assert said["word"] == "undecided"
    assert "--target-accuracy" in " ".join(said["reasons"])
    clear = verdict(Evidence("classification", 1000, 2, 0.5, 0.92, "trees", 0.0005, *GOOD))
    assert "--target-accuracy" not in " ".join(clear["reasons"])


def test_rows_are_drawn_in_proportion() -> None:
    kinds = np.repeat([0, 1, 2], [600, 300, 100])
    drawn = sample_rows(kinds, np.arange(1000), 100, 0)
    assert np.bincount(kinds[drawn]).tolist() == [60, 30, 10]
    data = load(np.arange(2000.0).reshape(1000, 2), y=kinds.astype(str))
    assert take_rows(data, drawn).ids.tolist() == data.ids[drawn].tolist()


def test_the_command_writes_a_page_and_asks_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = clumps(300, 6.0)
    rows = "\n".join(f"{a:.3f},{b:.3f},{label}" for (a, b), label in zip(x[:, :2], y, strict=True))
    Path("größe n.csv").write_text(f"länge,b,art\n{rows}\n", encoding="utf-8")
    words = ["ayatori", "explore", "größe n.csv", "--target-accuracy", "0.9", "--out", "seen"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "feasible" in out
    assert "explore.html" in out
    facts = json.loads(Path("seen/explore.json").read_text(encoding="utf-8"))
    assert facts["ruler"]["target"] == 0.9
    assert facts["sealed"] == 60
    assert Path("seen/explore.html").stat().st_size < 5_000_000
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "must be new" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_run_looks_first_and_a_resumed_run_does_not_look_again(tmp_path: Path) -> None:
    x, y = clumps(200, 4.0)
    recipe = dataclasses.replace(NO_MAPS, train=TrainRecipe(epochs=2))
    heard: list[str] = []
    result = ayatori.run(x, recipe, tmp_path / "run", y=y, show=lambda event: heard.append(event.stage))
    assert heard.index("explore") < heard.index("train")
    assert result.look is not None
    assert result.verdict["word"] == result.look.verdict
    told = json.loads((tmp_path / "run" / "result.json").read_text())["verdict"]
    assert told["word"] == result.look.verdict
    before = (tmp_path / "run" / "explore.json").read_bytes()
    (tmp_path / "run" / "DONE").unlink()
    again = ayatori.resume(tmp_path / "run", x, y=y)
    assert again.look is None
    assert again.verdict == told
    assert (tmp_path / "run" / "explore.json").read_bytes() == before


def test_a_test_without_labels_is_compared_and_never_read(tmp_path: Path) -> None:
    x, y = clumps(300, 2.5)
    table = pd.DataFrame(x, columns=list("abcd")).assign(kind=y).sample(frac=1, random_state=0)
    table[:220].to_csv(tmp_path / "train.csv", index=False)
    table[220:].to_csv(tmp_path / "labelled.csv", index=False)
    table[220:].drop(columns="kind").to_csv(tmp_path / "test.csv", index=False)
    moved = table[220:].drop(columns="kind").assign(b=lambda rows: rows["b"] + 4)
    moved.to_csv(tmp_path / "moved.csv", index=False)

    def seen(test: str) -> Look:
        data = change(NO_MAPS, "data", target="kind")
        return ayatori.explore(
            str(tmp_path / "train.csv"), recipe=change(data, "plan", test=str(tmp_path / test))
        )

    labelled, blind, far = (seen(name) for name in ("labelled.csv", "test.csv", "moved.csv"))
    assert blind.facts["verdict"] == labelled.facts["verdict"]
    assert blind.expected == labelled.expected == far.expected
    assert not blind.facts["audit"]["shift"]["alarm"]
    assert far.facts["audit"]["shift"]["alarm"]
    assert any("80 test rows have no labels" in note for note in blind.facts["notes"])
    with pytest.raises(AyatoriError, match="column 'kind' must be in the rows"):
        ayatori.run(
            str(tmp_path / "train.csv"),
            change(change(QUICK, "data", target="kind"), "plan", test=str(tmp_path / "test.csv")),
        )


# --- equal inputs


@pytest.mark.parametrize("numbers", [False, True])
def test_nothing_is_promised_beyond_what_equal_inputs_with_other_labels_allow(numbers: bool) -> None:
    random = np.random.default_rng(9)
    frame = pd.DataFrame(random.integers(0, 3, (600, 2)), columns=["a", "b"])
    noisy = 3.0 * frame["a"] + frame["b"] + 3 * random.normal(size=600)
    frame["y"] = noisy if numbers else np.where(noisy > noisy.median(), "much", "little")
    found = ayatori.explore(frame, recipe=change(NO_MAPS, "data", target="y"))
    floor = found.facts["audit"]["error_floor"]
    assert floor > 0.1
    assert found.ceiling is not None
    assert found.expected is not None
    assert found.ceiling[1] <= 1 - floor
    assert found.expected[1] <= 1 - floor


# --- in time


def walking(n: int = 300) -> pd.DataFrame:
    """A target that walks at random, day by day, and a column that says nothing of it."""
    random = np.random.default_rng(6)
    target = np.cumsum(random.normal(size=n))
    days = pd.date_range("2020-01-01", periods=n)
    return pd.DataFrame({"day": days, "size": random.normal(size=n), "y": target})


def test_with_a_time_column_the_look_expects_what_earlier_rows_say_of_later_ones() -> None:
    frame = walking().sample(frac=1, random_state=0)
    quick = change(NO_MAPS, "explore", permutations=20)
    anyhow = ayatori.explore(frame, recipe=change(quick, "data", target="y"))
    ahead = ayatori.explore(frame, recipe=change(quick, "data", target="y", time="day"))
    assert anyhow.expected is not None
    assert anyhow.expected[0] > 0.8
    assert ahead.verdict in ("no class structure", "undecided", "not with this data")
    assert ahead.expected is None or ahead.expected[1] < anyhow.expected[0]
    sentences = ahead.facts["audit"]["sentences"]
    assert any("on later rows" in one and "holds less well later" in one for one in sentences)
    assert not any("--time" in one for one in sentences)
    assert any("--time day scores that" in one for one in anyhow.facts["audit"]["sentences"])


def test_where_time_changes_nothing_the_look_expects_the_same_of_later_rows() -> None:
    random = np.random.default_rng(7)
    frame = pd.DataFrame(random.normal(size=(400, 3)), columns=list("abc"))
    frame["day"] = pd.date_range("2020-01-01", periods=400)
    frame["y"] = np.where(frame["a"] + frame["b"] > 0, "up", "down")
    quick = change(NO_MAPS, "explore", permutations=20)
    ahead = ayatori.explore(frame, recipe=change(quick, "data", target="y", time="day"))
    assert ahead.verdict == "feasible"
    assert not any("later rows" in one for one in ahead.facts["audit"]["sentences"])


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_rows_that_are_too_late_have_no_vote(task: str) -> None:
    random = np.random.default_rng(8)
    n, k = 80, 10
    labels = random.integers(0, 3, n) if task == "classification" else random.random((n, 2)).round()
    indices = np.stack([random.permutation(n)[:k] for _ in range(n)])
    graph = Graph(np.arange(n), indices, np.ones((n, k), np.float32))
    when, until = np.arange(float(n)), np.full(n, 39.0)
    until[0] = -np.inf
    said = _votes(graph, labels, task, (when, until), 5)
    other = labels.copy()
    other[40:] = random.permutation(labels[40:])
    np.testing.assert_allclose(_votes(graph, other, task, (when, until), 5), said)
    everyone = labels.mean(axis=0) if labels.ndim == 2 else np.bincount(labels) / n
    np.testing.assert_allclose(said[0], everyone)
    row = next(row for row in range(1, n) if (indices[row] < 40).sum() >= 5)
    first = indices[row][indices[row] < 40][:5]
    if task == "regression":
        np.testing.assert_allclose(said[row], labels[first].mean(axis=0))
    np.testing.assert_allclose(
        _votes(graph, labels, task, None, 5), _votes(graph, labels, task, (when, np.full(n, 99.0)), 5)
    )


@pytest.mark.parametrize("case", ["classes one after another", "few times"])
def test_where_later_rows_cannot_be_judged_the_look_still_speaks_of_rows_at_random(case: str) -> None:
    random = np.random.default_rng(10)
    frame = pd.DataFrame(random.normal(size=(300, 2)), columns=["a", "b"])
    frame["when"] = np.arange(300) if case == "classes one after another" else np.arange(300) // 60
    frame["y"] = np.repeat(["x", "y", "z"], 100) if case == "classes one after another" else 2 * frame["a"]
    folds = change(NO_MAPS, "plan", folds=2)
    found = ayatori.explore(frame, recipe=change(folds, "data", target="y", time="when"))
    sentences = found.facts["audit"]["sentences"]
    alone = case == "classes one after another"
    assert any("could not be judged by earlier ones" in one for one in sentences) == alone
    assert found.verdict == ("no class structure" if alone else "feasible")
