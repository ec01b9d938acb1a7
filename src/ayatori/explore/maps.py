"""Stage 3c. A representation -> maps of its rows in 2 and 3 dimensions, and how far each can be believed.

t-SNE and UMAP lay out some of the rows; the others are placed among their neighbours there. What is laid
out follows from the size of the data and the seed alone, never from a clock.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import asdict

import numpy as np
import torch

from ayatori.explore.believe import how_far
from ayatori.explore.neighbours import Progress, find_neighbours
from ayatori.explore.tsne import tsne
from ayatori.explore.umap import memberships, umap
from ayatori.nets.dropout import forked
from ayatori.records import Graph, Map, Representation
from ayatori.train.crew import crew

DRAWN = 200_000  # rows on a map at most
LAID_OUT, SOLID = (
    20_000,
    3_000,
)  # rows that are laid out; those of t-SNE in 3 dimensions, which repel pair by pair
FEWEST = 1_000  # rows that are laid out however short the time
COST = {"laid out": 3e-3, "placed": 3e-4}  # about, seconds of one core a row
NEIGHBOURS, PERPLEXITY = 15, 15.0  # of UMAP, of t-SNE
AMONG, REFINED = 10, 5  # neighbours among which a row is placed; steps that refine its place
NEAR = 0.3  # squared distance on the map at which a neighbour counts half
COMPONENTS = 50  # in which rows that are placed look for their neighbours
FITTED, WIDE = 20_000, 1_024  # rows that principal components are fitted to; columns of the exact ones


def draw_maps(
    representation: Representation,
    labels: np.ndarray,
    known: np.ndarray,
    seed: int,
    seconds: float | None = None,
    progress: Progress | None = None,
    graph: Graph | None = None,
) -> list[Map]:
    """PCA (3-D, its first two columns are the 2-D one), t-SNE and UMAP in 2-D and in 3-D.

    ``known`` (n,) bool: whose labels may be read, for the agreement of neighbours. ``seconds`` (of one
    core) cuts the number of rows by a fixed rule. ``graph``: neighbours of all rows, used if it has enough.
    Fewer than 3 rows have no map.

    >>> values = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    >>> labels, known = np.zeros(60, int), np.ones(60, bool)
    >>> maps = draw_maps(Representation("raw", values), labels, known, seed=0)
    >>> [(one.name, one.points.shape[1]) for one in maps]
    [('pca', 3), ('tsne', 2), ('tsne', 3), ('umap', 2), ('umap', 3)]
    """
    n = len(representation.values)
    if n < 3:
        return []
    tell = progress if progress is not None else lambda share: None
    drawn, base = chosen(n, seed, seconds)
    chosen_values = representation.values if len(drawn) == n else representation.values[drawn]
    values = np.ascontiguousarray(chosen_values, np.float32)
    flat = principal(values, COMPONENTS, seed)
    near = _graph_of(values, base, graph if len(drawn) == n else None)
    tell(0.1)
    names = ["pca", "tsne", "tsne", "umap", "umap"]
    points = [flat[:, :3], *_layouts(values, flat, base, near, seed, lambda share: tell(0.1 + 0.7 * share))]
    trusts = how_far(values, points, labels[drawn], known[drawn], seed, lambda share: tell(0.8 + 0.2 * share))
    return [
        Map(name, representation.name, drawn, drawing, **asdict(trust))
        for name, drawing, trust in zip(names, points, trusts, strict=True)
    ]


def chosen(n: int, seed: int, seconds: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are drawn, and which of them (places) are laid out first; both sorted."""
    generator = np.random.default_rng(seed)
    drawn, laid_out = min(n, DRAWN), min(n, LAID_OUT)
    if seconds is not None:
        laid_out = min(laid_out, max(FEWEST, int(0.7 * seconds / COST["laid out"])))
        drawn = min(drawn, max(laid_out, int(0.3 * seconds / COST["placed"])))
    rows = np.arange(n) if drawn == n else np.sort(generator.choice(n, drawn, replace=False))
    return rows, _some(drawn, laid_out, generator)


def _some(n: int, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.arange(n) if count >= n else np.sort(generator.choice(n, count, replace=False))


def principal(values: np.ndarray, components: int, seed: int) -> np.ndarray:
    """(n, components) principal components, widest first, at least 3 columns (zeros where there are none).

    The largest loading of each is positive, or the sign would be chance.
    """
    points = torch.from_numpy(values)
    some = points[:: max(len(points) // FITTED, 1)]
    centre = some.mean(0, dtype=torch.float64).float()
    some = some - centre
    count = min(components, *some.shape)
    if values.shape[1] <= WIDE:
        axes = torch.linalg.eigh((some.T @ some).double())[1].flip(1)[:, :count]
    else:
        with forked():
            torch.default_generator.manual_seed(seed)
            axes = torch.pca_lowrank(some, min(count + 10, *some.shape), center=False, niter=3)[2][:, :count]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = (axes * torch.where(largest < 0, -1, 1)).float()
    out = np.zeros((len(values), max(count, 3)), np.float32)
    for start in range(0, len(values), FITTED):
        part = slice(start, start + FITTED)
        out[part, :count] = ((points[part] - centre) @ axes).numpy()
    return out


def _graph_of(values: np.ndarray, base: np.ndarray, graph: Graph | None) -> Graph:
    """The neighbours of the rows that are laid out among themselves."""
    k = min(int(3 * PERPLEXITY), len(base) - 1)
    if graph is not None and graph.indices.shape[1] >= k and np.array_equal(graph.rows, base):
        return _first(graph, k)
    return find_neighbours(values[base], k)


def _first(graph: Graph, k: int) -> Graph:
    return Graph(graph.rows, graph.indices[:, :k], graph.distances[:, :k])


def _layouts(
    values: np.ndarray, flat: np.ndarray, base: np.ndarray, near: Graph, seed: int, tell: Progress
) -> list[np.ndarray]:
    """t-SNE and UMAP, in 2 and in 3 dimensions each: (n, dimensions) of all rows of ``values``."""
    close = _first(near, NEIGHBOURS)
    some = _some(len(base), SOLID, np.random.default_rng(seed + 1))
    solid = base[some]
    few = near if len(some) == len(base) else find_neighbours(values[solid], near.indices.shape[1])
    # each on a thread of its own with one core, whatever the machine has: the same sums in the same order
    with crew(max(torch.get_num_threads(), 2)) as pool:
        jobs: list[Future[np.ndarray]] = [
            pool.submit(tsne, few, flat[solid, :3], _perplexity(few)),
            pool.submit(tsne, near, flat[base, :2], _perplexity(near)),
            pool.submit(umap, close, flat[base, :3], seed),
            pool.submit(umap, close, flat[base, :2], seed),
        ]
        laid_out = []
        for number, job in enumerate(jobs):
            laid_out.append(job.result())
            tell((number + 1) / len(jobs))
    solid_tsne, flat_tsne, solid_umap, flat_umap = laid_out
    flat_tsne, flat_umap, solid_umap = _placed(flat, base, [flat_tsne, flat_umap, solid_umap])
    return [flat_tsne, *_placed(flat, solid, [solid_tsne]), flat_umap, solid_umap]


def _perplexity(graph: Graph) -> float:
    return min(PERPLEXITY, max(graph.indices.shape[1] / 3, 1.0))


def _placed(flat: np.ndarray, base: np.ndarray, drawings: list[np.ndarray]) -> list[np.ndarray]:
    """Drawings of the rows ``base`` -> of all rows: the others lie among their neighbours in ``base``."""
    if len(base) == len(flat):
        return drawings
    others = np.setdiff1d(np.arange(len(flat)), base, assume_unique=True)
    graph = find_neighbours(flat, AMONG, others, among=base)
    places, weights = np.searchsorted(base, graph.indices), memberships(graph.distances)
    found = []
    for drawing in drawings:
        whole = np.empty((len(flat), drawing.shape[1]), np.float32)
        whole[base], whole[others] = drawing, _where_most_are(drawing[places], weights)
        found.append(whole)
    return found


def _where_most_are(near: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(q, k, dimensions) drawn neighbours, nearest first, and (q, k) weights -> (q, dimensions).

    A mean that starts at the nearest and counts the others the less the farther they are drawn: a row whose
    neighbours lie in two clusters must not come to lie between them.
    """
    point = near[:, 0]
    for _ in range(REFINED):
        counts = weights / (NEAR + ((near - point[:, None]) ** 2).sum(axis=2))
        point = np.einsum("qk,qkd->qd", counts / counts.sum(axis=1, keepdims=True), near)
    return point
