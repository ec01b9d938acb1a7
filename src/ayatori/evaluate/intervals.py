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
        return float(np.square(totals).sum()) * correction


@dataclass(frozen=True)
class Share:
    """A figure between 0 and 1 that varies as a share seen in ``size`` rows would; ``pull`` (n,)."""

    value: float
    size: float
    pull: np.ndarray


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


def share(value: float, pull: np.ndarray, largest: float, rows: Sample) -> Share:
    """A figure between 0 and 1, with the size at which a share would vary as much as its pulls say.

    ``largest`` is the size beyond which the rows cannot speak, however alike they look (a perfect score has
    no variance); where rows come in groups and none differs, the groups are what is counted.
    """
    variance, spread = rows.variance(pull), value * (1 - value)
    if spread < 1e-9 or variance < 1e-18:
        return Share(value, largest * rows.units / rows.n, pull)
    return Share(value, min(spread / variance, largest), pull)


def average(shares: Iterable[Share], rows: Sample) -> Score | None:
    """The plain average of ``shares`` (of classes or labels) by Wilson; None where there is none.

    The variance of the average is the sum of theirs, each drawn towards the average by two rows more, as a
    class told right in all of its 3 rows is not beyond doubt; scaled by how much they vary together.
    """
    found, apart = [], 0.0
    together: np.ndarray | float = 0.0
    for one in shares:
        found.append((one.value, one.size))
        apart += rows.variance(one.pull)
        together = together + one.pull
    if not found:
        return None
    values, sizes = np.array(found).T
    value, size = float(values.mean()), float(sizes[0])
    if len(found) > 1:
        common = rows.variance(np.asarray(together)) / apart if apart > 0 else 1.0
        softened = (value * rows.n + 1) / (rows.n + 2)
        drawn = (values * sizes + 2 * softened) / (sizes + 2)
        variance = (drawn * (1 - drawn) / sizes).sum() / len(found) ** 2
        size = drawn.mean() * (1 - drawn.mean()) / (variance * max(common, 0.1))
    value = min(max(value, 0.0), 1.0)
    return Score(value, *wilson(value, size, rows.z), rows.n)


def skewed(value: float, pull: np.ndarray, rows: Sample) -> Score:
    """A mean, or nearly one, of losses >= 0: Student's t on the scale where their skewness is gone.

    Hall (1992), "On the removal of skewness by transformation", J. R. Statist. Soc. B 54: the cubic
    transformation of t, with as good a coverage as the bootstrap-t and no resampling.
    """
    units = rows.units
    totals = rows.totals(pull) * units
    second = float((totals**2).mean())
    if second == 0.0:
        return Score(value, value, value, rows.n)
    skewness = float((totals**3).mean() / second**1.5)
    error = np.sqrt(second / (units - 1))
    quantile = float(stats.t.ppf(0.975, units - 1))
    # losses lean to the right; a few groups that seem to lean far to the left would bend t beyond reason
    skewness = max(skewness, -0.5 * float(np.sqrt(units)) / quantile)

    def straight(t: float) -> float:
        if abs(skewness) < 1e-6:
            return t
        inner = 1 + skewness * (t / np.sqrt(units) - skewness / (6 * units))
        return float(3 * np.sqrt(units) / skewness * (np.cbrt(inner) - 1))

    low, high = value - error * straight(quantile), value - error * straight(-quantile)
    return Score(value, float(np.clip(low, 0.0, value)), float(max(high, value)), rows.n)


def mean(losses: np.ndarray, rows: Sample) -> Score | None:
    """The mean of ``losses`` (n,), all >= 0; None where there is but one."""
    value = float(losses.mean())
    return skewed(value, (losses - value) / rows.n, rows) if rows.units > 1 else None
