"""The benchmarks still run: each once, on a few rows. What they measure is for a quiet machine."""

from __future__ import annotations

import argparse
import dataclasses
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
from ayatori.evaluate.metrics import score
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


def printed_by(script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def facts_of(script: str, *arguments: object) -> dict[str, Any]:
    return json.loads(printed_by(script, *arguments))


def test_one_network_and_the_plain_loop_learn_the_same() -> None:
    facts = facts_of("one_network.py", "--kind", "pictures", "--rows", 300, "--epochs", 2, "--pairs", 1)
    losses = facts["pictures"]["best_stop_loss"]
    assert losses["ayatori"] == pytest.approx(losses["plain"], rel=1e-3)
    assert facts["pictures"]["ratio"]["median"] > 0


@pytest.mark.slow
def test_bags_cost_is_measured_beside_the_folds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(80, 3)), columns=list("abc"))
    table["y"] = np.where(table["a"] > 0, "yes", "no")
    table.to_csv(tmp_path / "table.csv", index=False)
    facts = facts_of("bags.py", tmp_path / "table.csv", "y", "--bags", 1, "--preset", "quick")
    assert (facts["folds"]["networks"], facts["folds_with_bags"]["networks"]) == (5, 10)
    assert facts["ratios"]["processor_seconds"] > 0


@pytest.mark.slow
def test_threads_that_sleep_are_timed_beside_threads_that_spin(tmp_path: Path) -> None:
    write_clumps(tmp_path / "wine.csv", "target")
    few = ["--data", "wine", "--visits", 100, "--rounds", 1, "--ways", "the rule"]
    facts = facts_of("waiting.py", "--tables", tmp_path, *few)
    assert set(facts["seconds"]["wine"]) == {"sleep: the rule", "spin: the rule"}
    assert min(facts["seconds"]["wine"].values()) > 0


@pytest.mark.slow
def test_chance_is_measured_on_random_labels() -> None:
    facts = facts_of("chance.py", "--seeds", 2, "--rows", 80)
    lines = facts["lines"]
    assert {"stack, 5 folds (out_of_fold)", "careless stack, logistic (out_of_fold)"} <= set(lines)
    assert all(0 <= line["mean_accuracy"] <= 1 for line in lines.values())


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
    task = rivals.Task(dataset, plan, rivals.small_cnn, 3, 16, 0.002, augment="moved")
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


@pytest.fixture
def ensembles(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("ensembles")


def mixed_task(ensembles: Any, classes: tuple[str, ...] = ("no", "yes"), epochs: int = 3) -> Any:
    """250 rows, 50 of them the test: numbers, words and gaps, each of which knows the target."""
    generator = np.random.default_rng(0)
    y = np.arange(250) % 2
    frame = pd.DataFrame(generator.normal(y[:, None] * 4.0, 1, (250, 2)), columns=["a", "b"])
    frame["word"] = pd.Series(np.where(y == 1, "red", "blue"), dtype=object)
    frame.loc[::7, "a"], frame.loc[::9, "word"] = np.nan, None
    y = y if classes else frame.b.to_numpy() * 100 + 1000
    return ensembles.Task(frame, y, classes, np.arange(250) % 5 == 0, epochs=epochs)


def test_everyone_is_tested_on_the_same_fifth_of_each_class(tmp_path: Path, ensembles: Any) -> None:
    y = np.repeat(["common", "rare", "too rare"], [900, 60, 19])
    pd.DataFrame({"x": np.arange(979), "Class": y}).to_csv(tmp_path / "shuttle.csv", index=False)
    folders = {"tables": tmp_path}
    task = ensembles.read_task("shuttle", 1, folders)
    assert task.classes == ("common", "rare")
    assert np.bincount(task.y[task.test]).tolist() == [180, 12]
    assert np.bincount(task.y).tolist() == [900, 60]
    again, other = (ensembles.read_task("shuttle", seed, folders) for seed in (1, 2))
    pd.testing.assert_frame_equal(again.x, task.x)
    np.testing.assert_array_equal(again.test, task.test)
    assert (other.test != task.test).any()
    few = ensembles.read_task("shuttle", 1, folders, rows=300)
    assert np.bincount(few.y).tolist() == [276, 20]  # in proportion, and never less than 20
    assert few.test.sum() == 55 + 4


def test_sides_are_scored_as_ayatori_scores(ensembles: Any) -> None:
    generator = np.random.default_rng(0)
    truth, said = generator.integers(0, 3, 50), generator.dirichlet(np.ones(3), 50)
    said[0] = np.eye(3)[truth[0] - 1]  # sure, and wrong
    numbers, values = generator.normal(size=50), generator.normal(size=50)
    for task, own, answers in (("classification", truth, said), ("regression", numbers, values)):
        wanted = score(own, answers.reshape(50, -1), task, ("a", "b", "c"))
        for name, value in ensembles.scores(own, answers, task == "classification").items():
            assert value == pytest.approx(wanted[name].value, rel=1e-6), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [("no", "yes"), ()], ids=["classes", "values"])
@pytest.mark.parametrize("name", ["histgb", "realmlp", "realmlp_log_loss", "torchensemble", "autogluon"])
def test_a_rival_of_the_ensembles_never_sees_the_targets_of_the_test(
    name: str, classes: tuple[str, ...], ensembles: Any
) -> None:
    rival = ensembles.RIVALS[name]
    pytest.importorskip(rival.library, exc_type=ImportError)
    if not (classes or rival.values):
        pytest.skip("it is for classes")
    task = mixed_task(ensembles, classes, epochs=20)
    values = rival.side(task)
    assert values.shape == ((50, 2) if classes else (50,))
    found = ensembles.scores(task.y[task.test], values, bool(classes))
    assert found.get("accuracy", found.get("r2")) > 0.5
    turned = dataclasses.replace(task, y=np.where(task.test, task.y[::-1], task.y))
    assert (turned.y != task.y).any()
    np.testing.assert_allclose(rival.side(turned), values, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_torchensemble_bags_pictures(ensembles: Any) -> None:
    pytest.importorskip("torchensemble")
    y = np.arange(100) % 2
    pixels = np.random.default_rng(0).normal(60 + 120 * y[:, None, None], 20, (100, 8, 8))
    task = ensembles.Task(pixels.clip(0, 255).astype(np.uint8), y, ("a", "b"), np.arange(100) < 20, epochs=3)
    values = ensembles.RIVALS["torchensemble"].side(task)
    assert (values.argmax(1) == y[:20]).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "values", "pictures"])
def test_one_run_of_ayatori_tells_of_its_ensembles_and_of_each_network(kind: str, ensembles: Any) -> None:
    task = mixed_task(ensembles, () if kind == "values" else ("no", "yes"))
    if kind == "pictures":
        pixels = np.random.default_rng(0).integers(0, 256, (250, 6, 6)).astype(np.uint8)
        task = dataclasses.replace(task, x=pixels)
    found = ensembles.ayatori(task)
    assert len(found["singles"]) == 5
    tests = {entry["name"]: entry["scores"] for entry in found["entries"] if entry["split"] == "test"}
    assert tests[found["chosen"]] == found["scores"]
    cost = {"seconds": 1.0, "cpu_seconds": 1.0}
    frame = ensembles.flat([{"side": "ayatori", "data": "adult", "seed": 0, **found, **cost}])
    assert {"ayatori", "mean", "typical", "single", "luckiest"} <= set(frame.side)
    by_side = frame.set_index("side").loss
    assert by_side.luckiest <= min(by_side.single, by_side.typical)


@pytest.mark.slow
def test_cells_are_collected_once_and_make_a_table(
    tmp_path: Path, ensembles: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--out", str(tmp_path / "cells.jsonl"), "--rows", "200", "--seeds", "0", "--epochs", "1"]
    asked += ["--data", "breast_cancer", "--sides", "ayatori", "histgb"]
    printed_by("ensembles.py", *asked)
    before = (tmp_path / "cells.jsonl").read_text(encoding="utf-8")
    cells = [json.loads(line) for line in before.splitlines()]
    assert [(cell["side"], cell["train"], cell["test"]) for cell in cells] == [
        ("ayatori", 160, 40),
        ("histgb", 160, 40),
    ]
    assert all(cell["cpu_seconds"] > 0 and cell["seconds"] > 0 for cell in cells)
    monkeypatch.setattr(sys, "argv", ["ensembles.py", *asked])
    with pytest.raises(SystemExit, match="0"):
        ensembles.main()
    assert (tmp_path / "cells.jsonl").read_text(encoding="utf-8") == before
    monkeypatch.setattr(sys, "argv", ["ensembles.py", *asked, "--table"])
    ensembles.main()
    page = capsys.readouterr().out
    assert "| breast_cancer | 1 |" in page
    assert "- the ensemble that ayatori chose against histgb: lower loss on" in page
    assert "- ayatori's mean of the folds against histgb: lower loss on" in page


def cell_of(side: str, data: str, seed: int, loss: float, seconds: float, **more: Any) -> dict[str, Any]:
    scores = {"accuracy": 0.5, "log_loss": loss}
    return {"side": side, "data": data, "seed": seed, "scores": scores, "rows": None} | {
        "seconds": seconds,
        "cpu_seconds": seconds,
        **more,
    }


def test_losses_are_compared_over_the_seeds_that_both_sides_have(ensembles: Any) -> None:
    def network(own: float, test: float) -> dict[str, Any]:
        return {"out_of_fold": {"log_loss": own}, "test": {"log_loss": test, "accuracy": 0.5}}

    singles = [network(0.1, 0.5), network(0.2, 0.3)]
    line = {"name": "bagging, 5 folds x 10 bags", "split": "test", "network": True}
    line |= {"seconds": {"train": 3.0, "predict": 1.0}, "scores": {"accuracy": 0.5, "log_loss": 0.35}}
    mean = line | {"name": "mean of 5 folds", "scores": {"accuracy": 0.5, "log_loss": 0.2}}
    beside = line | {"name": "linear network, mean of 5 folds", "scores": {"accuracy": 0.5, "log_loss": 9.0}}
    frame = ensembles.flat(
        [
            cell_of("ayatori", "adult", 0, 0.4, 10.0, singles=singles, entries=[line, mean, beside]),
            cell_of("ayatori", "adult", 1, 0.1, 10.0),
            cell_of("ayatori", "magic", 0, 0.4, 10.0),
            cell_of("autogluon", "adult", 0, 0.3, 20.0),
            cell_of("autogluon", "magic", 0, 0.5, 80.0),
        ]
    )
    bagging = frame[frame.side == "bagging"].iloc[0]
    assert (bagging.loss, bagging.seconds) == (0.35, 4.0)
    assert frame[frame.side == "mean"].loss.tolist() == [0.2]  # the network beside it in a stack is left out
    single, luckiest, typical, autogluon = ensembles.counts(
        frame, "ayatori", ("single", "luckiest", "typical", "autogluon")
    )
    (mean_line,) = ensembles.counts(frame, "mean", ("single", "autogluon"))[1:]
    assert "mean of the folds against autogluon: lower loss on 1 of 1" in mean_line
    assert "0.20 of its seconds by the clock (at most 0.20 on 1)" in mean_line
    assert "lower loss on 1 of 1" in single
    assert "lower loss on 0 of 1" in luckiest
    assert "equal on 1" in typical
    assert "lower loss on 1 of 2" in autogluon
    assert "0.25 of its processor seconds (at most 0.20 on 1)" in autogluon
    assert "**0.3000**" in ensembles.markdown(frame[~frame.side.isin(["ayatori", "mean"])], "loss")


def test_augmentation_is_timed_beside_torchvision() -> None:
    options = [
        "--ways",
        "ayatori",
        "torchvision",
        "--sides",
        12,
        "--rounds",
        1,
        "--batch",
        4,
        "--seconds",
        0.01,
    ]
    found = facts_of("augment.py", *options)["12 x 12"]["microseconds"]
    assert set(found) == {"ayatori", "torchvision"}
    assert min(found.values()) > 0


def few_clothes(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    for prefix, rows in (("train", 400), ("t10k", 200)):
        labels = np.arange(rows) % 10
        pictures = chance.integers(0, 100, (rows, 8, 8)) + 15 * labels[:, None, None]
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", pictures)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder


def test_what_augmentation_gives_is_measured_against_none(tmp_path: Path) -> None:
    options = ["--augment", "none", "light", "--rows", 100, "--epochs", 1, "--seeds", 1]
    found = facts_of("augment_gain.py", few_clothes(tmp_path), *options)
    assert found["gain"]["none"] == 0
    assert found["gain"]["light"] == pytest.approx(found["accuracy"]["light"] - found["accuracy"]["none"])


def test_what_balance_gives_is_measured_on_the_true_shares(tmp_path: Path) -> None:
    options = ["--rows", 300, "--rare", "bag", "--balance", "none", "weight"]
    found = facts_of("balance.py", few_clothes(tmp_path), *options)["bag"]
    assert set(found) == {"none", "weight"}
    assert found["weight"]["recall"]["n"] == 2  # 1 % of 182
