"""Several runs: their list, and their differences on the rows that all were judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import command
from test_report import Page, without_script

import ayatori
from ayatori.evaluate.compare import lower_loss
from ayatori.recipe import from_flat
from ayatori.records import AyatoriError
from ayatori.report import write_report
from ayatori.report.runs import compare_runs, list_runs
from ayatori.report.words import interval, said

QUICK = {"net": "mlp", "folds": 3, "epochs": 4, "baselines": (), "look": False}


def rows(task: str = "classification", seed: int = 0) -> tuple[np.ndarray, Any]:
    x = np.random.default_rng(seed).normal(size=(240, 3))
    y: Any = np.where(x[:, 0] + 0.5 * x[:, 1] > 0.4, "<b>yes</b>", "no")
    if task == "multilabel":
        y = np.stack([x[:, 0] > 0, x[:, 1] > 0.5], 1).astype(int)
    elif task == "regression":
        y = x[:, 0] + x[:, 1]
    return x, y


def make(out: Path, task: str = "classification", **given: Any) -> Path:
    x, y = rows(task)
    ayatori.run(x, from_flat({**QUICK, **given}), out=out, y=y)
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return make(folder / "first"), make(folder / "second [bold]", net="linear", seed=1)


def test_the_list_names_every_run_and_says_which_are_not_finished(
    two: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (two[0].parent / "begun").mkdir(exist_ok=True)
    (two[0].parent / "begun" / "recipe.toml").write_text("")
    lines = {line["run"]: line for line in list_runs(two[0].parent)}
    assert set(lines) == {"first", "second [bold]", "begun"}
    assert lines["begun"] == {"run": "begun", "done": False}
    result = json.loads((two[0] / "result.json").read_text())
    chosen = next(e for e in result["leaderboard"] if e["name"] == result["chosen"] and e["split"] == "test")
    assert lines["first"]["score"]["value"] == chosen["scores"]["accuracy"]["value"]
    assert command(monkeypatch, "runs", two[0].parent) == 0
    said = capsys.readouterr().out
    assert "second [bold]" in said
    assert "not finished" in said
    assert command(monkeypatch, "runs", two[0].parent, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert command(monkeypatch, "runs", tmp_path / "none") == 2
    assert "there is none" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_differences_are_those_of_the_predictions(task: str, tmp_path: Path) -> None:
    paths = [make(tmp_path / "a", task), make(tmp_path / "b", task, net="linear")]
    found = compare_runs(paths)
    assert [board["split"] for board in found["boards"]] == ["test", "out_of_fold"]
    board = found["boards"][0]
    tables = []
    for path, line in zip(paths, board["lines"], strict=True):
        table = pd.read_parquet(path / "predictions.parquet")
        tables.append(table[(table["name"] == line["name"]) & (table["split"] == "test")].set_index("row"))
    assert board["rows"] == len(tables[0].index.intersection(tables[1].index)) == 48
    gap = board["lines"][1]["paired"]
    if task == "classification":
        right = [(table["true"] == table["said"]).loc[tables[0].index] for table in tables]
        assert gap["difference"] == pytest.approx(right[1].mean() - right[0].mean())
        names = sorted(set(tables[0]["true"]))
        truth = pd.Index(names).get_indexer(tables[0]["true"])
        values = [table.loc[tables[0].index, [f"p_{name}" for name in names]].to_numpy() for table in tables]
        assert gap["loss"] == pytest.approx(lower_loss(truth, values[1], values[0], "classification")["loss"])
    elif task == "regression":
        off = [np.abs(table["true"] - table["value"]).loc[tables[0].index].mean() for table in tables]
        assert gap["difference"] == pytest.approx(off[0] - off[1])
    else:
        assert gap["n"] == 48


def test_only_rows_that_all_were_judged_by_count(two: tuple[Path, Path]) -> None:
    """Other seeds seal other rows."""
    found = compare_runs(two)
    sealed = [set(np.flatnonzero((pd.read_parquet(run / "plan.parquet") == 253).any(axis=1))) for run in two]
    board = {board["split"]: board for board in found["boards"]}
    assert sealed[0] != sealed[1]
    assert board["test"]["rows"] == len(sealed[0] & sealed[1])
    assert board["out_of_fold"]["rows"] == 240 - len(sealed[0] | sealed[1])


def test_runs_that_cannot_be_compared_are_refused(
    two: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = rows(seed=7)
    ayatori.run(x, from_flat(QUICK), out=tmp_path / "other", y=y)
    with pytest.raises(AyatoriError, match="same data"):
        compare_runs([two[0], tmp_path / "other"])
    with pytest.raises(AyatoriError, match="finished run"):
        compare_runs([two[0], tmp_path / "nothing"])
    with pytest.raises(AyatoriError, match="two runs"):
        compare_runs([two[0]])
    assert command(monkeypatch, "compare", two[0], two[1]) == 0
    said = capsys.readouterr().out
    assert "second [bold]: " in said
    assert "sealed test" in said
    assert command(monkeypatch, "compare", two[0], two[1], "--json") == 0
    assert {"task", "boards", "differ", "fingerprint"} == set(json.loads(capsys.readouterr().out))
    assert command(monkeypatch, "compare", two[0], tmp_path / "other") == 2
    assert "same data" in capsys.readouterr().err


def test_balanced_runs_are_compared_by_what_they_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.1).astype(int)
    x = rng.normal(size=(400, 2)) + y[:, None]
    names = np.where(y == 1, "rare", "usual")
    for name in ("none", "weight"):
        ayatori.run(x, from_flat({**QUICK, "balance": name}), out=tmp_path / name, y=names)
    board = compare_runs([tmp_path / "none", tmp_path / "weight"])["boards"][1]
    recalls = [line["scores"]["balanced_accuracy"]["value"] for line in board["lines"]]
    assert recalls[1] > recalls[0]
    table = pd.read_parquet(tmp_path / "weight" / "predictions.parquet")
    own = table[(table["name"] == board["lines"][1]["name"]) & (table["split"] == "out_of_fold")]
    assert board["lines"][1]["scores"]["accuracy"]["value"] == pytest.approx(
        (own["true"] == own["said"]).mean()
    )


def test_the_page_of_a_comparison_says_which_is_better_and_what_was_set_otherwise(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "compared.html"
    assert command(monkeypatch, "compare", *two, "--out", page) == 0
    text = without_script(page.read_text(encoding="utf-8"))
    parser = Page(text)
    found = compare_runs(list(two))
    for board in found["boards"]:
        for line in board["lines"]:
            assert " ".join(said("accuracy", line["scores"]["accuracy"]).split()) in parser.text
    gap = found["boards"][0]["lines"][1]["paired"]
    better = gap["low"] > 0 or gap["high"] < 0
    assert ("does better than" if better else "No difference that chance could not make") in parser.text
    assert "net.name" in parser.text
    assert found["differ"]["net.name"] == ["mlp", "linear"]
    assert found["differ"]["seed"] == [0, 1]
    assert command(monkeypatch, "compare", *two, "--out", page) == 2  # it is there


def test_a_model_card_says_what_the_page_says_and_names_are_text(two: tuple[Path, Path]) -> None:
    write_report(two[0])
    text = (two[0] / "model_card.md").read_text(encoding="utf-8")
    facts = json.loads((two[0] / "report.json").read_text(encoding="utf-8"))
    assert facts["answer"]["headline"] in text
    assert facts["again"]["fingerprint"] in text
    assert "<b>" not in text
    assert "&lt;b&gt;yes&lt;/b&gt;" in text
    for line in facts["scores"]["lines"]:
        for score in filter(None, line["scores"]):
            assert f"{said(line['metric'], score)} ({interval(line['metric'], score)})" in text
