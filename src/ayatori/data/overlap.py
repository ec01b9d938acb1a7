"""Stage 1k. Series that begin within others: windows that were cut from one recording, some steps apart.

Such windows are nearly copies; dealt to both sides of a split they make every score too good. They are
known again also where each window was scaled by itself.
"""

from __future__ import annotations

import numpy as np

LEAST = 0.125  # share of a series that must be another's beginning
POINTS = 16  # steps, evenly over this share, by which a beginning is looked for in the others
CELL = 0.05  # to which they are rounded, in their own standard deviations
SAME = 1e-5  # that the correlation of what two series have in common may be below 1
BENT = 0.01  # share of its variance that must be off a straight line: of lines, all parts are alike
VALUES = 50_000_000  # of one channel of all series; beyond, no overlaps are looked for
CANDIDATES = 200_000  # pairs that are compared
_AT_ONCE = 1 << 22  # values


def overlaps(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, 2) pairs of rows of (n, channels, steps) where the end of one is the beginning of the other.

    Each channel may have another scale and another zero. (m,): which share of their steps two do not have in
    common.

    Stretches of a few values, such as silence, and straight lines count as no evidence.

    >>> recording = np.random.default_rng(0).normal(size=200).astype(np.float32)
    >>> windows = np.stack([recording[start : start + 80] for start in (0, 40, 120)])[:, None]
    >>> overlaps(windows * np.array([1, 2, 3])[:, None, None])
    (array([[0, 1]]), array([0.5]))
    """
    n, _, steps = series.shape
    none: tuple[np.ndarray, np.ndarray] = np.zeros((0, 2), np.int64), np.zeros(0)
    head = max(POINTS, round(LEAST * steps))
    if steps <= head or n < 2 or n * steps > VALUES:
        return none
    ends, offsets, begins = _candidates(series[:, _finest(series)], head)
    sure = [np.zeros(0, np.int64)]
    order = np.argsort(offsets, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(offsets[order])) + 1):
        for at in np.array_split(same, len(same) // 4096 + 1):
            if len(at):
                away = int(offsets[at[0]])
                alike = _same(series[ends[at], :, away:], series[begins[at], :, : steps - away])
                sure.append(at[alike])
    kept = np.concatenate(sure)
    pairs = np.sort(np.stack([ends[kept], begins[kept]], axis=1), axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    return pairs.astype(np.int64), offsets[kept][first] / steps


def _finest(series: np.ndarray) -> int:
    """The channel that takes most values: by it beginnings are looked for."""
    some = series[np.linspace(0, len(series) - 1, min(len(series), 64)).astype(int)]
    return int(np.argmax([len(np.unique(some[:, channel])) for channel in range(series.shape[1])]))


def _candidates(values: np.ndarray, head: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (m,) of (n, steps), from which step on they go on like the beginning of another, and which one."""
    n, steps = values.shape
    points = np.linspace(0, head - 1, POINTS).round().astype(int)
    known, telling = _signs(values[:, None, points])
    starts = np.flatnonzero(telling[:, 0])
    starts = starts[np.argsort(known[starts, 0], kind="stable")]
    sought = known[starts, 0]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    offsets = np.arange(1, steps - head + 1)
    rows = max(1, _AT_ONCE // (len(offsets) * POINTS))
    for begin in range(0, n, rows):
        signs, telling = _signs(values[begin : begin + rows, offsets[:, None] + points])
        low, high = np.searchsorted(sought, signs, "left"), np.searchsorted(sought, signs, "right")
        row, at = np.nonzero(telling & (high > low))
        times = (high - low)[row, at]
        place = (
            np.repeat(low[row, at], times) + np.arange(times.sum()) - np.repeat(times.cumsum() - times, times)
        )
        found.append((np.repeat(begin + row, times), np.repeat(offsets[at], times), starts[place]))
        if sum(len(one[0]) for one in found) > CANDIDATES:
            break
    ends, away, begins = (np.concatenate([one[part] for one in found]) for part in range(3))
    others = ends != begins
    return ends[others], away[others], begins[others]


def _signs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number (...) for each (..., POINTS) that is the same for the same course, and which say something."""
    off = values - values.mean(axis=-1, keepdims=True)
    spread = off.std(axis=-1, keepdims=True)
    line = np.linspace(-1, 1, POINTS)
    straight = np.square(off @ line) / (np.square(line).sum() * np.maximum(np.square(off).sum(-1), 1e-30))
    telling = (spread[..., 0] > 0) & (straight < 1 - BENT)
    cells = np.where(telling[..., None], np.rint(off / np.where(spread > 0, spread, 1) / CELL), 0)
    chance = np.random.default_rng(0).integers(2**62, size=POINTS) * 2 + 1
    return (cells.astype(np.int64) * chance).sum(axis=-1), telling


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(m,) bool: whether (m, channels, steps) have the same course in all channels that have any."""
    there = ~np.isnan(a)
    alike = (there == ~np.isnan(b)).all(axis=(1, 2))
    count = np.maximum(there.sum(axis=2), 1)
    a, b = (np.where(there, one, 0).astype(np.float64) for one in (a, b))
    a, b = (np.where(there, one - (one.sum(axis=2) / count)[:, :, None], 0) for one in (a, b))
    size = np.sqrt(np.square(a).sum(axis=2) * np.square(b).sum(axis=2))
    flat = (np.abs(a).max(axis=2) <= 1e-12) == (np.abs(b).max(axis=2) <= 1e-12)
    close = (a * b).sum(axis=2) >= (1 - SAME) * size
    alike &= (flat & close).all(axis=1)
    for row in np.flatnonzero(alike):
        alike[row] = len(np.unique(a[row].round(12))) >= max(POINTS, a.shape[2] // 4)
    return alike
