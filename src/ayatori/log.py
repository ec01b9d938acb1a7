"""A run, told to TensorBoard or MLflow while it goes: losses of each epoch, then settings, figures and files.

Nothing in a run depends on it: a log listens to the same events as the terminal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Epoch

if TYPE_CHECKING:
    from ayatori.run import Event, Result, Show

FILES = ("report.html", "model_card.md", "result.json", "recipe.toml")
LONGEST = 500  # letters of a setting that MLflow takes


class Log(Protocol):
    """What is told of a run."""

    def epoch(self, line: Epoch) -> None:
        """One epoch of one network."""

    def finish(
        self, settings: Mapping[str, Any], figures: Mapping[str, float], files: Sequence[Path]
    ) -> None:
        """The end: settings by name, figures by name, and files worth keeping."""

    def stop(self) -> None:
        """The run ends without a result."""


class TensorBoard:
    """Event files in RUN/tensorboard; look at them by ``tensorboard --logdir RUN``."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "tensorboard"
        self._writer: Any = None

    @property
    def writer(self) -> Any:
        """Made late, as the run folder must be new when the run begins."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
        return self._writer

    def epoch(self, line: Epoch) -> None:
        losses = {"train": line.train_loss, "stop": line.stop_loss}
        for name, value in losses.items():
            self.writer.add_scalar(f"network {line.member}/{name}_loss", value, line.epoch)
        self.writer.add_scalar(f"network {line.member}/learning_rate", line.learning_rate, line.epoch)

    def finish(
        self, settings: Mapping[str, Any], figures: Mapping[str, float], files: Sequence[Path]
    ) -> None:
        table = "\n".join(
            ["| setting | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in settings.items())]
        )
        self.writer.add_text("recipe", table)
        for name, value in figures.items():
            self.writer.add_scalar(f"figures/{name}", value, 0)
        self.writer.close()

    def stop(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """A run of the experiment "ayatori" where MLFLOW_TRACKING_URI says, or in ./mlruns."""

    def __init__(self, out: Path) -> None:
        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI") and importlib.util.find_spec("sqlalchemy") is None:
            # the small package has no database, which is what MLflow would keep runs in
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri(Path("mlruns").resolve().as_uri())
        self.client = mlflow.MlflowClient()
        known = self.client.get_experiment_by_name("ayatori")
        experiment = known.experiment_id if known else self.client.create_experiment("ayatori")
        self.run = self.client.create_run(experiment, run_name=out.name).info.run_id

    def epoch(self, line: Epoch) -> None:
        for name, value in (("train_loss", line.train_loss), ("stop_loss", line.stop_loss)):
            self.client.log_metric(self.run, f"network_{line.member}/{name}", value, step=line.epoch)

    def finish(
        self, settings: Mapping[str, Any], figures: Mapping[str, float], files: Sequence[Path]
    ) -> None:
        for name, value in settings.items():
            self.client.log_param(self.run, name, str(value)[:LONGEST])
        for name, value in figures.items():
            self.client.log_metric(self.run, name, value)
        for file in files:
            self.client.log_artifact(self.run, str(file))
        self.client.set_terminated(self.run)

    def stop(self) -> None:
        self.client.set_terminated(self.run, "KILLED")


KINDS: dict[str, Callable[[Path], Log]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def logs(names: str, out: Path) -> list[Log]:
    """The logs of ``names`` (with commas between) for the run in ``out``.

    Raises AyatoriError for an unknown name, or where the program is not installed.
    """
    found: list[Log] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in KINDS:
            raise AyatoriError(
                f"--log must name {' or '.join(KINDS)}, however: {name!r}{nearest(name, list(KINDS))}"
            )
        if importlib.util.find_spec(name) is None:
            raise AyatoriError(
                f"--log needs the package {name}, however it is missing; pip install 'ayatori[{name}]'"
            )
        found.append(KINDS[name](out))
    return found


def heard(show: Show, told: Sequence[Log]) -> Show:
    """``show``, whose events the logs hear too."""

    def hear(event: Event) -> None:
        show(event)
        if event.epoch is not None:
            for log in told:
                log.epoch(event.epoch)

    return hear


@contextlib.contextmanager
def ending(told: Sequence[Log]) -> Iterator[None]:
    """Whatever ends the block before its end is told to the logs too."""
    try:
        yield
    except BaseException:
        for log in told:
            log.stop()
        raise


def finish(told: Sequence[Log], result: Result, out: Path) -> None:
    """Settings, figures and files of a finished run, to each log."""
    settings = flat(tomllib.loads((out / "recipe.toml").read_text(encoding="utf-8")))
    figures = {
        f"{entry.split}/{name}": score.value
        for entry in reversed(result.leaderboard)
        if entry.name == result.chosen or (entry.network and entry.split == "out_of_fold")
        for name, score in entry.scores.items()
    }
    for log in told:
        log.finish(settings, figures, [out / name for name in FILES if (out / name).is_file()])


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by their full names.

    >>> flat({"seed": 0, "train": {"epochs": 3}})
    {'seed': 0, 'train.epochs': 3}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found.update(flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value})
    return found
