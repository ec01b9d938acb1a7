"""Stage 3e. Probes and neighbours -> one pooled answer a row, its score, and the two intervals.

The *ceiling* is the best accuracy that these labels and features allow; *expected* is what the network that
``run`` would train reaches out of fold. Both are regressions on what the probes did, with 90 % intervals;
their coefficients are in ``calibration.json``, written by ``benchmarks/explore.py fit`` from data whose
truth is known, and judged on other data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import nnls

from ayatori.evaluate.intervals import sample, wilson
from ayatori.explore.ceiling import cover_hart, pool
from ayatori.explore.curve import learning_curve
from ayatori.explore.probes import Probe, take_rows
from ayatori.records import Dataset, Graph

VOTERS = (5, 25)  # nearest rows that vote
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Bounds:
    """What the probes say together. Scores are accuracies, or R2 of numbers.

    **Shape** ``answers`` (m, c): pooled out-of-fold probabilities (or values) of the rows that were asked.
    """

    answers: np.ndarray
    chance: float
    score: float
    probes: tuple[dict[str, Any], ...]
    p: float  # that the best probe is no better than chance
    ceiling: Interval
    expected: Interval
    nearest: float  # score of the nearest row's label
    features: dict[str, float]
    curve: dict[str, Any] | None


def find_bounds(
    judged: Dataset,
    graphs: Sequence[Graph],
    probes: Sequence[Probe],
    everyone: np.ndarray,
    rows: int,
    target: float | None,
    seed: int,
    times: tuple[np.ndarray, np.ndarray] | None = None,
) -> Bounds:
    """Pool, score and bound.

    ``judged``: the m rows that were asked; ``graphs``: their neighbours among the development rows;
    ``everyone`` (n, ...): the targets of the development rows; ``rows``: those a fold of a run learns from.
    ``times``: where later rows are told from earlier ones alone, when each development row was (n,), and how
    late the rows were by which the probes judged each asked row (m,). What none could answer is left out.
    """
    votes = [_votes(graph, everyone, judged.task, times, k) for graph in graphs for k in VOTERS]
    seen = np.isfinite(probes[0].values).all(axis=1)
    if not seen.all():
        probes = [replace(one, values=one.values[seen]) for one in probes]
        votes, judged = [one[seen] for one in votes], take_rows(judged, np.flatnonzero(seen))
    task, truth = judged.task, judged.labels
    whole = {one.name: one.values for one in probes if one.size == 1.0}
    blind = next(iter(whole))  # the first one looks at no input
    sizes = sorted({one.size for one in probes})
    pooled, errors, learned = np.empty(0), [], []
    for size in sizes:
        answers = [one.values for one in probes if one.size == size and one.name != blind]
        answers += votes if size == 1.0 else []
        if not answers:  # a part of the rows whose labels are all the same teaches nothing
            continue
        # what goes well together in one time need not in another
        best = max(answers, key=lambda one: main_score(one, truth, task)) if times else None
        pooled = _pooled(answers, truth, task) if best is None else best
        errors.append(1 - main_score(pooled, truth, task))
        learned.append(next(one.rows for one in probes if one.size == size))
    chance = max(main_score(whole[blind], truth, task), 0.0)
    named = {name: values for name, values in whole.items() if name != blind}
    named["nearest neighbours"] = max(votes, key=lambda one: main_score(one, truth, task))
    scored = {name: main_score(values, truth, task) for name, values in named.items()}
    error = errors[-1]
    n = independent(pooled, truth, task, judged.groups)
    nearest = main_score(votes[0], truth, task)
    features = evidence(errors, pooled, max(scored.values()), nearest, chance, judged)
    expected = _expected(features, error, learned[-1], rows, 1 / n - 1 / len(truth))
    if task != "regression":  # shares of right rows
        expected = (max(expected[0], 0.0), max(expected[1], 0.0), max(expected[2], 0.0))
    low, middle, high = map(max, _ceiling(features, error, n), expected)  # they are fitted apart
    answered = np.full((len(seen), *pooled.shape[1:]), np.nan)
    answered[seen] = pooled
    return Bounds(
        answers=answered,
        chance=chance,
        score=1 - error,
        probes=tuple(
            _line(name, scored[name], n, len(truth), task)
            for name in sorted(scored, key=lambda one: -scored[one])
        ),
        p=_p(max(scored.values()), chance, n, len(scored), task),
        ceiling=(low, middle, high),
        expected=expected,
        nearest=nearest,
        features=features,
        curve=learning_curve(np.array(learned), np.array(errors), round(n), target, seed),
    )


def independent(answers: np.ndarray, truth: np.ndarray, task: str, groups: np.ndarray | None) -> float:
    """How many rows without groups would say as much: fewer, the more the errors of a group go together.

    >>> truth, groups = np.arange(200) % 2, np.arange(200) // 10
    >>> answers = np.full((200, 2), 0.1)
    >>> answers[np.arange(200), np.where(groups % 2, truth, 1 - truth)] = 0.9  # right in whole groups
    >>> independent(answers, truth, "classification", None)
    200.0
    >>> round(independent(answers, truth, "classification", groups))
    19
    """
    rows = sample(len(truth), groups)
    if rows.codes is None:
        return float(rows.n)
    if task == "classification":
        errors = (answers.argmax(axis=1) != truth).astype(np.float64)
    elif task == "multilabel":
        errors = ((answers > 0.5) != (truth > 0.5)).mean(axis=1)
    else:
        errors = (np.square(truth - answers) / np.maximum(truth.var(axis=0), 1e-30)).mean(axis=1)
    spread = float(errors.var())
    if spread < 1e-9:
        return float(rows.units)  # none differs: the groups are what is counted
    return float(np.clip(spread / rows.variance((errors - errors.mean()) / rows.n), 1.0, rows.n))


def _pooled(answers: list[np.ndarray], truth: np.ndarray, task: str) -> np.ndarray:
    """(m, c): the answers as one; each label of several apart, values by non-negative least squares."""
    if task == "classification":
        return pool(answers, truth)
    if task == "multilabel":
        flat = [np.stack([1 - one.ravel(), one.ravel()], axis=1) for one in answers]
        return pool(flat, truth.ravel().astype(np.int64))[:, 1].reshape(truth.shape)
    middle = truth.mean(axis=0)
    columns = []
    for output in range(truth.shape[1]):
        design = np.stack([one[:, output] - middle[output] for one in answers], axis=1)
        weights, _ = nnls(design, truth[:, output] - middle[output])
        columns.append(middle[output] + design @ weights)
    return np.stack(columns, axis=1)


def _votes(
    graph: Graph, everyone: np.ndarray, task: str, times: tuple[np.ndarray, np.ndarray] | None, k: int
) -> np.ndarray:
    """(m, c): what the k nearest rows say, each never itself; of those that were early enough."""
    near, counted = graph.indices, np.ones(graph.indices.shape, bool)
    if times is not None:
        counted = times[0][near] <= times[1][:, None]
        first = np.argsort(~counted, axis=1, kind="stable")
        near, counted = np.take_along_axis(near, first, 1), np.take_along_axis(counted, first, 1)
    near, counted = near[:, :k], counted[:, :k].astype(np.float64)
    there = counted.sum(axis=1, keepdims=True)
    if task != "classification":
        said = (counted[..., None] * everyone[near]).sum(axis=1)
        some = task == "multilabel"  # where no label is ever ruled out
        more = np.where(there == 0, 1.0, float(some))
        return (said + more * everyone.mean(axis=0)) / (there + more)
    classes = int(everyone.max()) + 1
    counts = np.zeros((len(near), classes))
    np.add.at(counts, (np.arange(len(near))[:, None], everyone[near]), counted)
    return (counts + np.bincount(everyone, minlength=classes) / len(everyone)) / (there + 1)


def main_score(values: np.ndarray, truth: np.ndarray, task: str) -> float:
    """Of probabilities or values (m, outputs): accuracy, share of right labels, or mean R2."""
    if task == "classification":
        return float((values.argmax(axis=1) == truth).mean())
    if task == "multilabel":
        return float(((values > 0.5) == (truth > 0.5)).mean())
    residual = np.square(truth - values).sum(axis=0)
    total = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    return float((1 - residual / np.maximum(total, 1e-30)).mean())


def evidence(
    errors: Sequence[float], pooled: np.ndarray, best: float, nearest: float, chance: float, judged: Dataset
) -> dict[str, float]:
    """What the regressions look at: the errors, how they fall with more rows, and the kind of data."""
    error, task = errors[-1], judged.task
    scale = error + 0.01
    before = errors[-2] if len(errors) > 1 else error
    first = errors[-3] if len(errors) > 2 else before
    classes = max(len(judged.classes), 2)
    gini = error
    if task == "classification":
        gini = cover_hart(float(1 - np.square(pooled).sum(axis=1).mean()), classes)
    columns = sum(int(np.prod(values.shape[1:])) for values in judged.inputs.values())
    return {
        "error": error,
        "half": (before - error) / scale,
        "quarter": (first - before) / scale,
        "gini": min(gini / scale, 2.0),
        "nearest": min((1 - nearest) / scale, 5.0),
        "best": min((1 - best) / scale, 2.0),
        "level": error / max(1 - chance, 1e-9),
        "width": float(np.log10(columns / len(judged))),
        "rows": float(np.log10(len(judged))),
        "classes": float(np.log10(classes)),
        "pictures": float("image" in judged.inputs),
        "values": float(task == "regression"),
    }


@cache
def calibration() -> dict[str, Any]:
    """The content of calibration.json."""
    found: dict[str, Any] = json.loads(
        files("ayatori.explore").joinpath("calibration.json").read_text("utf-8")
    )
    return found


def predicted(kind: str, features: dict[str, float]) -> Interval:
    """Low, middle and high of log((wanted + 0.005) / (error + 0.005)), sorted."""
    lines = calibration()[kind]
    low, middle, high = (
        line["constant"] + sum(weight * features[name] for name, weight in line["weights"].items())
        for line in (lines["low"], lines["middle"], lines["high"])
    )
    return min(low, middle), middle, max(high, middle)


def _ceiling(features: dict[str, float], error: float, judged: float) -> Interval:
    """Low, middle and high of the best accuracy; the sampling error of the pool's own is added."""
    ratios = np.exp(np.clip(predicted("ceiling", features), -6.0, 0.3))
    noise = 1.645 * np.sqrt(max(error * (1 - min(error, 0.99)), 1.0 / judged) / judged)
    few, some, many = (max((error + 0.005) * ratio - 0.005, 0.0) for ratio in ratios)
    return float(1 - min(many + noise, 1.0)), float(1 - some), float(1 - max(few - noise, 0.0))


def _expected(features: dict[str, float], error: float, learned: int, rows: int, grouped: float) -> Interval:
    """Low, middle and high of what the default network reaches; more rows help as they did.

    ``grouped``: what groups add to the variance of a share, beyond that of rows, which is calibrated.
    """
    ratios = np.exp(np.clip(predicted("expected", features), -3.0, 3.0))
    gain = np.clip(features["half"] * (error + 0.01) * np.log2(max(rows / learned, 1.0)), 0.0, 0.5 * error)
    many, some, few = (min(max((error + 0.005) * ratio - 0.005 - gain, 0.0), 1.5) for ratio in ratios[::-1])
    noise = 1.645 * np.sqrt(max(error * (1 - min(error, 0.99)), 0.0) * max(grouped, 0.0))
    return float(1 - many - noise), float(1 - some), float(min(1 - few + noise, 1.0))


def _p(best: float, chance: float, n: float, tried: int, task: str) -> float:
    """One-sided p that the best of ``tried`` probes is no better than chance (Bonferroni)."""
    if task == "regression":
        z = np.arctanh(np.sqrt(np.clip(best, 0.0, 0.9999))) * np.sqrt(max(n - 3, 1))
    else:
        z = (best - chance) / np.sqrt(max(chance * (1 - chance), 1e-9) / n)
    # folds share rows, so that their scores vary more than a share of independent rows would
    return float(min(1.0, tried * stats.norm.sf(z / 1.2)))


def _line(name: str, value: float, n: float, rows: int, task: str) -> dict[str, Any]:
    if task == "regression":
        half = 2 * np.sqrt(max(1 - value, 0.0) ** 2 / n)
        low, high = value - half, min(value + half, 1.0)
    else:
        low, high = wilson(value, n)
    return {"name": name, "value": value, "low": low, "high": high, "n": rows}
