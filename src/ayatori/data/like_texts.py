"""Stage 1i. Texts as sets of terms -> pairs that are copies but for a few words.

Sets that are alike share their smallest member under many orders at random (Broder, "On the resemblance and
containment of documents", 1997): so only rows that share some are compared.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from ayatori.data.alike import Pairs

ALIKE = 0.7  # of all terms of two texts, that both have
FEWEST = 16  # terms; fewer are alike by chance
BANDS, IN_BAND = 10, 3  # of two texts that are just alike, 98 of 100 share a band
ROWS_AT_ONCE = 4096


def near_texts(words: np.ndarray) -> Pairs:
    """Pairs of rows (m, 2) of ``words`` (n, width), -1 = none, and how far apart they are (m,): 0 to 0.3.

    Of c rows that are alike c - 1 pairs are given, the nearest. Distance is 1 minus the share of terms that
    both have (Jaccard).

    >>> words = np.stack([np.arange(30), np.arange(100, 130), np.arange(2, 32)])
    >>> [one.tolist() for one in near_texts(words)]
    [[[0, 2]], [0.125]]
    """
    long = np.flatnonzero((words >= 0).sum(axis=1) >= FEWEST)
    words = words[long]
    candidates = [_sharing(band) for band in _bands(words)]
    pairs = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *candidates]), axis=0)
    apart = np.concatenate(
        [
            np.zeros(0),
            *(_apart(words, pairs[at : at + ROWS_AT_ONCE]) for at in range(0, len(pairs), ROWS_AT_ONCE)),
        ]
    )
    pairs, apart = pairs[apart <= 1 - ALIKE], apart[apart <= 1 - ALIKE]
    # as few pairs as hold together what is alike; 0 would be no edge
    edges = coo_array((apart + 1.0, (pairs[:, 0], pairs[:, 1])), shape=(len(words), len(words)))
    tree = minimum_spanning_tree(edges.tocsr()).tocoo()
    found = np.sort(np.stack([tree.row, tree.col], axis=1).astype(np.int64), axis=1)
    return long[found], tree.data - 1.0


def _bands(words: np.ndarray) -> list[np.ndarray]:
    """(BANDS) arrays (n,) uint64: equal where texts share the smallest members of a band."""
    chance = np.random.default_rng(41)
    bands = []
    for _ in range(BANDS):
        key = np.zeros(len(words), np.uint64)
        for _ in range(IN_BAND):
            order = chance.integers(2**32, size=words.max(initial=0) + 2, dtype=np.uint32)
            order[0] = 2**32 - 1  # none
            smallest = [
                order[words[at : at + ROWS_AT_ONCE] + 1].min(axis=1, initial=2**32 - 1)
                for at in range(0, len(words), ROWS_AT_ONCE)
            ]
            key = key * np.uint64(0x9E3779B97F4A7C15) + np.concatenate([np.zeros(0, np.uint32), *smallest])
        bands.append(key)
    return bands


def _sharing(keys: np.ndarray) -> np.ndarray:
    """(m, 2): each row whose key an earlier row has, with the first such row and with the last."""
    order = np.argsort(keys, kind="stable")
    same = np.concatenate([[False], keys[order][1:] == keys[order][:-1]]) if len(keys) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(keys))))
    at = np.flatnonzero(same)
    return np.concatenate(
        [np.stack([order[first[at]], order[at]], axis=1), np.stack([order[at - 1], order[at]], axis=1)]
    )


def _apart(words: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(m,) Jaccard distances of pairs of rows."""
    both = np.sort(np.concatenate([words[pairs[:, 0]], words[pairs[:, 1]]], axis=1), axis=1)
    shared = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(axis=1)
    total = (both >= 0).sum(axis=1) - shared
    return 1 - shared / np.maximum(total, 1)
