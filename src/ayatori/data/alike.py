"""Stage 1i. Rows -> pairs that are copies of each other but for noise, light, a crop or another coding.

How near is near is judged by the data: a pair counts only where it is far closer than the other neighbours
of both its rows, closer than chance brings points of that local dimension together.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from scipy.fft import dct

NEIGHBOURS = 10
FEWEST = 50  # rows that can say what is near
CELL = 500  # rows around a landmark, on average
GROUPED = 32
ROWS_AT_ONCE, PICTURES_AT_ONCE = 2048, 128
LOW = 8  # so many low frequencies of each axis describe a picture
SIDE = 32  # pictures are compared at this size at most
CROPS = (0.95, 0.9, 0.85, 0.8)  # what a cropped copy may still show of each side
SHIFTS = (0.05, 0.1)
FAR = 20.0  # standard deviations at which a number is cut, to search for neighbours
FALSE = 0.3  # pairs of strangers that may pass among all rows, by the chance of points in space
CAUTION = 0.8  # in tables, as the nearest neighbours see fewer dimensions than the farther ones
FARTHEST = 0.5  # of the neighbourhood's radius: a copy is never farther

Pairs = tuple[np.ndarray, np.ndarray]  # (m, 2) int64 row numbers, (m,) float64 distances


def neighbours(points: np.ndarray, k: int = NEIGHBOURS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest other rows of each of ``points`` (n, d): indices and distances (n, k), nearest first.

    Exact up to some thousand rows. Beyond, rows are dealt to cells around landmarks (random rows), and a row
    meets those rows that have its nearest landmark among their own three nearest: the cost grows with
    n, and rows far closer to each other than to the next landmarks do meet.
    """
    n = len(points)
    points = np.ascontiguousarray(points, np.float32)
    cells = max(1, n // CELL) if n > 8 * CELL else 1
    near = np.zeros((n, 1), np.int64)
    if cells > 1:
        landmarks = points[np.sort(np.random.default_rng(seed).choice(n, cells, replace=False))]
        blocks = (points[start : start + ROWS_AT_ONCE] for start in range(0, n, ROWS_AT_ONCE))
        near = np.concatenate([_closest(_squares(block, landmarks), min(3, cells)) for block in blocks])
    order = np.argsort(near.ravel(), kind="stable")  # all visits, cell after cell
    bounds = np.searchsorted(near.ravel()[order], np.arange(cells + 1))
    indices = np.full((n, k), -1, np.int64)
    distances = np.full((n, k), np.inf, np.float32)
    step = int(np.clip(2**22 // points.shape[1], 16, ROWS_AT_ONCE))
    for cell in range(cells):
        members = order[bounds[cell] : bounds[cell + 1]] // near.shape[1]
        own = members[near[members, 0] == cell]
        for start in range(0, len(own), step):
            rows = own[start : start + step]
            found = _closest(_squares(points[rows], points[members]), min(k + 1, len(members)))
            indices[rows], distances[rows] = _sorted(points, rows, members[found], k)
    return indices, distances


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


def _sorted(points: np.ndarray, rows: np.ndarray, found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest of ``found`` (rows, about k + 1), each row itself left out; gaps are -1 and inf."""
    apart = np.sqrt(np.square(points[found] - points[rows][:, None]).sum(axis=2))
    apart[found == rows[:, None]] = np.inf
    order = np.lexsort((found, apart))[:, :k]
    indices = np.full((len(rows), k), -1, np.int64)
    distances = np.full((len(rows), k), np.inf, np.float32)
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


# --- pictures


def near_pictures(image: np.ndarray, among: np.ndarray) -> Pairs:
    """Pairs of the rows ``among`` (k,) of ``image`` (n, c, h, w) uint8 that show the same.

    Exact copies must be left out before. The distance is 1 minus the correlation at the best of some crops
    and shifts.
    """
    if len(among) < FEWEST or min(image.shape[2:]) < 6:
        return _none()
    waves = low_frequencies(image, among)
    indices, distances = neighbours(waves)
    k = indices.shape[1]
    limit = farthest_twin(distances)
    radius = np.where(np.isfinite(distances[:, -1]), distances[:, -1], 0)
    wide = np.minimum(2.5 * limit, 0.85) * radius  # a crop moves the low frequencies
    rows, places = np.nonzero(distances[:, : k // 2] < wide[:, None])
    pairs = np.unique(np.sort(np.stack([rows, indices[rows, places]], axis=1), axis=1), axis=0)
    radius, limit = radius[pairs].min(axis=1), limit[pairs].min(axis=1)
    plain = np.sqrt(np.square(waves[pairs[:, 0]] - waves[pairs[:, 1]]).sum(axis=1)) < limit * radius
    apart = 1 - aligned(image, among[pairs[:, 0]], among[pairs[:, 1]])
    # 1 - correlation is half a squared distance, and strangers hardly come farther apart when aligned
    open_ = np.flatnonzero(~plain & (apart < np.square(limit * radius) / 2 * 1.5))
    strangers = np.full(len(open_), np.inf)
    for side, place in itertools.product((0, 1), (k // 2, k // 2 + 2, k - 1)):
        own = pairs[open_, side]
        strangers = np.minimum(strangers, 1 - aligned(image, among[own], among[indices[own, place]]))
    found = plain
    found[open_] = apart[open_] < np.square(limit[open_]) * strangers
    return among[pairs[found]], np.maximum(apart[found], 0).astype(np.float64)


def _none() -> Pairs:
    return np.zeros((0, 2), np.int64), np.zeros(0)


def low_frequencies(image: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How light is spread, coarsely, in ``rows`` (k,) of ``image`` (n, c, h, w) uint8.

    (k, d) float32, each of length 1; 0 for an even picture.
    """
    high, wide = (_waves(length) for length in image.shape[2:])
    found = []
    for start in range(0, len(rows), PICTURES_AT_ONCE):
        block = np.asarray(image[rows[start : start + PICTURES_AT_ONCE]], np.float32)
        waves = high @ block @ wide.T
        waves[:, :, 0, 0] = 0  # overall light does not count
        found.append(waves.reshape(len(block), -1))
    return _unit(np.concatenate(found))


def _waves(length: int) -> np.ndarray:
    """(low, length): the cosines of the slowest waves along an axis."""
    return np.ascontiguousarray(dct(np.eye(length), axis=0, norm="ortho")[:LOW], np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.square(values).sum(axis=-1, keepdims=True))
    return values / np.where(length > 1e-6, length, np.inf)


@functools.cache
def resampling(length: int, low: float, high: float, size: int) -> np.ndarray:
    """(size, length): means over ``size`` equal parts of the stretch from ``low`` to ``high`` (shares)."""
    edges = np.linspace(low * length, high * length, size + 1)
    pixels = np.arange(length)
    left = np.maximum(edges[:-1, None], pixels)
    right = np.minimum(edges[1:, None], pixels + 1)
    weights = np.maximum(right - left, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _thumbnails(image: np.ndarray) -> np.ndarray:
    """(n, c, h, w) uint8 -> (n, c, s, s) float32, s at most 32."""
    side = min(SIDE, *image.shape[2:])
    high, wide = (resampling(length, 0, 1, side) for length in image.shape[2:])
    return high @ np.asarray(image, np.float32) @ wide.T


View = tuple[float, float, float, float]  # top, bottom, left, right, as shares
WHOLE: View = (0.0, 1.0, 0.0, 1.0)


def _overlaps() -> list[tuple[View, View]]:
    """What of one picture may show what of another: a crop of either, or both moved apart."""
    places = [
        (up * (1 - side), up * (1 - side) + side, left * (1 - side), left * (1 - side) + side)
        for side in CROPS
        for up, left in itertools.product((0.0, 0.5, 1.0), repeat=2)
    ]
    pairs = [(WHOLE, WHOLE), *((WHOLE, place) for place in places), *((place, WHOLE) for place in places)]
    for step, up, left in itertools.product(SHIFTS, (-1, 0, 1), (-1, 0, 1)):
        if up or left:
            one, other = ([max(0, sign * step) for sign in (up, -up, left, -left)] for _ in range(2))
            first = (one[0], 1 - one[1], one[2], 1 - one[3])
            second = (other[1], 1 - other[0], other[3], 1 - other[2])
            pairs.append((first, second))
    return pairs


OVERLAPS = _overlaps()


def aligned(image: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How alike the pictures ``a`` and ``b`` (m,) of ``image`` are at best, over small crops and shifts.

    (m,) normalised cross-correlations, -1 to 1; the mean of each channel does not count.
    """
    best = np.full(len(a), -1.0, np.float32)
    for start in range(0, len(a), PICTURES_AT_ONCE):
        block = slice(start, start + PICTURES_AT_ONCE)
        one, other = (_Views(_thumbnails(image[rows[block]])) for rows in (a, b))
        for left, right in OVERLAPS:
            alike = (one.of(left) * other.of(right)).sum(axis=1)
            np.maximum(best[block], alike, out=best[block])
    return best


class _Views:
    """Parts of pictures (m, c, s, s), each at the same size, as rows of length 1."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._pictures = pictures
        self._size = max(6, pictures.shape[2] // 2)
        self._cut: dict[tuple[float, float], np.ndarray] = {}
        self._made: dict[View, np.ndarray] = {}

    def of(self, view: View) -> np.ndarray:
        if view not in self._made:
            many, channels, length, _ = self._pictures.shape
            sides = view[2:]
            if sides not in self._cut:  # (m, c, size, s): cut at the sides, turned over
                thin = self._pictures @ resampling(length, *sides, self._size).T
                self._cut[sides] = np.ascontiguousarray(thin.swapaxes(2, 3))
            seen = self._cut[sides].reshape(-1, length) @ resampling(length, *view[:2], self._size).T
            seen = seen.reshape(many, channels, -1)
            seen -= seen.mean(axis=2, keepdims=True)
            self._made[view] = _unit(seen.reshape(many, -1))
        return self._made[view]


# --- tables


def near_rows(numbers: np.ndarray, keys: np.ndarray) -> Pairs:
    """Pairs of rows whose ``numbers`` (n, p) differ by a trace of noise and whose ``keys`` (n,) are the same.

    Missing is NaN; exact copies must be left out before. The distance is Euclidean, in robust standard
    deviations. Where a column has steps (whole or rounded numbers), a difference of half a step is no noise.
    """
    scales = [_scale_and_step(column) for column in numbers.T]
    used = [at for at, (scale, _) in enumerate(scales) if scale > 0]
    if len(numbers) < FEWEST or not used:
        return _none()
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
