"""Stage 1i. Pictures -> pairs that show the same but for noise, light, another coding, a crop or a shift.

Copies as they are lie far closer to each other in their low frequencies than to others. For the rest, parts
of every picture look for whole pictures that they resemble, coarsely; those that are found are laid on each
other (scale and shift of both axes), and their fine detail is compared. How alike is alike is judged by the
data: strangers come near each other as the nearest of many points do, and a copy is far nearer.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ayatori.data.alike import FEWEST, NEIGHBOURS, Cells, Pairs, deal, farthest_twin, most_alike, visit

LOW = 8  # so many low frequencies of each axis describe a picture
SIDE = 32  # pictures are compared at this size at most
CROPS = ((0.035, 3), (0.07, 5), (0.105, 5))  # shares left out at each end; places along an axis
MANY, PLACES = 20_000, 3  # rows beyond which no more places are looked at
SHIFTS = (0.035, 0.07)
PICTURES_AT_ONCE, PAIRS_AT_ONCE = 1024, 64
KEPT_BYTES = 2**30  # of small pictures in memory at most; else each is made small whenever it is looked at
TRIED = 0.75  # of the distance to the 10th neighbour: a part that resembles no more is not laid on
LISTED, BEYOND = 8, 5  # candidates of a row; the place of the one that a copy must be far nearer than
SAMPLE, BUDGET = 500, 12_000  # rows that say how near strangers come; pairs that are laid on each other
STEPS, STRIDE, REACH = 3, 0.04, 0.12  # of laying on: how often, how far at once, how far outside
FARTHEST = 0.45  # in detail, of a copy: where few patterns come again and again, all strangers may be far
STRANGERS = 1.0  # pairs of them that may pass among all rows
DAMPED = 1e-3
FINE = (0.7, 2.0)  # pixels: finer is noise and recoding, coarser is what many have in common
SURE = 0.9  # quantile of what rows show by which strangers are judged, as the others may have copies

Box = tuple[float, float, float, float]  # top, bottom, left, right of what is seen, as shares of a picture
WHOLE: Box = (0.0, 1.0, 0.0, 1.0)


def _views(many: bool) -> tuple[Box, ...]:
    """Parts of a picture: crops, shifts (the other picture looks for those back), and its mirror image."""
    found: list[Box] = []
    for edge, places in CROPS:
        ends = [
            (edge + move, 1 - edge + move)
            for move in np.linspace(-edge, edge, min(places, PLACES) if many else places).tolist()
        ]
        found += [(*down, *right) for down, right in itertools.product(ends, repeat=2)]
    for far, (down, right) in itertools.product(SHIFTS, ((0, 1), (1, 0), (1, 1), (1, -1))):
        found.append((far * down, 1 + far * down, far * right, 1 + far * right))
    return (*found, (0.0, 1.0, 1.0, 0.0))


@dataclass(frozen=True)
class _Candidates:
    """What each of k rows may be a copy of.

    ``partners`` (k, c) int32 rows, -1 for none; ``apart`` (k, c): how far, coarsely; ``boxes`` (c, 4): the
    part of the row that its partner may show.
    """

    partners: np.ndarray
    apart: np.ndarray
    boxes: np.ndarray


def near_pictures(image: np.ndarray, among: np.ndarray) -> Pairs:
    """Pairs of the rows ``among`` (k,) of ``image`` (n, c, h, w) uint8 that show the same.

    Exact copies must be left out before. The distance is 1 minus the correlation where one is laid on the
    other.
    """
    if len(among) < FEWEST or min(image.shape[2:]) < 6:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    cells = deal(low_frequencies(image, among))
    if 4 * SIDE**2 * image.shape[1] * len(image) <= KEPT_BYTES:
        # what follows looks at every picture many times
        image = np.concatenate([thumbnails(block) for block in _blocks(image, np.arange(len(image)), 128)])
    indices, distances = visit(cells, cells.points, np.arange(len(among)))
    limit = farthest_twin(distances)
    limit *= np.where(np.isfinite(distances[:, -1]), distances[:, -1], 0)
    rows, places = np.nonzero(distances[:, : NEIGHBOURS // 2] < limit[:, None])
    plain = np.unique(np.sort(np.stack([rows, indices[rows, places]], axis=1), axis=1), axis=0)
    apart = np.linalg.norm(cells.points[plain[:, 0]] - cells.points[plain[:, 1]], axis=1)
    plain = plain[apart < limit[plain].min(axis=1)]
    moved, boxes = _moved(image, among, _candidates(image, among, cells, indices, distances))
    both = np.concatenate([moved, plain])
    boxes = np.concatenate([boxes, np.tile(np.array(WHOLE, np.float32), (len(plain), 1))])
    pairs, first = np.unique(np.sort(both, axis=1), axis=0, return_index=True)
    alike = _laid_on(image, among[both[first]], boxes[first])[0]
    return among[pairs], np.maximum(1 - alike, 0).astype(np.float64)


def _candidates(
    image: np.ndarray, among: np.ndarray, cells: Cells, indices: np.ndarray, distances: np.ndarray
) -> _Candidates:
    """For each part of each picture the other whole one that it resembles most; then the neighbours as they
    are, ``indices`` and ``distances`` (k, neighbours)."""
    views = _views(len(among) > MANY)
    partners = np.full((len(among), len(views)), -1, np.int32)
    apart = np.full(partners.shape, np.inf, np.float32)
    at = 0
    for block in _blocks(image, among, PICTURES_AT_ONCE):
        small = thumbnails(block)
        rows = np.arange(at, at + len(block))
        asked = np.concatenate([_described(small, view) for view in views])
        found, far = most_alike(cells, asked, np.tile(rows, len(views)))
        partners[rows] = found.reshape(len(views), -1).T
        apart[rows] = far.reshape(len(views), -1).T
        at += len(block)
    return _Candidates(
        np.concatenate([partners, indices.astype(np.int32)], axis=1),
        np.concatenate([apart, distances], axis=1),
        np.array([*views, *[WHOLE] * indices.shape[1]], np.float32),
    )


def _moved(image: np.ndarray, among: np.ndarray, found: _Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (m, 2) of places in ``among``, a part of the first being the second, and which part (m, 4)."""
    n = len(among)
    typical = _details(image, among, found, np.unique(np.linspace(0, n - 1, SAMPLE).astype(int)))
    share = _share_of_copies(typical, n)
    rows, columns = _worth_trying(found, BUDGET // image.shape[1])
    pairs = np.stack([rows, found.partners[rows, columns]], axis=1)
    near = _laid_on(image, among[pairs], found.boxes[columns])[1]
    some = near < share * np.quantile(typical[:, BEYOND - 1], 0.95)  # the others cannot pass below
    pairs, columns, near = pairs[some], columns[some], near[some]
    rows, places = np.unique(pairs, return_inverse=True)
    strangers = _details(image, among, found, rows)[:, BEYOND - 1]
    some = near < np.minimum(share * strangers[places.reshape(pairs.shape)].min(axis=1), FARTHEST)
    return pairs[some], found.boxes[columns[some]]


def _details(image: np.ndarray, among: np.ndarray, found: _Candidates, rows: np.ndarray) -> np.ndarray:
    """(rows, listed): how far each row is in detail from its first candidates, sorted; inf where none is."""
    columns = _first_partners(found.partners[rows], found.apart[rows], LISTED)
    own, place = np.nonzero(columns >= 0)
    column = columns[own, place]
    pairs = np.stack([rows[own], found.partners[rows[own], column]], axis=1)
    details = np.full(columns.shape, np.inf, np.float32)
    details[own, place] = _laid_on(image, among[pairs], found.boxes[column])[1]
    return np.sort(details, axis=1)


def _first_partners(partners: np.ndarray, apart: np.ndarray, count: int) -> np.ndarray:
    """(rows, count): the columns of the nearest ``partners`` (rows, c), each partner once; -1 where none."""
    apart, rows = apart.copy(), np.arange(len(apart))
    columns = np.full((len(apart), count), -1, np.int64)
    for place in range(count):
        nearest = apart.argmin(axis=1)
        there = np.isfinite(apart[rows, nearest])
        columns[there, place] = nearest[there]
        apart[partners == partners[rows, nearest][:, None]] = np.inf
    return columns


def _worth_trying(found: _Candidates, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (m,) of the candidates that resemble most, two a row at most."""
    firsts = _first_partners(found.partners, found.apart, 2)
    rows, place = np.nonzero(firsts >= 0)
    columns = firsts[rows, place]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = found.apart[rows, columns] / found.apart[rows, -1]
    order = np.argsort(ratio, kind="stable")[:most]
    order = order[ratio[order] < TRIED]
    return rows[order], columns[order]


def _share_of_copies(typical: np.ndarray, n: int) -> float:
    """The share of its distance to the 5th nearest stranger at which a row's nearest is no stranger.

    Distances ``typical`` (rows, listed), sorted. In m dimensions the nearest of k points within a ball is
    nearer than the share r of its radius with probability 1 - (1 - r^m)^k. The m is read off those
    rows that have no near candidate, as the others may have copies.
    """
    beyond = typical[:, BEYOND - 1]
    known = np.isfinite(beyond) & (beyond > 0)
    if not known.any():
        return 0.0
    ratio = float(np.quantile(typical[known, 0] / beyond[known], SURE))
    k = BEYOND - 1
    m = np.log(1 - (1 - SURE) ** (1 / k)) / np.log(np.clip(ratio, 0.05, 0.99))
    return float((1 - (1 - min(STRANGERS / n, 0.5)) ** (1 / k)) ** (1 / m))


# --- pictures, coarsely


def low_frequencies(image: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How light is spread, coarsely, in ``rows`` (k,) of ``image`` (n, c, h, w) uint8.

    (k, d) float32, each of length 1; 0 for an even picture.
    """
    return np.concatenate([_described(block) for block in _blocks(image, rows, PICTURES_AT_ONCE // 8)])


def _blocks(image: np.ndarray, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield np.asarray(image[rows[start : start + size]], np.float32)


def _described(pictures: np.ndarray, view: Box = WHOLE) -> np.ndarray:
    high, wide = pictures.shape[2:]
    waves = _waves(high, *view[:2]) @ pictures @ _waves(wide, *view[2:]).T
    waves[:, :, 0, 0] = 0  # overall light does not count
    return _unit(waves.reshape(len(pictures), -1))


@functools.cache
def _waves(length: int, low: float, high: float) -> np.ndarray:
    """(LOW, length): the cosines of the slowest waves along a stretch of an axis (DCT-II, orthonormal)."""
    waves = np.cos(np.pi * np.arange(LOW)[:, None] * (np.arange(length) + 0.5) / length)
    waves[0] /= np.sqrt(2)
    ends = np.array([[low], [high]], np.float32)
    return (np.sqrt(2 / length) * waves @ _taps(ends[0], ends[1], length, length)[0][0]).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.square(values).sum(axis=-1, keepdims=True))
    return values / np.where(length > 1e-6, length, np.inf)


def thumbnails(pictures: np.ndarray) -> np.ndarray:
    """(n, c, h, w) float32 -> (n, c, s, s), s at most 32: means over equal parts."""
    side = min(SIDE, *pictures.shape[2:])
    if pictures.shape[2:] == (side, side):
        return pictures
    high, wide = (_means(length, side) for length in pictures.shape[2:])
    return _along_both(high, pictures, wide)


def _along_both(down: np.ndarray, pictures: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``down`` @ each picture @ ``right``.T, as two large products rather than many small ones."""
    thin = (pictures.reshape(-1, pictures.shape[-1]) @ right.T).reshape(*pictures.shape[:-1], -1)
    upright = np.ascontiguousarray(thin.swapaxes(-1, -2))
    return (upright.reshape(-1, upright.shape[-1]) @ down.T).reshape(*upright.shape[:-1], -1).swapaxes(-1, -2)


@functools.cache
def _means(length: int, size: int) -> np.ndarray:
    """(size, length): means over ``size`` equal parts of an axis."""
    edges = np.linspace(0, length, size + 1)
    pixels = np.arange(length)
    left = np.maximum(edges[:-1, None], pixels)
    right = np.minimum(edges[1:, None], pixels + 1)
    weights = np.maximum(right - left, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


# --- pictures, laid on each other


def _laid_on(image: np.ndarray, pairs: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ``pairs`` (m, 2) of rows, how alike a part of the first and the second are where they fit best.

    The search begins at ``boxes`` (m, 4). The correlation (m,), and the distance (m,) of their fine detail:
    the root of 1 less its correlation.
    """
    alike, apart = np.zeros(len(pairs), np.float32), np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        a, b = (thumbnails(np.asarray(image[rows], np.float32)) for rows in pairs[part].T)
        alike[part], seen = lay_on(a, b, boxes[part])
        detail = (_fine(seen) * _fine(b)).sum(axis=(1, 2, 3))
        apart[part] = np.sqrt(np.maximum(1 - detail, 1e-6))
    return alike, apart


def _fine(pictures: np.ndarray) -> np.ndarray:
    """What is about as fine as two pixels, neither noise nor the large shapes; length 1."""
    fine, coarse = (_blur(pictures.shape[-1], width) for width in FINE)
    fine = _along_both(fine, pictures, fine) - _along_both(coarse, pictures, coarse)
    return fine / np.maximum(np.sqrt(np.square(fine).sum(axis=(1, 2, 3), keepdims=True)), 1e-3)


@functools.cache
def _blur(length: int, width: float) -> np.ndarray:
    places = np.arange(length)
    bells = np.exp(-0.5 * np.square((places[:, None] - places) / width))
    bells[bells < 1e-9] = 0  # products with numbers that are all but 0 take a hundred times as long
    return (bells / bells.sum(axis=1, keepdims=True)).astype(np.float32)


def _taps(low: np.ndarray, high: np.ndarray, length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(m, size, length) weights of linear interpolation along a stretch from ``low`` to ``high`` (m,) of an
    axis, both shares of it, and their slopes as a point moves; beyond the ends the last pixel goes on."""
    shares = (np.arange(size, dtype=np.float32) + 0.5) / size
    points = (low[:, None] * (1 - shares) + high[:, None] * shares) * length - 0.5
    away = np.clip(points, 0, length - 1)[:, :, None] - np.arange(length, dtype=np.float32)
    weights = np.maximum(1 - np.abs(away), 0)
    return weights, np.where(weights > 0, -length * np.sign(away), 0).astype(np.float32)


def lay_on(a: np.ndarray, b: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which part of each of ``a`` (m, c, s, s) shows what ``b`` (m, c, s, s) shows: the correlation (m,) at
    best, and the part (m, c, s, s), each channel with mean 0.

    Gauss-Newton steps from ``boxes`` (m, 4) towards the highest correlation (Evangelidis & Psarakis, 2008).
    """
    size = b.shape[-1]
    b = b - b.mean(axis=(2, 3), keepdims=True)
    b /= np.maximum(np.sqrt(np.square(b).sum(axis=(1, 2, 3), keepdims=True)), 1e-6)
    best, seen = np.full(len(a), -2.0, np.float32), np.zeros_like(b)
    shares = (np.arange(size, dtype=np.float32) + 0.5) / size
    ends = np.stack([1 - shares, shares])  # how far a pixel moves with each end of its axis
    for step in range(STEPS + 1):
        (down, down_slope), (right, right_slope) = (
            _taps(boxes[:, axis], boxes[:, axis + 1], size, size) for axis in (0, 2)
        )
        thin = a @ right[:, None].swapaxes(2, 3)
        part = down[:, None] @ thin
        part -= part.mean(axis=(2, 3), keepdims=True)
        length = np.maximum(np.sqrt(np.einsum("mcij,mcij->m", part, part)), 1e-6)
        alike = np.einsum("mcij,mcij->m", part, b) / length
        better = alike > best
        best[better], seen[better] = alike[better], part[better]
        if step < STEPS:
            slopes = down_slope[:, None] @ thin, down[:, None] @ (a @ right_slope[:, None].swapaxes(2, 3))
            move = _towards(b, part / length[:, None, None, None], slopes, ends, alike, length)
            boxes = np.clip(boxes + np.clip(move, -STRIDE, STRIDE), -REACH, 1 + REACH)
    return best, seen


def _towards(
    b: np.ndarray,
    part: np.ndarray,
    slopes: tuple[np.ndarray, np.ndarray],
    ends: np.ndarray,
    alike: np.ndarray,
    length: np.ndarray,
) -> np.ndarray:
    """(m, 4): how the boxes must move, by least squares of what the ``slopes`` down and right explain."""
    down, right = slopes

    def along(picture: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                np.einsum("mcij,mcij->mi", down, picture) @ ends.T,
                np.einsum("mcij,mcij->mj", right, picture) @ ends.T,
            ],
            axis=1,
        )

    normal = np.empty((len(b), 4, 4), np.float32)
    normal[:, :2, :2] = (ends * np.einsum("mcij,mcij->mi", down, down)[:, None]) @ ends.T
    normal[:, 2:, 2:] = (ends * np.einsum("mcij,mcij->mj", right, right)[:, None]) @ ends.T
    normal[:, :2, 2:] = ends @ np.einsum("mcij,mcij->mij", down, right) @ ends.T
    normal[:, 2:, :2] = normal[:, :2, 2:].swapaxes(1, 2)
    means = np.concatenate([down.mean(axis=3) @ ends.T, right.mean(axis=2) @ ends.T], axis=2)
    normal -= means.swapaxes(1, 2) @ means  # the mean of a channel does not count
    of_part, of_b = along(part), along(b)
    normal -= of_part[:, :, None] * of_part[:, None]  # nor does contrast
    wanted = (of_b - alike[:, None] * of_part) * (length / np.maximum(alike, 0.1))[:, None]
    damped = DAMPED * np.trace(normal, axis1=1, axis2=2) + 1e-6
    return np.linalg.solve(normal + damped[:, None, None] * np.eye(4, dtype=np.float32), wanted[:, :, None])[
        ..., 0
    ]
