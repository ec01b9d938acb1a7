"""The rivals of Ayatori's ensembles: Task -> (t, classes) probabilities, or (t,) values, of its t test rows.

Written as their own manuals say. What a manual advises for probabilities that are to be scored by log loss is
done, as log loss is what is compared. Imports are inside, so that each runs where only it is installed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ensemble_data import Task

Side = Callable[[Task], np.ndarray]
MEMBERS = 10  # of TorchEnsemble
BATCH = 128
VALID = 0.1  # share of the training rows that choose TorchEnsemble's epoch


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def in_order(values: np.ndarray, known: Any, task: Task) -> np.ndarray:
    """Probabilities of the codes that a model knows -> of all classes, 0 for one that it does not know."""
    out = np.zeros((len(values), len(task.classes)))
    out[:, np.asarray(known, int)] = values
    return out


def filled(task: Task) -> pd.DataFrame:
    """(n, p) the table without gaps: medians of the training rows, and a word of its own."""
    frame = task.frame.copy()
    for name in frame.columns:
        if name in task.words:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "missing").astype(str)
        else:
            known = frame[name].astype(float)
            frame[name] = known.fillna(known[~task.test].median())
    return frame


def histgb(task: Task) -> np.ndarray:
    """scikit-learn's gradient boosting as it is; columns of words are categories."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    frame = task.frame.copy()
    for name in task.words:
        frame[name] = frame[name].astype("category")
    kind = HistGradientBoostingClassifier if task.classes else HistGradientBoostingRegressor
    model = kind(random_state=task.seed).fit(frame[~task.test], task.y[~task.test])
    if not task.classes:
        return model.predict(frame[task.test])
    return in_order(model.predict_proba(frame[task.test]), model.classes_, task)


def realmlp(task: Task, **settings: Any) -> np.ndarray:
    """pytabkit's RealMLP with five folds, with the settings that it was tuned with."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    kind = RealMLP_TD_Classifier if task.classes else RealMLP_TD_Regressor
    if task.epochs:
        settings["n_epochs"] = task.epochs
    model = kind(n_cv=5, device="cpu", random_state=task.seed, n_threads=threads(), **settings)
    frame = filled(task)
    model.fit(frame[~task.test], task.y[~task.test], cat_col_names=task.words)
    if not task.classes:
        return np.asarray(model.predict(frame[task.test])).reshape(-1)
    return in_order(model.predict_proba(frame[task.test]), model.classes_, task)


def realmlp_log_loss(task: Task) -> np.ndarray:
    """RealMLP as its manual advises for log loss: stopped by it, without label smoothing."""
    return realmlp(task, val_metric_name="cross_entropy", use_ls=False)


def autogluon(task: Task) -> np.ndarray:
    """AutoGluon's NN_TORCH in five bags, told that log loss (RMSE) counts; pictures are tables of pixels."""
    from autogluon.tabular import TabularPredictor

    frame = task.frame.assign(**{"the target": task.y})
    own = {"num_epochs": task.epochs} if task.epochs else {}
    metric = "log_loss" if task.classes else "root_mean_squared_error"
    kind = {0: "regression", 2: "binary"}.get(len(task.classes), "multiclass")
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(
            "the target", problem_type=kind, eval_metric=metric, path=f"{folder}/models", verbosity=0
        ).fit(
            frame[~task.test],
            hyperparameters={"NN_TORCH": own},
            num_bag_folds=5,
            num_bag_sets=1,
            num_stack_levels=0,
            dynamic_stacking=False,
            fit_weighted_ensemble=False,
            num_cpus=threads(),
            num_gpus=0,
            ag_args_ensemble={"fold_fitting_strategy": "sequential_local"},  # no ray
        )
        asked = frame[task.test].drop(columns="the target")
        if not task.classes:
            return predictor.predict(asked).to_numpy()
        said = predictor.predict_proba(asked)
    return in_order(said.to_numpy(), said.columns, task)


def torchensemble(task: Task) -> np.ndarray:
    """TorchEnsemble's bagging of ten MLPs 256-256 or small CNNs, with Adam as in its examples.

    It keeps the best epoch by a loader that its manual calls the test: a part of the training rows here. In
    memory it goes on training what it kept, so that its file of the best epoch is read back.
    """
    import torch
    import torchensemble as library
    from rivals import small_cnn, standardised, wide_mlp
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(task.seed)
    learn, valid = divided(task)
    x = encoded(task)[:, None] if task.pictures else encoded(task)
    x = torch.from_numpy(standardised(x, learn))
    centre, scale = (0.0, 1.0) if task.classes else (task.y[learn].mean(), task.y[learn].std())
    y = (
        torch.from_numpy(task.y)
        if task.classes
        else torch.from_numpy((task.y - centre) / scale).float()[:, None]
    )
    network = (small_cnn if task.pictures else wide_mlp)(x.shape[1:], max(len(task.classes), 1))
    kind = library.BaggingClassifier if task.classes else library.BaggingRegressor

    def loader(rows: np.ndarray, shuffle: bool) -> Any:
        return DataLoader(TensorDataset(x[rows], y[rows]), BATCH, shuffle=shuffle)

    model = kind(network, MEMBERS, cuda=False)
    model.set_optimizer("Adam", lr=1e-3, weight_decay=5e-4)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        epochs = task.epochs or (40 if task.pictures else 100)
        model.fit(loader(learn, True), epochs, 10**9, loader(valid, False), save_dir=folder)
        (path,) = Path(folder).glob("*.pth")
        model.load_state_dict(torch.load(path, weights_only=False)["model"])
    said = torch.cat([model.predict(part) for part in x[task.test].split(1024)]).numpy()
    return said if task.classes else said.reshape(-1) * scale + centre


def divided(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Training rows to learn from, and a tenth of them to choose the epoch by."""
    from sklearn.model_selection import train_test_split

    rows = np.flatnonzero(~task.test)
    strata = task.y[rows] if task.classes else None
    learn, valid = train_test_split(rows, test_size=VALID, stratify=strata, random_state=task.seed)
    return learn, valid


def encoded(task: Task) -> np.ndarray:
    """Pictures as they are; of a table (n, columns) its numbers, and a column for each word it has."""
    if isinstance(task.x, np.ndarray):
        return task.x
    return pd.get_dummies(filled(task), columns=task.words).to_numpy(np.float32)


@dataclass(frozen=True)
class Rival:
    """``library`` is imported before the clock starts."""

    side: Side
    library: str
    pictures: bool = True
    values: bool = True


# cheap ones first
RIVALS: dict[str, Rival] = {
    "histgb": Rival(histgb, "sklearn.ensemble"),
    "realmlp": Rival(realmlp, "pytabkit", pictures=False),
    "realmlp_log_loss": Rival(realmlp_log_loss, "pytabkit", pictures=False, values=False),
    "torchensemble": Rival(torchensemble, "torchensemble"),
    "autogluon": Rival(autogluon, "autogluon.tabular"),
}
