"""Stage 4. The terms of texts -> what they say of each output: a weighted sum over terms.

Terms that few texts hold weigh more (inverse document frequency, over a member's own training rows; Spärck
Jones, 1972), unless they are so few that little is learned of them; and the weights of a text have length 1,
so that long texts speak no louder than short ones.
What a term says begins at what naive Bayes makes of it (Wang & Manning, "Baselines and bigrams", ACL 2012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ayatori.nets.network import Network
from ayatori.records import Task

BEGIN = 0.8  # how much of naive Bayes a network begins with (dev/LOG.md, 2026-11-28)
LITTLE = 20.0  # a term that so many rows hold weighs seven tenths of what it would
FEW = 8  # outputs, up to which they are best taken one by one on the way back
HEARD = 128  # components of what is heard
CELLS = 1 << 22  # places that are counted at once
SMOOTH = 1.0  # rows that are added to those that hold a term


class Terms(NamedTuple):
    """The terms of b rows. **Shape** (b, t) each: ``which``, int64, and how much each weighs, float32."""

    which: Tensor
    shares: Tensor


class WordFront(nn.Module):
    """Places of terms -> terms that a member knows, and their weights.

    **Shape** ``forward``: (b, sum of ``widths``) integers from 0 on, -1 = none -> ``Terms``, where 0 is none.
    """

    weight: Tensor

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.widths: list[int] = list(sizes["text_widths"])
        self.known: list[int] = list(sizes["terms"])
        self.register_buffer("weight", torch.zeros(sum(self.known) + 1))

    def fit(self, words: np.ndarray, hidden: Sequence[bool]) -> None:
        """Weigh terms by own training rows (n, widths); those of ``hidden`` columns weigh nothing."""
        rows = _counts(words, len(self.weight))
        ends = np.cumsum([1, *self.known])
        for column, hide in enumerate(hidden):
            rows[ends[column] : ends[column + 1]] *= not hide
        rare = np.log((1 + len(words)) / (1 + rows)) + 1
        self.weight.copy_(torch.from_numpy(rare * np.sqrt(rows / (rows + LITTLE))))

    def forward(self, words: Tensor) -> Terms:
        which = words.long() + 1
        weight = self.weight[which]
        lengths = [
            own.square().sum(-1, keepdim=True).clamp(min=1e-6).rsqrt()
            for own in weight.split(self.widths, -1)
        ]
        shares = [own * length for own, length in zip(weight.split(self.widths, -1), lengths, strict=True)]
        return Terms(which, torch.cat(shares, -1))


class Said(nn.Module):
    """Sum of what terms say, weighted. Of a term that was never met, nothing is said.

    **Shape** ``forward``: ``Terms`` (b, t) -> (b, outputs)
    """

    def __init__(self, front: WordFront, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(front.weight), outputs))

    def forward(self, terms: Terms) -> Tensor:
        return _Sum.apply(self.weight, terms.which, terms.shares)

    def heard(self, terms: Terms, seed: int = 0) -> Tensor:
        """(b, 128): rows are near each other that share words of which much is said.

        A random projection of all terms, each weighed by its share and by the length of what it says.
        """
        chance = torch.Generator().manual_seed(seed)
        table = torch.randn(len(self.weight), HEARD, generator=chance).to(self.weight.device)
        table = table * self.weight.norm(dim=1, keepdim=True)
        return functional.embedding_bag(terms.which, table, per_sample_weights=terms.shares, mode="sum")


class _Sum(torch.autograd.Function):
    """torch's bag, with a way back that sorts nothing: a tenth of the time, where outputs are few."""

    @staticmethod
    def forward(weight: Tensor, which: Tensor, shares: Tensor) -> Tensor:
        return functional.embedding_bag(which, weight, per_sample_weights=shares, mode="sum")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        weight, which, shares = inputs
        ctx.terms = len(weight)
        ctx.save_for_backward(which, shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        which, shares = ctx.saved_tensors
        places, outputs = which.flatten(), gradient.shape[1]
        if outputs > FEW:
            each = (shares.unsqueeze(-1) * gradient.unsqueeze(1)).flatten(0, 1)
            return gradient.new_zeros(ctx.terms, outputs).index_add_(0, places, each), None, None
        back = gradient.new_zeros(outputs, ctx.terms)
        for own, column in zip(back, gradient.T, strict=True):
            own.scatter_add_(0, places, (shares * column.unsqueeze(1)).flatten())
        return back.T, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, int, int], *tensors: Tensor) -> tuple[Tensor, int]:
        weight, which, shares = tensors
        starts = torch.arange(len(weight), device=which.device) * weight.shape[1]
        places = (which + starts[:, None, None]).flatten(0, 1)
        found = _Sum.apply(weight.flatten(0, 1), places, shares.flatten(0, 1))
        return found.unflatten(0, which.shape[:2]), 0


def begin_texts(network: Network, words: np.ndarray, target: np.ndarray) -> None:
    """Let the terms of a fresh network say what own training rows ``words`` (n, widths) show at once.

    Of classes and labels: the logarithm of how much more often a term stands in rows with it than in others.
    Of numbers nothing, which is a better beginning (dev/LOG.md, 2026-11-28).
    """
    for part in network.modules():
        if isinstance(part, Said) and network.spec.task != "regression":
            found = _first_word(words, target, network.spec.task, *part.weight.shape)
            with torch.no_grad():
                part.weight.copy_(torch.from_numpy(BEGIN * found))


def _first_word(words: np.ndarray, target: np.ndarray, task: Task, terms: int, outputs: int) -> np.ndarray:
    """(terms, outputs)"""
    rows = _counts(words, terms)[:, None]
    if task == "classification":
        sums, total = _counts(words, terms, target, outputs), np.bincount(target, minlength=outputs)
    else:
        held = [_counts(words[label > 0], terms) for label in target.T]
        sums, total = np.stack(held, axis=1), (target > 0).sum(axis=0)
    own = (sums + SMOOTH) / (total + 2 * SMOOTH)
    others = (rows - sums + SMOOTH) / (len(words) - total + 2 * SMOOTH)
    found = np.where(rows > 0, np.log(own / others), 0.0)
    return found / 2 if task == "classification" and outputs == 2 else found  # two outputs say it together


def _counts(words: np.ndarray, terms: int, codes: np.ndarray | None = None, classes: int = 1) -> np.ndarray:
    """(terms,) float64: in how many rows (n, widths) each term stands; or by code (terms, classes)."""
    found = np.zeros(classes * terms)
    rows = max(1, CELLS // words.shape[1])
    for start in range(0, len(words), rows):
        places = words[start : start + rows] + 1
        if codes is not None:
            places = places + codes[start : start + rows, None] * terms
        found += np.bincount(places.ravel(), minlength=len(found))
    each = found.reshape(classes, terms)
    each[:, 0] = 0
    return each.T if codes is not None else each[0]
