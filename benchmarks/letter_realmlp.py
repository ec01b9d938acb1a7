"""Letter: Ayatori's own table network in five folds against pytabkit's RealMLP with ``n_cv=5``.

Both learn from the same rows and are scored, as the mean of their five networks, on the same sealed fifth.
Each divides its own rows: a RealMLP trains on four fifths of them and stops by the last; Ayatori does so
with ``--strategy rotate``, and as a rule keeps that fold for the score and stops by a tenth of the others.
Seconds are those of fit and prediction.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import rivals
import torch
from common import compare

from ayatori.recipe import Recipe, TrainRecipe
from ayatori.train import predict, settle, train


@dataclass(frozen=True)
class Defaults(rivals.Task):
    """The networks are those of the libraries; 0 epochs are as many as Ayatori thinks best."""

    preset: str = "good"
    rival_epochs: int = 64

    def small(self) -> Self:
        return dataclasses.replace(super().small(), rival_epochs=1)


def read(options: argparse.Namespace) -> Defaults:
    dataset, plan = rivals.read_table(options.table, "lettr", options.rows, 0.2, options.strategy)
    fixed = (dataset, plan, rivals.wide_mlp, options.epochs, 0, 0.0)
    return Defaults(*fixed, preset=options.preset, rival_epochs=options.rival_epochs)


def ayatori(task: Defaults) -> np.ndarray:
    recipe = Recipe(train=TrainRecipe(epochs=task.epochs, device="cpu"), preset=task.preset)
    members = train(task.dataset, task.plan, settle(recipe, task.dataset, task.plan))
    return rivals.judged(predict(members, task.dataset, task.plan).values, task.plan)


def realmlp(task: Defaults) -> np.ndarray:
    from pytabkit import RealMLP_TD_Classifier

    sealed, y = task.plan.sealed, task.dataset.labels
    model = RealMLP_TD_Classifier(
        n_cv=5, n_epochs=task.rival_epochs, device="cpu", random_state=0, n_threads=torch.get_num_threads()
    )
    model.fit(task.x[~sealed], y[~sealed])
    out = np.full((len(y), len(task.dataset.classes)), np.nan)
    out[np.ix_(sealed, model.classes_)] = model.predict_proba(task.x[sealed])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="letter.csv")
    parser.add_argument("--epochs", type=int, default=0, help="Ayatori's; 0 = as many as it thinks best")
    parser.add_argument("--rival-epochs", type=int, default=64)
    parser.add_argument("--preset", default="good")
    parser.add_argument("--strategy", choices=("kfold", "rotate"), default="kfold")
    parser.add_argument("--rows", type=int, help="only the first of them")
    compare(parser, {"ayatori": ayatori, "realmlp": realmlp}, read)


if __name__ == "__main__":
    main()
