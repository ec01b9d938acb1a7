"""Stage 3c. Out-of-fold answers of the probes -> one answer, and bounds of the best accuracy there can be.

The probes are pooled by a weighted geometric mean of their probabilities, with weights that fit the rows
best (a handful of numbers, so that the pool scores itself nearly honestly). What the pool still gets wrong
is partly what no model can know; how much of it, see ``calibration.json`` and ``benchmarks/explore.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

FLOOR = 1e-3  # of a probability that enters the pool: one probe may not rule out what the others see


def pool(answers: Sequence[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """(n, c) probabilities of several models and the classes (n,) -> their weighted geometric mean (n, c).

    >>> sure, blind = np.array([[0.9, 0.1], [0.1, 0.9]] * 20), np.full((40, 2), 0.5)
    >>> pool([sure, blind], np.array([0, 1] * 20)).argmax(axis=1)[:4].tolist()
    [0, 1, 0, 1]
    """
    logs = np.stack([np.log(np.clip(one, FLOOR, 1.0)) for one in answers]).astype(np.float64)
    rows = np.arange(len(codes))
    chosen = logs[:, rows, codes]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        said = _softmax(np.tensordot(weights, logs, 1))
        value = -np.log(np.maximum(said[rows, codes], 1e-12)).mean()
        slope = (said * logs).sum(axis=2).mean(axis=1) - chosen.mean(axis=1)
        return float(value), slope

    start = np.full(len(logs), 1.0 / len(logs))
    weights = minimize(loss, start, jac=True, bounds=[(0.0, 4.0)] * len(logs), method="L-BFGS-B").x
    return _softmax(np.tensordot(weights, logs, 1))


def cover_hart(error: float, classes: int) -> float:
    """The lower bound of the Bayes error that an error of the nearest neighbour implies for many rows.

    Cover & Hart (1967): R >= (C - 1) / C (1 - sqrt(1 - C e / (C - 1))).

    >>> round(cover_hart(0.18, 2), 3)
    0.1
    """
    most = (classes - 1) / classes
    return float(most * (1 - np.sqrt(max(0.0, 1 - error / most))))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
