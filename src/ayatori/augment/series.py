"""Series that vary: moved and stretched in time, stronger or weaker, with noise, partly missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ayatori.augment.changes import Changes


def vary_series(series: Tensor, changes: Changes, seeds: Sequence[int]) -> Tensor:
    """(k, b, channels, steps) of k members, NaN where missing -> the same, by each member's own chance.

    ``shift`` is a share of the steps, ``zoom`` stretches time, ``contrast`` makes all channels of a row
    stronger or weaker, ``jitter`` adds noise in standard deviations of a channel, and ``stripes`` is the
    longest while that is missing. At the ends the first and the last value go on.

    >>> rows = torch.arange(8.0).reshape(1, 1, 1, 8)
    >>> vary_series(rows, Changes(), [0]).equal(rows)
    True
    """
    return torch.stack([_vary(own, changes, seed) for own, seed in zip(series, seeds, strict=True)])


def _vary(series: Tensor, changes: Changes, seed: int) -> Tensor:
    rows, _, steps = series.shape
    chance = np.random.default_rng([seed, 14])

    def drawn(most: float) -> Tensor:
        return torch.from_numpy(chance.uniform(-most, most, (rows, 1, 1))).to(series)

    if changes.shift or changes.zoom:
        places = torch.arange(steps, device=series.device, dtype=series.dtype)
        middle = (steps - 1) / 2
        places = middle + (places - middle) * (1 + drawn(changes.zoom)) + steps * drawn(changes.shift)
        series = _read_at(series, places.clamp(0, steps - 1))
    if changes.contrast:
        series = series * (1 + drawn(changes.contrast))
    if changes.jitter:
        there = ~series.isnan()
        count = there.sum((0, 2), keepdim=True).clamp(min=1)
        mean = series.nan_to_num(0).sum((0, 2), keepdim=True) / count
        spread = ((series - mean).nan_to_num(0).square().sum((0, 2), keepdim=True) / count).sqrt()
        grain = torch.from_numpy(chance.standard_normal(series.shape, np.float32)).to(series)
        series = series + changes.jitter * spread * grain
    if changes.stripes:
        wide = torch.from_numpy(chance.uniform(0, changes.stripes, (rows, 1, 1))).to(series)
        start = torch.from_numpy(chance.random((rows, 1, 1))).to(series) * (1 - wide)
        share = torch.arange(steps, device=series.device) / steps
        series = series.masked_fill((share >= start) & (share < start + wide), float("nan"))
    return series


def _read_at(series: Tensor, places: Tensor) -> Tensor:
    """Values (rows, channels, steps) between the steps, at ``places`` (rows, 1, steps)."""
    left = places.floor().long()
    right = (left + 1).clamp(max=series.shape[2] - 1)
    first, second = (series.gather(2, at.expand_as(series)) for at in (left, right))
    share = places - left
    # a whole step is that step, also beside one that is missing
    return torch.where(share == 0, first, torch.lerp(first, second, share.expand_as(first)))
