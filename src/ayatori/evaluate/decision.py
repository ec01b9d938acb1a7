"""Stage 8. Probabilities -> labels, where the likeliest is not the one to say.

A rule says what it is worth to say each class when another is true: classes (c, c), said by true; several
labels (c,), by what factor the odds of each grow. It never touches the probabilities themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ayatori.records import AyatoriError, Task

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")
CANDIDATES, SWEEPS = 40, 3  # thresholds of a class that are tried, and how often all classes have their turn


def leaning(values: np.ndarray, rule: np.ndarray, task: Task) -> np.ndarray:
    """(n, c) whose largest (several labels: above 0.5) is what is said of a row.

    >>> leaning(np.array([[0.8, 0.2]]), np.diag([1.0, 9.0]), "classification").argmax()
    np.int64(1)
    """
    if task == "multilabel":
        yes = values * rule
        return yes / np.maximum(yes + 1 - values, 1e-30)
    return values @ np.asarray(rule).T


def cost_rule(costs: Mapping[str, float], classes: tuple[str, ...]) -> np.ndarray:
    """(c, c): minus the cost of saying one class where another is true; what is not named costs 1.

    ``costs`` maps "true>said" to its cost. With true probabilities the least expected cost is best (Elkan
    2001).
    """
    found = np.ones((len(classes), len(classes))) - np.eye(len(classes))
    places = {f"{true}>{said}": (s, t) for t, true in enumerate(classes) for s, said in enumerate(classes)}
    for name, cost in costs.items():
        if name not in places:
            raise AyatoriError(
                f"`costs` must name two classes as 'true>said', however: {name!r}; the classes are "
                f"{', '.join(classes[:9])}"
            )
        if not np.isfinite(cost) or cost < 0:
            raise AyatoriError(f"`costs` must not be negative, however: {name} = {cost}")
        found[places[name]] = cost
    return -found


def fit_rule(values: np.ndarray, truth: np.ndarray, figure: str, task: Task) -> np.ndarray:
    """The rule that makes ``figure`` (one of FIGURES) largest on rows that taught nobody: stop rows.

    One threshold a class, each in its turn, from two starts: the likeliest class, and all classes alike.

    **Shape** ``values`` (n, c); ``truth`` (n,) codes, or (n, c) of 0 and 1.
    """
    if task == "multilabel":
        return np.array([_one_label(values[:, k], truth[:, k] > 0.5, figure) for k in range(values.shape[1])])
    logs = np.log(np.maximum(values.astype(float), 1e-12))
    size = values.shape[1]
    best, reached = np.zeros(size), -1.0
    for start in (np.zeros(size), -np.log(np.maximum(values.mean(axis=0), 1e-6))):
        lean = start.copy()
        value = _figure(truth, (logs + lean).argmax(axis=1), size, figure)
        for _ in range(SWEEPS):
            before = value
            for label in range(size):
                lean, value = _turn(logs, lean, label, truth, figure, value)
            if value <= before:
                break
        if value > reached + 1e-12:
            best, reached = lean, value
    return np.diag(np.exp(best - best.max()))


def _turn(
    logs: np.ndarray, lean: np.ndarray, label: int, truth: np.ndarray, figure: str, value: float
) -> tuple[np.ndarray, float]:
    """The best threshold of one class, the others as they are; the old one where none is better."""
    others = logs + lean
    others[:, label] = -np.inf
    rival, height = others.argmax(axis=1), others.max(axis=1)
    edges = np.unique(height - logs[:, label])
    middles = (edges[1:] + edges[:-1]) / 2
    for own in _some(middles):
        said = np.where(logs[:, label] + own > height, label, rival)
        reached = _figure(truth, said, logs.shape[1], figure)
        if reached > value + 1e-12:
            lean, value = lean.copy(), reached
            lean[label] = own
    return lean, value


def _one_label(values: np.ndarray, yes: np.ndarray, figure: str) -> float:
    """The factor of one label's odds."""
    edges = np.unique(values)
    middles = (edges[1:] + edges[:-1]) / 2
    best, reached = 1.0, _figure(yes.astype(int), (values > 0.5).astype(int), 2, figure)
    for threshold in _some(middles):
        value = _figure(yes.astype(int), (values > threshold).astype(int), 2, figure)
        if value > reached + 1e-12:
            best, reached = float((1 - threshold) / max(threshold, 1e-12)), value
    return best


def _some(values: np.ndarray) -> np.ndarray:
    """At most CANDIDATES of them, evenly."""
    places = np.linspace(0, max(len(values) - 1, 0), min(CANDIDATES, len(values)))
    return values[places.astype(int)]


def _figure(truth: np.ndarray, said: np.ndarray, size: int, figure: str) -> float:
    counts = np.bincount(truth * size + said, minlength=size * size).reshape(size, size)
    hits, rows, calls = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    there = rows > 0
    if figure == "accuracy":
        return float(hits.sum() / max(rows.sum(), 1))
    if figure == "balanced_accuracy":
        return float((hits[there] / rows[there]).mean())
    both = rows + calls
    return float((2 * hits[both > 0] / both[both > 0]).mean())
