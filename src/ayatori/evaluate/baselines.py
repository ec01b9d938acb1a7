"""Stage 8. Dataset, Plan -> what simple rivals say of the same rows, so that a network can be judged.

A rival of a column is fitted on its TRAIN and STOP rows together (it has no use for stop rows, and gets
every advantage) and speaks about its SCORE and SEALED rows. Imputing, scaling, encoding and PCA are fitted
on the same rows as the rival, inside one scikit-learn pipeline.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ayatori.evaluate.encode import ONE_HOT, encoded, scaled
from ayatori.evaluate.matrix import whole_table
from ayatori.recipe import EvaluateRecipe, nearest
from ayatori.records import SCORE, SEALED, STOP, UNUSED, AyatoriError, Dataset, Plan, Predictions, Task

NAMES: Mapping[str, Mapping[Task, str]] = {
    "majority": {
        "classification": "majority class",
        "multilabel": "share of each label",
        "regression": "always the mean",
    },
    "linear": {
        "classification": "logistic regression",
        "multilabel": "logistic regression",
        "regression": "ridge regression",
    },
    "neighbours": dict.fromkeys(("classification", "multilabel", "regression"), "nearest neighbours"),
    "boosting": dict.fromkeys(("classification", "multilabel", "regression"), "gradient boosting"),
    "trees": dict.fromkeys(("classification", "multilabel", "regression"), "extra trees"),
    "perceptron": dict.fromkeys(("classification", "multilabel", "regression"), "small network"),
}

# scikit-learn's own parallel parts reset the filters of warnings for all threads while they run
_PREPARING = threading.Lock()
TREES = 60
NEIGHBOURS = 10
CELLS = 100_000  # rows times columns from which on folds side by side are faster than in turn
DISTANCES = 1_000_000_000  # the neighbours learn from fewer rows where more than this would be measured
LEARNED = 20_000  # rows of a fold that every rival may learn from, and more as long as ...
VALUES = {"linear": 20_000_000, "boosting": 6_000_000}  # ... rows times columns are no more


def check_baselines(recipe: EvaluateRecipe) -> None:
    """Refuse a rival that nobody knows."""
    for name in recipe.baselines:
        if name not in NAMES:
            raise AyatoriError(
                f"`baselines` must be some of {', '.join(NAMES)}, however: {name!r}"
                f"{nearest(name, list(NAMES))}"
            )


def title_of(name: str, task: Task) -> str:
    """What a rival is called on the leaderboard."""
    return NAMES[name][task]


def fit_baselines(
    dataset: Dataset,
    plan: Plan,
    recipe: EvaluateRecipe,
    progress: Callable[[str], None] | None = None,
    points: np.ndarray | None = None,
    keep: bool = False,
) -> tuple[list[Predictions], list[str]]:
    """Fit every rival of the recipe on every column of the Plan; and notes on what was left out.

    Predictions are (m members, n rows, c outputs) as those of the networks, and NaN except on the SCORE and
    SEALED rows of a column. At most ``recipe.baseline_rows`` rows of a column are learned from (0: as many as
    take seconds), classes in proportion. ``points`` (n, features) stand in for the inputs, and keep their
    scale. Errors: an unknown rival.
    """
    check_baselines(recipe)
    if not recipe.baselines:
        return [], []
    if points is None:
        table, kinds = whole_table(dataset)
    else:
        table, kinds = points, {"pixels": slice(0, points.shape[1])}
    found: list[Predictions] = []
    notes: list[str] = []
    thinned: dict[int, list[str]] = {}
    largest = max(len(_learn_rows(plan, member)) for member in range(plan.members))
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a rival stops after a fixed number of steps
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50")
        for name in recipe.baselines:
            try:
                most = recipe.baseline_rows or _most(name, dataset, kinds)
                rival, most = _rival(name, dataset, plan, most, table, kinds, progress, keep)
            except _CannotFitError as error:
                notes.append(f"{NAMES[name][dataset.task]} is left out: {error}")
                continue
            found.append(rival)
            if name != "majority" and largest > most:
                thinned.setdefault(most, []).append(rival.name)
    for most, names in thinned.items():
        notes.append(f"of the {largest:,} rows of a fold, {most:,} are drawn for: {', '.join(names)}")
    return found, notes


def _most(name: str, dataset: Dataset, kinds: Mapping[str, slice]) -> int:
    """Rows of a fold that a rival learns from: it must not lose for want of rows that it has seconds for."""
    width = max(part.stop for part in kinds.values())
    coded = kinds["categories"].stop - kinds["categories"].start if "categories" in kinds else 0
    # of many classes four times as many trees are grown as of two
    trees = 4 if len(dataset.classes) > 2 else dataset.labels[:1].size
    wide = {"linear": width + ONE_HOT * coded, "boosting": width * trees}
    return max(LEARNED, VALUES[name] // wide[name]) if name in wide else LEARNED


class _CannotFitError(Exception):
    """A rival that these rows do not allow."""


def _rival(
    name: str,
    dataset: Dataset,
    plan: Plan,
    most: int,
    table: np.ndarray,
    kinds: Mapping[str, slice],
    progress: Callable[[str], None] | None,
    keep: bool,
) -> tuple[Predictions, int]:
    """One rival on all columns, and how many rows it learned from at most.

    Folds run side by side, one thread each: faster than many threads on one fold, and no threads that
    wait for each other while other programs hold the cores.
    """
    title, target = NAMES[name][dataset.task], dataset.labels
    outputs = len(dataset.classes) if dataset.task == "classification" else target[:1].size
    spoken = np.isin(plan.roles.T, (SCORE, SEALED))
    values = np.full((*spoken.shape, outputs), np.nan, np.float32)
    if name == "neighbours":
        most = min(most, DISTANCES // max(int(spoken.sum(axis=1).max()), 1))
    models: list[Any] = [None] * plan.members
    jobs: dict[bytes, list[int]] = {}  # columns that learn from the same rows share a rival
    for member in range(plan.members):
        jobs.setdefault(_learn_rows(plan, member).tobytes(), []).append(member)

    def work(members: list[int]) -> tuple[float, float]:
        # a limit of the thread that sets it, and a setting: parameters are ours
        with threadpool_limits(1, user_api="openmp"), config_context(skip_parameter_validation=True):
            start = time.perf_counter()
            own = _learn_rows(plan, members[0])
            if name != "majority":
                own = _subsample(dataset, own, most, plan.columns[members[0]].seed)
            fitted = _fit(name, dataset.task, table[own], target[own], kinds)
            middle = time.perf_counter()
            for member in members:
                models[member] = fitted if keep else None
                for rows in np.array_split(
                    np.flatnonzero(spoken[member]), spoken[member].sum() // 50_000 + 1
                ):
                    if len(rows):
                        values[member, rows] = fitted.predict(table[rows], outputs)
            return middle - start, time.perf_counter() - middle

    fitting = predicting = 0.0
    threads = min(len(jobs), os.cpu_count() or 1, 8) if table.size >= CELLS else 1
    with ThreadPoolExecutor(threads) as pool:
        for done, seconds in enumerate(pool.map(work, jobs.values()), 1):
            fitting, predicting = fitting + seconds[0], predicting + seconds[1]
            if progress is not None:
                progress(f"{title}, {done} of {len(jobs)}")
    largest = max(len(_learn_rows(plan, members[0])) for members in jobs.values())
    drawn = most if name != "majority" and largest > most else 0
    return Predictions(values, spoken, title, predicting, fitting, tuple(models), drawn), most


def _learn_rows(plan: Plan, member: int) -> np.ndarray:
    roles = plan.roles[:, member]
    return np.flatnonzero((roles > UNUSED) & (roles <= STOP))


def _subsample(dataset: Dataset, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``rows``, every class in proportion: evenly through them, class by class."""
    if len(rows) <= most:
        return rows
    shuffled = np.random.default_rng([seed, 8]).permutation(rows)
    if dataset.task == "classification":
        shuffled = shuffled[np.argsort(dataset.labels[shuffled], kind="stable")]
    return np.sort(shuffled[np.arange(most) * len(rows) // most])


@dataclass(frozen=True)
class Fitted:
    """A rival that has learned.

    ``codes``: the outputs that its model knows. ``shares`` (outputs,): how often its rows have each output.
    ``model``: a pipeline of scikit-learn's; None where the shares are all there is.
    """

    name: str
    task: Task
    model: Any
    codes: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    def predict(self, table: np.ndarray, outputs: int) -> np.ndarray:
        """Rows (n, features), see ``whole_table`` -> (n, outputs): probabilities or values."""
        shares = np.asarray(self.shares)
        if self.model is None:
            return np.tile(shares, (len(table), 1))
        rows, last = self._prepared(table), self.model[-1]
        if self.task == "regression":
            return last.predict(rows).reshape(rows.shape[0], outputs)
        found = last.predict_proba(rows)
        if isinstance(found, list):  # of labels one array for each, but of a network one for all
            found = np.stack([one[:, 1] for one in found], axis=1)
        said = (
            np.tile(shares, (len(table), 1)) if self.task == "multilabel" else np.zeros((len(table), outputs))
        )
        said[:, list(self.codes)] = found
        return _softened(said, shares) if self.name == "neighbours" else said

    def _prepared(self, table: np.ndarray) -> np.ndarray:
        if len(self.model) == 1:
            return table
        with _PREPARING:
            return self.model[:-1].transform(table)


def _fit(name: str, task: Task, table: np.ndarray, target: np.ndarray, kinds: Mapping[str, slice]) -> Fitted:
    """Fit one rival on rows (n, features)."""
    target = target.reshape(len(target), -1)
    codes: np.ndarray = np.zeros(0, np.int64)
    shares: np.ndarray = np.zeros(0)
    if task == "classification":
        codes, counts = np.unique(target[:, 0], return_counts=True)
        if name != "majority" and len(codes) < 2:
            raise _CannotFitError("it needs rows of at least 2 classes, and a fold has rows of 1")
        shares = np.zeros(codes.max() + 1)
        shares[codes] = counts / counts.sum()
        target = target[:, 0]
    elif task == "multilabel":
        target = target.astype(np.int64)
        shares = target.mean(axis=0)
        codes = np.flatnonzero(target.min(axis=0) < target.max(axis=0))
        if name == "majority" or not len(codes):
            return Fitted(name, task, None, shares=tuple(shares.tolist()))
        target = target[:, codes]
    elif target.shape[1] == 1:
        target = target[:, 0]
    model = _pipeline(name, task, table, target, kinds)
    prepared = table
    if len(model) > 1:
        with _PREPARING:
            prepared = model[:-1].fit(table, target).transform(table)
    with _binned_alone(model[-1]):
        model[-1].fit(prepared, target)
    return Fitted(name, task, model, tuple(codes.tolist()), tuple(shares.tolist()))


@contextlib.contextmanager
def _binned_alone(model: Any) -> Iterator[None]:
    """scikit-learn sets the warnings of the whole process while it bins a column, and binning columns in two
    threads at once leaves them in disorder: a list that grows, and a flood of warnings."""
    bins = getattr(model, "_bin_data", None)
    if bins is None:
        yield
        return

    def alone(*given: Any, **named: Any) -> Any:
        with _PREPARING:
            return bins(*given, **named)

    model._bin_data = alone
    try:
        yield
    finally:
        del model._bin_data


def _softened(said: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Shares among k neighbours, and the shares of all rows as one neighbour more: nothing is impossible."""
    prior = np.zeros(said.shape[1])
    prior[: len(shares)] = shares
    return (NEIGHBOURS * said + prior) / (NEIGHBOURS + 1)


def _pipeline(
    name: str, task: Task, table: np.ndarray, target: np.ndarray, kinds: Mapping[str, slice]
) -> Pipeline:
    regression = task == "regression"
    several = target.ndim > 1
    rows = len(table)
    if name == "majority":
        return make_pipeline(DummyRegressor() if regression else DummyClassifier(strategy="prior"))
    if name == "linear":
        model: Any = Ridge() if regression else LogisticRegression(max_iter=200, tol=1e-3)
        return make_pipeline(scaled(kinds), _each(model, task, several))
    if name == "neighbours":
        kind = KNeighborsRegressor if regression else KNeighborsClassifier
        model = kind(min(NEIGHBOURS, rows), weights="distance")
        return make_pipeline(scaled(kinds, pca=True, rows=rows), FunctionTransformer(np.float32), model)
    if name == "trees":
        return make_pipeline(encoded(kinds, rows, fill=True), _each(Trees(regression), task, several))
    if name == "perceptron":
        return make_pipeline(
            scaled(kinds, pca=True, rows=rows), _each(_perceptron(task, target), task, several)
        )
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    trees = len(np.unique(target)) if task == "classification" else 1
    settings = _boosting(rows, trees if trees > 2 else 1)
    categories = encoded(kinds, rows)
    first = kinds["categories"] if "categories" in kinds else slice(0, 0)
    count = first.stop - first.start
    model = kind(
        early_stopping=False, categorical_features=list(range(count)) or None, random_state=0, **settings
    )
    return make_pipeline(categories, _each(model, task, several))


class Trees(BaseEstimator):
    """Extremely randomised trees (Geurts, Ernst & Wehenkel, 2006), without scikit-learn's own threads."""

    def __init__(self, regression: bool = False) -> None:
        self.regression = regression

    def fit(self, x: np.ndarray, y: np.ndarray) -> Trees:
        x, y = np.ascontiguousarray(x, np.float32), np.asarray(y)
        kind = ExtraTreeRegressor if self.regression else ExtraTreeClassifier
        share = 1.0 if self.regression else "sqrt"
        # rows are checked once, not for each tree: that took as long as the trees
        self.trees_ = [
            kind(min_samples_leaf=2, max_features=share, random_state=seed).fit(x, y, check_input=False)
            for seed in range(TREES)
        ]
        if not self.regression:
            self.classes_ = self.trees_[0].classes_
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        if not self.regression:
            return self.classes_[self.predict_proba(x).argmax(axis=1)]
        x = np.ascontiguousarray(x, np.float32)
        return np.mean([tree.predict(x, check_input=False) for tree in self.trees_], axis=0)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, np.float32)
        return np.mean([tree.predict_proba(x, check_input=False) for tree in self.trees_], axis=0)


def _perceptron(task: Task, target: np.ndarray) -> MLPClassifier | MLPRegressor:
    """Two layers, which learn a parity of three bits and a checkerboard where one layer does not."""
    rows = len(target)
    # scikit-learn keeps a tenth of the rows to stop by, with some of each class
    counts = np.unique(target, return_counts=True)[1] if task == "classification" else np.array([rows])
    kind = MLPRegressor if task == "regression" else MLPClassifier
    return kind(
        hidden_layer_sizes=(128, 128),
        learning_rate_init=0.003,
        alpha=0.001,
        batch_size=int(np.clip(rows // 8, 1, 128)),
        max_iter=100,
        early_stopping=bool(counts.min() >= 2 and rows >= 10 * len(counts) and rows >= 40),
        n_iter_no_change=10,
        random_state=0,
    )


def _each(model: Any, task: Task, several: bool) -> Any:
    if several and isinstance(model, MLPClassifier | MLPRegressor):
        return model
    if task == "multilabel":
        return MultiOutputClassifier(model)
    if several and not isinstance(model, Ridge):
        return MultiOutputRegressor(model)
    return model


def _boosting(rows: int, trees: int) -> dict[str, Any]:
    """Fewer and bolder rounds where a round grows many ``trees``; smaller trees of few rows."""
    if trees > 100:
        raise _CannotFitError(f"it would grow {trees} trees a round, one for each class; 100 are the most")
    rounds = 150 if trees == 1 else int(np.clip(600 // trees, min(40, 2000 // trees), 100))
    return {
        "max_iter": rounds,
        "learning_rate": max(0.1, min(8 / rounds, 0.3)),
        "max_leaf_nodes": 31 if rows >= 5000 else 15,
        "l2_regularization": 1.0,  # without it leaves run away where there are many classes
    }
