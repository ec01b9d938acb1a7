"""Stage 3c. Maps -> how far each can be believed: what it shows as neighbours against the full space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ayatori.explore.neighbours import Progress, agreement
from ayatori.records import Graph

NEAREST = 15  # neighbours that are compared
ASKED, LEAST, PAIRS = 2_000, 500, 30_000_000  # rows that are asked at most and at least; pairs of rows
FULL, BLOCK = 1 << 24, 1 << 20  # distances at once: in the full space, on a map
CHUNK = 8192  # others at once


@dataclass(frozen=True)
class Trust:
    """All from 0 to 1; the fields of `records.Map`."""

    trustworthiness: float
    continuity: float
    agreement: float
    agreement_full: float


def how_far(
    values: np.ndarray,
    drawings: list[np.ndarray],
    labels: np.ndarray,
    known: np.ndarray,
    seed: int,
    progress: Progress | None = None,
) -> list[Trust]:
    """Trustworthiness and continuity (Venna & Kaski 2001) of maps, and how alike the labels of neighbours are
    in them and in the full space; of some rows among all where there are many.

    **Shape** ``values`` (n, d), ``drawings`` (n, 2 or 3) each. Of equally near rows all get the best rank.

    >>> line = np.arange(40, dtype=np.float32)[:, None]
    >>> same, torn = how_far(line, [line, line % 20], np.zeros(40, int), np.ones(40, bool), seed=0)
    >>> same.trustworthiness, same.continuity, torn.trustworthiness < 0.9
    (1.0, 1.0, True)
    """
    n = len(values)
    k = min(NEAREST, (n - 1) // 2)
    count = min(n, ASKED, max(LEAST, PAIRS // n))
    generator = np.random.default_rng(seed)
    asked = np.arange(n) if count == n else np.sort(generator.choice(n, count, replace=False))
    penalties = np.zeros((len(drawings), 2))
    near = np.empty((len(drawings) + 1, count, k), np.int64)  # the last: in the full space
    planes = [torch.from_numpy(drawing.T.copy()) for drawing in drawings]
    centre = values[:: max(n // 10_000, 1)].mean(axis=0)
    for start in range(0, count, max(FULL // n, 1)):
        rows = asked[start : start + max(FULL // n, 1)]
        full = _far_apart(values, centre, rows)
        for first in range(0, len(rows), max(BLOCK // n, 1)):
            part = slice(first, first + max(BLOCK // n, 1))
            true, place = _nearest(full[part], k), start + first
            near[-1, place : place + len(true)] = true
            for number, plane in enumerate(planes):
                drawn = _drawn_apart(plane, rows[part])
                shown = _nearest(drawn, k)
                near[number, place : place + len(true)] = shown
                penalties[number] += _too_far(full[part], shown, k), _too_far(drawn, true, k)
        if progress is not None:
            progress((start + len(rows)) / count)
    scale = 2 / (count * k * (2 * n - 3 * k - 1))
    alike = [_alike(asked, each, labels, known) for each in near]
    return [
        Trust(1 - scale * float(trust), 1 - scale * float(whole), alike[number], alike[-1])
        for number, (trust, whole) in enumerate(penalties)
    ]


def _far_apart(values: np.ndarray, centre: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distances of some rows to all, (q, n), to itself infinite; rounded, but fast if wide."""
    own = torch.from_numpy(values[rows] - centre)
    squares = torch.empty(len(rows), len(values))
    for start in range(0, len(values), CHUNK):
        others = torch.from_numpy(values[start : start + CHUNK] - centre)
        squares[:, start : start + CHUNK] = torch.addmm(others.square().sum(1), own, others.T, alpha=-2)
    squares += own.square().sum(1, keepdim=True)
    squares[torch.arange(len(rows)), torch.from_numpy(rows)] = torch.inf
    return squares.numpy()


def _drawn_apart(plane: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """The same for (dimensions, n) points of a map; not rounded, or close rows would be in disorder."""
    own = torch.from_numpy(rows)
    squares = torch.zeros(len(rows), plane.shape[1])
    for line in plane:
        squares += (line[own, None] - line).square_()
    squares[torch.arange(len(rows)), own] = torch.inf
    return squares.numpy()


def _nearest(squares: np.ndarray, k: int) -> np.ndarray:
    return torch.from_numpy(squares).topk(k, largest=False).indices.numpy()


def _too_far(squares: np.ndarray, others: np.ndarray, k: int) -> int:
    """By how many ranks these k others of each row are farther than its k nearest, summed."""
    limits = np.take_along_axis(squares, others, 1)
    total = 0
    for line, bounds in zip(squares, limits, strict=True):
        for bound in bounds:
            total += max(int(np.count_nonzero(line < bound)) + 1 - k, 0)
    return total


def _alike(asked: np.ndarray, found: np.ndarray, labels: np.ndarray, known: np.ndarray) -> float:
    return agreement(Graph(asked, found, np.zeros(found.shape, np.float32)), labels, known)
