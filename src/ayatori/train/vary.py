"""Stage 6. What happens to the rows that members have taken: noise in tables, pairs of rows, own pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ayatori.augment import Augmentation, draw_pairs, mix_rows, mix_targets, vary_series, vary_table
from ayatori.train.stream import Given

Rows = dict[str, Tensor]


def vary_own(how: Augmentation, inputs: Rows, seeds: Sequence[int]) -> Rows:
    """Rows (k, b, ...) that each member has read for itself, changed by its own chance."""
    if how.pictures and "image" in inputs:
        parts = []
        for member, seed in enumerate(seeds):
            own = {name: values[member] for name, values in inputs.items()}
            generator = torch.Generator(own["image"].device).manual_seed(seed)
            parts.append(how(own, generator))
        inputs = {name: torch.stack([part[name] for part in parts]) for name in inputs}
    if "series" in inputs:
        inputs = {**inputs, "series": vary_series(inputs["series"], how.changes, seeds)}
    if how.tables:
        rows = next(iter(inputs.values())).shape[1]
        inputs = vary_table(inputs, how.changes, [rows] * len(seeds), seeds)
    return inputs


def pair_own(how: Augmentation, given: Given, seeds: Sequence[int], classes: int) -> Given:
    """The rows of each member, each with another one of the same member mixed in.

    Codes of ``classes`` classes become shares.
    """
    rows, target, offset = given.rows, given.target, given.offset
    own = rows.tolist() if isinstance(rows, Tensor) else [rows] * len(seeds)
    pairs = draw_pairs(how.changes, target.shape[1], own, seeds)
    inputs, keep = mix_rows(given.inputs, pairs)
    if not target.is_floating_point():
        target = F.one_hot(target, classes).float()
    if offset is not None:
        offset, _ = mix_targets(offset, None, pairs, keep)
    target, weight = mix_targets(target, given.weight, pairs, keep)
    return Given(inputs, target, weight, rows, offset)
