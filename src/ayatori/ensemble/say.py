"""Voices, Vote -> one answer a row.

Voices are added one by one and rows never meet, so that a row's answer does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Group, Last, Task, Vote

CELLS = 2**20  # values of all voices that are in work at once
TINY = 1e-6  # probabilities are at least this before their logarithm is taken
TIE = 1e-9  # votes nearer than this are the same

Parts = Sequence[np.ndarray]  # what each voice of a group says of the rows of a block: k of (b, c)


def say(values: np.ndarray, group: Group, task: Task) -> np.ndarray:
    """What a group of voices answers together.

    **Shape** ``values`` (m voices, n rows, c outputs), of which the group takes its own -> (n, c) float32

    With weights w that sum to 1 (equal where the group has none), pbar the weighted mean, k voices:

    - mean: pbar
    - geometric: softmax of the weighted mean of log p, the logarithmic opinion pool (of labels: sigmoid of
      that of the log-odds). It is what SAMME.R votes, see ``boosting.samme_r``
    - majority, of classes: (votes + t pbar) / (k + t), where votes = k times the weight of those whose most
      probable class it is. t is 1, or less where weights leave a smaller gap between the first and the
      second: so the probability breaks ties and nothing else. Labels: the same of each, p >= 0.5 is a vote
    - median, of values: the middle one, or the mean of the two middle ones; with weights the first, in order
      of size, at which they add up to half or more (AdaBoost.R2: Drucker 1997)
    - sum: start + sum of w times step (here w = 1 where the group has none), as logits or values

    Errors: a group that does not fit the values or the task.

    >>> two = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])
    >>> say(two, Group((0, 1, 2)), "classification").round(3)
    array([[0.567, 0.433]], dtype=float32)
    >>> say(two, Group((0, 1, 2), how="majority"), "classification").round(3)
    array([[0.392, 0.608]], dtype=float32)
    """
    check_group(group, task, len(values), values.shape[2])
    answer = np.empty(values.shape[1:], np.float32)
    k = len(group.voices)
    weights = np.asarray(group.weights or np.ones(k), np.float64)
    if group.how != "sum":
        weights = weights / weights.sum()
    for rows in _blocks(len(answer), k * values.shape[2]):
        parts = [values[voice, rows] for voice in group.voices]
        answer[rows] = _SAY[group.how](parts, weights, group, task)
    return answer


def answer(values: np.ndarray, vote: Vote, task: Task, inputs: np.ndarray | None = None) -> np.ndarray:
    """(n, c) float32: the mean of what the groups of a vote say, or what its last model makes of that.

    **Shape** ``values`` (m, n, c); ``inputs`` (n, p): the raw inputs, for a last model that sees them too.
    """
    n, c = values.shape[1:]
    if not vote.groups:
        raise AyatoriError("a vote needs at least one group of voices, however it has none")
    if vote.last is None and len(vote.groups) == 1:
        return say(values, vote.groups[0], task)
    found = np.empty((n, c), np.float32)
    for rows in _blocks(n, len(vote.groups) * c):
        said = np.stack([say(values[:, rows], group, task) for group in vote.groups])
        if vote.last is None:
            found[rows] = _weighted(said, np.full(len(said), 1 / len(said)))
        else:
            found[rows] = last_says(vote.last, said, task, None if inputs is None else inputs[rows])
    return found


def last_says(last: Last, said: np.ndarray, task: Task, inputs: np.ndarray | None = None) -> np.ndarray:
    """(n, c) float32: what the last model of a stack makes of what k groups say.

    **Shape** ``said`` (k, n, c); ``inputs`` (n, p)

    Without a model: softmax, or for labels sigmoid, of bias + sum of weight times ``evidence``; values: that
    sum itself. A class that the model never saw keeps the mean probability of the groups, and the others
    share the rest; a label that never varied keeps that mean too.
    """
    if last.model is None:
        if len(last.weights) != len(said) or len(last.bias) != said.shape[2]:
            raise AyatoriError(
                f"a last model must have one weight for each of {len(said)} groups and one bias for each of "
                f"{said.shape[2]} outputs, however: {len(last.weights)} and {len(last.bias)}"
            )
        total = _weighted([evidence(part, task) for part in said], np.asarray(last.weights))
        return _squashed(total + np.asarray(last.bias), task).astype(np.float32)
    if last.inputs and inputs is None:
        raise AyatoriError("this last model was fitted on the inputs too, however they are not given")
    table = features(said, inputs if last.inputs else None)
    if task == "regression":
        return np.asarray(last.model.predict(table)).reshape(said.shape[1:]).astype(np.float32)
    return _probabilities(last.model, table, said, task).astype(np.float32)


def evidence(said: np.ndarray, task: Task) -> np.ndarray:
    """float64: log p of classes, log-odds of labels, both with p clipped at 1e-6; values as they are."""
    if task == "regression":
        return np.asarray(said, np.float64)
    clipped = np.clip(np.asarray(said, np.float64), TINY, 1 - TINY if task == "multilabel" else 1.0)
    return np.log(clipped) - np.log1p(-clipped) if task == "multilabel" else np.log(clipped)


def features(said: np.ndarray, inputs: np.ndarray | None = None) -> np.ndarray:
    """(n, k c + p) float64: what k groups say (k, n, c) side by side, then the inputs (n, p).

    >>> features(np.array([[[1, 2]], [[3, 4]]]), np.array([[9]]))
    array([[1., 2., 3., 4., 9.]])
    """
    table = np.asarray(said, np.float64).transpose(1, 0, 2).reshape(said.shape[1], -1)
    return table if inputs is None else np.concatenate([table, inputs], axis=1)


def check_group(group: Group, task: Task, voices: int, outputs: int) -> None:
    """Refuse a group that names no voice or an unknown one, or whose ``how`` fits no such task."""
    if group.how not in _SAY:
        raise AyatoriError(
            f"a group must answer by {', '.join(_SAY)}, however: {group.how!r}"
            f"{nearest(group.how, list(_SAY))}"
        )
    if not group.voices or not all(0 <= voice < voices for voice in group.voices):
        raise AyatoriError(f"a group must name some of the {voices} voices, however: {group.voices}")
    if group.weights and (len(group.weights) != len(group.voices) or not _positive(group.weights)):
        raise AyatoriError(
            f"a group must have one positive weight for each of its {len(group.voices)} voices, or none, "
            f"however: {group.weights}"
        )
    if group.start and len(group.start) != outputs:
        raise AyatoriError(f"`start` must have {outputs} values, one an output, however: {group.start}")
    if group.how == "median" and task != "regression":
        raise AyatoriError("the median is for numbers, however the target is classes; use mean or majority")
    if group.how in ("majority", "geometric") and task == "regression":
        raise AyatoriError(f"{group.how} is for classes, however the target is numbers; use median or mean")


def _positive(weights: Sequence[float]) -> bool:
    return bool(np.isfinite(weights).all() and min(weights) >= 0 and max(weights) > 0)


def _blocks(rows: int, cells: int) -> Iterator[slice]:
    """Slices through ``rows``, each of at most CELLS values where a row has ``cells``."""
    size = max(CELLS // cells, 1)
    return (slice(start, start + size) for start in range(0, rows, size))


def _weighted(parts: Parts | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum in float64, voice by voice: a product of matrices rounds by how many rows there are."""
    total = np.zeros(parts[0].shape, np.float64)
    for part, weight in zip(parts, weights, strict=True):
        total += weight * np.asarray(part, np.float64)
    return total


def _squashed(logits: np.ndarray, task: Task) -> np.ndarray:
    """Logits -> probabilities of classes or labels; values stay what they are."""
    if task == "regression":
        return logits
    if task == "multilabel":
        odds = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1.0, odds) / (1 + odds)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _mean(parts: Parts, weights: np.ndarray, group: Group, task: Task) -> np.ndarray:
    return _weighted(parts, weights)


def _geometric(parts: Parts, weights: np.ndarray, group: Group, task: Task) -> np.ndarray:
    return _squashed(_weighted([evidence(part, task) for part in parts], weights), task)


def _sum(parts: Parts, weights: np.ndarray, group: Group, task: Task) -> np.ndarray:
    total = _weighted(parts, weights)
    return _squashed(total + np.asarray(group.start) if group.start else total, task)


def _majority(parts: Parts, weights: np.ndarray, group: Group, task: Task) -> np.ndarray:
    mean, k = _weighted(parts, weights), len(parts)
    votes = np.zeros(mean.shape)
    for part, weight in zip(parts, weights, strict=True):
        if task == "multilabel":
            votes += k * weight * (part >= 0.5)
        else:
            votes[np.arange(len(part)), part.argmax(axis=1)] += k * weight
    if task == "multilabel":
        gap = np.abs(2 * votes - k)
    else:
        first = votes.max(axis=1, keepdims=True)
        behind = np.where(votes < first - TIE, votes, -np.inf).max(axis=1, keepdims=True)
        gap = first - behind  # of one class alone: infinite
    say_of_mean = np.where(gap > TIE, np.minimum(gap, 1.0), 1.0)
    return (votes + say_of_mean * mean) / (k + say_of_mean)


def _median(parts: Parts, weights: np.ndarray, group: Group, task: Task) -> np.ndarray:
    stacked = np.stack(parts)
    if not group.weights:
        return np.median(stacked, axis=0)
    order = np.argsort(stacked, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0)
    middle = (reached >= 0.5 * reached[-1]).argmax(axis=0)[None]
    return np.take_along_axis(stacked, np.take_along_axis(order, middle, axis=0), axis=0)[0]


_SAY: dict[str, Callable[[Parts, np.ndarray, Group, Task], np.ndarray]] = {
    "mean": _mean,
    "majority": _majority,
    "median": _median,
    "sum": _sum,
    "geometric": _geometric,
}


def _probabilities(model: Any, table: np.ndarray, said: np.ndarray, task: Task) -> np.ndarray:
    """What an estimator says, put into the columns of all classes or labels."""
    whole = _weighted(said, np.full(len(said), 1 / len(said)))
    found = model.predict_proba(table)
    if task == "multilabel":
        for label, part in enumerate(found):
            if part is not None:
                whole[:, label] = part[:, 1]
        return whole
    known = np.asarray(model.classes_, np.int64)
    rest = np.delete(whole, known, axis=1).sum(axis=1, keepdims=True)
    whole[:, known] = found * (1 - rest)
    return whole
