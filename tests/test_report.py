"""The page: what it says is true, what data says is escaped, it is one valid file that opens offline."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from ayatori.data import load
from ayatori.evaluate.compare import paired
from ayatori.evaluate.metrics import score
from ayatori.plan import make_plan
from ayatori.recipe import (
    DataRecipe,
    EvaluateRecipe,
    ExploreRecipe,
    NetRecipe,
    PlanRecipe,
    Recipe,
    TrainRecipe,
)
from ayatori.records import SCORE, SEALED, STOP, AyatoriError, Column, Plan
from ayatori.report import facts, render, write_report
from ayatori.report.answer import answer
from ayatori.report.figures import scale, ticks
from ayatori.report.look import script, script_hash
from ayatori.report.members import plan_strips
from ayatori.report.mistakes import label_table, read_predictions
from ayatori.report.words import interval, said
from ayatori.run import run
from ayatori.store import RunFolder

EVIL = "<script>alert(1)</script>"
QUOTED = "a & \"b\" onload='x'"
UNSEEN = ExploreRecipe(look=False)  # what is seen before training has its own tests, in test_look_page.py


def quick(rivals: tuple[str, ...] = ("majority", "linear"), **plan: Any) -> Recipe:
    return Recipe(
        plan=PlanRecipe(**{"folds": 2, **plan}),
        net=NetRecipe("linear"),
        train=TrainRecipe(epochs=3),
        evaluate=EvaluateRecipe(baselines=rivals),
        explore=UNSEEN,
    )


def numbers(rows: int = 160, columns: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def two_classes(x: np.ndarray) -> np.ndarray:
    return np.where(x[:, 0] > 0, EVIL, QUOTED)


def many_classes(size: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    codes = np.arange(rows) % size
    x = np.random.default_rng(1).normal(size=(rows, 4)) + np.stack([codes, codes**2 % 7] * 2, axis=1)
    return x, np.array([f"class {code:03d}" for code in codes])


def make_classification(out: Path, recipe: Recipe) -> None:
    x = numbers()
    run(x, recipe, out=out, y=two_classes(x))


def make_regression(out: Path, values: int) -> None:
    x = numbers()
    y = np.stack([3 * x[:, 0] + 1, -x[:, 1], x[:, 2]][:values], axis=1)
    recipe = quick()
    run(x, recipe, out=out, y=y if values > 1 else y[:, 0])


def make_multilabel(out: Path) -> None:
    x = numbers()
    frame = pd.DataFrame(x, columns=list("abcd"))
    for position, name in enumerate(("sea", EVIL, "sea side")):
        frame[name] = (x[:, position] > 0).astype(int)
    path = out.parent / "labels.csv"
    frame.to_csv(path, index=False)
    recipe = Recipe(
        data=DataRecipe(target=("sea", EVIL, "sea side"), task="multilabel"),
        plan=PlanRecipe(folds=2),
        net=NetRecipe("linear"),
        train=TrainRecipe(epochs=3),
        evaluate=EvaluateRecipe(baselines=("majority", "linear")),
        explore=UNSEEN,
    )
    run(path, recipe, out=out)


def make_pictures(out: Path) -> None:
    folder, generator = out.parent / "pets", np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    run(folder, quick(rivals=()), out=out)


def make_table(out: Path) -> None:
    x = numbers()
    frame = pd.DataFrame(x, columns=["size", EVIL, "c", "d"])
    frame["who"] = [f"person {row}" for row in range(len(x))]
    frame["kind"] = np.where(x[:, 0] + x[:, 1] > 0, "yes", "no")
    path = out.parent / "table & more.csv"
    frame.to_csv(path, index=False)
    run(path, Recipe(**{**vars(quick()), "data": DataRecipe(target="kind", ids="who")}), out=out)


MAKERS: dict[str, Any] = {
    "two classes": lambda out: make_classification(out, quick()),
    "no test": lambda out: make_classification(out, quick(test=0.0)),
    "hold-out": lambda out: make_classification(out, quick(strategy="holdout")),
    "rotate": lambda out: make_classification(out, quick(strategy="rotate")),
    "no rivals": lambda out: make_classification(out, quick(rivals=())),
    "repeats": lambda out: make_classification(out, quick(repeats=2)),
    "26 classes": lambda out: run(*_xy(*many_classes(26, 520), quick()), out=out, y=many_classes(26, 520)[1]),
    "200 classes": lambda out: run(
        *_xy(*many_classes(200, 1600), quick()), out=out, y=many_classes(200, 1600)[1]
    ),
    "regression": lambda out: make_regression(out, 1),
    "three values": lambda out: make_regression(out, 3),
    "labels": make_multilabel,
    "pictures": make_pictures,
    "table": make_table,
}


def _xy(x: np.ndarray, y: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, Recipe]:
    return x, recipe


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run folders, each made when first asked for."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("runs") / "run"
            MAKERS[name](folders[name])
        return folders[name]

    return get


VOID = {"meta", "img", "br", "link", "input", "hr"}
BLOCKS = {"p", "div", "ul", "dl", "table", "section", "figure", "h1", "h2", "h3", "pre", "details"}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, no block inside a paragraph."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not (tag in BLOCKS and "p" in self.open), f"<{tag}> in a paragraph"
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> outside a drawing"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-2:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def without_script(text: str) -> str:
    """The page without its one script, which is the one that its policy lets run."""
    found = next(kind for kind in (True, False) if f"<script>{script(kind)}</script>" in text)
    assert f"script-src 'sha256-{script_hash(found)}';" in text
    return text.replace(f"<script>{script(found)}</script>", "")


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_of_run_has_a_valid_page_that_opens_offline(made: Any, name: str) -> None:
    written = write_report(made(name))
    text = without_script(written.read_text(encoding="utf-8"))
    page = Page(text)
    assert written == made(name) / "report.html"
    assert len(text) < 1_500_000
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes.get("aria-labelledby") for attributes in page.all("section")} <= set(ids)
    assert all("alt" in image and image["src"].startswith("data:image/") for image in page.all("img"))
    outside = {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        assert not any(attribute.startswith("on") for attribute in attributes)
        assert tag == "img" or not outside & set(attributes), tag
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes.get("aria-label") or "preserveaspectratio" in attributes
    assert "url(" not in text
    assert "@import" not in text
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text.split()


@pytest.mark.parametrize("name", MAKERS)
def test_the_facts_are_plain_json_and_all_that_the_page_needs(made: Any, name: str) -> None:
    page = write_report(made(name)).read_text(encoding="utf-8")
    kept = json.loads((made(name) / "report.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(facts(made(name)), allow_nan=False))
    assert render(kept) == page


def test_what_data_says_is_never_markup(made: Any) -> None:
    for name in ("two classes", "labels", "table"):
        text = without_script(write_report(made(name)).read_text(encoding="utf-8"))
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert EVIL in Page(text).text


def test_the_confusions_are_those_of_scikit_learn(made: Any) -> None:
    found = facts(made("26 classes"))["mistakes"]
    table = pd.read_parquet(made("26 classes") / "predictions.parquet")
    own = table[(table["name"] == found["name"]) & (table["split"] == "out_of_fold")]
    said = np.array(found["classes"])[own.filter(like="p_").to_numpy().argmax(axis=1)]
    truth = own["true"].to_numpy()
    assert found["n"] == len(own)
    assert found["wrong"] == (said != truth).sum() > 0
    np.testing.assert_array_equal(found["matrix"], confusion_matrix(truth, said, labels=found["classes"]))
    recalls = recall_score(truth, said, labels=found["classes"], average=None)
    assert [one["recall"]["value"] for one in found["per_class"]] == pytest.approx(recalls)
    precisions = precision_score(
        truth, said, labels=found["classes"], average=None, zero_division=np.nan
    )  # None where a class was never named
    for one, precision in zip(found["per_class"], precisions, strict=True):
        assert (one["precision"] is None and np.isnan(precision)) or (
            one["precision"]["value"] == pytest.approx(precision)
        )


def test_of_many_classes_the_worst_pairs_are_listed(made: Any) -> None:
    found = facts(made("200 classes"))["mistakes"]
    assert found["matrix"] is None
    table = read_predictions(made("200 classes") / "predictions.parquet", found["name"], "out_of_fold")
    said = np.array(found["classes"])[table.filter(like="p_").to_numpy().argmax(axis=1)]
    counts = pd.Series(list(zip(table["true"], said, strict=True)))[(table["true"] != said).to_numpy()]
    most = counts.value_counts()
    assert [pair["rows"] for pair in found["pairs"]] == most.to_list()[: len(found["pairs"])]
    assert all(most[(pair["true"], pair["said"])] == pair["rows"] for pair in found["pairs"])


def test_the_worst_rows_are_the_mistakes_with_the_largest_losses(made: Any) -> None:
    found = facts(made("26 classes"))["mistakes"]
    table = read_predictions(made("26 classes") / "predictions.parquet", found["name"], "out_of_fold")
    values = table.filter(like="p_").to_numpy()
    truth = pd.Index(found["classes"]).get_indexer(table["true"])
    loss = -np.log(values[np.arange(len(table)), truth])
    loss[values.argmax(axis=1) == truth] = -1
    expected = table["row"].to_numpy()[np.argsort(-loss, kind="stable")[:20]]
    assert [line["row"] for line in found["worst"]["rows"]] == expected.tolist()


def test_rows_of_the_sealed_test_are_never_shown_one_by_one(made: Any) -> None:
    sealed = set(
        np.flatnonzero(pd.read_parquet(made("two classes") / "plan.parquet")["member_000"] == SEALED)
    )
    shown = {line["row"] for line in facts(made("two classes"))["mistakes"]["worst"]["rows"]}
    assert shown
    assert not shown & sealed
    assert "worst" not in facts(made("rotate"))["mistakes"]


def test_a_tables_worst_rows_show_their_values(made: Any) -> None:
    worst = facts(made("table"))["mistakes"]["worst"]
    source = pd.read_csv(made("table").parent / "table & more.csv").set_index("who")
    assert worst["columns"] == ["size", EVIL, "c", "d"]
    for line in worst["rows"]:
        assert line["true"] == source.loc[line["id"], "kind"]
        assert [float(cell) for cell in line["cells"]] == pytest.approx(
            source.loc[line["id"], worst["columns"]].to_list(), rel=1e-5
        )


def test_values_are_not_shown_from_a_file_that_has_changed_or_gone(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made("table").parent, tmp_path / "all")
    copy, source = tmp_path / "all" / "run", tmp_path / "all" / "table & more.csv"
    data = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**data, "source": str(source)}))
    later = time.time() + 60
    os.utime(source, (later, later))
    worst = facts(copy)["mistakes"]["worst"]
    assert "changed" in worst["note"]
    assert not any("cells" in line for line in worst["rows"])
    source.unlink()
    assert facts(copy)["mistakes"]["worst"]["columns"] == []
    Page(write_report(copy).read_text(encoding="utf-8"))


def test_worst_pictures_come_from_the_run_or_are_read_again_and_stay_in_their_folder(
    made: Any, tmp_path: Path
) -> None:
    run_folder = made("pictures")
    kept = facts(run_folder)["mistakes"]["worst"]
    assert kept["rows"]
    assert all(line["picture"].startswith("data:image/png;base64,") for line in kept["rows"])
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    (copy / "worst.safetensors").unlink(missing_ok=True)
    assert all(line["picture"] for line in facts(copy)["mistakes"]["worst"]["rows"])
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    predictions = pd.read_parquet(copy / "predictions.parquet").assign(id="../secret.png")
    predictions.to_parquet(copy / "predictions.parquet")
    data = json.loads((copy / "data.json").read_text())
    (tmp_path / "empty").mkdir()
    (copy / "data.json").write_text(json.dumps({**data, "source": str(tmp_path / "empty")}))
    assert not any(line["picture"] for line in facts(copy)["mistakes"]["worst"]["rows"])


def test_a_curve_marks_the_epoch_with_the_lowest_stop_loss(made: Any) -> None:
    for index, member in enumerate(facts(made("two classes"))["curves"]["members"]):
        history = pd.read_parquet(made("two classes") / f"members/{index:03d}/history.parquet")
        assert member["epochs"] == len(history)
        assert member["best_loss"] == history["stop_loss"].iloc[member["best_epoch"] - 1]
        assert member["stop"] == pytest.approx(history["stop_loss"].to_list(), rel=1e-4)
        assert member["reason"]


def plan_folder(path: Path, roles: np.ndarray) -> Path:
    """A run folder in which only the Plan matters."""
    folder = RunFolder(path)
    columns = tuple(Column(fold=m) for m in range(roles.shape[1]))
    folder.write_plan(Plan(roles.astype(np.uint8), columns, "kfold"))
    return path / "plan.parquet"


def test_the_plan_is_drawn_in_proportion_and_counted_in_full(tmp_path: Path) -> None:
    roles = np.ones((1000, 2))
    roles[:100, 0], roles[500:700, 0], roles[800:] = STOP, SCORE, SEALED
    roles[100:400, 1] = SCORE
    roles[450:500, 1] = STOP
    drawn = plan_strips(plan_folder(tmp_path, np.random.default_rng(0).permutation(roles)))
    assert drawn["counts"] == {
        "train": [450, 500],
        "stop": [50, 100],
        "score": [200, 300],
        "sealed": [200, 200],
    }
    (folds,) = drawn["groups"]
    assert (folds["title"], folds["more"]) == ("", 0)
    first, second = (line["strips"] for line in folds["lines"])
    assert len(first) == len(second) == 80
    assert [first.count(letter) for letter in "tscx"] == [40, 8, 16, 16]
    assert [second.count(letter) for letter in "tscx"] == [36, 4, 24, 16]
    assert first[-16:] == second[-16:] == "x" * 16


def test_the_plan_of_a_time_order_is_drawn_in_that_order(tmp_path: Path) -> None:
    data = load(np.arange(120.0)[:, None], y=np.arange(120) % 2)
    data = dataclasses.replace(data, order=np.random.default_rng(0).permutation(120).astype(float))
    plan = make_plan(data, PlanRecipe(folds=3))
    path = plan_folder(tmp_path, plan.roles)
    (folds,) = plan_strips(path)["groups"]
    for line in folds["lines"]:
        assert re.fullmatch("t+s+c+[.]*x+", line["strips"]), line


def entry(
    name: str, value: float, low: float, high: float, network: bool = False, **more: Any
) -> dict[str, Any]:
    score = {"value": value, "low": low, "high": high, "n": 500, "spread": None}
    return {
        "name": name,
        "split": "test",
        "scores": {"accuracy": score},
        "network": network,
        "paired": {},
        **more,
    }


def gap(difference: float, low: float, high: float) -> dict[str, Any]:
    return {"paired": {"difference": difference, "low": low, "high": high, "p": 0.5, "n": 500}}


RESULT = {
    "task": "classification",
    "rows": {"development": 2000, "test": 500},
    "chosen": "mean of 5 folds",
    "delivered": "mean of 5 folds",
}


@pytest.mark.parametrize(
    ("network", "majority", "rival", "level", "says"),
    [
        (0.93, gap(-0.4, -0.45, -0.35), gap(-0.05, -0.08, -0.02), "yes", "a network is worth it here"),
        (
            0.93,
            gap(-0.4, -0.45, -0.35),
            gap(-0.01, -0.04, 0.02),
            "yes",
            "these rows do not show that a network is needed",
        ),
        (0.93, gap(-0.4, -0.45, -0.35), gap(0.05, 0.02, 0.08), "yes", "a network is not worth it here"),
        (0.58, gap(-0.08, -0.12, -0.04), gap(-0.01, -0.04, 0.02), "little", "A little: expect about 58 of"),
        (
            0.52,
            gap(-0.02, -0.06, 0.02),
            gap(-0.01, -0.04, 0.02),
            "no",
            "No: no better than chance, as far as 500 rows",
        ),
        (0.52, gap(-0.02, -0.06, 0.02), gap(0.3, 0.25, 0.35), "other", "Not by this network"),
    ],
)
def test_the_answer_follows_from_the_intervals(
    network: float, majority: dict[str, Any], rival: dict[str, Any], level: str, says: str
) -> None:
    chosen = entry("mean of 5 folds", network, network - 0.03, network + 0.03, True)
    rivals = [entry("boosting, mean of 5 folds", 0.9, 0.87, 0.93, **rival)]
    found = answer(RESULT, chosen, rivals, entry("majority class", 0.5, 0.45, 0.55, **majority))
    assert found["level"] == level
    assert says in f"{found['headline']} {found['text']}"
    assert f"{network * 100:.1f}" in found["text"]
    assert "500 rows that were sealed" in found["text"]
    assert found["text"].endswith("Handed over in this folder: mean of 5 folds.")


def test_rows_that_are_ranked_are_not_said_to_be_named_no_better_than_chance() -> None:
    chosen = entry("mean of 5 folds", 1.0, 0.95, 1.0, True)  # 80 right of 80, of which 78 are of one class
    area = {"value": 1.0, "low": 0.67, "high": 1.0, "n": 500, "spread": None}
    chosen["scores"] = {**chosen["scores"], "roc_auc": area}
    found = answer(RESULT, chosen, [], entry("majority", 0.975, 0.9, 0.99, **gap(-0.025, -0.06, 0.01)))
    assert found["level"] == "ranks"
    assert found["headline"] == (
        "Only in part: it ranks the rows; 500 rows do not show that it names the class better than chance."
    )


def test_the_strongest_rival_is_the_one_the_network_is_compared_with() -> None:
    chosen = entry("mean of 5 folds", 0.9, 0.87, 0.93, True)
    weak = entry("linear, mean of 5 folds", 0.7, 0.6, 0.8, **gap(-0.2, -0.25, -0.15))
    strong = entry("boosting, mean of 5 folds", 0.95, 0.92, 0.97, **gap(0.05, 0.02, 0.08))
    found = answer(RESULT, chosen, [weak, strong], entry("majority", 0.5, 0.4, 0.6, **gap(-0.4, -0.5, -0.3)))
    assert "boosting" in found["text"]
    assert "not worth it" in found["text"]


def test_a_rival_that_was_taught_by_a_part_of_the_rows_is_named_so() -> None:
    chosen = entry("mean of 5 folds", 0.9, 0.87, 0.93, True)
    part = entry("boosting, mean of 5 folds", 0.8, 0.77, 0.83, **gap(-0.1, -0.12, -0.08), drawn=20_000)
    floor = entry("majority", 0.5, 0.4, 0.6, **gap(-0.4, -0.5, -0.3))
    told = "rival, boosting (taught by 20 000 rows of a fold), gets"
    assert told in answer(RESULT, chosen, [part], floor)["text"].replace("\u202f", " ").replace("\xa0", " ")
    assert "taught" not in answer(RESULT, chosen, [{**part, "drawn": 0}], floor)["text"]


def test_where_the_test_cannot_tell_the_held_out_rows_are_asked() -> None:
    chosen = entry("mean of 5 folds", 0.9, 0.87, 0.93, True)
    unsure = entry("boosting, mean of 5 folds", 0.89, 0.86, 0.92, **gap(-0.01, -0.03, 0.01))
    floor = entry("majority", 0.5, 0.4, 0.6, **gap(-0.4, -0.5, -0.3))
    worse = entry("boosting, 5 folds", 0.88, 0.87, 0.89, **gap(-0.012, -0.02, -0.004))
    text = answer(RESULT, chosen, [unsure], floor, [worse])["text"]
    assert "may be chance (from 3.0 points less to 1.0 points more)" in text
    assert "on the 500 held-out rows" in text
    assert "1.2 points less (0.4 – 2.0) than one network, so a network is worth it here" in text
    better = entry("boosting, 5 folds", 0.91, 0.90, 0.92, **gap(0.012, 0.004, 0.02))
    for earlier in ([worse, better], []):
        text = answer(RESULT, chosen, [unsure], floor, earlier)["text"]
        assert "these rows do not show that a network is needed" in text


def test_a_regression_rival_that_is_off_by_less_is_better() -> None:
    def scored(name: str, value: float, **more: Any) -> dict[str, Any]:
        score = {"value": value, "low": value - 1, "high": value + 1, "n": 500, "spread": None}
        r2 = {"value": 0.9, "low": 0.88, "high": 0.92, "n": 500, "spread": None}
        return {**entry(name, value, 0, 1, **more), "scores": {"mae": score, "r2": r2}}

    result = {**RESULT, "task": "regression"}
    rival = scored("boosting, mean of 5 folds", 285.8, **gap(35.33, 30.11, 40.54))
    text = answer(result, scored("mean of 5 folds", 321.2, network=True), [rival], None)["text"]
    assert "is off by 285.8 on the same rows, 35.3 less (30.1 – 40.5), so a network is not worth it" in text
    assert "explains 90.0\u202f% of the variance (88.0 – 92.0)" in text


def test_without_a_test_the_page_says_whose_figure_it_is(made: Any) -> None:
    found = facts(made("no test"))
    assert "one network, 2 folds" in found["answer"]["text"]
    assert "It has no score of its own" in found["answer"]["text"]
    text = Page(write_report(made("no test")).read_text(encoding="utf-8")).text
    assert "No rows were sealed." in text


def test_where_nothing_could_be_scored_the_page_says_so(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made("two classes"), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").write_text(json.dumps({**result, "leaderboard": [], "openings": []}))
    found = facts(tmp_path / "run")
    Page(render(found))
    assert found["answer"]["level"] == "unknown"
    assert found["leaderboard"]["boards"] == []


def test_random_labels_are_answered_by_no(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    run(numbers(300), quick(), out=tmp_path / "run", y=generator.integers(0, 2, 300).astype(str))
    found = facts(tmp_path / "run")
    assert found["answer"]["headline"].startswith("No")
    assert "worth it" not in found["answer"]["text"]


def test_scores_on_the_page_are_those_of_the_result(made: Any) -> None:
    result = json.loads((made("regression") / "result.json").read_text())
    lines = facts(made("regression"))["scores"]["lines"]
    test, out_of_fold = (
        next(e["scores"] for e in result["leaderboard"] if e["network"] and e["split"] == split)
        for split in ("test", "out_of_fold")
    )
    assert {line["metric"]: line["scores"] for line in lines} == {
        name: [test[name], out_of_fold[name]] for name in test
    }
    text = Page(write_report(made("regression")).read_text(encoding="utf-8")).text
    assert f"{result['leaderboard'][0]['scores']['rmse']['value']:.4g}"[:5] in text


def test_a_figure_is_not_rounded_up_to_the_end_of_its_range() -> None:
    almost = {"value": 0.99997, "low": 0.997, "high": 0.99999, "n": 9}
    assert said("roc_auc", almost) == "> 0.9999"
    assert interval("roc_auc", almost) == "0.9970 – 1.0000"
    assert said("roc_auc", {**almost, "value": 1.0}) == "1.0000"
    assert said("mae", {**almost, "value": 1.2e-7}) == "1.2e-07"


def test_labels_of_several_words_are_told_apart(made: Any) -> None:
    names = ["sea", EVIL, "sea side"]
    found = label_table(pd.Series(["sea sea side", "sea side", f"sea {EVIL}", ""]), names)
    assert found.tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]]
    data = pd.read_csv(made("labels").parent / "labels.csv")
    roles = pd.read_parquet(made("labels") / "plan.parquet")["member_000"]
    labels = facts(made("labels"))["mistakes"]["labels"]
    assert [one["rows"] for one in labels] == data.loc[roles != SEALED, names].sum().tolist()


def test_an_axis_has_round_numbers_inside_it() -> None:
    for low, high in ((0.0, 1.0), (0.913, 0.9942), (-3.2, 17.0), (1200.0, 54321.0), (5.0, 5.0)):
        marks = ticks(low, high)
        assert 1 <= len(marks) <= 7
        assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in marks)


def test_a_rival_that_looks_at_nothing_does_not_crush_the_axis() -> None:
    own = {**entry("net", 0.98, 0.97, 0.99, True), "blind": False}
    blind = {**entry("majority class, 5 folds", 0.1, 0.08, 0.12), "blind": True}
    axis = scale({"metric": "accuracy", "boards": [{"entries": [own, blind]}]})
    assert 0.96 < axis["low"] < 0.97
    assert 0.99 < axis["high"] <= 1.0


def test_a_folder_that_is_no_finished_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(AyatoriError, match=r"must be a run folder, however it has no result\.json"):
        write_report(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(AyatoriError, match=r"finished run, .*ayatori resume"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_the_page_goes_where_it_is_told(made: Any, tmp_path: Path) -> None:
    assert write_report(made("two classes"), tmp_path / "new" / "mine.html").is_file()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.html"]


def test_facts_and_page_need_no_torch(made: Any) -> None:
    code = (
        "import sys; from ayatori.report import facts, render; "
        "render(facts(sys.argv[1])); assert not {'torch', 'ayatori.train'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(made("two classes"))], check=True)


def test_sixty_thousand_rows_take_less_than_two_seconds(made: Any, tmp_path: Path) -> None:
    copy, rows, generator = tmp_path / "run", 60_000, np.random.default_rng(0)
    shutil.copytree(made("26 classes"), copy)
    roles = np.ones((rows, 5), np.uint8)
    roles[np.arange(rows), np.arange(rows) % 5] = SCORE
    roles[:12_000] = SEALED
    plan_folder(copy, roles)
    names = json.loads((copy / "result.json").read_text())["leaderboard"]
    classes = json.loads((copy / "result.json").read_text())["classes"]
    parts = []
    for one in names:
        own = np.arange(12_000, rows) if one["split"] == "out_of_fold" else np.arange(12_000)
        values = pd.DataFrame(generator.dirichlet(np.ones(26), len(own)), columns=[f"p_{c}" for c in classes])
        head = {"row": own, "id": own.astype(str), "true": generator.choice(classes, len(own)), "fold": 0}
        parts.append(
            pd.concat([pd.DataFrame(head | {"split": one["split"], "name": one["name"]}), values], axis=1)
        )
    pd.concat(parts, ignore_index=True).to_parquet(copy / "predictions.parquet")
    start = time.process_time()
    found = render(facts(copy))
    assert time.process_time() - start < 2
    assert "60\u202f000 rows" in found


def test_an_interval_of_half_of_all_is_not_said_to_promise_a_figure() -> None:
    chosen = entry("mean of 4 folds", 0.867, 0.185, 0.995, True)
    found = answer(RESULT, chosen, [], entry("majority class", 0.1, 0.0, 0.9, **gap(-0.7, -0.9, -0.5)))
    assert found["headline"] == "Yes, but how well is open: 18 to 99 of 100 right."
    chosen = entry("mean of 4 folds", 0.867, 0.785, 0.995, True)
    found = answer(RESULT, chosen, [], entry("majority class", 0.1, 0.0, 0.9, **gap(-0.7, -0.9, -0.5)))
    assert found["headline"] == "Yes: expect about 87 of 100 right."
    # nor where all were right, of two groups that is
    for low, words in ((0.012, "Yes, but how well is open: 1 to 100 of 100 right."), (0.7, "Yes: all of ")):
        chosen = entry("mean of 4 folds", 1.0, low, 1.0, True)
        found = answer(RESULT, chosen, [], entry("majority class", 0.1, 0.0, 0.9, **gap(-0.7, -0.9, -0.5)))
        assert found["headline"].startswith(words)


def test_few_groups_of_one_class_each_may_show_that_a_network_names_them() -> None:
    # always naming one class gets all of such a group right or none, so the difference to it is wide
    chosen = entry("mean of 5 folds", 0.94, 0.776, 0.986, True)
    even = {"value": 0.93, "low": 0.75, "high": 0.98, "n": 50, "spread": None}
    chosen["scores"] = {**chosen["scores"], "balanced_accuracy": even}
    floor = entry("majority class", 0.4, 0.06, 0.87, **gap(-0.54, -1.0, 0.2))
    result = {**RESULT, "classes": ["lark", "wren"]}
    assert answer(result, chosen, [], floor)["level"] == "no"
    assert answer(result, chosen, [], floor, grouped=True)["level"] == "yes"
    chosen["scores"]["balanced_accuracy"] = {**even, "low": 0.45}
    assert answer(result, chosen, [], floor, grouped=True)["level"] == "no"


@pytest.mark.parametrize("few", [4, 10])
def test_random_labels_of_groups_are_said_to_be_learned_as_seldom_as_intervals_promise(few: int) -> None:
    random, names = np.random.default_rng(0), ["a", "b"]
    told = draws = 0
    for _ in range(300):
        labels, said = random.integers(0, 2, (2, few))
        if len(set(labels.tolist())) < 2:
            continue
        groups = np.repeat(np.arange(few), 10)
        truth = labels[groups]
        noisy = np.where(random.random(len(truth)) < 0.85, said[groups], 1 - said[groups])
        values = np.eye(2)[noisy] * 0.8 + 0.1
        blind = np.tile(np.eye(2)[np.bincount(truth).argmax()], (len(truth), 1))
        scores = score(truth, values, "classification", names, groups)
        own = {name: dataclasses.asdict(one) for name, one in scores.items()}
        floor = paired(truth, blind, values, "classification", groups)
        assert floor["low"] >= -1
        assert floor["high"] <= 1
        line = {**entry("mean of 5 folds", 0.5, 0.4, 0.6, True), "scores": own}
        accuracy = float((blind.argmax(1) == truth).mean())
        chance = {**entry("majority class", accuracy, 0.0, 1.0), "paired": floor}
        told += answer({**RESULT, "classes": names}, line, [], chance, grouped=True)["level"] in (
            "yes",
            "little",
        )
        draws += 1
    assert told / draws < 0.06
