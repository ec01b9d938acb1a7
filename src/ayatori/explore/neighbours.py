"""Stage 3b. Rows as points -> the graph of their nearest neighbours, and what it says about the labels.

The graph is exact: a matrix product finds the candidates, their distances are then computed anew. Where
rounding or copies leave it open which candidates come first, more of them are looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ayatori.records import AyatoriError, Graph

Progress = Callable[[float], None]  # is told which share is done
ASKED, SEEN = 512, 32768  # rows at once, and others at once: 64 MB of float32
GROUPED = 32  # candidates are the best of the groups of so many with the best first
SPARE = (8, 256)  # candidates beyond k; where they do not settle it, row by row
SPARE_APART = 64  # neighbours beyond k; where their own group fills them, its rows are looked up apart
EXACT = 1 << 18  # differences at once, so that they stay in the cache
FEW = 4096  # others at once of a row that is looked at alone


def find_neighbours(
    values: np.ndarray,
    k: int,
    rows: np.ndarray | None = None,
    among: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The k nearest other rows of ``rows`` (default: of all), nearest first, equally near ones by number.

    **Shape** ``values`` (n, d) float32, finite. With n <= k there are only n - 1 neighbours. Copies have a
    distance of exactly 0, and a row is never its own neighbour. ``among`` (sorted, none of ``rows``): the
    only ones that are looked at.

    >>> graph = find_neighbours(np.array([[0.0], [1.0], [1.0], [5.0]], np.float32), 2)
    >>> graph.indices.tolist()
    [[1, 2], [2, 0], [1, 0], [1, 2]]
    >>> graph.distances[3].tolist()
    [4.0, 4.0]
    """
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim != 2 or k < 1 or not np.isfinite(values).all():
        raise AyatoriError(
            f"points must be a finite (rows, columns) array and k at least 1, however the shape is "
            f"{values.shape} and k is {k}; fill in what is missing first"
        )
    asked = np.arange(len(values)) if rows is None else np.asarray(rows, np.int64)
    points = values if among is None else values[among]
    k = max(min(k, len(points) - (among is None)), 0)
    indices, distances = np.zeros((len(asked), k), np.int64), np.zeros((len(asked), k), np.float32)
    for start in range(0, len(asked) if k else 0, ASKED):
        part = slice(start, start + ASKED)
        own = asked[part] if among is None else None
        indices[part], distances[part] = _nearest(points, values[asked[part]], own, k)
        if progress is not None:
            progress(min(start + ASKED, len(asked)) / len(asked))
    return Graph(asked, indices if among is None else among[indices], distances)


def find_apart(values: np.ndarray, k: int, rows: np.ndarray, groups: np.ndarray) -> Graph:
    """``find_neighbours`` among rows of other ``groups`` (n,): those of its own are no evidence for a row.

    There are fewer than k where the largest group leaves fewer.

    >>> values = np.array([[0.0], [0.1], [1.0], [5.0]], np.float32)
    >>> find_apart(values, 2, np.arange(4), np.array(["a", "a", "b", "c"])).indices.tolist()
    [[2, 3], [2, 3], [1, 0], [2, 1]]
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    k = min(k, len(values) - int(sizes.max()))
    if k < 1:
        return Graph(rows, np.zeros((len(rows), 0), np.int64), np.zeros((len(rows), 0), np.float32))
    wide = find_neighbours(values, k + min(int(sizes.max()) - 1, SPARE_APART), rows)
    other = group[wide.indices] != group[rows][:, None]
    first = np.argsort(~other, axis=1, kind="stable")[:, :k]
    indices, distances = (np.take_along_axis(part, first, 1) for part in (wide.indices, wide.distances))
    short = np.flatnonzero(other.sum(axis=1) < k)
    for one in np.unique(group[rows[short]]):
        own = short[group[rows[short]] == one]
        found = find_neighbours(values, k, rows[own], np.flatnonzero(group != one))
        indices[own], distances[own] = found.indices, found.distances
    return Graph(rows, indices, distances)


def _nearest(
    points: np.ndarray, asked: np.ndarray, own: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of (q, d) asked ones, without their ``own`` places: (q, k) places, distances."""
    indices, squares = np.zeros((len(asked), k), np.int64), np.zeros((len(asked), k))
    left = np.arange(len(asked))
    for spare in SPARE:
        itself = None if own is None else own[left]
        indices[left], squares[left], settled = _candidates(points, asked[left], itself, k, k + spare)
        left = left[~settled]
        if not len(left):
            break
    for line in left:
        indices[line], squares[line] = _one_by_one(points, asked[line], -1 if own is None else own[line], k)
    return indices, np.sqrt(squares).astype(np.float32)


def _candidates(
    values: np.ndarray, asked: np.ndarray, itself: np.ndarray | None, k: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest among the ``width`` that rounded distances show as nearest, and for whom that is
    certain: all others are farther even if their rounding was as bad as it can be."""
    centre = torch.from_numpy(values[:: max(len(values) // 10000, 1)].mean(axis=0, dtype=np.float64)).float()
    points, rows = torch.from_numpy(values), torch.from_numpy(asked)
    own = rows - centre
    best, where = torch.empty(len(asked), 0), torch.empty(len(asked), 0, dtype=torch.int64)
    for start in range(0, len(values), SEEN):
        others = points[start : start + SEEN] - centre
        # |x|^2 is left out: it changes no order
        scores = torch.addmm(others.square().sum(1), own, others.T, alpha=-2)
        if itself is not None:
            inside = np.flatnonzero((itself >= start) & (itself < start + len(others)))
            scores[inside, itself[inside] - start] = torch.inf
        low, at = _lowest(scores, width)
        best, where = torch.cat([best, low], 1), torch.cat([where, at + start], 1)
    others_in_all = len(values) - (itself is not None)
    best, order = best.topk(min(width, others_in_all), largest=False)
    found = where.gather(1, order).sort(1).values
    squares, order = _squares(points, rows, found).sort(dim=1, stable=True)
    length = own.square().sum(1, dtype=torch.float64)
    reach = squares[:, k - 1]
    rounding = 2.0**-22 * (8 + values.shape[1] ** 0.5) * (length + (length.sqrt() + reach.sqrt()).square())
    settled = best[:, -1].double() + length - rounding > reach
    if found.shape[1] == others_in_all:
        settled[:] = True
    return found.gather(1, order)[:, :k].numpy(), squares[:, :k].numpy(), settled.numpy()


def _squares(points: Tensor, rows: Tensor, found: Tensor) -> Tensor:
    """Squared distances of (q, d) rows to the (q, m) points that were found, without rounding; float64."""
    out = torch.empty(found.shape, dtype=torch.float64)
    lines = max(EXACT // max(found.shape[1] * points.shape[1], 1), 1)
    for start in range(0, len(rows), lines):
        part = slice(start, start + lines)
        apart = points[found[part]].double() - rows[part, None].double()
        out[part] = torch.linalg.vecdot(apart, apart)
    return out


def _lowest(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The lowest ``width`` of each line and their columns: they lie in the ``width`` groups whose lowest is
    lowest, and the minimum of groups is far cheaper than a selection."""
    columns = scores.shape[1] // GROUPED
    if columns < 2 * width:
        low, at = scores.topk(min(width, scores.shape[1]), largest=False)
        return low, at
    grouped = scores[:, : columns * GROUPED].view(len(scores), GROUPED, columns)
    chosen = grouped.amin(1).topk(width, largest=False).indices
    steps = torch.arange(GROUPED) * columns
    at = (chosen[:, :, None] + steps).flatten(1)
    rest = torch.arange(columns * GROUPED, scores.shape[1]).expand(len(scores), -1)
    at = torch.cat([at, rest], 1)
    low, order = scores.gather(1, at).topk(width, largest=False)
    return low, at.gather(1, order)


def _one_by_one(points: np.ndarray, asked: np.ndarray, own: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of one from the distances to all; nothing beats k copies that come first."""
    indices, squares = np.empty(0, np.int64), np.empty(0)
    for start in range(0, len(points), FEW):
        others = np.arange(start, min(start + FEW, len(points)))
        others = others[others != own]
        found = torch.from_numpy(points[others].astype(np.float64) - asked).square().sum(1).numpy()
        indices, squares = np.concatenate([indices, others]), np.concatenate([squares, found])
        order = np.argsort(squares, kind="stable")[:k]
        indices, squares = indices[order], squares[order]
        if len(squares) == k and squares[-1] == 0:
            break
    return indices, squares


def agreement(graph: Graph, labels: np.ndarray, known: np.ndarray) -> float:
    """How much the labels of neighbours are alike: 1 if all are equal.

    Classes: the share of neighbours with the same class. Several classes at once: the share of equal
    answers. Numbers: 1 less the mean difference of their ranks as shares of the rows; 2/3 is what chance
    gives. ``known`` (n,) bool: whose labels may be read. NaN if no two neighbours are known.

    >>> graph = find_neighbours(np.array([[0.0], [1.0], [1.0], [5.0]], np.float32), 2)
    >>> agreement(graph, np.array([0, 1, 1, 0]), np.ones(4, bool))
    0.25
    """
    asked, found = _pairs(graph, known)
    return _alike(_comparable(labels, known), asked, found)


def structure(
    graph: Graph,
    labels: np.ndarray,
    known: np.ndarray,
    groups: np.ndarray | None = None,
    permutations: int = 199,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Agreement, the mean agreement of permuted labels on the same graph, and p = (1 + as good) / (1 + all).

    With ``groups`` (n,) whole groups change their labels with one another: rows of a group are no evidence
    for each other. Formula of p: Phipson & Smyth, "Permutation p-values should never be zero", 2010.

    >>> points = np.repeat([0.0, 9.0], 20)[:, None] + np.random.default_rng(0).normal(size=(40, 1))
    >>> structure(find_neighbours(points.astype(np.float32), 3), np.repeat([0, 1], 20), np.ones(40, bool))[2]
    0.005
    """
    asked, found = _pairs(graph, known)
    if not len(asked):
        return float("nan"), float("nan"), 1.0
    # only rows that the graph touches take part: under permutation they are as good as any
    rows, places = np.unique(np.concatenate([asked, found]), return_inverse=True)
    asked, found = places[: len(asked)], places[len(asked) :]
    own = _comparable(labels, known)[rows]
    reached = _alike(own, asked, found)
    generator = np.random.default_rng(seed)
    shuffle = _exchanges(None if groups is None else np.asarray(groups)[rows], len(rows), generator)
    chance = np.array([_alike(own[shuffle()], asked, found) for _ in range(permutations)])
    as_good = int((chance >= reached - 1e-12).sum())
    return reached, float(chance.mean()), (1 + as_good) / (1 + permutations)


def _pairs(graph: Graph, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The known rows that were asked, and their known neighbours: (pairs,) each."""
    asked = np.repeat(graph.rows, graph.indices.shape[1])
    found = graph.indices.ravel()
    both = known[asked] & known[found]
    return asked[both], found[both]


def _comparable(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Codes as they are; numbers as ranks, shares of the known rows; where unknown, 0."""
    if labels.ndim == 1 and not np.issubdtype(labels.dtype, np.floating):
        return np.where(known, labels, 0)
    values = labels.reshape(len(labels), -1)
    out = np.zeros(values.shape, np.float32)
    own = values[known]
    if not np.isin(own, (0, 1)).all():
        own = np.stack([_places(column) for column in own.T], axis=1)
    out[known] = own
    return out


def _places(numbers: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1; equal numbers share the middle of theirs."""
    order = np.sort(numbers)
    low, high = np.searchsorted(order, numbers, "left"), np.searchsorted(order, numbers, "right")
    return (low + high) / (2 * max(len(numbers), 1))


def _alike(values: np.ndarray, asked: np.ndarray, found: np.ndarray) -> float:
    if not len(asked):
        return float("nan")
    if values.ndim == 1:
        return float((values[asked] == values[found]).mean())
    return float(1 - np.abs(values[asked] - values[found]).mean(dtype=np.float64))


def _exchanges(groups: np.ndarray | None, n: int, generator: np.random.Generator) -> Callable[[], np.ndarray]:
    """A draw of whose label each of n rows gets: any row's, or whole groups'.

    A group takes the labels of another in their order from a random start, over again where it is larger.
    """
    if groups is None:
        return lambda: generator.permutation(n)
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.arange(n) - np.repeat(starts, sizes)

    def draw() -> np.ndarray:
        other = generator.permutation(len(sizes))
        turned = (place + np.repeat(generator.integers(0, sizes[other]), sizes)) % np.repeat(
            sizes[other], sizes
        )
        taken = np.empty(n, np.int64)
        taken[order] = order[np.repeat(starts[other], sizes) + turned]
        return taken

    return draw
