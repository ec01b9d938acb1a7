"""Stage 3c. What t-SNE and UMAP share: the attraction along the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ayatori.records import Graph

BLOCK = 1 << 16  # edges at once, so that they stay in the cache


@dataclass(frozen=True)
class Springs:
    """The edges of a graph, by the row they leave and by the row they reach. An edge pulls at both ends.

    **Shape** ``targets``, ``weights`` (n, k); ``order`` (n k,): the edges sorted by the row they reach;
    ``sources`` (n k,): the rows they leave, in that order; ``starts`` (n,): where those of a row begin.
    """

    targets: np.ndarray
    weights: np.ndarray
    order: np.ndarray
    sources: Tensor
    starts: Tensor


def make_springs(graph: Graph, weights: np.ndarray) -> Springs:
    """``graph`` asks all n rows in their order; ``weights`` (n, k) float32."""
    n, k = graph.indices.shape
    order = np.argsort(graph.indices.ravel(), kind="stable")
    counts = np.bincount(graph.indices.ravel(), minlength=n)
    return Springs(
        targets=graph.indices,
        weights=np.ascontiguousarray(weights, np.float32),
        order=order,
        sources=torch.from_numpy(order // k),
        starts=torch.from_numpy(np.cumsum(counts) - counts),
    )


def pull(springs: Springs, points: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The force of all springs on each row, weight x kernel(squared length) x difference: (dimensions, n)."""
    n, k = springs.targets.shape
    force, strength = np.empty_like(points), np.empty((n, k), np.float32)
    lines = max(BLOCK // k, 1)
    for start in range(0, n, lines):
        part = slice(start, start + lines)
        apart = points.take(springs.targets[part], axis=1)
        apart -= points[:, part, None]
        squares = np.einsum("dnk,dnk->nk", apart, apart)
        strength[part] = kernel(squares) * springs.weights[part]
        force[:, part] = np.einsum("nk,dnk->dn", strength[part], apart)
    # the other ends: sum of strength x (source - target)
    table = torch.from_numpy(np.concatenate([points, np.ones_like(points[:1])]).T.copy())
    taken = torch.from_numpy(strength.ravel().take(springs.order))
    sums = functional.embedding_bag(
        springs.sources, table, springs.starts, mode="sum", per_sample_weights=taken
    )
    back = sums.T.numpy()
    return force + back[:-1] - points * back[-1]
