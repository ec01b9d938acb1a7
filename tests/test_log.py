"""What MLflow and TensorBoard themselves read back is what the run folder holds."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from helpers import command

from ayatori.log import ending, logs
from ayatori.records import AyatoriError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(120, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=np.where(x[:, 0] > 0, "yes", "no"))
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


@pytest.mark.filterwarnings("ignore")  # those of other programs
def test_both_programs_know_losses_figures_and_settings(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = ("run", table, "--no-look", "--preset", "quick", "--folds", 2, "--epochs", 4, "--out", "run")
    assert command(monkeypatch, *words, "--log", "tensorboard, mlflow", "--quiet") == 0
    history = pd.read_parquet(tmp_path / "run" / "members" / "000" / "history.parquet")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    scored = next(e for e in result["leaderboard"] if e["name"] == result["chosen"] and e["split"] == "test")

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    kept = [(event.step, event.value) for event in board.Scalars("network 0/stop_loss")]
    assert [step for step, _ in kept] == history["epoch"].tolist()
    np.testing.assert_allclose([value for _, value in kept], history["stop_loss"], rtol=1e-6)
    (accuracy,) = board.Scalars("figures/test/accuracy")
    assert accuracy.value == pytest.approx(scored["scores"]["accuracy"]["value"])

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("ayatori")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["plan.folds"] == "2"
    assert run.data.metrics["test/accuracy"] == scored["scores"]["accuracy"]["value"]
    losses = client.get_metric_history(run.info.run_id, "network_0/train_loss")
    np.testing.assert_allclose([one.value for one in losses], history["train_loss"], rtol=1e-9)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"report.html", "model_card.md", "result.json", "recipe.toml"}


@pytest.mark.filterwarnings("ignore")  # those of other programs
@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, AyatoriError])
def test_a_run_that_is_stopped_is_not_running_for_ever(
    stop: type[BaseException], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object) -> None:
        raise stop("no more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told = logs("tensorboard,mlflow", tmp_path / "run")
    with pytest.raises(stop), ending(told):
        stopped()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("ayatori").experiment_id])
    assert run.info.status == "KILLED"


def test_a_run_on_bad_data_is_told_to_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "t.csv").write_text("a,y\n1,one\n2,one\n")
    assert command(monkeypatch, "run", tmp_path / "t.csv", "--out", "run", "--log", "mlflow") == 2
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("ayatori").experiment_id])
    assert run.info.status == "KILLED"


def test_an_unknown_or_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AyatoriError, match="did you mean 'mlflow'"):
        logs("mlfow", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AyatoriError, match=r"pip install 'ayatori\[tensorboard\]'"):
        logs("tensorboard", tmp_path)
    assert logs("", tmp_path) == []
