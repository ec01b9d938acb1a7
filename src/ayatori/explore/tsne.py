"""Stage 3c. A graph of neighbours -> t-SNE in 2 or 3 dimensions (van der Maaten & Hinton, JMLR 2008).

Rows that are neighbours attract each other. All rows repel each other: few, and in 3 dimensions, pair by
pair; many in 2 dimensions on a grid (Linderman et al., "Fast interpolation-based t-SNE", 2019). Everything
is done in a fixed order, so the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from ayatori.explore.springs import Springs, make_springs, pull
from ayatori.records import Graph

EXAGGERATION = 12.0  # of the attraction, in the first steps
LONGEST = 5.0  # step, in units of the map
PAIRS_UP_TO = 1000  # rows: beyond, a grid is faster
SPACING = 0.5  # of the grid; the kernel is one unit wide
LARGEST = 1024  # nodes of the grid in a dimension; a map that is wider yet gets a coarser one
NODES = 4  # of the grid that a row touches, in each dimension
BLOCK = 1 << 16  # pairs at once, so that they stay in the cache


def tsne(
    graph: Graph, start: np.ndarray, perplexity: float, steps: tuple[int, int] = (100, 200)
) -> np.ndarray:
    """Rows laid out from ``start`` (n, dimensions) by their neighbours; ``graph`` asks all n rows.

    ``steps``: with exaggerated attraction, and without. Rate, momentum and gains as in openTSNE (n /
    exaggeration; Belkina et al., Nature Communications 2019).

    >>> from ayatori.explore.neighbours import find_neighbours
    >>> points = np.repeat([[0.0], [9.0]], 30, axis=0) + np.random.default_rng(0).normal(size=(60, 4))
    >>> points = points.astype(np.float32)
    >>> drawn = tsne(find_neighbours(points, 20), points[:, :2], perplexity=7)
    >>> bool((abs(drawn[:30].mean(0) - drawn[30:].mean(0)) > drawn[:30].std(0)).any())
    True
    """
    n, dimensions = start.shape
    springs = make_springs(graph, affinities(graph.distances, perplexity) / n)
    repel = on_a_grid if dimensions == 2 and n > PAIRS_UP_TO else pair_by_pair
    points = np.array((start - start.mean(axis=0)).T, np.float32, order="C")
    points *= 1e-4 / max(float(points[0].std()), 1e-30)
    for count, exaggeration, momentum in ((steps[0], EXAGGERATION, 0.5), (steps[1], 1.0, 0.8)):
        points = _descend(points, springs, repel, count, exaggeration, momentum)
    return np.ascontiguousarray(points.T)


def _descend(
    points: np.ndarray,
    springs: Springs,
    repel: Callable[[np.ndarray], tuple[np.ndarray, float]],
    steps: int,
    exaggeration: float,
    momentum: float,
) -> np.ndarray:
    """Steps downhill with momentum and a gain for each coordinate; (dimensions, n) in and out."""
    rate = points.shape[1] / exaggeration
    step, gains = np.zeros_like(points), np.ones_like(points)
    for _ in range(steps):
        apart, total = repel(points)
        force = pull(springs, points, _cauchy) * np.float32(exaggeration)
        force += apart / np.float32(total)
        same = (force > 0) == (step > 0)
        gains = np.maximum(np.where(same, gains + np.float32(0.2), gains * np.float32(0.8)), np.float32(0.01))
        step = np.float32(momentum) * step + np.float32(rate) * gains * force
        length = np.sqrt((step * step).sum(axis=0))
        step *= np.minimum(np.float32(LONGEST) / np.maximum(length, np.float32(1e-12)), np.float32(1))
        points = points + step
        points -= points.mean(axis=1, keepdims=True)
    return points


def _cauchy(squares: np.ndarray) -> np.ndarray:
    squares += 1
    return np.reciprocal(squares, out=squares)


def affinities(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Gauss weights of neighbours with the same perplexity for each row: (n, k), each row sums to 1.

    >>> affinities(np.array([[1.0, 1.0, 2.0]], np.float32), perplexity=2.5).astype(float).round(2).tolist()
    [[0.46, 0.46, 0.08]]
    """
    squares = distances.astype(np.float64) ** 2
    squares -= squares[:, :1]
    squares /= np.maximum(squares.mean(axis=1, keepdims=True), 1e-300)
    low, high = np.full(len(squares), -20.0), np.full(len(squares), 20.0)  # of the logarithm of the precision
    wanted = np.log(min(perplexity, distances.shape[1]))
    for _ in range(40):
        middle = (low + high) / 2
        weights = np.exp(-squares * np.exp(middle)[:, None])
        sums = weights.sum(axis=1)
        entropy = np.log(sums) + np.exp(middle) * (squares * weights).sum(axis=1) / sums
        low, high = np.where(entropy > wanted, middle, low), np.where(entropy > wanted, high, middle)
    return (weights / sums[:, None]).astype(np.float32)


def pair_by_pair(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Sums over all others of q^2 (y - y') for each row, and of q for all, q = 1 / (1 + |y - y'|^2)."""
    dimensions, n = points.shape
    own = torch.from_numpy(points.T.copy())
    length = own.square().sum(1, keepdim=True)
    ones = torch.ones(n, 1)
    left, right = torch.cat([own, length + 1, ones], 1), torch.cat([-2 * own, ones, length], 1).T.contiguous()
    weights = torch.cat([own, ones], 1).T.contiguous()
    sums, total = torch.empty(dimensions + 1, n), torch.zeros((), dtype=torch.float64)
    lines = max(BLOCK // n, 1)
    for start in range(0, n, lines):
        part = slice(start, start + lines)
        near = torch.mm(left[part], right).reciprocal_()
        total += near.sum().double()
        sums[:, part] = torch.mm(weights, near.square_().T)
    force = own.T * sums[-1] - sums[:-1]
    return force.numpy(), max(float(total) - n, 1e-12)


def on_a_grid(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The sums of `pair_by_pair` in 2 dimensions, through a grid and its Fourier transform."""
    n = points.shape[1]
    low = points.min(axis=1, keepdims=True)
    spacing = max(SPACING, float((points - low).max()) / (LARGEST - NODES - 2))
    size = _even(int((points - low).max() / spacing) + NODES + 1)
    near, squared = _kernels(size, spacing)
    place = (points - low) / np.float32(spacing) + np.float32(1)
    nodes, weights = _touched(place, size)
    charges = torch.empty(3, size, size)
    middle = points - points.mean(axis=1, keepdims=True)
    for number, charge in enumerate((None, middle[0], middle[1])):
        spread = weights if charge is None else weights * charge
        grid = np.bincount(nodes.ravel(), spread.ravel(), size * size).astype(np.float32)
        charges[number] = torch.from_numpy(grid).view(size, size)
    padded = (2 * size, 2 * size)
    waves = torch.fft.rfft2(charges, s=padded)
    field = torch.fft.irfft2(waves * squared, s=padded)[:, :size, :size].reshape(3, -1).contiguous().numpy()
    felt = [(line.take(nodes) * weights).sum(axis=0) for line in field]
    force = np.stack([middle[0] * felt[0] - felt[1], middle[1] * felt[0] - felt[2]])
    total = _energy(waves[0], near, padded[1])
    return force.astype(np.float32), max(total - n, 1e-12)


def _energy(waves: Tensor, kernel: Tensor, width: int) -> float:
    """Sum over all pairs of charges of the kernel between them, from their waves (Parseval)."""
    power = (waves.real.square() + waves.imag.square()).double() * kernel
    power[:, 1 : (width + 1) // 2] *= 2  # the half that a real transform leaves out
    return float(power.sum()) / (waves.shape[0] * width)


def _touched(place: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The 16 nodes around each place (in units of the grid), their weights (cubic B-spline): (16, n) each."""
    first = np.floor(place).astype(np.int64) - 1
    t = place - (first + 1)
    r = 1 - t
    middle, after = 4 - 6 * t * t + 3 * t**3, 4 - 6 * r * r + 3 * r**3
    lines = np.stack([r**3, middle, after, t**3]).astype(np.float32) / np.float32(6)
    steps = np.arange(NODES)[:, None]
    nodes = ((first[0] + steps)[:, None] * size + (first[1] + steps)[None]).reshape(NODES**2, -1)
    return nodes, (lines[:, None, 0] * lines[None, :, 1]).reshape(NODES**2, -1)


def _even(size: int) -> int:
    """The next size that a Fourier transform likes; few of them, so that kernels are found again."""
    return next(step for step in _sizes() if step >= size)


@cache
def _sizes() -> list[int]:
    return sorted(base * 2**power for base in (5, 6, 8, 9) for power in range(3, 8))


@lru_cache(maxsize=4)  # a map grows slowly, and the large ones take 20 MB
def _kernels(size: int, spacing: float) -> tuple[Tensor, Tensor]:
    """The Fourier transforms of q and of q^2 on a padded grid, less what splines smooth at both ends."""
    away = torch.arange(2 * size)
    smooth = (2 + torch.cos(away.double() * torch.pi / size)) / 3
    away = torch.minimum(away, 2 * size - away).double() * spacing
    near = 1 / (1 + away.square()[:, None] + away.square()[None])
    sharper = 1 / (smooth[:, None] * smooth[None, : size + 1]).square()
    near, squared = torch.fft.rfft2(near).real * sharper, torch.fft.rfft2(near.square()).real * sharper
    return near, squared.float()
