"""Truth, values -> the loss of each row, by which voices are weighed and compared. Needs numpy alone."""

from __future__ import annotations

import numpy as np

from ayatori.records import AyatoriError, Task

EPSILON = float(np.finfo(np.float32).eps)  # probabilities are clipped here, as where they are scored


def own(values: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """The probability given to what is true, which a mean of voices averages.

    **Shape** ``values`` (..., n, c) -> (..., n) of the true class, or (..., n, c) of each label's truth.

    >>> own(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]), "classification")
    array([0.9, 0.6])
    """
    if task == "classification":
        return values[..., np.arange(len(truth)), truth]
    return np.where(truth.reshape(values.shape[-2:]) > 0.5, values, 1 - values)


def log_loss(told: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the probability ``told`` of what is true, clipped at 1.2e-7."""
    return -np.log(np.clip(told, EPSILON, 1 - EPSILON))


def unit_of(truth: np.ndarray) -> np.ndarray:
    """(c,) standard deviation of each value of ``truth`` (n, c), 1 where it never varies."""
    spread = truth.std(axis=0)
    return np.where(spread > 0, spread, 1.0)


def errors(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(..., n, c) float64: how far ``values`` are above ``truth`` (n, c), in its standard deviations."""
    truth = np.asarray(truth, np.float64).reshape(values.shape[-2:])
    return (values - truth) / unit_of(truth)


def row_losses(values: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """The loss of each row: (..., n, c) -> (..., n) float64.

    Classification: log loss; multilabel: mean log loss of its labels; regression: mean squared error of
    its values, each in its standard deviations.

    >>> row_losses(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), "classification").round(3)
    array([0.693, 0.   ])
    """
    if task == "regression":
        return np.square(errors(values, truth)).mean(axis=-1)
    losses = log_loss(own(np.asarray(values, np.float64), truth, task))
    return losses if task == "classification" else losses.mean(axis=-1)


def thinned(rows: int, most: int, seed: int = 0) -> np.ndarray | slice:
    """Which rows to look at where ``most`` are enough: all of them, or some drawn at random, in order."""
    if rows <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(rows, max(most, 1), replace=False))


def check_voices(values: np.ndarray, truth: np.ndarray) -> None:
    """Refuse voices (k, n, c) that do not all speak about every row of ``truth`` (n, ...)."""
    if values.ndim != 3 or not all(values.shape) or values.shape[1] != len(truth):
        raise AyatoriError(
            f"voices must be at least one, with outputs for each of the {len(truth)} rows of the truth, "
            f"however: {values.shape}"
        )
    silent = int((~np.isfinite(values).all(axis=(0, 2))).sum())
    if silent:
        raise AyatoriError(f"every voice must speak about every row, however of {silent} rows one does not")
