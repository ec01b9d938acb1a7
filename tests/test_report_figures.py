"""Every figure on the page is that of the run folder: scikit-learn makes it anew from predictions.parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve
from test_report import MAKERS, Page, without_script

from ayatori.report import write_report
from ayatori.report.calibration import calibration
from ayatori.report.words import said

KINDS = ("two classes", "26 classes", "labels", "regression", "three values", "hold-out", "repeats")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("runs") / "run"
            MAKERS[kind](made[kind])
            write_report(made[kind])
        return made[kind]

    return get


def of_classes(rows: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    p = rows[[f"p_{name}" for name in classes]].to_numpy(float)
    p = p / p.sum(axis=1, keepdims=True)  # scikit-learn wants sums of 1 beyond float32
    truth = pd.Index(classes).get_indexer(rows["true"])
    named = p.argmax(axis=1)
    known = np.arange(len(classes))
    flags = np.eye(len(classes))[truth]
    two = len(classes) == 2
    return {
        "accuracy": metrics.accuracy_score(truth, named),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, named),
        "macro_f1": metrics.f1_score(truth, named, average="macro", labels=known, zero_division=0),
        "log_loss": metrics.log_loss(truth, p, labels=known),
        "roc_auc": metrics.roc_auc_score(truth, p[:, 1] if two else p, multi_class="ovr", labels=known),
        "average_precision": metrics.average_precision_score(
            flags[:, 1] if two else flags, p[:, 1] if two else p, average="macro"
        ),
        "brier": ((p - flags) ** 2).sum(axis=1).mean() / (2 if two else 1),
    }


def of_labels(rows: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    p = rows[[f"p_{name}" for name in classes]].to_numpy(float)
    truth = np.array([[name in _names(text, classes) for name in classes] for text in rows["true"]])
    named = p > 0.5
    return {
        "accuracy": (named == truth).mean(),
        "exact_match": metrics.accuracy_score(truth, named),
        "macro_f1": metrics.f1_score(truth, named, average="macro", zero_division=0),
        "log_loss": np.mean([metrics.log_loss(truth[:, k], p[:, k]) for k in range(len(classes))]),
        "roc_auc": metrics.roc_auc_score(truth, p, average="macro"),
        "average_precision": metrics.average_precision_score(truth, p, average="macro"),
        "brier": np.mean([metrics.brier_score_loss(truth[:, k], p[:, k]) for k in range(len(classes))]),
    }


def _names(text: str, classes: list[str]) -> set[str]:
    found = set()
    for name in sorted(classes, key=len, reverse=True):
        if name in text:
            found.add(name)
            text = text.replace(name, "")
    return found


def of_numbers(rows: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    values = rows[[c for c in rows if c == "value" or c.startswith("value_")]].to_numpy(float)
    truth = rows[[c for c in rows if c == "true" or c.startswith("true_")]].to_numpy(float)
    return {"r2": metrics.r2_score(truth, values)} | (
        {
            "mae": metrics.mean_absolute_error(truth, values),
            "rmse": metrics.root_mean_squared_error(truth, values),
        }
        if truth.shape[1] == 1
        else {}
    )


MAKE = {"classification": of_classes, "multilabel": of_labels, "regression": of_numbers}


def close(found: Mapping[str, Any], truth: Mapping[str, float]) -> None:
    for name, value in truth.items():
        if name in found and found[name]["n"]:
            assert found[name]["value"] == pytest.approx(value, rel=2e-5, abs=2e-6), name
            assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learn_finds_the_same_figures_in_the_predictions(
    run: Callable[[str], Path], kind: str
) -> None:
    folder = run(kind)
    facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    classes = json.loads((folder / "result.json").read_text(encoding="utf-8"))["classes"]
    table = pd.read_parquet(folder / "predictions.parquet")
    text = Page(without_script((folder / "report.html").read_text(encoding="utf-8"))).text
    seen = 0
    for board in facts["leaderboard"]["boards"]:
        for line in board["entries"]:
            rows = table[(table["name"] == line["name"]) & (table["split"] == board["split"])]
            assert len(rows) == max(score["n"] for score in line["scores"].values())
            close(line["scores"], MAKE[facts["task"]](rows, classes))
            main = facts["leaderboard"]["metric"]
            assert " ".join(said(main, line["scores"][main]).split()) in text
            seen += 1
    assert seen >= 4
    for place, column in enumerate(facts["scores"]["columns"]):
        rows = table[(table["name"] == column["name"]) & (table["split"] == column["split"])]
        own = {line["metric"]: line["scores"][place] for line in facts["scores"]["lines"]}
        close({k: v for k, v in own.items() if v}, MAKE[facts["task"]](rows, classes))
        for name, score in own.items():
            if score:
                assert " ".join(said(name, score).split()) in text


@pytest.mark.parametrize("kind", ["two classes", "26 classes", "labels"])
def test_what_came_true_is_what_scikit_learn_counts(run: Callable[[str], Path], kind: str) -> None:
    facts = json.loads((run(kind) / "report.json").read_text(encoding="utf-8"))
    classes = json.loads((run(kind) / "result.json").read_text(encoding="utf-8"))["classes"]
    wrong = facts["mistakes"]
    table = pd.read_parquet(run(kind) / "predictions.parquet")
    rows = table[(table["name"] == wrong["name"]) & (table["split"] == wrong["split"])]
    p = rows[[f"p_{name}" for name in classes]].to_numpy(float)
    if kind == "labels":
        right = np.array(
            [[name in _names(text, classes) for name in classes] for text in rows["true"]]
        ).ravel()
        sure = p.ravel()
    else:
        right = np.array(classes)[p.argmax(axis=1)] == rows["true"].to_numpy()
        sure = p.max(axis=1)
    true, mean = calibration_curve(right, sure, n_bins=10)
    bins = wrong["calibration"]["bins"]
    np.testing.assert_allclose([one["true"] for one in bins], true, atol=1e-9)
    np.testing.assert_allclose([one["said"] for one in bins], mean, atol=1e-6)
    assert sum(one["n"] for one in bins) == wrong["calibration"]["n"] == len(sure)


def test_who_is_too_sure_is_told_so() -> None:
    rng = np.random.default_rng(0)
    sure = np.full(400, 0.95)
    assert "too sure about 95" in calibration(sure, rng.random(400) < 0.7, labels=False)["sentence"]
    modest = np.full(400, 0.6)
    assert "too modest about 60" in calibration(modest, rng.random(400) < 0.9, labels=False)["sentence"]
    honest = rng.random(4000)
    assert "In no bin" in calibration(np.full(400, 0.7), rng.random(400) < 0.7, labels=True)["sentence"]
    assert len(calibration(honest, rng.random(4000) < honest, labels=True)["bins"]) == 10
