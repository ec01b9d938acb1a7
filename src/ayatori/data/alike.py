"""Stage 1i. Rows as points -> their neighbours; rows of a table -> pairs that are copies but for noise.

How near is near is judged by the data: a pair counts only where it is far closer than the other neighbours
of both its rows, closer than chance brings points of that local dimension together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
FEWEST = 50  # rows that can say what is near
CELL = 500  # rows around a landmark, on average
GROUPED = 32
ROWS_AT_ONCE = 2048
FAR = 20.0  # standard deviations at which a number is cut, to search for neighbours
FALSE = 0.3  # pairs of strangers that may pass among all rows, by the chance of points in space
CAUTION = 0.8  # in tables, as the nearest neighbours see fewer dimensions than the farther ones
FARTHEST = 0.5  # of the neighbourhood's radius: a copy is never farther

Pairs = tuple[np.ndarray, np.ndarray]  # (m, 2) int64 row numbers, (m,) float64 distances


@dataclass(frozen=True)
class Cells:
    """Points (n, d) float32 dealt to cells around ``landmarks`` (c, d): ``members`` of each, by number."""

    points: np.ndarray
    landmarks: np.ndarray
    members: tuple[np.ndarray, ...]


def deal(points: np.ndarray, seed: int = 0) -> Cells:
    """All of some thousand points in one cell; of more, each in the cells of its three nearest landmarks."""
    n = len(points)
    points = np.ascontiguousarray(points, np.float32)
    cells = max(1, n // CELL) if n > 8 * CELL else 1
    if cells == 1:
        return Cells(points, points[:1], (np.arange(n),))
    landmarks = points[np.sort(np.random.default_rng(seed).choice(n, cells, replace=False))]
    near = _landmarks_near(points, landmarks, min(3, cells))
    order = np.argsort(near.ravel(), kind="stable")  # all visits, cell after cell
    bounds = np.searchsorted(near.ravel()[order], np.arange(1, cells))
    return Cells(points, landmarks, tuple(np.split(order // near.shape[1], bounds)))


def _landmarks_near(points: np.ndarray, landmarks: np.ndarray, count: int) -> np.ndarray:
    blocks = (points[start : start + ROWS_AT_ONCE] for start in range(0, len(points), ROWS_AT_ONCE))
    return np.concatenate([_closest(_squares(block, landmarks), count) for block in blocks])


def neighbours(points: np.ndarray, k: int = NEIGHBOURS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest other rows of each of ``points`` (n, d): indices and distances (n, k), nearest first.

    Exact up to some thousand rows. Beyond, rows are dealt to cells around landmarks (random rows), and a row
    meets those rows that have its nearest landmark among their own three nearest: the cost grows with
    n, and rows far closer to each other than to the next landmarks do meet.
    """
    cells = deal(points, seed)
    return visit(cells, cells.points, np.arange(len(points)), k)


def visit(
    cells: Cells, asked: np.ndarray, itself: np.ndarray, k: int = NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest points of each of ``asked`` (q, d), but for that numbered ``itself`` (q,).

    Indices (q, k) int64 and distances float32, nearest first; -1 and inf where a cell has fewer.
    """
    indices = np.full((len(asked), k), -1, np.int64)
    distances = np.full((len(asked), k), np.inf, np.float32)
    for rows, members in _visits(cells, asked):
        squares = _squares(asked[rows], cells.points[members])
        found = members[_closest(squares, min(k + 1, len(members)))]
        indices[rows], distances[rows] = _sorted(cells.points, asked[rows], itself[rows], found, k)
    return indices, distances


def most_alike(cells: Cells, asked: np.ndarray, itself: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest point of each of ``asked`` (q, d), as by ``visit``, where all have length 1: (q,) each."""
    indices, distances = np.full(len(asked), -1, np.int64), np.full(len(asked), np.inf, np.float32)
    for rows, members in _visits(cells, asked):
        alike = asked[rows] @ cells.points[members].T
        place = np.searchsorted(members, itself[rows]).clip(max=len(members) - 1)
        inside = np.flatnonzero(members[place] == itself[rows])
        alike[inside, place[inside]] = -np.inf
        best = alike.argmax(axis=1)
        indices[rows] = members[best]
        distances[rows] = np.sqrt(np.maximum(2 - 2 * alike[np.arange(len(rows)), best], 0))
    indices[np.isinf(distances)] = -1
    return indices, distances


def _visits(cells: Cells, asked: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some of ``asked``, by number, and the members of the cell that they visit."""
    home = np.zeros(len(asked), np.int64)
    if len(cells.members) > 1:
        home = _landmarks_near(asked, cells.landmarks, 1)[:, 0]
    order = np.argsort(home, kind="stable")
    bounds = np.searchsorted(home[order], np.arange(len(cells.members) + 1))
    step = int(np.clip(2**22 // asked.shape[1], 16, ROWS_AT_ONCE))
    for cell, members in enumerate(cells.members):
        for start in range(bounds[cell], bounds[cell + 1], step):
            yield order[start : min(start + step, bounds[cell + 1])], members


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (rows of a, rows of b) but for what is the same in a whole row."""
    return np.square(b).sum(axis=1) - 2 * (a @ b.T)


def _closest(squares: np.ndarray, k: int) -> np.ndarray:
    """Columns of the ``k`` smallest in each row, in order.

    They lie in the ``k`` groups of columns whose smallest is smallest: a minimum is cheaper than a selection.
    """
    rows, columns = squares.shape
    many = columns // GROUPED
    if many >= 4 * k:
        whole = squares[:, : many * GROUPED].reshape(rows, GROUPED, many)
        groups = _closest(whole.min(axis=1), k)
        inside = (groups[:, :, None] + many * np.arange(GROUPED)).reshape(rows, -1)
        rest = np.broadcast_to(np.arange(many * GROUPED, columns), (rows, columns - many * GROUPED))
        some = np.concatenate([inside, rest], axis=1)
        return np.take_along_axis(some, _closest(np.take_along_axis(squares, some, axis=1), k), axis=1)
    found = squares.argpartition(k - 1, axis=1)[:, :k] if k < squares.shape[1] else None
    if found is None:
        return squares.argsort(axis=1, kind="stable")
    values = np.take_along_axis(squares, found, axis=1)
    return np.take_along_axis(found, values.argsort(axis=1, kind="stable"), axis=1)


def _sorted(
    points: np.ndarray, asked: np.ndarray, itself: np.ndarray, found: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest of ``found`` (rows, about k + 1), each row itself left out; gaps are -1 and inf."""
    apart = np.sqrt(np.square(points[found] - asked[:, None]).sum(axis=2))
    apart[found == itself[:, None]] = np.inf
    order = np.lexsort((found, apart))[:, :k]
    indices = np.full((len(asked), k), -1, np.int64)
    distances = np.full((len(asked), k), np.inf, np.float32)
    indices[:, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
    distances[:, : order.shape[1]] = np.take_along_axis(apart, order, axis=1)
    indices[np.isinf(distances)] = -1
    return indices, distances


def farthest_twin(distances: np.ndarray, caution: float = 1.0) -> np.ndarray:
    """(n,): the share of the distance to its k-th neighbour that a row's nearest stranger is hardly below.

    In a space of dimension m, all of k - 1 strangers within a ball lie beyond the share r of its radius with
    probability (1 - r^m)^(k - 1). The local m is the maximum likelihood estimate of Levina & Bickel (NIPS
    2004) on the farther half of ``distances`` (n, k), as the nearer ones may be copies; half-way to the
    median of all rows, and never above it.
    """
    n, k = distances.shape
    first = k // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(distances[:, -1:] / distances[:, first:-1]).mean(axis=1)
    known = np.isfinite(logs) & (logs > 0)
    if not known.any():
        return np.zeros(n)
    typical = np.median(logs[known])
    # what the mean of the logs is at m = 1: the j-th of k - 1 uniform values is Beta(j, k - j)
    expected = np.mean([sum(1 / i for i in range(j, k)) for j in range(first + 1, k)])
    m = 2 * caution * expected / (np.where(known, logs, np.inf).clip(typical, 100 * typical) + typical)
    return np.minimum((FALSE / (n * (k - 1))) ** (1 / m), FARTHEST)


# --- tables


def near_rows(numbers: np.ndarray, keys: np.ndarray) -> Pairs:
    """Pairs of rows whose ``numbers`` (n, p) differ by a trace of noise and whose ``keys`` (n,) are the same.

    Missing is NaN; exact copies must be left out before. The distance is Euclidean, in robust standard
    deviations. Where a column has steps (whole or rounded numbers), a difference of half a step is no noise.
    """
    scales = [_scale_and_step(column) for column in numbers.T]
    used = [at for at, (scale, _) in enumerate(scales) if scale > 0]
    if len(numbers) < FEWEST or not used:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    scale, step = np.array([scales[at] for at in used]).T
    with np.errstate(over="ignore"):
        points = np.nan_to_num((numbers[:, used] - np.nanmedian(numbers[:, used], axis=0)) / scale)
    indices, distances = neighbours(points.clip(-FAR, FAR))
    limit = farthest_twin(distances, CAUTION) * np.where(np.isfinite(distances[:, -1]), distances[:, -1], 0)
    rows, places = np.nonzero(distances[:, : indices.shape[1] // 2] < limit[:, None])
    pairs = np.unique(np.sort(np.stack([rows, indices[rows, places]], axis=1), axis=1), axis=0)
    between = np.abs(points[pairs[:, 0]] - points[pairs[:, 1]])
    apart = np.sqrt(np.square(between).sum(axis=1))
    found = (between * scale < step / 2).all(axis=1) & (keys[pairs[:, 0]] == keys[pairs[:, 1]])
    found &= apart < limit[pairs].min(axis=1)
    return pairs[found], apart[found]


def _scale_and_step(column: np.ndarray) -> tuple[float, float]:
    """The robust standard deviation of a column, and the smallest step between values that come often."""
    values, counts = np.unique(column[np.isfinite(column)], return_counts=True)
    if len(values) < 2:
        return 0.0, np.inf
    kept = np.repeat(values, counts)
    low, high = np.quantile(kept, [0.25, 0.75])
    scale = (high - low) / 1.349 or float(kept.std())
    often = counts >= 3
    if counts[often].sum() < counts.sum() / 2:
        return float(scale), np.inf
    steps = np.diff(values[often])
    return float(scale), float(steps.min()) if len(steps) else np.inf
