"""Stage 8. Truth and two predictions of the same rows -> their difference, with an interval and a p value."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ayatori.ensemble.losses import row_losses
from ayatori.evaluate.intervals import Sample, sample
from ayatori.records import Task


def paired(
    truth: np.ndarray,
    values_a: np.ndarray,
    values_b: np.ndarray,
    task: Task,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """How much better ``a`` is than ``b`` on the same rows: difference, low, high, p, n.

    Classification: difference in accuracy, with the mid-p version of McNemar's exact test (Fagerland,
    Lydersen and Laake 2013) and the adjusted Wald interval of Bonett and Price (2012). Multilabel:
    difference in the share of labels told right; regression: ``b``'s mean absolute error minus ``a``'s, each
    value in its standard deviations where there are several; both by paired t. With ``groups`` (n,): t over
    groups. Fewer than 2 rows: nothing.

    >>> truth = np.array([0, 1, 1, 0])
    >>> sure, wrong = np.eye(2)[truth], np.eye(2)[1 - truth]
    >>> paired(truth, sure, wrong, "classification")["difference"]
    1.0
    """
    rows = sample(len(truth), groups)
    if rows.n < 2:
        return {}
    if task == "classification":
        gain = (values_a.argmax(axis=1) == truth).astype(float) - (values_b.argmax(axis=1) == truth)
        if rows.codes is None:
            return _mcnemar(gain)
    elif task == "multilabel":
        yes = truth > 0.5
        gain = (((values_a > 0.5) == yes).astype(float) - ((values_b > 0.5) == yes)).mean(axis=1)
    else:
        truth = truth.reshape(rows.n, -1)
        unit = np.ones(1)
        if truth.shape[1] > 1:
            unit = np.where(truth.std(axis=0) > 0, truth.std(axis=0), 1.0)
        errors = (np.abs(values.reshape(rows.n, -1) - truth) / unit for values in (values_b, values_a))
        worse, better = errors
        gain = (worse - better).mean(axis=1)
    found = _student(gain, rows)
    if task != "regression":  # no share is more than 1 above another
        found |= {"low": max(found["low"], -1.0), "high": min(found["high"], 1.0)}
    return found


def lower_loss(
    truth: np.ndarray,
    values_a: np.ndarray,
    values_b: np.ndarray,
    task: Task,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """How much lower the log loss of ``a`` is than that of ``b`` on the same rows, by paired t.

    loss, loss_low, loss_high, loss_p; nothing for numbers, and for fewer than 2 rows.

    >>> truth = np.array([0, 1, 1, 0])
    >>> sure, unsure = np.eye(2)[truth] * 0.8 + 0.1, np.full((4, 2), 0.5)
    >>> round(float(lower_loss(truth, sure, unsure, "classification")["loss"]), 3)
    0.588
    """
    rows = sample(len(truth), groups)
    if rows.n < 2 or task == "regression":
        return {}
    found = _student(row_losses(values_b, truth, task) - row_losses(values_a, truth, task), rows)
    names = {"difference": "loss", "low": "loss_low", "high": "loss_high", "p": "loss_p"}
    return {name: found[key] for key, name in names.items()}


def _mcnemar(gain: np.ndarray) -> dict[str, float]:
    n, won, lost = len(gain), int((gain > 0).sum()), int((gain < 0).sum())
    p = 1.0
    if won != lost:
        p = 2 * stats.binom.cdf(min(won, lost), won + lost, 0.5) - stats.binom.pmf(won, won + lost, 0.5)
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = stats.norm.ppf(0.975) * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    difference = (won - lost) / n
    low, high = max(min(up - down - half, difference), -1.0), min(max(up - down + half, difference), 1.0)
    return _record(difference, low, high, min(p, 1.0), n)


def _student(gain: np.ndarray, rows: Sample) -> dict[str, float]:
    difference = float(gain.mean())
    correction = rows.units / (rows.units - 1) if rows.codes is None else 1.0
    error = np.sqrt(rows.variance((gain - difference) / rows.n) * correction)
    half = float(stats.t.ppf(0.975, rows.units - 1)) * error
    p = 2 * stats.t.sf(abs(difference) / error, rows.units - 1) if error > 0 else float(difference == 0)
    return _record(difference, difference - half, difference + half, p, rows.n)


def _record(difference: float, low: float, high: float, p: float, n: int) -> dict[str, float]:
    return {"difference": float(difference), "low": float(low), "high": float(high), "p": float(p), "n": n}
