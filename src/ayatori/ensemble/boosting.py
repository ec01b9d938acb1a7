"""Weights of rows, a round's mistakes -> that round's say and the next round's weights. One fold's training
rows at a time; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ayatori.records import AyatoriError, Task

LEAST = float(np.finfo(np.float64).eps)  # a row that has weight never loses more of it than this
CHANCE = 1e-9  # an error this near to chance is chance: the same network twice is there but for rounding
CONFIDENT = 1e-5  # SAMME.R: probabilities are at least this before their logarithm is taken
MOST = 250  # the largest count that a cell of a Plan can hold


@dataclass(frozen=True)
class Round:
    """What a round of boosting leaves. ``error``: the weighted training loss, 0 to 1; ``vote``: how much the
    round's network counts, before votes are made to sum to 1; ``weights`` (n,) float64: of the rows in the
    next round, sum 1; ``reason``: why the chain must end without this round's network, or ""."""

    error: float
    vote: float
    weights: np.ndarray
    reason: str = ""


def samme(weights: np.ndarray, wrong: np.ndarray, classes: int, rate: float = 1.0) -> Round:
    """A round of SAMME (Zhu, Zou, Rosset and Hastie 2009, algorithm 2; two classes: AdaBoost.M1).

    **Shape** ``weights`` (n,) of the rows in this round, ``wrong`` (n,) bool: what its network got wrong

    With K classes: error = weight of the wrong rows, vote = rate (log((1 - error) / error) + log(K - 1)),
    and wrong rows weigh exp(vote) times as much. An error of 1 - 1/K or more, that of chance, ends the chain.
    Without an error the vote is 1 and weights stay, as in scikit-learn: whether to go on is the caller's.

    >>> one = samme(np.full(4, 0.25), np.array([True, False, False, False]), 2)
    >>> one.error, round(one.vote, 3), one.weights.round(3)
    (0.25, 1.099, array([0.5  , 0.167, 0.167, 0.167]))
    """
    weights = _normal(weights)
    error = float(weights @ wrong)
    if error >= 1 - 1 / classes - CHANCE:
        return _no_better(error, 1 - 1 / classes, weights)
    if error <= 0:
        return Round(0.0, 1.0, weights)
    vote = rate * (np.log((1 - error) / error) + np.log(classes - 1))
    return Round(error, float(vote), _normal(_scaled(weights, vote * wrong)))


def samme_r(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, rate: float = 1.0) -> Round:
    """A round of SAMME.R (Zhu et al. 2009, algorithm 4): the network's probabilities are its say.

    **Shape** ``weights`` (n,), ``probabilities`` (n, K), ``truth`` (n,) int codes

    Weights are multiplied by exp(-rate (K - 1) / K y . log p), where y is 1 for the true class and
    -1 / (K - 1) for the others. p is clipped at 1e-5: a network that is sure of a wrong row would leave
    nothing for the others. Every round's vote is 1.

    The paper's answer is the sum over T rounds of h = (K - 1) (log p - mean of log p over classes), and
    scikit-learn (to 1.5) made probabilities of it as softmax(sum of h / T / (K - 1)). What is the same for
    all classes of a row leaves a softmax unchanged, so that is softmax(mean over rounds of log p): a
    ``Group`` with ``how="geometric"``.

    >>> one = samme_r(np.full(2, 0.5), np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    >>> one.error, one.vote, one.weights.round(3)
    (0.5, 1.0, array([0.143, 0.857]))
    """
    weights = _normal(weights)
    n, classes = probabilities.shape
    error = float(weights @ (probabilities.argmax(axis=1) != truth))
    logs = np.log(np.clip(np.asarray(probabilities, np.float64), CONFIDENT, 1.0))
    own = logs[np.arange(n), truth]
    margin = own - (logs.sum(axis=1) - own) / (classes - 1)
    return Round(error, 1.0, _normal(_scaled(weights, -rate * (classes - 1) / classes * margin)))


def r2(
    weights: np.ndarray,
    errors: np.ndarray,
    rate: float = 1.0,
    loss: Literal["linear", "square", "exponential"] = "linear",
) -> Round:
    """A round of AdaBoost.R2 (Drucker 1997), for numbers. Of several values a row, ``errors`` may be
    ``np.sqrt(losses.row_losses(values, truth, "regression"))``.

    **Shape** ``weights`` (n,) of the rows in this round, ``errors`` (n,): how far off its network is, >= 0

    L = errors over the largest of them (or its square, or 1 - exp(-L)); error = weighted mean of L;
    beta = error / (1 - error); vote = rate log(1 / beta); weights are multiplied by beta ** (rate (1 - L)).
    An error of a half or more ends the chain.

    >>> one = r2(np.full(4, 0.25), np.array([0.0, 0.0, 0.0, 2.0]))
    >>> one.error, round(one.vote, 3), one.weights.round(3)
    (0.25, 1.099, array([0.167, 0.167, 0.167, 0.5  ]))
    """
    weights = _normal(weights)
    largest = errors[weights > 0].max()
    shares = np.abs(errors) / (largest if largest > 0 else 1.0)
    shares = {"linear": shares, "square": shares**2, "exponential": 1 - np.exp(-shares)}[loss]
    error = float(weights @ shares)
    if error >= 0.5 - CHANCE:
        return _no_better(error, 0.5, weights)
    if error <= 0:
        return Round(0.0, 1.0, weights)
    beta = error / (1 - error)
    return Round(
        error, float(-rate * np.log(beta)), _normal(_scaled(weights, rate * np.log(beta) * (1 - shares)))
    )


def start_of(target: np.ndarray, task: Task, outputs: int) -> np.ndarray:
    """Where gradient boosting begins: (outputs,) float64.

    Logarithms of the shares of classes, log-odds of labels (both as if there were one row more of each
    kind, so that none is infinite), or means. Each round's network then learns with the sum of what came
    before as an offset of its own logits or values (Friedman 2001), so a round needs no weight but the rate.

    >>> start_of(np.array([0, 0, 1]), "classification", 2).round(3)
    array([-0.511, -0.916])
    """
    if task == "classification":
        counts = np.bincount(target, minlength=outputs) + 1.0
        return np.log(counts / counts.sum())
    target = np.asarray(target, np.float64).reshape(len(target), outputs)
    if task == "multilabel":
        yes = (target > 0.5).sum(axis=0)
        return np.log((yes + 1) / (len(target) - yes + 1))
    return target.mean(axis=0)


def draw(weights: np.ndarray, size: int, seed: int) -> np.ndarray:
    """How often each row is trained on, so that weights become counts that a Plan can hold.

    **Shape** ``weights`` (n,) -> (n,) uint8 with sum ``size``

    Systematic resampling (Carpenter, Clifford and Fearnhead 1999): the expected count of a row is ``size``
    times its weight, and its count is that rounded down or up. Rows go by in random order. What would pass
    250 for a row is spread over the others by their weights.

    >>> draw(np.array([0.5, 0.25, 0.25, 0.0]), 8, seed=0)
    array([4, 2, 2, 0], dtype=uint8)
    """
    expected = _capped(_normal(weights), size)
    counts = np.floor(expected).astype(np.int64)
    left = size - int(counts.sum())
    if left:
        random = np.random.default_rng(seed)
        order = random.permutation(len(weights))
        reached = np.cumsum((expected - counts)[order])
        reached *= left / reached[-1]
        reached[reached >= reached[-1]] = left  # however its last digits were rounded
        counts[order] += np.diff(np.ceil(reached - random.random()), prepend=0.0).astype(np.int64)
    return counts.astype(np.uint8)


def rounds_to_keep(losses: Sequence[float]) -> int:
    """How many rounds to keep: up to the one with the lowest stop loss (the first such; NaN is none).

    >>> rounds_to_keep([0.7, 0.4, 0.5])
    2
    """
    return int(np.argmin(_known(losses))) + 1 if len(losses) else 0


def ended(losses: Sequence[float], patience: int) -> bool:
    """Whether the stop loss has not sunk below its lowest for ``patience`` rounds (at least one).

    >>> ended([0.7, 0.4, 0.5], 1), ended([0.7, 0.4, 0.5], 2)
    (True, False)
    """
    return len(losses) - rounds_to_keep(losses) >= max(patience, 1) if len(losses) else False


def _known(losses: Sequence[float]) -> np.ndarray:
    found = np.asarray(losses, np.float64)
    return np.where(np.isnan(found), np.inf, found)


def _normal(weights: np.ndarray) -> np.ndarray:
    """Weights that sum to 1; one that is not 0 is never lost to rounding."""
    weights = np.asarray(weights, np.float64)
    total = weights.sum()
    if not (np.isfinite(total) and total > 0 and weights.min() >= 0):
        raise AyatoriError("weights of rows must be finite and not all 0, however they are not")
    weights = weights / total
    weights = np.where(weights > 0, np.maximum(weights, LEAST), 0.0)
    return weights / weights.sum()


def _scaled(weights: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Weights times exp(powers), up to a factor, so that nothing overflows."""
    held = weights > 0
    logs = np.log(weights, where=held, out=np.full(len(weights), -np.inf)) + np.where(held, powers, 0.0)
    return np.where(held, np.maximum(np.exp(logs - logs.max()), LEAST), 0.0)


def _no_better(error: float, chance: float, weights: np.ndarray) -> Round:
    reason = f"the weighted training error is no better than chance, {chance:.3g}"
    return Round(error, 0.0, weights, reason)


def _capped(weights: np.ndarray, size: int) -> np.ndarray:
    """(n,) expected counts, none above MOST, sum ``size``."""
    held = int((weights > 0).sum())
    if size > MOST * held:
        raise AyatoriError(
            f"{held} rows must share {size} draws, however a row is drawn at most {MOST} times"
        )
    expected = size * weights
    full = np.zeros(len(weights), bool)
    while (expected > MOST).any():
        full |= expected > MOST
        rest = np.where(full, 0.0, weights)
        room = size - MOST * int(full.sum())
        expected = np.where(full, MOST, room * rest / max(rest.sum(), LEAST))
    return expected
