"""The benchmarks still run: each once, on a few rows. What they measure is for a quiet machine."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ayatori import load
from ayatori.plan import check_plan, make_plan
from ayatori.recipe import PlanRecipe
from ayatori.records import SCORE

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
QUICK = ["--epochs", "1", "--folds", "1", "--baselines", "none"]
SIDES = ["ayatori", "plain", "skorch", "lightning", "fastai"]


def needs(side: str) -> None:
    """Skip where the rival is not installed: see benchmarks/requirements.txt."""
    if side not in ("ayatori", "plain"):
        pytest.importorskip(side, exc_type=ImportError)


def facts_of(script: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_one_network_and_the_plain_loop_learn_the_same() -> None:
    facts = facts_of("one_network.py", "--kind", "pictures", "--rows", 300, "--epochs", 2, "--pairs", 1)
    losses = facts["pictures"]["best_stop_loss"]
    assert losses["ayatori"] == pytest.approx(losses["plain"], rel=1e-3)
    assert facts["pictures"]["ratio"]["median"] > 0


def test_the_rule_is_compared_with_every_way_on_a_grid() -> None:
    facts = facts_of("modes.py", "--only", "linear", "--rows", 300, "--rounds", 1)
    (shape,) = facts["shapes"].values()
    assert shape["rule"] in shape["milliseconds"]
    assert len(shape["milliseconds"]) >= 2
    assert facts["right"] in ("0 of 1", "1 of 1")


def test_import_time_is_measured() -> None:
    seconds = facts_of("import_time.py", "--repeats", 1)["seconds"]
    assert seconds["ayatori --help"]["median"] > seconds["import ayatori"]["median"] > 0


def test_the_memory_of_a_long_table_is_measured() -> None:
    facts = facts_of("million_rows.py", "--rows", 500, "--columns", 4)
    assert 0.1 < facts["peak_resident_gb"] < 4


def test_a_table_of_numbers_is_scored_by_r2(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=200)})
    frame.assign(y=frame.x * 2.5).to_csv(tmp_path / "numbers.csv", index=False)
    (tmp_path / "targets.json").write_text('{"numbers.csv": "y"}', encoding="utf-8")
    facts = facts_of("tables.py", tmp_path, "--targets", tmp_path / "targets.json", *QUICK)["tables"]
    assert facts["numbers.csv"]["score"] == "r2"
    tests = [line for name, line in facts["numbers.csv"].items() if "(test)" in name]
    assert [line["n"] for line in tests] == [40]


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def test_fashion_writes_each_picture_into_the_folder_of_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fashion = importlib.import_module("fashion")
    pictures = {"train": np.random.default_rng(0).integers(0, 256, (20, 5, 4)), "t10k": np.zeros((10, 5, 4))}
    for prefix, values in pictures.items():
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", values)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(len(values)) % 10)
    fashion.write_pictures(tmp_path, tmp_path / "pictures")
    assert len(list(tmp_path.glob("pictures/test/*/*.png"))) == 10
    with Image.open(tmp_path / "pictures" / "train" / "trouser" / "00011.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures["train"][11])


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rivals")


def table_task(rivals: Any, relabel: bool = False) -> Any:
    """240 rows, two clumps, one network; ``relabel`` turns the labels of its held-out rows round."""
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1], 120)
    dataset = load(generator.normal(y[:, None] * 3.0, 1, (240, 4)), y=y)
    plan = make_plan(dataset, PlanRecipe(strategy="holdout", test=0.0))
    if relabel:
        held_out = plan.rows(0, SCORE)
        dataset.labels[held_out] = 1 - dataset.labels[held_out]
    return rivals.Task(dataset, plan, rivals.narrow_mlp, epochs=3, batch_size=16, learning_rate=0.01)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIDES)
def test_a_side_learns_a_table_and_never_sees_the_labels_of_its_held_out_rows(name: str, rivals: Any) -> None:
    needs(name)
    values = getattr(rivals, name)(table_task(rivals))
    rows = table_task(rivals).plan.rows(0, SCORE)
    assert np.flatnonzero(np.isfinite(values).all(axis=1)).tolist() == rows.tolist()
    assert (values[rows].argmax(1) == table_task(rivals).dataset.labels[rows]).mean() > 0.9
    np.testing.assert_array_equal(getattr(rivals, name)(table_task(rivals, relabel=True)), values)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIDES)
def test_a_side_learns_pictures(name: str, rivals: Any) -> None:
    needs(name)
    y = np.repeat([0, 1], 60)
    pixels = np.random.default_rng(0).normal(60 + 120 * y[:, None, None, None], 20, (120, 1, 8, 8))
    dataset = load(pixels.clip(0, 255).astype(np.uint8), y=y)
    plan = make_plan(dataset, PlanRecipe(folds=2, test=0.0))
    task = rivals.Task(dataset, plan, rivals.small_cnn, 3, 16, 0.002, augment="standard")
    assert (getattr(rivals, name)(task).argmax(1) == y).mean() > 0.9


def test_bags_draw_their_rows_with_replacement_from_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("satellite_bags")
    dataset = load(np.arange(400.0).reshape(200, 2), y=np.repeat([0, 1], 100))
    plan = make_plan(dataset, PlanRecipe(folds=5, test=0.0))
    bagged = script.bags(plan, 3)
    check_plan(bagged, dataset)
    assert [(column.fold, column.bag) for column in bagged.columns[:4]] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    for member in range(15):
        counts, own = bagged.counts(member), plan.train_rows(member // 3)
        assert counts.sum() == len(own)
        assert set(np.flatnonzero(counts)) < set(own)
        np.testing.assert_array_equal(bagged.rows(member, SCORE), plan.rows(member // 3, SCORE))
    assert (bagged.roles[:, 0] != bagged.roles[:, 1]).any()


def write_clumps(path: Path, target: str) -> Path:
    generator, y = np.random.default_rng(0), np.arange(300) % 3
    frame = pd.DataFrame(generator.normal(y[:, None] * 2.0, 1, (300, 5)), columns=list("abcde"))
    frame.assign(**{target: [f"class {each}" for each in y]}).to_csv(path, index=False)
    return path


def test_a_side_runs_alone_in_its_process(tmp_path: Path) -> None:
    path = write_clumps(tmp_path / "letter.csv", "lettr")
    found = facts_of("letter_folds.py", path, "--epochs", 4, "--side", "plain")
    assert found["rows_scored"] == 300
    assert found["accuracy"] > 0.7
    assert found["seconds"] > 0


def test_another_side_goes_first_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common = importlib.import_module("common")
    went: list[str] = []
    monkeypatch.setattr(
        common, "fresh_process", lambda _, name, threads: went.append(name) or {"turn": len(went)}
    )
    found = common.take_turns(["ours", "theirs", "plain"], 2, 1)
    assert went == ["ours", "theirs", "plain", "theirs", "plain", "ours"]
    assert found["ours"] == [{"turn": 1}, {"turn": 6}]


@pytest.mark.filterwarnings("ignore")
def test_bagging_over_skorch_scores_every_row(tmp_path: Path, rivals: Any) -> None:
    needs("skorch")
    script = importlib.import_module("satellite_bags")
    path = write_clumps(tmp_path / "satellite.csv", "classes")
    options = argparse.Namespace(table=path, rows=None, bags=2, epochs=4, learning_rate=0.01)
    task = script.read(options)
    assert (script.bagging(task).argmax(1) == task.dataset.labels).mean() > 0.7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ayatori", "realmlp"])
def test_table_networks_are_scored_on_the_sealed_rows(name: str, tmp_path: Path, rivals: Any) -> None:
    if name == "realmlp":
        pytest.importorskip("pytabkit")
    script = importlib.import_module("letter_realmlp")
    path = write_clumps(tmp_path / "letter.csv", "lettr")
    options = argparse.Namespace(
        table=path, rows=None, strategy="kfold", epochs=4, preset="good", rival_epochs=8
    )
    task = script.read(options)
    values = getattr(script, name)(task)
    asked = np.isfinite(values).all(axis=1)
    np.testing.assert_array_equal(asked, task.plan.sealed)
    assert (values[asked].argmax(1) == task.dataset.labels[asked]).mean() > 0.7


def test_the_work_of_members_is_counted_and_drawn(tmp_path: Path, rivals: Any) -> None:
    script = importlib.import_module("members")
    path = write_clumps(tmp_path / "satellite.csv", "classes")
    options = argparse.Namespace(satellite=path, rows=None, epochs=2, members=[1, 5])
    found = {f"satellite:{number}": [script.measure("satellite", number, options)] for number in (1, 5)}
    # a product of (b, i) and (i, o) takes 2bio; backward twice that, but for the inputs of the first layer
    step = 2 * (3 * (64 * 64 + 64 * 3) + 2 * 5 * 64)
    assert found["satellite:1"][0]["operations"] == pytest.approx(216 * 2 * step, rel=1e-6)
    assert found["satellite:5"][0]["operations"] == pytest.approx(5 * 216 * 2 * step, rel=1e-6)
    tasks = script.summary(found, script.product(side=64, repeats=2)["operations_a_second"])
    assert tasks["satellite"]["members"]["5"]["share"] > 0
    lines = [
        node for node in ElementTree.fromstring(script.chart(tasks)).iter() if node.tag.endswith("polyline")
    ]
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 2]
