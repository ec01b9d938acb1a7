"""Stage 1k. Series that begin within others: windows that were cut from one recording, a step or more apart.

Such windows are nearly copies; dealt to both sides of a split they make every score too good.
"""

from __future__ import annotations

import numpy as np

HEAD = 8  # steps by which a beginning is looked for in the others
LEAST = 0.125  # share of a series that must be another's beginning
VALUES = 100_000_000  # of all series; beyond, no overlaps are looked for
_AT_ONCE = 1 << 22  # values


def overlaps(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, 2) pairs of rows of (n, channels, steps) where the end of one is the beginning of the other, to the
    last bit; and (m,) what share of their steps they do not have in common.

    Stretches of a few values, such as silence, count as no evidence.

    >>> recording = np.random.default_rng(0).normal(size=100).astype(np.float32)
    >>> windows = np.stack([recording[start : start + 40] for start in (0, 20, 60)])[:, None]
    >>> overlaps(windows)
    (array([[0, 1]]), array([0.5]))
    """
    n, _, steps = series.shape
    none: tuple[np.ndarray, np.ndarray] = np.zeros((0, 2), np.int64), np.zeros(0)
    if steps < 2 * HEAD or series.size > VALUES or n < 2:
        return none
    words = _words(series)
    offsets = np.arange(1, steps - max(2 * HEAD, round(LEAST * steps)) + 1)
    if not len(offsets):
        return none
    heads = _rolled(words[:, :HEAD])[:, 0]
    sure = np.array([len(np.unique(own)) for own in words[:, :HEAD]]) > HEAD // 2
    known, first = np.unique(heads[sure], return_index=True)
    starts = np.flatnonzero(sure)[first]
    if not len(known):
        return none
    pairs: list[tuple[int, int]] = []
    apart: list[float] = []
    for begin in range(0, n, max(1, _AT_ONCE // steps)):
        block = words[begin : begin + max(1, _AT_ONCE // steps)]
        rolled = _rolled(block)[:, offsets]
        places = np.searchsorted(known, rolled).clip(max=len(known) - 1)
        for row, at in zip(*np.nonzero(known[places] == rolled), strict=True):
            one, other, offset = begin + int(row), int(starts[places[row, at]]), int(offsets[at])
            if one != other and _same(words, one, other, offset):
                pairs.append((min(one, other), max(one, other)))
                apart.append(offset / steps)
    if not pairs:
        return none
    found, first = np.unique(np.array(pairs, np.int64), axis=0, return_index=True)
    return found, np.array(apart)[first]


def _words(series: np.ndarray) -> np.ndarray:
    """(n, steps) uint64: one for the values of all channels at a step, equal for equal ones."""
    chance = np.random.default_rng(0)
    words = np.zeros((series.shape[0], series.shape[2]), np.uint64)
    for channel in range(series.shape[1]):
        values = np.where(
            np.isnan(series[:, channel]), np.float32(np.nan), series[:, channel] + np.float32(0)
        )
        words += values.astype(np.float32).view(np.uint32) * _odd(chance)
    return words


def _rolled(words: np.ndarray) -> np.ndarray:
    """(n, steps - HEAD + 1) uint64: one for each HEAD steps in a row."""
    chance = np.random.default_rng(1)
    last = words.shape[1] - HEAD + 1
    rolled = np.zeros((len(words), last), np.uint64)
    for at in range(HEAD):
        rolled += words[:, at : at + last] * _odd(chance)
    return rolled


def _odd(chance: np.random.Generator) -> np.uint64:
    return np.uint64(chance.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1))


def _same(words: np.ndarray, one: int, other: int, offset: int) -> bool:
    """Whether ``one`` from ``offset`` on is how ``other`` begins, and says more than a few values."""
    end = words[one, offset:]
    return bool((end == words[other, : len(end)]).all()) and len(np.unique(end)) >= max(HEAD, len(end) // 4)
