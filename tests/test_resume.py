"""Runs that are really killed, and go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import safetensors

import ayatori
from ayatori.recipe import EvaluateRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import AyatoriError

RECIPE = """
seed = 3
[plan]
folds = 3
[train]
epochs = 40
patience = 40
checkpoint_seconds = 0.0
[explore]
look = false
[evaluate]
baselines = ["linear"]
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(700, 6))
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(6)])
    frame["y"] = np.where(values[:, 0] * values[:, 1] + 0.3 * values[:, 2] > 0, "yes", "no")
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "settings.toml").write_text(RECIPE)
    return tmp_path / "table.csv"


def start(*words: str, said: Path = Path(os.devnull)) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with said.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ayatori", *words], env=environment, stdout=output, stderr=output
        )


def begin(table: Path, out: Path, said: Path = Path(os.devnull)) -> subprocess.Popen:
    recipe = str(table.parent / "settings.toml")
    return start("run", str(table), "--recipe", recipe, "--out", str(out), said=said)


def assert_nothing_is_half_written(out: Path) -> None:
    for path in out.rglob("*"):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            pyarrow.parquet.read_table(path)
        elif path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                assert file.keys()
        elif path.suffix == ".toml":
            ayatori.recipe.read_recipe(path)


def assert_same_run(whole: Path, broken: Path) -> None:
    for name in ("predictions.parquet", "plan.parquet", "recipe.toml"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    for path in sorted(whole.glob("members/*/weights.safetensors")):
        assert path.read_bytes() == (broken / path.relative_to(whole)).read_bytes()
    assert not list(broken.rglob(".*.part"))
    assert not list(broken.glob("checkpoint*"))


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_gives_what_an_unbroken_run_gives(table: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    assert begin(table, whole).wait(300) == 0
    lasted = time.monotonic() - began
    moments, kills = random.Random(0), 0
    while kills < 10:
        process = start("resume", str(broken)) if broken.exists() else begin(table, broken)
        try:
            assert process.wait(lasted * moments.uniform(0.1, 0.9)) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        if broken.exists():
            assert_nothing_is_half_written(broken)
        if (broken / "DONE").exists() and kills < 10:
            assert_same_run(whole, broken)
            shutil.rmtree(broken)
    if not (broken / "DONE").exists():
        assert (start("resume", str(broken)) if broken.exists() else begin(table, broken)).wait(300) == 0
    assert_same_run(whole, broken)


ENSEMBLES = """
[net]
name = "mlp"
options = { width = 16, depth = 1, numbers = "plain" }
[ensemble]
kinds = ["bagging", "boosting", "stacking", "greedy"]
bags = 2
rounds = 4
boost_threshold = 0.0
boost_patience = 4
stack_rivals = ["linear"]
distill = true
"""
PARTS = ("checkpoint.safetensors", "checkpoint-part-1.safetensors", "checkpoint-round-2.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("boost", ["samme", "gradient"])
def test_ensembles_that_are_killed_in_every_part_are_what_unbroken_ones_are(
    boost: str, table: Path, tmp_path: Path
) -> None:
    settings = RECIPE.replace("epochs = 40", "epochs = 6").replace("patience = 40", "patience = 6")
    (tmp_path / "settings.toml").write_text(settings + ENSEMBLES + f'boost = "{boost}"\n')
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert begin(table, whole).wait(300) == 0
    kills = 0
    for part in (*PARTS, "checkpoint-round-4.safetensors", "checkpoint-student.safetensors"):
        process = start("resume", str(broken)) if broken.exists() else begin(table, broken)
        deadline = time.monotonic() + 200
        while not (broken / part).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert_nothing_is_half_written(broken)
    assert kills >= 4
    if not (broken / "DONE").exists():
        assert start("resume", str(broken)).wait(300) == 0
    assert_same_run(whole, broken)
    for path in (*sorted(whole.glob("model/*")), *sorted(whole.glob("distilled/*"))):
        if path.suffix != ".skops":  # a zip file, which holds the time
            assert path.read_bytes() == (broken / path.relative_to(whole)).read_bytes(), path.name


def test_control_c_saves_and_says_how_to_resume(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    # long enough not to be over before the signal arrives, however busy the machine is
    (tmp_path / "settings.toml").write_text(RECIPE.replace("= 40", "= 300"))
    process = begin(table, out, said=tmp_path / "said.txt")
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert f"go on with: ayatori resume {out}" in (tmp_path / "said.txt").read_text().replace("\n", "")
    assert_nothing_is_half_written(out)
    assert start("resume", str(out)).wait(300) == 0
    assert (out / "DONE").exists()


class StopHereError(Exception):
    pass


def test_a_run_on_arrays_is_resumed_with_the_same_arrays_only(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(90, 3))
    recipe = Recipe(
        plan=PlanRecipe(folds=2),
        train=TrainRecipe(epochs=6, checkpoint_seconds=0.0),
        evaluate=EvaluateRecipe(baselines=()),
    )
    whole = ayatori.run(values, recipe, y=values[:, 0] > 0)

    def show(event) -> None:
        if event.epoch and event.epoch.epoch == 4:
            raise StopHereError

    with pytest.raises(StopHereError):
        ayatori.run(values, recipe, tmp_path / "run", y=values[:, 0] > 0, show=show)
    with pytest.raises(AyatoriError, match="must be there to resume"):
        ayatori.resume(tmp_path / "run")
    with pytest.raises(AyatoriError, match="it has changed"):
        ayatori.resume(tmp_path / "run", values + 1, y=values[:, 0] > 0)
    again = ayatori.resume(tmp_path / "run", values, y=values[:, 0] > 0)
    assert again.predictions.values.tobytes() == whole.predictions.values.tobytes()
    assert [m.history[-1].stop_loss for m in again.members] == [
        m.history[-1].stop_loss for m in whole.members
    ]
    with pytest.raises(AyatoriError, match="it is complete"):
        ayatori.resume(tmp_path / "run", values, y=values[:, 0] > 0)


def test_every_opening_of_the_test_is_logged(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(90, 3))
    recipe = Recipe(
        plan=PlanRecipe(folds=2), train=TrainRecipe(epochs=2), evaluate=EvaluateRecipe(baselines=())
    )
    ayatori.run(values, recipe, tmp_path / "run", y=values[:, 0] > 0)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [line["rows"] for line in result["openings"]] == [18]
    assert result["openings"][0]["what"] == "final scores"
    sealed_nothing = ayatori.recipe.change(recipe, "plan", test=0.0)
    ayatori.run(values, sealed_nothing, tmp_path / "no test", y=values[:, 0] > 0)
    assert json.loads((tmp_path / "no test" / "result.json").read_text())["openings"] == []
