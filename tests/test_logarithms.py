"""Numbers of which a few dwarf the others: their logarithms are learned, and values are said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

import ayatori
from ayatori.data import load
from ayatori.explore.suspects import dwarfed, suspect_values
from ayatori.export import to_onnx
from ayatori.model_files import load_model
from ayatori.recipe import DataRecipe, from_flat
from ayatori.records import AyatoriError
from ayatori.report.answer import answer
from tests.helpers import command

QUICK: dict[str, Any] = {"epochs": 5, "folds": 2, "preset": "quick", "baselines": ("linear", "boosting")}


def incomes(n: int = 160) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(n, 2))
    return pd.DataFrame(x, columns=["a", "b"]).assign(y=np.exp(3 * x[:, 0] + chance.normal(size=n) / 5))


def test_a_run_of_logarithms_is_that_of_a_target_of_logarithms(tmp_path: Path) -> None:
    table = incomes()
    table.to_csv(tmp_path / "values.csv", index=False)
    table.assign(y=np.log(pd.read_csv(tmp_path / "values.csv").y)).to_csv(tmp_path / "logs.csv", index=False)
    settings = QUICK | {"look": False, "ensemble": ("mean", "boosting"), "rounds": 2}
    values, logs = (
        ayatori.run(tmp_path / f"{name}.csv", from_flat({**settings, **more}), out=tmp_path / name)
        for name, more in (("values", {"log_target": True}), ("logs", {}))
    )
    np.testing.assert_array_equal(values.dataset.labels, logs.dataset.labels)
    # the same weights, rivals and scores, since nothing else is another
    np.testing.assert_array_equal(values.predictions.values, logs.predictions.values)
    assert [entry.scores for entry in values.leaderboard] == [entry.scores for entry in logs.leaderboard]
    # but what is said of new rows is a value
    rows = load(table[["a", "b"]], y=table.y)
    said, expected = (load_model(tmp_path / name).predict_values(rows) for name in ("values", "logs"))
    np.testing.assert_allclose(said, np.exp(expected), rtol=1e-6)
    page = values.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "predicting the logarithm of y" in page
    assert "off by a factor of about" in page


def test_an_exported_graph_says_values_too(tmp_path: Path) -> None:
    table = incomes()
    recipe = from_flat({**QUICK, "baselines": (), "look": False, "log_target": True})
    result = ayatori.run(table, recipe)
    rows = result.dataset.inputs["numbers"]
    to_onnx(result.model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (said,) = session.run(["values"], {"numbers": rows})
    np.testing.assert_allclose(said, result.model.predict_values(result.dataset), rtol=1e-4)
    assert said.min() > 0


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        (
            {"y": 0.0},
            [],
            "'y' must be above 0 to have a logarithm, however 1 of its 160 values are not, such as 0;",
        ),
        ({"y": -2.5}, [], "such as -2.5; leave `log_target` out, or add the same to all"),
        ({}, ["--task", "classification"], "`log_target` is for numbers, however the task is classification"),
    ],
)
def test_what_has_no_logarithm_is_refused_with_a_sentence(
    change: dict[str, float],
    more: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    table = incomes()
    for name, value in change.items():
        table.loc[7, name] = value
    table.to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "run", "t.csv", "--target", "y", "--log-target", *more, "--out", "r") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_rows_to_predict_may_carry_any_target() -> None:
    trained = load(incomes(), recipe=DataRecipe(target="y", log_target=True))
    rows = ayatori.data.load_like(incomes().assign(y=-1.0), trained.schema)
    assert rows.target is None
    assert any("the target is not read" in note for note in rows.notes)
    with pytest.raises(AyatoriError, match="must be above 0"):
        ayatori.data.load_like(incomes().assign(y=-1.0), trained.schema, need_target=True)


def test_the_look_tells_of_values_that_dwarf_the_others_unless_their_logarithms_are_learned() -> None:
    table = incomes()
    look, logs = (
        ayatori.explore(table, recipe=from_flat({"target": "y", "maps": False, "log_target": log}))
        for log in (False, True)
    )
    (told,) = [said for said in look.facts["audit"]["sentences"] if "--log-target" in said]
    assert told.startswith("of 'y', one value in a hundred is ")
    assert "--log-target" not in json.dumps(logs.facts)
    assert logs.expected is not None
    assert look.expected is not None
    assert logs.expected[0] > look.expected[1]


def test_where_values_dwarf_others_their_ratio_to_what_is_said_is_suspected() -> None:
    chance = np.random.default_rng(0)
    said = np.exp(chance.normal(0, 3, 400))[:, None]
    values = said * np.exp(chance.normal(0, 0.3, (400, 1)))
    values[[11, 12]] *= [[1000.0], [0.001]]  # two typed in another unit
    assert dwarfed(values[:, 0])
    assert np.flatnonzero(suspect_values(values, said).flagged).tolist() == [11, 12]


def test_the_answer_says_a_factor() -> None:
    score = {"value": np.log(1.5), "low": 0.3, "high": 0.5, "n": 500, "spread": None}
    r2 = {"value": 0.9, "low": 0.88, "high": 0.92, "n": 500, "spread": None}
    line = {"name": "one", "split": "test", "network": True, "paired": {}, "scores": {"mae": score, "r2": r2}}
    result = {"task": "regression", "rows": {"development": 900, "test": 500}, "chosen": "one"}
    assert answer({**result, "log": True}, line, [], None)["headline"] == (
        "Yes: expect to be off by a factor of about 1.5."
    )
    assert answer(result, line, [], None)["headline"] == "Yes: expect to be off by about 0.41 on average."
