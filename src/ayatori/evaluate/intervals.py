"""Stage 8. How sure a figure is: 95 % intervals from what each row contributes to it.

A figure here is a smooth function of the weights of the scored rows. Its derivative by each row's
weight, the *pull* of the row, gives the variance in one pass over the rows (the infinitesimal jackknife:
Jaeckel 1972; Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982, ch. 6). For
the area under a ROC curve that is the method of DeLong et al. (1988). Where rows come in groups, pulls
are summed within a group first, so that a group counts as one observation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ayatori.records import Score


@dataclass(frozen=True)
class Sample:
    """The scored rows: ``n`` of them in ``units`` independent units; ``codes`` (n,) the unit of each row.

    One group alone says nothing of how groups differ: its rows are then taken as independent.
    """

    n: int
    units: int
    codes: np.ndarray | None
    z: float  # 97.5 % quantile: normal for rows, Student's t with units - 1 for groups

    def totals(self, pull: np.ndarray) -> np.ndarray:
        """(units,): the pulls summed within each unit."""
        return pull if self.codes is None else np.bincount(self.codes, pull, self.units)

    def variance(self, pull: np.ndarray) -> float:
        totals = self.totals(pull)
        correction = 1.0 if self.codes is None else self.units / (self.units - 1)
        return float(totals @ totals) * correction


@dataclass(frozen=True)
class Part:
    """One of the figures that an average is made of (one class, label or value): its interval and pulls."""

    value: float
    low: float
    high: float
    pull: np.ndarray  # (n,)


def sample(n: int, groups: np.ndarray | None = None) -> Sample:
    """The units of ``n`` rows, or of the ``groups`` (n,) that they come in."""
    if groups is not None:
        found, codes = np.unique(groups, return_inverse=True)
        if 1 < len(found) < n:
            return Sample(n, len(found), codes, float(stats.t.ppf(0.975, len(found) - 1)))
    return Sample(n, n, None, float(stats.norm.ppf(0.975)))


def wilson(share: float, size: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's interval (1927) of a share seen in ``size`` rows.

    >>> low, high = wilson(0.9, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return float(max(min(centre - half, share), 0.0)), float(min(max(centre + half, share), 1.0))


def bounded(value: float, pull: np.ndarray, largest: float, rows: Sample) -> Part:
    """A figure between 0 and 1: Wilson's interval with the size at which a share would vary as much.

    ``largest`` is the size beyond which the rows cannot speak, however alike they look (a perfect score has
    no variance); where rows come in groups and none differs, the groups are what is counted.
    """
    variance = rows.variance(pull)
    spread = value * (1 - value)
    if spread < 1e-9 or variance < 1e-18:
        size = largest * rows.units / rows.n
    else:
        size = min(spread / variance, largest)
    low, high = wilson(min(max(value, 0.0), 1.0), size, rows.z)
    return Part(value, low, high, pull)


def mean(losses: np.ndarray, rows: Sample) -> Part:
    """The mean of ``losses`` (n,), all >= 0: Student's t on the scale where skewness is gone.

    Hall (1992), "On the removal of skewness by transformation", J. R. Statist. Soc. B 54: the cubic
    transformation of t, with as good a coverage as the bootstrap-t and no resampling.
    """
    value = float(losses.mean())
    pull = (losses - value) / rows.n
    low, high = skewed(value, pull, rows)
    return Part(value, max(low, 0.0), high, pull)


def skewed(value: float, pull: np.ndarray, rows: Sample) -> tuple[float, float]:
    """Hall's interval for a figure whose units pull unevenly."""
    units = rows.units
    totals = rows.totals(pull) * units
    second = float((totals**2).mean())
    if units < 2 or second == 0.0:
        return value, value
    skewness = float((totals**3).mean()) / second**1.5
    error = np.sqrt(second / (units - 1))
    quantile = float(stats.t.ppf(0.975, units - 1))

    def straight(t: float) -> float:
        if abs(skewness) < 1e-6:
            return t
        inner = 1 + skewness * (t / np.sqrt(units) - skewness / (6 * units))
        return float(3 * np.sqrt(units) / skewness * (np.cbrt(inner) - 1))

    ends = (value - error * straight(quantile), value - error * straight(-quantile))
    return float(min(ends[0], value)), float(max(ends[1], value))


def average(parts: Iterable[Part], rows: Sample) -> Score | None:
    """The plain average of ``parts`` with an interval recovered from theirs; None where there is no part.

    Method of variance estimates recovery (Zou and Donner 2008): squared distances to the limits add
    up, here scaled by how much the parts vary together, as the pulls of the average tell.
    """
    values, below, above, apart, together, count = 0.0, 0.0, 0.0, 0.0, None, 0
    only: Part | None = None
    for part in parts:
        only = part
        count += 1
        values += part.value
        below += (part.value - part.low) ** 2
        above += (part.high - part.value) ** 2
        apart += rows.variance(part.pull)
        together = part.pull if together is None else together + part.pull
    if only is None or together is None:
        return None
    if count == 1:
        return Score(only.value, only.low, only.high, rows.n)
    shared = rows.variance(together) / apart if apart > 0 else 1.0
    value = values / count
    low, high = value - np.sqrt(shared * below) / count, value + np.sqrt(shared * above) / count
    return Score(value, float(low), float(high), rows.n)
