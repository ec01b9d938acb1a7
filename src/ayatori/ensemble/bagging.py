"""Rows of a fold -> how often each is drawn into a bag: bootstrap samples (Breiman 1996, Efron 1979)."""

from __future__ import annotations

import numpy as np

MOST = 250  # the largest count that a cell of a Plan can hold


def bootstrap(strata: np.ndarray, share: float = 1.0, stratified: bool = True, seed: int = 0) -> np.ndarray:
    """How often each of r rows is drawn with replacement.

    **Shape** ``strata`` (r,) int: the class of each row, or zeros -> (r,) uint8

    ``share`` r draws in all (at least one), every row as likely as another: counts are multinomial. Where
    ``stratified``, each stratum gets its part of the draws (largest remainders), at least one, and within it
    counts are multinomial again; more strata than draws: one draw each. A count is at most 250.

    >>> counts = bootstrap(np.repeat([0, 1], [90, 10]), seed=1)
    >>> int(counts[:90].sum()), int(counts[90:].sum()), int((counts == 0).sum())
    (90, 10, 33)
    """
    random = np.random.default_rng(seed)
    total = max(round(share * len(strata)), 1)
    if not stratified:
        drawn = random.integers(len(strata), size=total)
        return _counts(drawn, len(strata))
    _, codes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    draws = _parts(sizes, total)
    starts = np.repeat(np.cumsum(sizes) - sizes, draws)
    places = starts + random.integers(np.repeat(sizes, draws))
    return _counts(order[places], len(strata))


def _parts(sizes: np.ndarray, total: int) -> np.ndarray:
    """(strata,) int: ``total`` in proportion to ``sizes`` by largest remainders, each at least 1."""
    wanted = total * sizes / sizes.sum()
    parts = np.maximum(np.floor(wanted).astype(np.int64), 1)
    while parts.sum() < total:
        parts[(wanted - parts).argmax()] += 1
    while parts.sum() > max(total, len(parts)):
        parts[np.where(parts > 1, parts - wanted, -np.inf).argmax()] -= 1
    return parts


def _counts(rows: np.ndarray, n: int) -> np.ndarray:
    return np.minimum(np.bincount(rows, minlength=n), MOST).astype(np.uint8)
