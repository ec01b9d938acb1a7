"""Mixup and CutMix: a member's rows in pairs, with shares of both labels; tables: noise, gaps, exchange.

All of this happens to each member's own rows, after they were taken from a shared batch: a row that a
member may not learn from never gets into its pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayatori.augment.changes import Changes

Rows = Mapping[str, Tensor]  # name -> (k, b, ...)


@dataclass(frozen=True)
class Pairs:
    """Of each of k members' b rows: its partner, and what the row keeps of itself.

    **Shape** ``partner`` (k, b) int64 places in the same batch; ``keep`` (k, b) float32 shares; ``cut``
    (k, b) bool where a box is exchanged instead of everything being faded; ``spot`` (k, b, 2)
    float32 from 0 to 1, where the box lies.
    """

    partner: Tensor
    keep: Tensor
    cut: Tensor
    spot: Tensor


def draw_pairs(changes: Changes, rows: int, own: Sequence[int], seeds: Sequence[int]) -> Pairs:
    """Pairs of ``rows`` rows of each member, among the first ``own`` of them, each drawn from its own seed.

    Zhang et al. 2018 (arXiv 1710.09412); Yun et al. 2019 (arXiv 1905.04899). Where both are on, each row has
    one of them. A row keeps at least half of itself when faded.
    """
    found = []
    for count, seed in zip(own, seeds, strict=True):
        chance = np.random.default_rng([seed, 11])
        partner = np.arange(rows)
        partner[:count] = chance.permutation(count)
        cut = chance.random(rows) < (0.5 if changes.mixup and changes.cutmix else float(changes.cutmix > 0))
        shares = {a: chance.beta(a, a, rows) if a else np.ones(rows) for a in (changes.mixup, changes.cutmix)}
        faded = np.maximum(shares[changes.mixup], 1 - shares[changes.mixup])
        keep = np.where(cut, shares[changes.cutmix], faded)
        found.append((partner, keep.astype(np.float32), cut, chance.random((rows, 2), np.float32)))
    return Pairs(*(torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)))


def mix_rows(inputs: Rows, pairs: Pairs) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs (k, b, ...) -> mixed, and what each row really kept (k, b): a box has whole pixels.

    Numbers and pictures are faded; of categories, and in pictures that are cut, each value is one row's or
    the other's.
    """
    device = next(iter(inputs.values())).device
    partner, keep, cut, spot = (value.to(device) for value in vars(pairs).values())
    if "image" in inputs:
        inside, kept = _boxes(keep, spot, *inputs["image"].shape[-2:])
        keep = torch.where(cut, kept, keep)
    mixed = {}
    for name, values in inputs.items():
        other = values.gather(1, _beside(partner, values).expand_as(values))
        share = _beside(keep, values)
        if name == "image":
            faded = torch.lerp(other.float(), values.float(), share)
            swapped = torch.where(inside[:, :, None], other, values).float()
            blend = torch.where(_beside(cut, values), swapped, faded)
            mixed[name] = blend if values.is_floating_point() else blend.round_().to(values.dtype)
        elif values.is_floating_point():
            mixed[name] = torch.where(
                _beside(keep == 1, values), values, torch.lerp(other, values, share.to(values))
            )
        else:
            # a value stays where a fixed sequence of chances is below the share that the row keeps
            chances = (torch.arange(values[0, 0].numel(), device=device) * 0.618 + spot[..., :1]) % 1
            mixed[name] = torch.where(chances.view(values.shape) < share, values, other)
    return mixed, keep


def mix_targets(
    target: Tensor, weight: Tensor | None, pairs: Pairs, keep: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Targets (k, b, outputs) and weights (k, b) of mixed rows.

    A row that weighs more has more of the target too, so that a sum of weighted losses is what it would be
    of both rows apart.
    """
    partner = pairs.partner.to(target.device)
    other = target.gather(1, _beside(partner, target).expand_as(target))
    if weight is None:
        return torch.lerp(other, target, _beside(keep, target).to(target)), None
    own, others = weight * keep, weight.gather(1, partner) * (1 - keep)
    total = own + others
    share = torch.where(total > 0, own / total.clamp(min=1e-12), torch.ones_like(total))
    return torch.lerp(other, target, _beside(share, target).to(target)), total


def _boxes(keep: Tensor, spot: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(k, b, h, w) bool: what comes from the partner; (k, b): the share that stays."""
    side = (1 - keep).sqrt()[..., None]
    lines = []
    for axis, length in enumerate((height, width)):
        extent = (side * length).round()
        start = (spot[..., axis, None] * (length - extent + 1)).floor()
        places = torch.arange(length, device=keep.device)
        lines.append((places >= start) & (places < start + extent))
    inside = lines[0][..., :, None] & lines[1][..., None, :]
    return inside, 1 - inside.float().mean((-2, -1))


def vary_table(inputs: Rows, changes: Changes, own: Sequence[int], seeds: Sequence[int]) -> dict[str, Tensor]:
    """Numbers and categories (k, b, columns) with noise, gaps and values of other rows of the same member."""
    varied = dict(inputs)
    for name in ("numbers", "categories", "words"):
        if name not in inputs or not inputs[name].shape[2]:
            continue
        # words of another text, in whatever order, would make no sense
        how = dataclasses.replace(changes, swap=0.0) if name == "words" else changes
        parts = [
            _vary(values, how, count, np.random.default_rng([seed, 12, len(name)]))
            for values, count, seed in zip(inputs[name], own, seeds, strict=True)
        ]
        varied[name] = torch.stack(parts)
    return varied


def _vary(values: Tensor, changes: Changes, own: int, chance: np.random.Generator) -> Tensor:
    """(b, columns) of one member, whose first ``own`` rows are its own."""
    rows, columns = values.shape
    if changes.swap:
        from_row = torch.from_numpy(chance.integers(own, size=(rows, columns))).to(values.device)
        chosen = torch.from_numpy(chance.random((rows, columns)) < changes.swap).to(values.device)
        values = torch.where(chosen, values.gather(0, from_row), values)
    if changes.jitter and values.is_floating_point() and own > 1:
        known = values[:own]
        there = torch.isfinite(known)
        count = there.sum(0).clamp(min=1)
        filled = torch.where(there, known, 0)
        mean = filled.sum(0) / count
        spread = (torch.where(there, known - mean, 0).square().sum(0) / count).sqrt()
        grain = torch.from_numpy(chance.standard_normal((rows, columns))).to(values)
        values = values + changes.jitter * spread * grain
    if changes.hide:
        gone = torch.from_numpy(chance.random((rows, columns)) < changes.hide).to(values.device)
        values = values.masked_fill(gone, float("nan") if values.is_floating_point() else -1)
    return values


def _beside(values: Tensor, like: Tensor) -> Tensor:
    """(k, b) -> (k, b, 1, ...), to go with (k, b, ...)."""
    return values.view(*values.shape, *[1] * (like.ndim - 2))
