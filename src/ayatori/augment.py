"""Stage 5. A batch, a generator -> the batch with its pictures changed at random, all at once.

Every picture draws its own numbers, on the generator, and nothing else is random.
Only "standard" and "strong" flip: a flipped 2 is no 2, and only the user knows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ayatori.recipe import nearest
from ayatori.records import AyatoriError

Batch = dict[str, Tensor]
Augmentation = Callable[[Batch, Generator], Batch]


def augment(name: str) -> Augmentation:
    """The augmentation called ``name``: none, light, digits, standard or strong.

    - ``none``: the batch as it is
    - ``light``: moved by up to a twelfth of each side (at least 1 pixel), mirrored at the border
    - ``digits``: light, and turned by up to 10 degrees, 10 % larger or smaller
    - ``standard``: light, and mirrored left to right half of the time
    - ``strong``: standard, and turned and scaled as digits are

    **Shape** ``batch["image"]``: (b, c, h, w) uint8 or float, kept; other inputs are passed on.

    >>> batch = {"image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}
    >>> augment("light")(batch, Generator().manual_seed(0))["image"].shape
    torch.Size([2, 3, 8, 8])
    """
    if name not in PRESETS:
        hint = nearest(name, list(PRESETS))
        raise AyatoriError(f"augment must be one of {', '.join(PRESETS)}, however: {name!r}{hint}")
    steps = PRESETS[name]

    def apply(batch: Batch, generator: Generator) -> Batch:
        if "image" not in batch:
            return batch
        image = batch["image"]
        for step in steps:
            image = step(image, generator)
        return {**batch, "image": image}

    return apply


def shift(image: Tensor, generator: Generator) -> Tensor:
    """Move every picture by whole pixels, up to a twelfth of each side; the border is mirrored."""
    height, width = image.shape[-2:]
    rows = _moved(len(image), height, generator)
    columns = _moved(len(image), width, generator)
    positions = (rows[:, :, None] * width + columns[:, None, :]).flatten(1).to(image.device)
    return image.flatten(2).gather(2, positions[:, None].expand(-1, image.shape[1], -1)).view_as(image)


def flip(image: Tensor, generator: Generator) -> Tensor:
    """Mirror every picture left to right with probability a half."""
    heads = torch.rand(len(image), 1, 1, 1, generator=generator, device=generator.device) < 0.5
    return torch.where(heads.to(image.device), image.flip(-1), image)


def turn(image: Tensor, generator: Generator) -> Tensor:
    """Turn every picture by up to 10 degrees and scale it by up to 10 %, about its middle."""
    height, width = image.shape[-2:]
    angle, size = 2 * torch.rand(2, len(image), generator=generator, device=generator.device) - 1
    angle, size = angle * (torch.pi / 18), 1 + 0.1 * size
    cos, sin = size * angle.cos(), size * angle.sin()
    zero = torch.zeros_like(cos)
    ratio = height / width
    matrix = torch.stack([cos, -sin * ratio, zero, sin / ratio, cos, zero], 1).view(-1, 2, 3).to(image.device)
    grid = torch.nn.functional.affine_grid(matrix, list(image.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(image.float(), grid, padding_mode="border", align_corners=False)
    return moved.to(image.dtype) if image.is_floating_point() else moved.round().to(image.dtype)


def _moved(pictures: int, side: int, generator: Generator) -> Tensor:
    """(pictures, side) int64: which row (or column) each one of a moved picture comes from."""
    most = min(max(1, side // 12), side - 1)
    by = torch.randint(-most, most + 1, (pictures, 1), generator=generator, device=generator.device)
    position = (torch.arange(side, device=generator.device) + by).abs()
    return torch.where(position < side, position, 2 * (side - 1) - position)


PRESETS: dict[str, tuple[Callable[[Tensor, Generator], Tensor], ...]] = {
    "none": (),
    "light": (shift,),
    "digits": (turn, shift),
    "standard": (flip, shift),
    "strong": (flip, turn, shift),
}
