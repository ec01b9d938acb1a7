"""scikit-learn estimators: check input, call the stages, nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, check_X_y, column_or_1d, validate_data

from ayatori.data import load
from ayatori.data.columns import text_of
from ayatori.model import load_model, save_model
from ayatori.recipe import LossRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe, change, from_dict
from ayatori.records import AyatoriError, Dataset, Task
from ayatori.run import Result, run
from ayatori.store import RunFolder, history_table, plain

FORMAT = 1
LEAST_ROWS = 4
ONE_THREAD_ROWS = 2000  # below, a second thread costs more than it gives (see dev/LOG.md)
STAGES = {"plan": PlanRecipe, "net": NetRecipe, "loss": LossRecipe, "train": TrainRecipe}


class _Estimator(BaseEstimator):
    """What Classifier and Regressor share: settings, rows, the run, files."""

    _main_score: ClassVar[str]

    def __init__(
        self,
        net: str | Callable[..., Any] = "auto",
        *,
        folds: int = 5,
        repeats: int = 1,
        strategy: str = "kfold",
        stop: float = 0.1,
        splitter: Any = None,
        epochs: int = 0,
        batch_size: int = 0,
        learning_rate: float = 0.0,
        weight_decay: float = -1.0,
        patience: int = 0,
        clip: float = 1.0,
        augment: str = "auto",
        activation: str = "",
        options: Mapping[str, Any] | None = None,
        loss: str | Callable[..., Any] = "auto",
        label_smoothing: float = -1.0,
        class_weights: Any = None,
        gamma: float = 2.0,
        delta: float = 1.0,
        quantile: float = 0.5,
        preset: str = "good",
        device: str = "auto",
        time_limit: float = 0.0,
        random_state: Any = 0,
        verbose: int = 0,
    ) -> None:
        self.net = net
        self.folds = folds
        self.repeats = repeats
        self.strategy = strategy
        self.stop = stop
        self.splitter = splitter
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.clip = clip
        self.augment = augment
        self.activation = activation
        self.options = options
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.gamma = gamma
        self.delta = delta
        self.quantile = quantile
        self.preset = preset
        self.device = device
        self.time_limit = time_limit
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags

    def save(self, path: str | Path) -> Path:
        """Write the fitted estimator into a new folder; no pickle.

        What a fit found besides (``out_of_fold_``, ``plan_``, ``history_``) stays behind. A parameter that is an
        object of the user's own is not written: give it again to :meth:`load`.
        """
        check_is_fitted(self)
        path = Path(path)
        if path.exists():
            raise AyatoriError(
                f"an estimator must be saved to a new folder, however '{path}' exists; choose another"
            )
        folder = RunFolder(path)
        save_model(self.model_, folder)
        names = getattr(self, "feature_names_in_", None)
        folder.write_json(
            "estimator.json",  # written last: without it the folder is not complete
            {
                "format": FORMAT,
                "estimator": type(self).__name__,
                "params": _plain_params(self.get_params(deep=False)),
                "n_features_in": self.n_features_in_,
                "feature_names_in": None if names is None else names.tolist(),
                "out_of_fold_score": self.out_of_fold_score_,
                **self._facts(),
            },
        )
        return path

    @classmethod
    def load(cls, path: str | Path, **params: Any) -> Self:
        """The fitted estimator that :meth:`save` wrote to ``path``, ready to predict.

        ``params`` replace parameters that were saved; those that were objects of the user's own (a network,
        a loss) must be among them, because code is never chosen by a folder.

        Raises AyatoriError with one sentence where the folder is not what :meth:`save` wrote.
        """
        path = Path(path)
        facts = RunFolder(path).read_json("estimator.json")
        try:
            if (facts["format"], facts["estimator"]) != (FORMAT, cls.__name__):
                raise AyatoriError(
                    f"'{path}' must hold a {cls.__name__} of format {FORMAT}, however it holds a "
                    f"{facts['estimator']} of format {facts['format']}"
                )
            saved = {**facts["params"], **params}
            missing = sorted(set(cls().get_params()) - set(saved))
            if missing:
                raise AyatoriError(
                    f"`{missing[0]}` was an object of your own, which no folder can hold; give it again: "
                    f"{cls.__name__}.load(path, {missing[0]}=...)"
                )
            made = cls(**saved)
            made.model_ = load_model(path, params.get("net"), made.device)
            made.n_features_in_ = int(facts["n_features_in"])
            made.out_of_fold_score_ = facts["out_of_fold_score"]
            if facts["feature_names_in"] is not None:
                made.feature_names_in_ = np.array(facts["feature_names_in"], dtype=object)
            made._take_facts(facts)
            return made
        except (KeyError, TypeError) as error:
            raise AyatoriError(
                f"'{path / 'estimator.json'}' must describe a {cls.__name__}, however: {error!r}"
            ) from None

    def _facts(self) -> dict[str, Any]:
        return {}

    def _take_facts(self, facts: Mapping[str, Any]) -> None:
        pass

    def _fit(
        self,
        X: Any,
        y: np.ndarray,
        task: Task,
        classes: Sequence[Any],
        class_weights: tuple[float, ...],
        groups: Any,
    ) -> Result:
        """One run without sealed rows and rivals: the caller's split is outside."""
        recipe = _recipe(self.get_params(deep=False), task, class_weights)
        dataset = load(X, recipe.data, y=y)
        if groups is not None:
            dataset = dataclasses.replace(dataset, groups=_groups(groups, len(dataset)))
        if len(classes):
            names = tuple(text_of(name) for name in classes)
            dataset = dataclasses.replace(
                dataset, schema=dataclasses.replace(dataset.schema, classes=names)
            )
        recipe = change(recipe, "plan", folds=_folds(recipe.plan, dataset))
        with _show(self.verbose) as show, _threads(len(X)):
            result = run(dataset, recipe, show=show)
        self.model_ = result.model
        self.plan_ = result.plan
        self.history_ = pd.concat(
            [history_table(member.history) for member in result.members], ignore_index=True
        )
        spoken = [blend for blend in result.blends if blend.split == "out_of_fold"]
        if spoken:
            # the last one, where repeats give several, is their mean
            self.out_of_fold_ = spoken[-1].values
            entry = next(entry for entry in result.leaderboard if entry.name == spoken[-1].name)
            score = entry.scores.get(self._main_score)
            self.out_of_fold_score_ = float("nan") if score is None else score.value
        return result

    def _values(self, X: Any) -> np.ndarray:
        """(n, outputs) float32: mean over the networks."""
        check_is_fitted(self)
        rows = _check_rows(self, X, table=self.model_.schema.kind == "table", reset=False)
        with _threads(len(rows)):
            return self.model_.predict_values(self.model_.read(rows))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


class Classifier(ClassifierMixin, _Estimator):
    """Networks that tell classes apart, one for each fold, which speak together.

    Parameters
    ----------
    net : str or callable, default="auto"
        auto, mlp, linear, cnn (pictures), ``package:factory``, or a factory or module of your own.
    folds : int, default=5
        Networks are trained on so many parts; at most as many as the smallest class has rows.
    """

    _main_score = "accuracy"

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train."""
        rows = _check_rows(self, X, table=_is_mixed(X), reset=True)
        y = _check_target(self, rows, y, numeric=False)
        check_classification_targets(y)
        if type_of_target(y, input_name="y") == "multiclass-multioutput" or y.ndim > 1:
            raise AyatoriError(
                f"y must be one class a row, however its shape is {y.shape}; fit one Classifier for each column"
            )
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise AyatoriError(f"y must have at least 2 classes, however every row says {self.classes_[0]!r}")
        weights = _class_weights(self.class_weights, self.classes_, y)
        self._fit(rows, codes, "classification", self.classes_, weights, groups)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) float32: the mean of what the networks say."""
        return self._values(X)

    def predict(self, X: Any) -> np.ndarray:
        """(n,): the most probable class."""
        values = self._values(X)
        return self.classes_[values.argmax(axis=1)]

    def _facts(self) -> dict[str, Any]:
        return {"classes": {"type": self.classes_.dtype.str, "values": self.classes_.tolist()}}

    def _take_facts(self, facts: Mapping[str, Any]) -> None:
        self.classes_ = np.array(facts["classes"]["values"], dtype=np.dtype(facts["classes"]["type"]))


class Regressor(RegressorMixin, _Estimator):
    """Networks that predict numbers, one for each fold; their mean is the prediction."""

    _main_score = "r2"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train."""
        rows = _check_rows(self, X, table=_is_mixed(X), reset=True)
        y = _check_target(self, rows, y, numeric=True)
        self._fit(rows, y, "regression", (), (), groups)
        if hasattr(self, "out_of_fold_") and y.ndim == 1:
            self.out_of_fold_ = self.out_of_fold_[:, 0]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) or (n, values) float32, in the units of y."""
        values = self._values(X)
        return values[:, 0] if values.shape[1] == 1 else values


def _is_mixed(X: Any) -> bool:
    """Whether ``X`` is a DataFrame with columns that are not numbers."""
    return isinstance(X, pd.DataFrame) and not all(pd.api.types.is_numeric_dtype(kind) for kind in X.dtypes)


def _check_rows(estimator: _Estimator, X: Any, table: bool, reset: bool) -> Any:
    """``X`` as the stages read it: a DataFrame where columns differ in kind, else an array."""
    if table:
        if not isinstance(X, pd.DataFrame) and not reset:
            X = pd.DataFrame(X, columns=getattr(estimator, "feature_names_in_", None))
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        least = LEAST_ROWS if reset else 1
        if len(X) < least:
            raise AyatoriError(f"X must have at least {least} rows, however it has {len(X)} sample(s)")
        return X
    return validate_data(
        estimator,
        X,
        reset=reset,
        dtype="numeric",
        allow_nd=getattr(X, "ndim", 2) > 2,  # pictures
        ensure_all_finite="allow-nan",
        ensure_min_samples=LEAST_ROWS if reset else 1,
    )


def _check_target(estimator: _Estimator, X: Any, y: Any, numeric: bool) -> np.ndarray:
    _, y = check_X_y(
        np.zeros((len(X), 1)), y, multi_output=True, y_numeric=numeric, dtype=None, estimator=estimator
    )
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return y


def _class_weights(weights: Any, classes: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """One weight per class, in the order of ``classes``."""
    if weights is None:
        return ()
    if isinstance(weights, str | Mapping):
        weights = compute_class_weight(weights, classes=classes, y=y)
    return tuple(float(weight) for weight in weights)


def _groups(groups: Any, rows: int) -> np.ndarray:
    groups = column_or_1d(groups)
    if len(groups) != rows:
        raise AyatoriError(f"groups must hold one entry for each of {rows} rows, however {len(groups)}")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _folds(recipe: PlanRecipe, dataset: Dataset) -> int:
    """No more folds than the smallest class, the groups or the rows allow."""
    if recipe.splitter is not None or recipe.strategy == "holdout":
        return recipe.folds
    most = len(dataset)
    if dataset.task == "classification":
        counts = np.bincount(dataset.labels)
        most = int(counts.min())
        if most < 2:
            raise AyatoriError(
                f"every class must have at least 2 rows, however class '{dataset.classes[counts.argmin()]}' has "
                f"{most}; merge the class or use strategy='holdout'"
            )
    if dataset.groups is not None:
        most = min(most, len(np.unique(dataset.groups)))
    return min(recipe.folds, most)


def _recipe(params: Mapping[str, Any], task: Task, class_weights: tuple[float, ...]) -> Recipe:
    """The recipe that flat parameters stand for; every one has the name of a setting of a stage."""
    given = {**params, "class_weights": class_weights, "options": params["options"] or {}}
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    values: dict[str, Any] = {
        stage: {field.name: given[field.name] for field in dataclasses.fields(kind) if field.name in given}
        for stage, kind in STAGES.items()
    }
    own = {name: given[name] for name in ("net", "loss")}
    for stage, name in own.items():
        if isinstance(name, str):
            values[stage]["name"] = name
    values["plan"]["test"] = 0.0
    values["data"] = {"task": task}
    values["evaluate"] = {"baselines": ()}
    values |= {name: given[name] for name in ("preset", "time_limit")}
    recipe = from_dict({**values, "seed": _seed(given["random_state"])})
    for stage, name in own.items():
        if not isinstance(name, str):
            recipe = change(recipe, stage, name=name)
    return recipe


def _seed(random_state: Any) -> int:
    """A number is the seed; a generator gives one; None draws a new one each time."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that JSON can hold as they are."""
    found = {name: plain(list(value) if isinstance(value, tuple) else value) for name, value in params.items()}
    return {name: value for name, value in found.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except TypeError:
        return False


@contextlib.contextmanager
def _show(verbose: int) -> Iterator[Any]:
    if not verbose:
        yield None
        return
    from ayatori.show import Terminal

    with Terminal() as terminal:
        yield terminal


@contextlib.contextmanager
def _threads(rows: int) -> Iterator[None]:
    """One thread for few rows; the number of threads is left as found."""
    before = torch.get_num_threads()
    if rows >= ONE_THREAD_ROWS or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
