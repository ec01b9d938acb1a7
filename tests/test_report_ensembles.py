"""What the page says of ensembles is true to the run's numbers, readable, and no markup of the data's."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import EVIL, QUOTED, Page, entry, gap, quick, without_script

from ayatori import load
from ayatori.ensemble import grow
from ayatori.plan import make_plan
from ayatori.recipe import (
    EnsembleRecipe,
    EvaluateRecipe,
    ExploreRecipe,
    NetRecipe,
    PlanRecipe,
    Recipe,
    TrainRecipe,
)
from ayatori.report import facts, write_report
from ayatori.report.answer import answer
from ayatori.report.ensembles import ensemble_facts
from ayatori.report.figures import chain, chain_scales, scale
from ayatori.report.lines import chosen_line, held_out_line, line_of, own_network, spoken
from ayatori.report.members import kind_of, labels, plan_strips, read_members
from ayatori.report.words import number, said
from ayatori.run import run
from ayatori.store import RunFolder

KINDS = ("mean", "bagging", "boosting", "stacking", "greedy", "weighted", "majority")
SMALL = NetRecipe("mlp", options={"width": 8, "depth": 1, "numbers": "plain"})
RECIPE = Recipe(
    plan=PlanRecipe(folds=3),
    explore=ExploreRecipe(look=False),
    net=SMALL,
    train=TrainRecipe(epochs=3),
    evaluate=EvaluateRecipe(baselines=("majority", "linear")),
    ensemble=EnsembleRecipe(kinds=KINDS, bags=2, rounds=3, stack_rivals=("linear",), distill=True),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every ensemble; its classes are named to break a page."""
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 4))
    y = np.where(x[:, 0] + x[:, 1] ** 2 + 0.5 * random.normal(size=240) > 0.7, EVIL, QUOTED)
    out = tmp_path_factory.mktemp("ensembles") / "run"
    run(x, RECIPE, out=out, y=y)
    return out


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return facts(folder)


def told(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    return ensemble_facts(folder, result, recipe, read_members(folder))


def entry_of(result: dict[str, Any], name: str, split: str) -> dict[str, Any]:
    return next(e for e in result["leaderboard"] if e["name"] == name and e["split"] == split)


def test_the_page_is_valid_and_says_the_same_as_its_facts(folder: Path, found: dict[str, Any]) -> None:
    text = write_report(folder).read_text(encoding="utf-8")
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    page = Page(text)
    for text in (found["ensembles"]["text"], found["ensembles"]["student"]["text"]):
        assert re.sub(r"\s+", " ", text) in page.text
    assert not {"None", "nan"} & set(page.text.split())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert "ensembles" in ids
    assert len(ids) == len(set(ids))


def test_nothing_that_has_a_name_is_markup(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    evil = f"{EVIL}'\"&"
    named = json.loads(json.dumps(result).replace('"bag 1"', json.dumps(evil)))
    named["ensembles"]["notes"] = [evil]
    named["ensembles"]["boosting"][0]["reason"] = evil
    for one in named["leaderboard"]:
        one["name"] = one["name"].replace("linear network", f"{evil} network")
    text = without_script(text_with(folder, named, tmp_path))
    assert "<script" not in text
    assert Page(text).text.count(EVIL) > 4


def text_with(folder: Path, result: dict[str, Any], tmp_path: Path) -> str:
    """The page of the same run with another result.json."""
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        if path.name != "result.json":
            (other / path.name).symlink_to(path)
    (other / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return write_report(other, tmp_path / "page.html").read_text(encoding="utf-8")


def test_every_figure_of_the_table_is_that_of_the_leaderboard(
    found: dict[str, Any], result: dict[str, Any]
) -> None:
    seen = Counter()
    for line in found["ensembles"]["lines"]:
        for split in ("out_of_fold", "test"):
            if line[split]:
                same = [
                    e
                    for e in result["leaderboard"]
                    if e["network"] and e["split"] == split and e["scores"]["log_loss"] == line[split]
                ]
                assert line["title"] in {line_of(e["name"]).title for e in same}
                seen[split] += 1
    networks = Counter(e["split"] for e in result["leaderboard"] if e["network"])
    assert seen == networks


def test_the_models_that_answer_are_counted(
    folder: Path, found: dict[str, Any], result: dict[str, Any]
) -> None:
    lines = {line["title"]: line for line in found["ensembles"]["lines"]}
    assert lines["one network"]["models"] == lines["one network, taught"]["models"] == 1
    assert lines["mean of 3 folds"]["models"] == 3
    assert lines["2 bags"]["models"] == lines["majority vote"]["models"] == 2 * 3
    kept = sum(one["kept"] for one in result["ensembles"]["boosting"])
    assert lines["boosted networks"]["models"] == kept
    assert lines["stack"]["models"] == 3 * 3  # two networks and a rival, of three folds
    vote = json.loads((folder / "model" / "model.json").read_text())["vote"]
    delivered = next(line for line in lines.values() if line["chosen"])
    assert delivered["models"] == len({v for group in vote["groups"] for v in group["voices"]})
    mean, one = lines["mean of 3 folds"], lines["one network"]
    assert mean["times"]["train"] == pytest.approx(3)
    assert mean["seconds"]["train"] == pytest.approx(3 * one["seconds"]["train"])


def test_the_sentence_names_the_best_ensemble_and_its_figures(
    found: dict[str, Any], result: dict[str, Any]
) -> None:
    lines = [line for line in found["ensembles"]["lines"] if line["kind"] == "ensemble"]
    best = min(lines, key=lambda line: line["out_of_fold"]["value"])
    single = own_network(result["leaderboard"])
    assert single is not None
    text = found["ensembles"]["text"]
    assert f"{best['title']} do" in text
    assert f"log loss {said('log_loss', best['out_of_fold'])}" in text
    assert said("log_loss", single["scores"]["log_loss"]) in text
    assert f"{said('log_loss', best['test'])} against" in text
    assert f"{best['models']} models answer a new row" in text
    difference = rounded(abs(best["paired"]["difference"]))
    assert f"by {difference} points" in text or "accuracy the same" in text


def rounded(share: float) -> str:
    return f"{share * 100:.1f}"


@pytest.mark.parametrize(
    ("loss", "paired", "word", "says"),
    [
        (-0.05, {"difference": 0.03, "low": 0.01, "high": 0.05, "p": 0.004}, "Yes.", "higher by 3.0 points"),
        (-0.05, {"difference": 0.01, "low": -0.01, "high": 0.03, "p": 0.3}, "Perhaps.", "may be chance"),
        (-0.05, {"difference": -0.03, "low": -0.05, "high": -0.01, "p": 0.01}, "Undecided.", "lower by 3.0"),
        (0.05, {"difference": 0.01, "low": -0.01, "high": 0.03, "p": 0.3}, "No.", "no ensemble has a lower"),
        (
            -0.05,
            {"difference": 0.0, "low": -0.01, "high": 0.01, "p": 1.0}
            | {"loss": 0.05, "loss_low": 0.02, "loss_high": 0.08},
            "Yes.",
            "lower by 0.0500 (0.0200 – 0.0800), and accuracy the same",
        ),
    ],
)
def test_the_verdict_follows_from_the_interval(
    folder: Path, result: dict[str, Any], loss: float, paired: dict[str, float], word: str, says: str
) -> None:
    changed = copy.deepcopy(result)
    single = own_network(changed["leaderboard"])
    assert single is not None
    single["scores"]["log_loss"]["value"] = 0.5
    board = changed["leaderboard"]
    ensembles = [e for e in board if e["split"] == "out_of_fold" and line_of(e["name"]).kind == "ensemble"]
    for one in ensembles:
        if one["network"]:
            one["scores"]["log_loss"]["value"] = 0.9
    stack = entry_of(changed, "stack, 3 folds", "out_of_fold")
    stack["scores"]["log_loss"]["value"] = 0.5 + loss
    stack["paired"] = paired | {"n": 192}
    board.sort(key=lambda e: (e["split"] != "out_of_fold", e["scores"]["log_loss"]["value"]))
    text = told(folder, changed)["text"]
    assert text.startswith(word)
    assert "the stack" in text
    assert says in text


@pytest.mark.parametrize(
    ("loss", "low", "high", "says"),
    [
        (0.3, 0.01, 0.05, "The test agrees: 0.3000 against 0.5000"),
        (0.3, -0.01, 0.05, "The test leans the same way, within chance"),
        (0.7, -0.05, -0.01, "The test does not agree"),
        (0.7, -0.05, 0.01, "The test leans the other way, within chance"),
    ],
)
def test_the_test_is_asked_whether_it_agrees(
    folder: Path, result: dict[str, Any], loss: float, low: float, high: float, says: str
) -> None:
    changed = copy.deepcopy(result)
    for one in changed["leaderboard"]:
        one["scores"]["log_loss"]["value"] = {"stack, 3 folds": 0.1, "stack, mean of 3 folds": loss}.get(
            one["name"], 0.5
        )
        if one["name"].startswith("stack"):
            one["paired"] = {"difference": 0.0, "low": low, "high": high, "p": 0.1, "n": 48}
    changed["leaderboard"].sort(key=lambda e: e["scores"]["log_loss"]["value"])
    assert says in told(folder, changed)["text"]


def test_what_was_chosen_is_red_on_both_boards_and_out_of_bag_never(
    found: dict[str, Any], result: dict[str, Any]
) -> None:
    family = line_of(result["chosen"]).family
    for board in found["leaderboard"]["boards"]:
        (red,) = [line for line in board["entries"] if line["chosen"]]
        assert line_of(red["name"]).family == family
    bags = [*result["leaderboard"]]
    bags.sort(key=lambda e: not e["name"].startswith("out of bag"))  # the best of all
    assert bags[0]["split"] == "out_of_fold"
    held_out = held_out_line(bags, "mean of 3 folds")
    assert held_out is not None
    assert held_out["name"] == "one network, 3 folds"
    assert held_out_line(bags, "stack, mean of 3 folds")["name"] == "stack, 3 folds"  # type: ignore[index]
    assert chosen_line(bags, "stack, mean of 3 folds")["split"] == "test"  # type: ignore[index]


def test_what_was_predicted_stands_beside_one_network(result: dict[str, Any]) -> None:
    best = min(
        (e for e in result["leaderboard"] if e["network"] and e["split"] == "out_of_fold"),
        key=lambda e: e["scores"]["log_loss"]["value"],
    )
    own = own_network(result["leaderboard"])
    assert own is not None
    assert own["name"] == "one network, 3 folds" != best["name"]


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("stack, mean of 5 folds", "the stack, mean of 5 folds, is right in"),
        ("3 bags, mean of 5 folds", "the 3 bags, mean of 5 folds, are right in"),
        ("boosted networks, mean of 5 folds", "the boosted networks, mean of 5 folds, are right in"),
        ("weighted by loss, mean of 5 folds", "the networks weighted by loss, mean of 5 folds, are right in"),
        ("linear network, mean of 5 folds", "the linear network, mean of 5 folds, is right in"),
        ("mean of 5 folds", "the mean of 5 folds is right in"),
        ("best of 5, rotated", "the best of 5, rotated, is right in"),
        ("one network, hold-out", "one network, hold-out, is right in"),
    ],
)
def test_the_answer_speaks_of_every_ensemble_rightly(name: str, begins: str) -> None:
    said_ = {"task": "classification", "rows": {"development": 2000, "test": 500}, "chosen": name}
    rival = entry("boosting, mean of 5 folds", 0.9, 0.87, 0.93, **gap(-0.03, -0.05, -0.01), against=name)
    floor = entry("majority class", 0.5, 0.45, 0.55, **gap(-0.4, -0.45, -0.35))
    text = answer(said_, entry(name, 0.93, 0.9, 0.96, True), [rival], floor)["text"]
    assert begins in text
    assert "3.0 points less (1.0 – 5.0), so a network is worth it here" in text
    other = {**rival, "against": "3 bags, mean of 5 folds"}
    if name != other["against"]:
        text = answer(said_, entry(name, 0.93, 0.9, 0.96, True), [other], floor)["text"]
        assert "3.0 points less (1.0 – 5.0) than the 3 bags, so a network is worth it" in text


def test_without_a_test_the_figures_are_those_of_a_folds_ensemble() -> None:
    said_ = {"task": "classification", "rows": {"development": 500, "test": 0}}
    said_ |= {"chosen": "3 bags, 5 folds", "delivered": "3 bags, mean of 5 folds"}
    own = {**entry("3 bags, 5 folds", 0.93, 0.9, 0.96, True), "split": "out_of_fold"}
    text = answer(said_, own, [], None)["text"]
    assert "each judged by networks that never saw it, the 3 bags, 5 folds, are right in" in text
    assert "It has no score of its own; the figures are those of the 3 bags of one fold." in text


def test_a_line_is_what_its_name_says() -> None:
    kinds = {
        "one network, 5 folds, repeat 1 of 2": ("one", ""),
        "one of 5 networks": ("one", ""),
        "one of 5 pkg:net networks": ("one", "pkg:net"),
        "pkg:net network, hold-out": ("one", "pkg:net"),
        "linear network, mean of 5 folds": ("mean", "linear"),
        "mean of 2 repeats, 5 folds": ("mean", ""),
        "one network, taught": ("taught", "taught"),
        "out of bag, 50 bags": ("out of bag", "out of bag"),
        "10 bags, hold-out": ("ensemble", "10 bags"),
        "greedy choice, 5 folds": ("ensemble", "greedy choice"),
    }
    assert {name: (line_of(name).kind, line_of(name).family) for name in kinds} == kinds
    assert spoken("one of 5 networks") == ("one of 5 networks", False)


def test_the_plan_of_many_networks_is_drawn_in_few_lines(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    data, folds = load(x, y=(x[:, 0] > 0).astype(str)), PlanRecipe(folds=5)
    plan = make_plan(data, folds, net="mlp")
    plan = grow(plan, data, EnsembleRecipe(kinds=("bagging", "stacking"), bags=10), folds, 0, ("linear",))
    rounds = [dataclasses.replace(c, kind="round", round=r) for r in (2, 3) for c in plan.columns[:5]]
    plan = plan.beside(np.tile(plan.roles[:, :5], 2), rounds)
    RunFolder(tmp_path).write_plan(plan)
    drawn = plan_strips(tmp_path / "plan.parquet")
    kinds = Counter(kind_of(vars(column), "mlp") for column in plan.columns)
    assert [group["kind"] for group in drawn["groups"]] == ["fold", "net", "bag", "round", "pair"]
    assert sum(len(group["lines"]) for group in drawn["groups"]) <= 30
    for group in drawn["groups"]:
        assert len(group["lines"]) + group["more"] == kinds[group["kind"]]
        assert group["title"]
    names = {group["kind"]: [line["label"] for line in group["lines"]] for group in drawn["groups"]}
    assert names["fold"] == [f"fold {k}" for k in range(1, 6)]
    assert names["bag"] == ["fold 1 · bag 1", "fold 1 · bag 2", "fold 1 · bag 3"]
    assert names["round"] == ["fold 1 · round 2", "fold 1 · round 3", "fold 2 · round 2"]
    assert names["pair"][0] == "without 1 and 2"
    assert names["net"][0] == "linear, fold 1"
    assert drawn["counts"]["score"] == [32, 32]  # of a fold, not of a pair
    bag = drawn["groups"][2]["lines"][0]["strips"]
    assert "T" in bag
    assert "." in bag
    assert drawn["again"]


def test_labels_tell_repeats_and_hold_outs_apart() -> None:
    own = {"repeat": 0, "net": "mlp", "bag": 0, "round": 0}
    assert labels([{**own, "fold": -1}, {**own, "fold": -1, "kind": "bag", "bag": 2}]) == ["network", "bag 2"]
    two = [{**own, "fold": 0}, {**own, "fold": 1, "repeat": 1, "kind": "round", "round": 4}]
    assert labels(two) == ["1 · fold 1", "2 · fold 2 · round 4"]
    assert labels([{**own, "fold": 0}, {**own, "fold": -1, "kind": "student"}])[1] == "student"


def test_curves_are_those_of_the_folds_and_the_others_are_summed_up(
    folder: Path, found: dict[str, Any]
) -> None:
    members = read_members(folder)
    assert [curve["label"] for curve in found["curves"]["members"]] == ["fold 1", "fold 2", "fold 3"]
    others = {other["name"]: other for other in found["curves"]["others"]}
    assert list(others) == ["other networks", "bags", "rounds", "pairs", "student"]
    bags = [member["best_epoch"] for member in members if member["kind"] == "bag"]
    assert others["bags"]["members"] == len(bags) == 6
    assert others["bags"]["epochs"] == [min(bags), np.median(bags), max(bags)]
    assert sum(other["members"] for other in others.values()) + 3 == len(members)
    assert found["summary"][-2] == f"{len(members)} networks (mlp, linear)"


def test_voices_are_told_once_and_at_most_twelve_are_drawn(folder: Path, result: dict[str, Any]) -> None:
    changed = copy.deepcopy(result)
    differ = changed["ensembles"]["diversity"]
    differ["majority"] = copy.deepcopy(differ["bagging"])  # the same voices
    assert "bags, majority vote" in [one["title"] for one in told(folder, changed)["diversity"]]
    many = np.random.default_rng(0).uniform(size=(20, 20))
    changed["ensembles"]["diversity"] = {
        "bagging": result["ensembles"]["diversity"]["bagging"]
        | {
            "members": [{"name": f"bag {k}", "accuracy": 0.5, "loss": 0.7, "gain": None} for k in range(20)],
            "disagreement": many.tolist(),
            "correlation": many.tolist(),
        },
        "greedy": {"n": 0, "members": [], "together": {}},
    }
    (one,) = told(folder, changed)["diversity"]
    assert one["voices"] == 20
    assert len(one["members"]) == len(one["correlation"]) == len(one["disagreement"][0]) == 12
    assert one["correlation"][3] == many[3, :12].tolist()


def test_the_page_of_many_voices_says_how_many(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(result)
    own = changed["ensembles"]["diversity"]["bagging"]
    own["members"] = [dict(own["members"][0], name=f"bag {k + 1}") for k in range(14)]
    own["correlation"] = [[1.0 if i == j else None for j in range(14)] for i in range(14)]
    own["disagreement"] = [[0.0 if i == j else 0.25 for j in range(14)] for i in range(14)]
    page = Page(text_with(folder, changed, tmp_path))
    assert "the first 12 of 14" in page.text
    assert "bag 12" in page.text
    assert "bag 13" not in page.text


def test_boosting_is_drawn_as_it_went(found: dict[str, Any], result: dict[str, Any]) -> None:
    drawn, made = found["ensembles"]["boosting"], result["ensembles"]["boosting"]
    assert [one["losses"] for one in drawn["chains"]] == [one["stop_losses"] for one in made]
    assert [one["kept"] for one in drawn["chains"]] == [one["kept"] for one in made]
    assert found["ensembles"]["notes"] == result["ensembles"]["notes"]
    one = {"label": "fold 1", "kept": 2, "errors": [0.1, 0.3], "losses": [0.4, 0.2], "reason": ""}
    svg = chain(one, chain_scales({"chains": [one], "rounds": 3}))
    assert 'points="3.00,24.0 39.00,72.0"' in svg  # the loss falls from top to bottom, two of three rounds
    assert 'cx="39.00%" cy="72.0"' in svg
    single = {**one, "kept": 1, "errors": [0.1], "losses": [None]}
    assert "circle" not in chain(single, chain_scales({"chains": [single], "rounds": 1}))


def test_the_stack_shows_its_weights_where_it_is_delivered(folder: Path, result: dict[str, Any]) -> None:
    vote = json.loads((folder / "model" / "model.json").read_text())["vote"]
    names = [one["name"] for one in result["ensembles"]["diversity"]["stacking"]["members"]]
    weights = vote["last"]["weights"] if vote["last"] else []
    assert told(folder, result)["stack"] == [list(pair) for pair in zip(names, weights, strict=False)]


def test_the_student_is_told_with_its_price(
    folder: Path, found: dict[str, Any], result: dict[str, Any]
) -> None:
    assert (folder / "distilled" / "model.json").is_file()
    student = found["ensembles"]["student"]
    taught = entry_of(result, "one network, taught", "test")
    whole = entry_of(result, result["chosen"], "test")
    scores = [said("log_loss", one["scores"]["log_loss"]) for one in (taught, whole)]
    assert f"its log loss is {scores[0]} against {scores[1]}" in student["text"]
    models = next(line["models"] for line in found["ensembles"]["lines"] if line["chosen"])
    assert f"the cost of one network instead of {models} models" in student["text"]
    assert student["folder"] == "run/distilled"


def test_a_run_of_the_mean_alone_says_nothing_of_ensembles(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(120, 3))
    run(x, quick(), out=tmp_path / "run", y=(x[:, 0] > 0).astype(str))
    assert facts(tmp_path / "run")["ensembles"] == {}
    assert "did they help" not in write_report(tmp_path / "run").read_text(encoding="utf-8")


def test_ensembles_of_numbers_on_a_hold_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    recipe = dataclasses.replace(
        RECIPE,
        plan=PlanRecipe(strategy="holdout"),
        ensemble=EnsembleRecipe(kinds=("mean", "bagging", "boosting", "median"), bags=2, rounds=2),
    )
    run(x, recipe, out=tmp_path / "run", y=100 * x[:, 0] ** 2 + random.normal(size=200))
    found = facts(tmp_path / "run")["ensembles"]
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert re.match(r"(Yes|Perhaps|Undecided|No)\. On the \d+ held-out rows", found["text"])
    assert "RMSE" in found["text"]
    assert "mean absolute error" in found["text"]
    assert "points" not in found["text"]
    lines = {line["title"]: line for line in found["lines"]}
    assert lines["2 bags"]["models"] == 2
    held_out = lines["one network"]["out_of_fold"]["n"]
    assert lines["out of bag, 2 bags"]["out_of_fold"]["n"] > held_out == found["rows"]["out_of_fold"]
    assert f"{held_out} held-out rows, which the networks never saw" in page.text
    assert number(lines["2 bags"]["out_of_fold"]["value"]) in page.text


def test_of_many_lines_those_far_behind_are_not_on_the_axis() -> None:
    near = [{**entry(f"{k}", 0.95 + k / 1000, 0.94, 0.965, True), "blind": False} for k in range(12)]
    far = {**entry("far", 0.6, 0.55, 0.65, True), "blind": False}
    axis = scale({"metric": "accuracy", "boards": [{"entries": [*near, far]}]})
    assert axis["low"] > 0.9
    few = scale({"metric": "accuracy", "boards": [{"entries": [*near[:4], far]}]})
    assert few["low"] < 0.55
