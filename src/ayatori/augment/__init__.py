"""Stage 5. A batch, a generator -> the batch with its pictures changed at random, all at once.

Every picture draws its own numbers, on the generator, and nothing else is random. ``changes``: how much may
change; ``moves``: one warp for picture, mask and key points; ``colour``: one matrix for the picture alone;
``mix``: pairs of rows, and rows of tables; ``own``: the user's own transforms.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from ayatori.augment.chance import Chance
from ayatori.augment.changes import PRESETS, Changes, changes_of, read_changes
from ayatori.augment.colour import recolour
from ayatori.augment.mix import draw_pairs, mix_rows, mix_targets, vary_table
from ayatori.augment.moves import (
    across_slices,
    draw_moves,
    erase,
    move_mask,
    move_picture,
    move_points,
    stripe,
)
from ayatori.augment.own import Batch, apply_own, find_transform
from ayatori.augment.series import vary_series
from ayatori.records import AyatoriError

__all__ = [
    "PRESETS",
    "Augmentation",
    "Batch",
    "Changes",
    "augment",
    "candidates",
    "changes_of",
    "draw_pairs",
    "mix_rows",
    "mix_targets",
    "read_changes",
    "resolve",
    "vary_series",
    "vary_table",
    "views",
]

How = str | Mapping[str, Any] | Callable[..., Any]
CACHED = 2**20  # values of the pictures that are changed together on a CPU, so that they stay in its cache
CANDIDATES = ("none", "light", "standard", "strong")  # of auto


def candidates(how: How) -> tuple[str, ...]:
    """The names that are compared: of ``auto``, or with commas between; () where one is given."""
    if not isinstance(how, str) or (how != "auto" and "," not in how):
        return ()
    return CANDIDATES if how == "auto" else tuple(part.strip() for part in how.split(",") if part.strip())


@dataclass(frozen=True)
class Augmentation:
    """Called with a batch and a generator; ``own``: the user's transform, in place of changes.

    ``deep``: channels are slices of a scan, which is shifted across them too.
    """

    changes: Changes
    own: Callable[..., Any] | None = None
    deep: bool = False

    def __call__(self, batch: Batch, generator: Generator, same: bool = False) -> Batch:
        """The batch with every picture (and its mask and points) changed, each by its own numbers.

        ``same``: all by the same numbers.

        **Shape** ``batch["image"]`` (b, c, h, w) uint8, or float of 0 to 255; ``["mask"]`` (b, h, w) of whole
        numbers; ``["points"]`` (b, k, 3) of x, y in pixels and 1 where it is to be seen. All of them keep
        shape and kind; other inputs are passed on.
        """
        if "image" not in batch:
            return batch
        if self.own is not None:
            return apply_own(self.own, batch, generator)
        image = batch["image"]
        few = max(1, CACHED // image[0].numel()) if image.device.type == "cpu" and len(image) else len(image)
        if same or len(image) <= few:
            return self._changed(batch, generator, same)
        parts = [
            self._changed({name: values[start : start + few] for name, values in batch.items()}, generator)
            for start in range(0, len(image), few)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in batch}

    def _changed(self, batch: Batch, generator: Generator, same: bool = False) -> Batch:
        """A part of a batch, changed."""
        image = batch["image"]
        height, width = image.shape[-2:]
        chance = Chance(self.changes, len(image), generator, same)
        moves = draw_moves(self.changes, height, width, chance)
        moved, changed = dict(batch), image
        if moves is not None:
            moves = dataclasses.replace(
                moves,
                matrix=moves.matrix.to(image.device),
                boxes=None if moves.boxes is None else moves.boxes.to(image.device),
            )
            changed = move_picture(image, moves)
            if "mask" in batch:
                moved["mask"] = move_mask(batch["mask"], moves)
            if "points" in batch:
                moved["points"] = move_points(batch["points"], moves, height, width)
        if self.deep and self.changes.shift:
            changed = across_slices(changed, self.changes, chance)
        changed = recolour(changed, self.changes, chance)
        if moves is not None:
            changed = erase(changed, moves, chance)
        if self.changes.stripes:
            changed = stripe(changed, self.changes.stripes, chance)
        if changed.is_floating_point() and not image.is_floating_point():
            changed = changed.round_()
        return {**moved, "image": changed.to(image.dtype)}

    @functools.cached_property
    def pairs(self) -> bool:
        """Whether rows are mixed with others of the same member."""
        return self.own is None and bool(self.changes.mixup or self.changes.cutmix)

    @functools.cached_property
    def tables(self) -> bool:
        """Whether rows of tables change."""
        return self.own is None and bool(self.changes.jitter or self.changes.hide or self.changes.swap)

    @functools.cached_property
    def pictures(self) -> bool:
        """Whether pictures change."""
        bare = dataclasses.replace(self.changes, mixup=0.0, cutmix=0.0, jitter=0.0, hide=0.0, swap=0.0)
        return self.own is not None or bare != Changes()


def augment(how: How, deep: bool = False) -> Augmentation:
    """The augmentation that is meant by a preset's name, a mapping of settings, or a transform.

    - ``none``: rows as they are
    - ``light``: moved by up to a twelfth of each side, mirrored at the border
    - ``digits``: light, and turned by up to 10 degrees, 10 % larger or smaller
    - ``sound``: light, and black stripes over up to 15 % of each side: what is not heard for a while
    - ``standard``: digits, mirrored left to right half of the time, colours a fifth weaker or stronger
    - ``strong``: standard twice over, sheared, stretched, partly erased, pairs of rows mixed
    - ``random``: for each picture two out of all moves and colours (after RandAugment, Cubuk et al. 2020)
    - a mapping: settings of ``Changes``, with ``base`` a preset to start from
    - ``package:name`` or an object: a transform of kornia or torchvision, a function of a picture (c, h, w),
      or a function (batch, generator) -> batch

    ``deep``: see ``Augmentation``.

    >>> batch = {"image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}
    >>> augment("light")(batch, Generator().manual_seed(0))["image"].shape
    torch.Size([2, 3, 8, 8])
    """
    if candidates(how):
        how = "light"  # where nothing was compared
    if isinstance(how, Mapping) or (isinstance(how, str) and ":" not in how):
        return Augmentation(changes_of(how), deep=deep)
    return Augmentation(Changes(), find_transform(how), deep)


def resolve(how: How) -> How:
    """``how`` without a need for a file: the settings in it, or what was given. Refuses what is not known."""
    if isinstance(how, str) and how.lower().endswith(".toml"):
        return read_changes(how)
    for name in candidates(how):
        changes_of(name)
    if how != "default" and not candidates(how):
        augment(how)
    return how


def views(how: How, number: int) -> tuple[Callable[[Batch], Batch], ...]:
    """``number`` ways to look at pictures when they are predicted; the first is as they are.

    A view changes all pictures in the same way, so that what is said of one does not depend on the others.
    Nothing is erased, and no grain is added.
    """
    if number < 2:
        return (lambda batch: batch,)
    vary = augment(how)
    if vary.own is not None:
        raise AyatoriError(
            "`tta` needs an augmentation that can treat all pictures alike, however a transform of your own "
            "draws as it likes; give a preset or a TOML file"
        )
    if not vary.pictures:
        raise AyatoriError(
            "`tta` needs an augmentation of pictures, however there is none; add --augment standard"
        )
    calm = dataclasses.replace(vary.changes, erase=0.0, stripes=0.0, noise=0.0, posterise=0.0)
    vary = dataclasses.replace(vary, changes=calm)

    def looking(view: int) -> Callable[[Batch], Batch]:
        def look(batch: Batch) -> Batch:
            device = batch["image"].device
            return vary(batch, Generator(device).manual_seed(view), same=True)

        return look

    return (lambda batch: batch, *(looking(view) for view in range(1, number)))
