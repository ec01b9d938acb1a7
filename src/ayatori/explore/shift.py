"""Stage 3h. Inputs of open and of sealed rows -> can a classifier tell them apart?

The classifier two-sample test (Lopez-Paz & Oquab, "Revisiting classifier two-sample tests", ICLR 2017), with
the rank-sum test within each fold: given a classifier, the rows it did not see are exchangeable if both
sides are drawn alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import StratifiedKFold

from ayatori.evaluate.encode import scaled
from ayatori.evaluate.matrix import whole_table
from ayatori.records import Dataset

FOLDS, TREES = 3, 30
FEWEST, MOST = 20, 1500  # rows of a side
SURE, PLAIN, STRONG = 0.01, 0.55, 0.625  # p; areas under the curve that are worth a word


def shift(
    dataset: Dataset, sealed: np.ndarray, apart: np.ndarray | None = None, seed: int = 0
) -> dict[str, Any] | None:
    """How well inputs tell ``sealed`` (n,) from other rows: auc, p, alarm, sentence; None for few rows.

    ``apart`` (n,): rows that share a number >= 0 are copies or of one group; one of each takes part, as
    splits hold them together.
    """
    alone = np.ones(len(sealed), bool)
    for held in (apart, dataset.groups):
        if held is not None:
            first = np.zeros(len(sealed), bool)
            first[np.unique(held, return_index=True)[1]] = True
            alone &= first | (held < 0)
    chance = np.random.default_rng([seed, 77])
    sides = [np.flatnonzero(alone & side) for side in (~sealed, sealed)]
    if min(map(len, sides)) < FEWEST:
        return None
    rows = np.concatenate([chance.permutation(side)[:MOST] for side in sides])
    inputs = {name: values[rows] for name, values in dataset.inputs.items()}
    drawn = dataclasses.replace(dataset, inputs=inputs, ids=dataset.ids[rows])
    table, kinds = whole_table(drawn)
    if "words" in kinds:
        table = scaled(kinds, meanings=True).fit_transform(table)
    table = np.nan_to_num(table, nan=-1e30).clip(-1e30, 1e30).astype(np.float32)
    auc, p = two_sample(table, sealed[rows], seed)
    alarm = p < SURE and auc >= PLAIN
    return {"auc": auc, "p": p, "alarm": alarm, "sentence": _sentence(auc, alarm, dataset)}


def two_sample(table: np.ndarray, side: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Area under the curve of a classifier of ``side`` (m,) bool by ``table`` (m, d), on rows it did not see,
    and p of a one-sided rank-sum test.

    >>> points = np.random.default_rng(0).normal(size=(200, 3)) + np.repeat([[0.0], [2.0]], 100, axis=0)
    >>> auc, p = two_sample(points, np.arange(200) >= 100)
    >>> auc > 0.9, p < 1e-6
    (True, True)
    """
    found, expected, variance, pairs = 0.0, 0.0, 0.0, 0.0
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    for learn, judge in splitter.split(table, side):
        trees = ExtraTreesClassifier(TREES, min_samples_leaf=3, random_state=seed % 2**32)
        said = trees.fit(table[learn], side[learn]).predict_proba(table[judge])[:, 1]
        ranks, ones = rankdata(said), side[judge]
        m, n = int(ones.sum()), int((~ones).sum())
        found += ranks[ones].sum() - m * (m + 1) / 2
        expected += m * n / 2
        # the variance of the statistic given the ties
        variance += m * n * ranks.var(ddof=1) / (m + n)
        pairs += m * n
    p = float(norm.sf((found - expected) / np.sqrt(variance))) if variance > 0 else 1.0
    return float(found / pairs), p


def _sentence(auc: float, alarm: bool, dataset: Dataset) -> str:
    if not alarm:
        return f"test rows look like the others (a classifier tells them apart with an AUC of {auc:.2f})"
    how = "clearly differ" if auc >= STRONG else "differ slightly"
    why = ": time has passed between them" if dataset.order is not None else ""
    return (
        f"test rows {how} from the others{why} (a classifier tells them apart with an AUC of {auc:.2f}); "
        "scores out of fold do not hold for the test: bring training rows that are like the test rows"
    )
