"""What voices say, truth -> why they do better together: how they differ, and what each adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ayatori.ensemble.losses import errors, own, row_losses, thinned
from ayatori.records import AyatoriError, Task

CELLS = 20_000_000  # values at most that are looked at


def diversity(values: np.ndarray, truth: np.ndarray, task: Task, names: Sequence[str]) -> dict[str, Any]:
    """How k voices differ on the rows that all of them speak about, and what each adds to their mean.

    **Shape** ``values`` (k, n, c), NaN where a voice says nothing; ``truth`` (n,) codes, or (n, c)

    Plain values, fit for JSON; None where there is nothing to say:

    - ``n``: rows that all voices share, and all else is about (drawn, where there are very many); without
      any the rest is empty
    - ``members``: of each voice its ``name``, ``accuracy`` (of labels: share told right) or for numbers
      ``r2``, ``loss``, and ``gain``: how much the loss of the mean rises without it
    - ``together``: accuracy or r2, and loss, of the mean of all voices
    - ``loss_of_members``: the mean of their losses; ``ambiguity``: that less the loss of the mean. It is
      never negative, and for numbers exactly the variance of the voices around their mean (Krogh and
      Vedelsby 1995)
    - ``disagreement`` (k, k): share of rows with another most probable class, of labels told otherwise;
      numbers: root mean squared difference. ``disagreement_mean`` is over pairs
    - ``correlation`` (k, k): Pearson's, of the errors: 1 - probability of what is true, or value - truth. The
      lower, the more a mean gains (Ueda and Nakano 1996). ``correlation_mean`` is over pairs

    Losses are log loss, or squared error; numbers are in standard deviations of the target, each.

    >>> said = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.6, 0.4], [0.1, 0.9]]])
    >>> found = diversity(said, np.array([0, 1]), "classification", ["a", "b"])
    >>> found["n"], found["disagreement_mean"], [round(one["gain"], 3) for one in found["members"]]
    (2, 0.5, [-0.051, 0.152])
    """
    if len(names) != len(values):
        raise AyatoriError(f"every voice needs a name, however: {len(values)} voices and {len(names)} names")
    shared = np.flatnonzero(np.isfinite(values).all(axis=(0, 2)))
    shared = shared[thinned(len(shared), CELLS // values[:, :1].size)]
    n, k = len(shared), len(values)
    if not n or not k:
        return {"n": 0, "members": [], "together": {}}
    values, truth = values[:, shared], truth[shared]
    mean = values.mean(axis=0, dtype=np.float64)
    losses = np.array([row_losses(one, truth, task).mean() for one in values])
    loss = float(row_losses(mean, truth, task).mean())
    members = []
    for voice, name in enumerate(names):
        gain = None
        if k > 1:
            without = (k * mean - values[voice]) / (k - 1)
            gain = float(row_losses(without, truth, task).mean()) - loss
        members.append(
            {"name": name, **_right(values[voice], truth, task), "loss": float(losses[voice]), "gain": gain}
        )
    apart, alike = _disagreement(values, truth, task), _correlation(values, truth, task)
    return {
        "n": n,
        "members": members,
        "together": {**_right(mean, truth, task), "loss": loss},
        "loss_of_members": float(losses.mean()),
        "ambiguity": float(losses.mean()) - loss,
        "disagreement": _plain(apart),
        "disagreement_mean": _over_pairs(apart),
        "correlation": _plain(alike),
        "correlation_mean": _over_pairs(alike),
    }


def _right(values: np.ndarray, truth: np.ndarray, task: Task) -> dict[str, float | None]:
    if task == "classification":
        return {"accuracy": float((values.argmax(axis=1) == truth).mean())}
    if task == "multilabel":
        return {"accuracy": float(((values > 0.5) == (truth.reshape(values.shape) > 0.5)).mean())}
    truth = truth.reshape(values.shape)
    if not (truth.std(axis=0) > 0).all():
        return {"r2": None}
    return {"r2": 1 - float(row_losses(values, truth, task).mean())}


def _disagreement(values: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """(k, k): how far apart each two voices are."""
    if task == "regression":
        said = errors(values, truth).reshape(len(values), -1)
        return np.array([[np.sqrt(np.square(a - b).mean()) for b in said] for a in said])
    told = values.argmax(axis=2) if task == "classification" else values > 0.5
    return np.array([[(a != b).mean() for b in told] for a in told])


def _correlation(values: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    """(k, k) correlation of errors, NaN where a voice's error is the same everywhere."""
    off = errors(values, truth) if task == "regression" else 1 - own(values, truth, task)
    off = off.reshape(len(values), -1).astype(np.float64)
    off -= off.mean(axis=1, keepdims=True)
    sizes = np.sqrt(np.square(off).sum(axis=1))
    sizes[sizes <= 1e-12 * np.sqrt(off.shape[1])] = np.nan
    return np.clip(off @ off.T / np.outer(sizes, sizes), -1.0, 1.0)


def _plain(table: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(one) else float(one) for one in row] for row in table]


def _over_pairs(table: np.ndarray) -> float | None:
    pairs = table[np.triu_indices(len(table), 1)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else None
