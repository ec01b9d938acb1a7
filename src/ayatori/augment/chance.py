"""Random numbers of the pictures of a batch: each has its own, and some of the changes may not be its."""

from __future__ import annotations

import dataclasses

import torch
from torch import Generator, Tensor

from ayatori.augment.changes import Changes

# what a picture may get; of "choices" each draws some of those that are set
KINDS = (
    "flip",
    "upside_down",
    "shift",
    "turn",
    "zoom",
    "stretch",
    "shear",
    "crop",
    "perspective",
    "erase",
    "stripes",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "grey",
    "posterise",
    "blur",
    "noise",
)


class Chance:
    """What ``pictures`` pictures draw, all of them (b,) on the generator's device.

    ``same``: all pictures draw the same (views of a test must not depend on who is beside whom).
    """

    def __init__(self, changes: Changes, pictures: int, generator: Generator, same: bool = False) -> None:
        self.pictures = pictures
        self.generator = generator
        self.device = generator.device
        self.same = same
        self._on: dict[str, Tensor] = {}
        if changes.choices:
            neutral = {field.name: field.default for field in dataclasses.fields(Changes)}
            given = [kind for kind in KINDS if getattr(changes, kind) != neutral[kind]]
            order = self._rand(len(given)).argsort(1)
            self._on = {kind: order[:, place] < changes.choices for place, kind in enumerate(given)}

    def _rand(self, *shape: int) -> Tensor:
        rows = 1 if self.same else self.pictures
        drawn = torch.rand(rows, *shape, generator=self.generator, device=self.device)
        return drawn.expand(self.pictures, *shape)

    def on(self, kind: str) -> Tensor:
        """1 where a picture gets this kind of change at all, else 0."""
        return self._on[kind].float() if kind in self._on else torch.ones(self.pictures, device=self.device)

    def uniform(self) -> Tensor:
        """From 0 to 1."""
        return self._rand()

    def signed(self) -> Tensor:
        """From -1 to 1."""
        return 2 * self._rand() - 1

    def within(self, kind: str, most: float) -> Tensor:
        """From -most to most, 0 where this kind is not the picture's."""
        if not most:
            return torch.zeros(self.pictures, device=self.device)
        return self.signed() * self.on(kind) * most

    def happens(self, kind: str, share: float) -> Tensor:
        """(b,) bool; what was chosen for a picture happens for sure."""
        if kind in self._on:
            return self._on[kind]
        return self._rand() < share

    def integers(self, least: int, most: int, *shape: int) -> Tensor:
        """Whole numbers from ``least`` to ``most``, (b, *shape) int64."""
        return (least + self._rand(*shape) * (most - least + 1)).floor().long().clamp(max=most)

    def order(self, things: int) -> Tensor:
        """(b, things) int64: an order for each picture."""
        return self._rand(things).argsort(1)

    def identity(self) -> Tensor:
        return torch.eye(3, device=self.device).repeat(self.pictures, 1, 1)
