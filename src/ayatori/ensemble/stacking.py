"""What groups say of rows they never saw, truth -> the last model of a stack (Wolpert 1992)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayatori.ensemble.losses import check_voices, errors, thinned, unit_of
from ayatori.ensemble.say import evidence, features
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Last, Task

NAMES = ("auto", "logistic", "network")
CELLS = 5_000_000  # values at most that a named last model learns from, of rows drawn at random
ROWS = 5_000  # unless these are fewer rows
TOWARDS_MEAN = 2.0  # weight, in rows, of the pull towards the plain mean
TOWARDS_NOTHING = 0.5  # and of that of a bias towards 0: its prior is a standard normal
STEPS = 500  # of the search at most


def fit_last(
    said: np.ndarray,
    truth: np.ndarray,
    task: Task,
    kind: Any = "auto",
    inputs: np.ndarray | None = None,
    seed: int = 0,
) -> Last:
    """Fit the last model on what k groups say of rows that they never saw.

    **Shape** ``said`` (k, n, c); ``truth`` (n,) int codes, or (n, c); ``inputs`` (n, p) raw, for a last model
    that sees them too (gaps are filled in unless it knows gaps)

    ``kind``:

    - "auto": one weight >= 0 a group (Breiman 1996) and one bias an output, drawn towards the plain mean.
      Classes and labels: logits = sum of w_v times ``say.evidence`` + b; mean cross entropy plus
      (2 sum (w_v - 1/k)^2 + sum b^2 / 2) / n is minimised. Values, in standard deviations of the target:
      ridge, mean squared error plus 2 s sum (w_v - 1/k)^2 / n where s is the mean's squared error.
      With ``inputs`` it is "logistic"
    - "logistic": logistic regression (ridge for numbers) on all outputs' evidence side by side
    - "network": a small network on the same
    - "package.module:Class", or a scikit-learn estimator, fitted as it is on the outputs side by side

    Where only one class is there to learn from, the last model is the plain mean. Errors: an unknown name, an
    estimator that does not fit the task or cannot be fitted.

    >>> truth = np.arange(100) % 2
    >>> good = np.where(truth[:, None] == [0, 1], 0.8, 0.2)
    >>> noise = np.random.default_rng(0).dirichlet([1, 1], 100)
    >>> [round(weight, 1) for weight in fit_last(np.stack([good, noise]), truth, "classification").weights]
    [2.2, 0.1]
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    check_voices(said, truth)
    kind = "logistic" if isinstance(kind, str) and kind == "auto" and inputs is not None else kind
    estimator = make_last(kind, task, len(said) * said.shape[2], seed)
    k, c = len(said), said.shape[2]
    if isinstance(kind, str) and kind in NAMES:
        rows = thinned(len(truth), max(CELLS // (k * c), ROWS), seed)
        said, truth, inputs = said[:, rows], truth[rows], None if inputs is None else inputs[rows]
    with threadpool_limits(1):
        if task == "classification" and len(np.unique(truth)) < 2:
            return Last(weights=(1 / k,) * k, bias=(0.0,) * c)
        if estimator is None:
            weights, bias = (_ridge if task == "regression" else _conditional_logit)(said, truth, task)
            return Last(weights=tuple(map(float, weights)), bias=tuple(map(float, bias)))
        return _fitted(estimator, said, truth, task, inputs)


def make_last(kind: Any, task: Task, width: int, seed: int = 0) -> Any:
    """The estimator that ``kind`` names, not fitted, or None for "auto". Refuses what could not serve.

    ``width``: how many outputs all groups have together; a caller that only wants to know early may say 1.

    >>> make_last("logistc", "classification", 1)
    Traceback (most recent call last):
    ayatori.errors.AyatoriError: `stack_model` must be auto, logistic, network, package.module:Class or a \
scikit-learn estimator, however: 'logistc'; did you mean 'logistic'?
    """
    if isinstance(kind, str) and kind == "auto":
        return None
    if isinstance(kind, str) and kind in NAMES:
        return _named(kind, task, width, seed)
    if isinstance(kind, str) and ":" not in kind:
        raise AyatoriError(
            f"`stack_model` must be {', '.join(NAMES)}, package.module:Class or a scikit-learn estimator, "
            f"however: {kind!r}{nearest(kind, NAMES)}"
        )
    return _own(_imported(kind) if isinstance(kind, str) else kind, task, seed)


def _conditional_logit(said: np.ndarray, truth: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(k,) weights and (c,) bias of a conditional logit (McFadden 1974), or of one logit a label."""
    from scipy.optimize import minimize

    logs = evidence(said, task)
    k, n, c = logs.shape
    if task == "classification":
        wanted = np.zeros((n, c))
        wanted[np.arange(n), truth] = 1.0
    else:
        wanted = (truth.reshape(n, c) > 0.5).astype(np.float64)
    found = minimize(
        penalised,
        np.concatenate([np.full(k, 1 / k), np.zeros(c)]),
        args=(logs, wanted, task),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * k + [(None, None)] * c,
        options={"maxiter": STEPS},
    ).x
    return found[:k], found[k:]


def penalised(
    point: np.ndarray, logs: np.ndarray, wanted: np.ndarray, task: Task
) -> tuple[float, np.ndarray]:
    """What "auto" minimises, and its gradient.

    **Shape** ``point`` (k + c,) weights, then bias; ``logs`` (k, n, c) evidence; ``wanted`` (n, c) of 0 and 1
    """
    k, n, c = logs.shape
    weights, bias = point[:k], point[k:]
    logits = np.tensordot(weights, logs, 1) + bias
    if task == "classification":
        logits -= logits.max(axis=1, keepdims=True)
        whole = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = float((whole[:, 0] - (wanted * logits).sum(axis=1)).mean())
        off = (np.exp(logits - whole) - wanted) / n
    else:
        loss = float((np.logaddexp(0.0, logits) - wanted * logits).mean())
        off = (np.exp(-np.logaddexp(0.0, -logits)) - wanted) / (n * c)
    away = weights - 1 / k
    loss += float(TOWARDS_MEAN * away @ away + TOWARDS_NOTHING * bias @ bias) / n
    slope = np.tensordot(logs, off, 2) + 2 * TOWARDS_MEAN * away / n
    return loss, np.concatenate([slope, off.sum(axis=0) + 2 * TOWARDS_NOTHING * bias / n])


def _ridge(said: np.ndarray, truth: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(k,) weights >= 0 and (c,) bias in units of the target, by non-negative least squares on the k x k
    normal equations (Lawson and Hanson 1974)."""
    from scipy.optimize import nnls

    k, n, c = said.shape
    truth = np.asarray(truth, np.float64).reshape(n, c)
    unit = unit_of(truth)
    off = errors(np.asarray(said, np.float64), truth)
    pull = TOWARDS_MEAN * max(float(np.square(off.mean(axis=0)).mean()), 1e-9) / n
    wanted = ((truth - truth.mean(axis=0)) / unit).reshape(-1)
    table = ((said - said.mean(axis=1, keepdims=True)) / unit).reshape(k, -1)
    square = table @ table.T / (n * c) + pull * np.eye(k)
    root = np.linalg.cholesky(square)
    weights = nnls(root.T, np.linalg.solve(root, table @ wanted / (n * c) + pull / k))[0]
    return weights, truth.mean(axis=0) - weights @ said.mean(axis=1)


def _named(kind: str, task: Task, width: int, seed: int) -> Any:
    """Logistic regression, ridge or a small network, behind logarithms, filled gaps and a common scale."""
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    # whole batches: on a thousand rows its own batches learned longer and stacked a fifth worse
    network: dict[str, Any] = {
        "hidden_layer_sizes": (16,),
        "solver": "lbfgs",
        "alpha": 3.0,
        "max_iter": 50,
        "random_state": seed % 2**32,
    }
    if task == "regression":
        model: Any = MLPRegressor(**network) if kind == "network" else Ridge()
    else:
        model = MLPClassifier(**network) if kind == "network" else LogisticRegression(max_iter=STEPS)
    logs = FunctionTransformer(evidence, kw_args={"task": task})
    columns = ColumnTransformer(
        [("outputs", logs, slice(0, width))],
        remainder=SimpleImputer(strategy="median", keep_empty_features=True),
    )
    pipeline = make_pipeline(columns, StandardScaler(), model)
    if task == "regression":
        return TransformedTargetRegressor(pipeline, transformer=StandardScaler())
    return pipeline


def _imported(name: str) -> Any:
    """An estimator of the class that ``package.module:Class`` names, with its own defaults."""
    package, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(package), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise AyatoriError(
            f"`stack_model` must be package.module:Class that can be made without arguments, however "
            f"{name!r}: {error}"
        ) from None


def _own(given: Any, task: Task, seed: int) -> Any:
    """A fresh copy of the user's estimator, with a seed where it takes one and has none."""
    from sklearn.base import clone, is_classifier

    try:
        estimator = clone(given)
    except (TypeError, RuntimeError) as error:
        raise AyatoriError(
            f"`stack_model` must be {', '.join(NAMES)}, package.module:Class or a scikit-learn estimator, "
            f"however {given!r}: {error}"
        ) from None
    name = type(estimator).__name__
    if task != "regression" and not hasattr(estimator, "predict_proba"):
        raise AyatoriError(
            f"`stack_model` must give probabilities (predict_proba), however {name} does not; take another, "
            "or one of its settings that does"
        )
    if task == "regression" and (is_classifier(estimator) or not hasattr(estimator, "predict")):
        raise AyatoriError(f"`stack_model` must predict numbers, however {name} does not; take a regressor")
    if estimator.get_params().get("random_state", 0) is None:
        estimator.set_params(random_state=seed % 2**32)
    return estimator


@dataclass(frozen=True)
class Labels:
    """One fitted estimator for each label; None for a label that was always or never there."""

    models: Sequence[Any]

    def predict_proba(self, table: np.ndarray) -> list[np.ndarray | None]:
        """Of each label (n, 2): not there, there; or None."""
        return [None if model is None else model.predict_proba(table) for model in self.models]


def _fitted(
    estimator: Any, said: np.ndarray, truth: np.ndarray, task: Task, inputs: np.ndarray | None
) -> Last:
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    table = features(said, inputs)
    if inputs is not None:
        estimator = _with_gaps_filled(estimator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped after a fixed number of steps
            if task == "classification":
                model: Any = estimator.fit(table, truth)
            elif task == "multilabel":
                labels = (truth.reshape(len(truth), -1) > 0.5).astype(np.int64)
                varies = labels.min(axis=0) < labels.max(axis=0)
                model = Labels(
                    [
                        clone(estimator).fit(table, labels[:, label]) if varies[label] else None
                        for label in range(labels.shape[1])
                    ]
                )
            else:
                model = _regressor(estimator, said.shape[2]).fit(table, _values(truth, said.shape[2]))
    except (TypeError, ValueError) as error:
        raise AyatoriError(
            f"`stack_model` must be fitted on {table.shape[1]} numbers a row, however "
            f"{type(estimator).__name__} says: {error}"
        ) from error
    return Last(model=model, inputs=inputs is not None)


def _values(truth: np.ndarray, outputs: int) -> np.ndarray:
    values = np.asarray(truth, np.float64).reshape(len(truth), outputs)
    return values[:, 0] if outputs == 1 else values


def _regressor(estimator: Any, outputs: int) -> Any:
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    several = outputs == 1 or get_tags(estimator).target_tags.multi_output
    return estimator if several else MultiOutputRegressor(estimator)


def _with_gaps_filled(estimator: Any) -> Any:
    """The estimator behind medians for gaps in the inputs, unless it can do with gaps."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.utils import get_tags

    if get_tags(estimator).input_tags.allow_nan:
        return estimator
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), estimator)
