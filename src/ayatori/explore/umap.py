"""Stage 3c. A graph of neighbours -> UMAP in 2 or 3 dimensions (McInnes, Healy & Melville 2018).

The same memberships, curve and forces as umap-learn's. Where umap-learn moves two rows at a time, all rows
move at once here, by the mean of what umap-learn would draw: attraction along every edge, repulsion from a
few rows that are drawn anew in each step, the same ones for all.
"""

from __future__ import annotations

import numpy as np

from ayatori.explore.springs import make_springs, pull
from ayatori.records import Graph

# least squares of 1 / (1 + a d^2b) to exp(-max(0, d - 0.1)), umap-learn's min_dist 0.1 and spread 1
A, B = np.float32(1.5769434), np.float32(0.8950609)
NEGATIVES = 5  # rows that push for each edge that pulls, as in umap-learn
DRAWN = 64  # rows that push in one step
CLIP = np.float32(4)  # of one force in one coordinate, as in umap-learn
BLOCK = 512  # rows that are pushed at once, so that the forces stay in the cache
NOISE = 1e-4  # copies start at slightly different places
SPAN = 10.0  # of the start
MOMENTUM, RATE = np.float32(0.8), np.float32(0.1)


def umap(graph: Graph, start: np.ndarray, seed: int, steps: int = 300) -> np.ndarray:
    """Rows laid out from ``start`` (n, dimensions) by their neighbours; ``graph`` asks all n rows.

    >>> from ayatori.explore.neighbours import find_neighbours
    >>> points = np.repeat([[0.0], [9.0]], 30, axis=0) + np.random.default_rng(0).normal(size=(60, 4))
    >>> points = points.astype(np.float32)
    >>> drawn = umap(find_neighbours(points, 10), points[:, :2], seed=0)
    >>> bool((abs(drawn[:30].mean(0) - drawn[30:].mean(0)) > drawn[:30].std(0)).any())
    True
    """
    generator = np.random.default_rng(seed)
    points = np.array((start - start.mean(axis=0)).T, np.float32, order="C")
    points *= SPAN / max(float(np.abs(points).max()), 1e-30)
    points += generator.normal(scale=NOISE, size=points.shape).astype(np.float32)
    springs = make_springs(graph, joined(graph, memberships(graph.distances)))
    degree = springs.weights.sum(axis=1) + np.bincount(
        graph.indices.ravel(), springs.weights.ravel(), len(start)
    ).astype(np.float32)
    step = np.zeros_like(points)
    for number in range(steps):
        rate = np.float32(1 - number / steps)
        force = 2 * pull(springs, points, _attraction)
        force += NEGATIVES * degree * push(points, generator.integers(0, len(start), DRAWN))
        step = MOMENTUM * step + rate * RATE * force / degree
        points = points + step
    return np.ascontiguousarray(points.T)


def memberships(distances: np.ndarray) -> np.ndarray:
    """How much each neighbour belongs to a row: exp(-(d - nearest) / s), with s so that they sum to log2 k.

    >>> memberships(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)).astype(float).round(2).tolist()
    [[1.0, 0.54, 0.3, 0.16]]
    """
    d = distances.astype(np.float64)
    nearest = np.where(d > 0, d, np.inf).min(axis=1, keepdims=True)
    beyond = np.maximum(d - np.where(np.isfinite(nearest), nearest, 0), 0)
    scale = np.maximum(d.mean(axis=1), 1e-3 * max(float(d.mean()), 1e-300))
    low, high = (
        np.log(scale) - 7,
        np.log(scale) + 7,
    )  # the narrowest that umap-learn allows is 1e-3 of the mean
    for _ in range(40):
        middle = (low + high) / 2
        sums = np.exp(-beyond / np.exp(middle)[:, None]).sum(axis=1)
        wide = sums > np.log2(max(d.shape[1], 2))
        low, high = np.where(wide, low, middle), np.where(wide, middle, high)
    return np.exp(-beyond / np.exp(middle)[:, None]).astype(np.float32)


def joined(graph: Graph, weights: np.ndarray) -> np.ndarray:
    """The fuzzy union a + b - ab of both directions of an edge; half of it each where both are there."""
    n, k = graph.indices.shape
    sources = np.repeat(np.arange(n), k)
    there, back = sources * n + graph.indices.ravel(), graph.indices.ravel() * n + sources
    order = np.argsort(there)
    place = np.minimum(np.searchsorted(there, back, sorter=order), n * k - 1)
    mutual = there[order[place]] == back
    a, b = weights.ravel(), weights.ravel()[order[place]]
    return np.where(mutual, (a + b - a * b) / 2, a).reshape(n, k)


def _attraction(squares: np.ndarray) -> np.ndarray:
    """2ab d^(2b-2) / (1 + a d^2b), cut where it moves a row by more than the clip."""
    np.maximum(squares, np.float32(1e-8), out=squares)
    power = np.exp(B * np.log(squares))
    return np.minimum(2 * A * B * power / (squares * (1 + A * power)), CLIP / np.sqrt(squares))


def push(points: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The mean repulsion 2b (y - y') / ((0.001 + d^2) (1 + a d^2b)) by some rows: (dimensions, n)."""
    out = np.empty_like(points)
    by = points[:, drawn, None]
    for start in range(0, points.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        apart = points[:, None, part] - by
        squares = np.einsum("dmn,dmn->mn", apart, apart)
        power = np.exp(B * np.log(np.maximum(squares, np.float32(1e-8))))
        apart *= 2 * B / ((np.float32(0.001) + squares) * (1 + A * power))
        np.clip(apart, -CLIP, CLIP, out=apart)
        out[:, part] = apart.mean(axis=1)
    return out
