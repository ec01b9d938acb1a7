"""Stage 3i. Out-of-fold probabilities, labels, neighbours -> rows whose label is likely wrong.

Confident learning (Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels",
J. Artif. Intell. Res. 70, 2021), joined by what the neighbours' labels say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from ayatori.records import Graph

RESIDUAL = 6.0  # robust standard deviations at which a value is suspected
WINDOW = 31  # rows of which about the same was said, whose residuals tell what is usual there
DWARFED = 20.0  # times the median, which a hundredth of the values exceed where a few dwarf the others
SIDED = 0.6  # share of the neighbours' votes that is as good as a confident probability
SEPARATED = 0.15  # share of wrong predictions beyond which classes overlap, and only the confident count
UNLIKELY = 0.15  # probability of the own label of those
TOLD = 0.75  # of the errors of always naming the largest class; who makes more knows nothing of a label
AGREEING = 10  # nearest neighbours that are asked


@dataclass(frozen=True)
class Suspicion:
    """How likely each label is wrong.

    **Shape** ``score`` (n,) float64 from 0 to 1, NaN where nothing is known; ``likely`` (n,) what is more
    likely: codes of classes, or values; ``flagged`` (n,) bool: the suspects.
    """

    score: np.ndarray
    likely: np.ndarray
    flagged: np.ndarray


def suspect_classes(
    labels: np.ndarray,
    probabilities: np.ndarray,
    known: np.ndarray | None = None,
    graph: Graph | None = None,
    apart: np.ndarray | None = None,
) -> Suspicion:
    """Suspected ``labels`` (n,) by ``probabilities`` (n, c) that never saw the row; rows of NaN are skipped.

    The threshold of a class is the mean probability of the class over the rows that bear its label. A row is
    a suspect where the most probable of the classes above their thresholds is another than its own, and its
    neighbours do not stand by it; where classes hardly overlap, also where another class is most probable and
    most neighbours bear it. Where the probabilities hardly know more than the shares of the classes, nobody
    is a suspect: a rare class is improbable everywhere. ``known`` (n,) bool: whose label may be read.
    ``apart`` (n,): rows that share a number >= 0 are copies and say nothing about each other.

    >>> said = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]])
    >>> suspect_classes(np.array([0, 0, 1, 1, 0]), said).flagged.tolist()
    [False, False, False, False, True]
    """
    n, classes = probabilities.shape
    known = np.ones(n, bool) if known is None else known
    rows = np.flatnonzero(known & np.isfinite(probabilities).all(axis=1))
    own, said = labels[rows], probabilities[rows]
    counts = np.bincount(own, minlength=classes)
    given = said[np.arange(len(rows)), own]
    limits = np.bincount(own, given, minlength=classes) / np.maximum(counts, 1)
    limits[counts == 0] = np.inf
    confident = np.where(said >= limits, said, -np.inf)
    likely = said.argmax(axis=1)
    suspected = (confident.argmax(axis=1) != own) & np.isfinite(confident.max(axis=1)) & (likely != own)
    wrong = (likely != own).mean() if len(rows) else 0.0
    separated = wrong < SEPARATED
    if not separated:
        suspected &= given < UNLIKELY
    others = said.copy()
    others[np.arange(len(rows)), own] = -np.inf
    second = others.argmax(axis=1)
    score = others.max(axis=1) / np.maximum(others.max(axis=1) + given, 1e-12)
    if graph is not None:
        votes = _votes(labels, known, classes, graph, apart)[rows]
        for_own, for_other = (votes[np.arange(len(rows)), at] for at in (own, second))
        asked = for_own + for_other > 0
        share = for_other / np.maximum(for_own + for_other, 1e-12)
        sided = (likely != own) & (share >= SIDED) & separated
        suspected = np.where(asked, (suspected | sided) & (share >= 0.5), suspected)
        score = np.where(asked, (score + share) / 2, score)
    if wrong > TOLD * (1 - counts.max(initial=0) / max(len(rows), 1)):
        suspected = np.zeros(len(rows), bool)
    found = Suspicion(np.full(n, np.nan), np.full(n, -1, np.int64), np.zeros(n, bool))
    found.score[rows], found.likely[rows], found.flagged[rows] = score, second, suspected
    return found


def noise_matrix(labels: np.ndarray, found: Suspicion, classes: int) -> np.ndarray:
    """(classes, classes): of the judged rows that bear a label, which share looks like which class.

    The confident joint of Northcutt et al., each line divided by its sum; a line of a class without judged
    rows is that of a clean one.

    >>> labels = np.array([0, 0, 0, 1])
    >>> flags = np.array([False, False, True, False])
    >>> noise_matrix(labels, Suspicion(np.zeros(4), 1 - labels, flags), 2).round(2).tolist()
    [[0.67, 0.33], [0.0, 1.0]]
    """
    judged = np.isfinite(found.score)
    own, likely = labels[judged], found.likely[judged]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (own, np.where(found.flagged[judged], likely, own)), 1)
    empty = counts.sum(axis=1) == 0
    counts[empty, empty] = 1
    return counts / counts.sum(axis=1, keepdims=True)


def suspect_sets(
    labels: np.ndarray,
    probabilities: np.ndarray,
    known: np.ndarray | None = None,
    graph: Graph | None = None,
    apart: np.ndarray | None = None,
) -> Suspicion:
    """The same for sets of labels: ``labels`` and ``probabilities`` (n, c); each label is judged alone.

    ``likely`` (n, c) is the set with the suspected labels turned round; the score is that of the worst one.
    """
    n, count = labels.shape
    likely, score, flagged = labels.astype(np.int64), np.full((n, count), np.nan), np.zeros((n, count), bool)
    for at in range(count):
        two = np.stack([1 - probabilities[:, at], probabilities[:, at]], axis=1)
        one = suspect_classes(labels[:, at].astype(np.int64), two, known, graph, apart)
        score[:, at], flagged[:, at] = one.score, one.flagged
        likely[:, at] = np.where(one.flagged, one.likely, labels[:, at])
    # a row is as suspect as its worst label; one that is not flagged must not outrank a flagged one
    worst = np.where(flagged.any(axis=1), np.where(flagged, score, 0).max(axis=1), score.min(axis=1))
    return Suspicion(worst, likely, np.any(flagged, axis=1).astype(bool))


def dwarfed(values: np.ndarray) -> bool:
    """Whether a few of the values (n,), all above 0, are so large that they decide every mean of squares.

    >>> dwarfed(np.linspace(1, 100, 100)), dwarfed(np.logspace(0, 5, 100))
    (False, True)
    """
    if not len(values) or values.min() <= 0:
        return False
    middle, high = np.quantile(values, (0.5, 0.99))
    return bool(high > DWARFED * middle)


def suspect_values(values: np.ndarray, said: np.ndarray) -> Suspicion:
    """Suspected values (n, v) by predictions ``said`` (n, v) that never saw the row: residuals far beyond the
    others', of logarithms where a few values dwarf the others. The score is 1/2 at ``RESIDUAL`` robust
    standard deviations; ``likely`` is what was said.

    >>> truth = np.arange(50.0)[:, None]
    >>> said = truth + np.tile([-0.1, 0.1], 25)[:, None]
    >>> said[7] = 40
    >>> np.flatnonzero(suspect_values(truth, said).flagged).tolist()
    [7]
    """
    known = np.isfinite(said).all(axis=1)
    score = np.full(len(said), np.nan)
    if known.sum() < 8:
        return Suspicion(score, said, np.zeros(len(said), bool))
    own, told = values[known].astype(np.float64), said[known].astype(np.float64)
    for column in range(own.shape[1]):
        if dwarfed(own[:, column]):
            least = own[:, column].min()
            own[:, column], told[:, column] = np.log(own[:, column]), np.log(told[:, column].clip(least))
    residuals = own - told
    centred = np.abs(residuals - np.median(residuals, axis=0))
    spread = np.maximum(1.4826 * np.median(centred, axis=0), 1e-9 * np.abs(own).max(axis=0) + 1e-300)
    apart = (centred / np.maximum(spread, _nearby(centred, told))).max(axis=1)
    score[known] = apart / (apart + RESIDUAL)
    return Suspicion(score, said, np.asarray(np.nan_to_num(score) > 0.5))


def _nearby(centred: np.ndarray, told: np.ndarray) -> np.ndarray:
    """(n, v) robust standard deviations of the residuals of rows of which about the same was said.

    Where large values are harder to tell than small ones, a large residual there is nothing odd.
    """
    order = np.argsort(told, axis=0, kind="stable")
    sorted_ = np.take_along_axis(centred, order, 0)
    width = min(max(WINDOW, len(centred) // 10), len(centred))
    middle = median_filter(sorted_, size=(width, 1), mode="nearest")
    nearby = np.empty_like(centred)
    np.put_along_axis(nearby, order, 1.4826 * middle, 0)
    return nearby


def neighbours_say(
    labels: np.ndarray, known: np.ndarray, classes: int, graph: Graph, apart: np.ndarray | None = None
) -> np.ndarray:
    """Probabilities (n, classes) by neighbours' labels, NaN for rows not asked; classes share one vote."""
    votes = _votes(labels, known, classes, graph, apart) + 1 / classes
    said = np.full((len(labels), classes), np.nan)
    rows = graph.rows[known[graph.rows]]
    said[rows] = votes[rows] / votes[rows].sum(axis=1, keepdims=True)
    return said


def _votes(
    labels: np.ndarray, known: np.ndarray, classes: int, graph: Graph, apart: np.ndarray | None
) -> np.ndarray:
    """(n, classes): how many of the nearest known rows, copies left out, bear each label."""
    votes = np.zeros((len(labels), classes))
    found = graph.indices[:, : 2 * AGREEING]
    heard = known[found]
    if apart is not None:
        own = apart[graph.rows][:, None]
        heard &= (own < 0) | (apart[found] != own)
    heard &= np.cumsum(heard, axis=1) <= AGREEING
    asked, place = np.nonzero(heard)
    np.add.at(votes, (graph.rows[asked], labels[found[asked, place]]), 1)
    return votes
