"""What users give to the estimators -> what the stages read."""

from __future__ import annotations

import contextlib
import json
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_X_y, column_or_1d, validate_data

from ayatori.recipe import PlanRecipe
from ayatori.records import AyatoriError, Dataset

LEAST_ROWS = 4
SMALL = 200_000  # values in X below which a second thread costs more than it gives (see dev/LOG.md)


def are_texts(X: Any) -> bool:
    """Whether ``X`` is a list, an array or a Series of texts, as scikit-learn's vectorizers take them."""
    one = isinstance(X, list | tuple | pd.Series) or (isinstance(X, np.ndarray) and X.ndim == 1)
    return one and len(X) > 0 and all(isinstance(text, str) for text in X)


def is_mixed(X: Any) -> bool:
    """Whether ``X`` is a DataFrame with columns that are not numbers, or texts."""
    frame = isinstance(X, pd.DataFrame)
    return are_texts(X) or (frame and not all(map(pd.api.types.is_numeric_dtype, X.dtypes)))


def check_rows(estimator: BaseEstimator, X: Any, table: bool, reset: bool) -> Any:
    """``X`` as the stages read it: a DataFrame where columns differ in kind, else an array."""
    least = LEAST_ROWS if reset else 1
    if table:
        X = pd.DataFrame({"text": list(X)}) if are_texts(X) else X
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if not isinstance(X, pd.DataFrame):
            X = pd.DataFrame(X, columns=getattr(estimator, "feature_names_in_", None))
        if len(X) < least:
            raise AyatoriError(f"X must have at least {least} rows, however it has {len(X)}")
        # words stay words: whether they read as numbers must not depend on the rows of a split
        words = [name for name, column in X.items() if pd.api.types.infer_dtype(column) == "string"]
        return X.astype(dict.fromkeys(words, "category"))
    return validate_data(
        estimator,
        X,
        reset=reset,
        dtype="numeric",
        allow_nd=getattr(X, "ndim", 2) > 2,  # pictures
        ensure_all_finite="allow-nan",
        ensure_min_samples=least,
    )


def check_target(estimator: BaseEstimator, X: Any, y: Any, numeric: bool) -> np.ndarray:
    _, y = check_X_y(
        np.zeros((len(X), 1)), y, multi_output=True, y_numeric=numeric, dtype=None, estimator=estimator
    )
    y = y.toarray() if sparse.issparse(y) else y
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return y


def weights_of(weights: Any, classes: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """One weight per class, in the order of ``classes``."""
    if weights is None:
        return ()
    if isinstance(weights, str | Mapping):
        weights = compute_class_weight(weights, classes=classes, y=y)
    return tuple(float(weight) for weight in weights)


def most_folds(recipe: PlanRecipe, dataset: Dataset) -> int:
    """No more folds than the smallest class, the groups or the rows allow."""
    if recipe.splitter is not None or recipe.strategy == "holdout":
        return recipe.folds
    most = len(dataset)
    if dataset.task == "classification":
        counts = np.bincount(dataset.labels)
        most = int(counts.min())
        if most < 2:
            raise AyatoriError(
                f"every class must have at least 2 rows, however class "
                f"'{dataset.classes[counts.argmin()]}' has {most}; merge the class or use strategy='holdout'"
            )
    if dataset.groups is not None:
        most = min(most, len(np.unique(dataset.groups)))
    return min(recipe.folds, most)


def seed_from(random_state: Any) -> int:
    """A number is the seed; a generator gives one; None draws a new one each time."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def plain(value: Any) -> Any:
    """Numbers of NumPy's and tuples as JSON has them."""
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except TypeError:
        return False


@contextlib.contextmanager
def threads_for(X: Any) -> Iterator[None]:
    """One thread for small data; the number of threads is left as found."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if X.size < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
