"""Stage 4, pretrained. Raw pictures and scans -> what a network sees that has learned elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ayatori.nets.network import Inputs
from ayatori.records import AyatoriError


class Pixels(nn.Module):
    """Pictures of any size, grey or in colour, as the source was trained to see them.

    **Shape** ``inputs["image"]`` (b, 1 or 3, h, w), 0..255 -> (b, c, side, side) float32
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image: Sequence[int], mean: Sequence[float], std: Sequence[float], how: str) -> None:
        super().__init__()
        self.channels, self.size, self.how = image[0], (image[1], image[2]), how
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, inputs: Inputs) -> Tensor:
        image = fitting(inputs["image"], self.channels, self.size, self.how)
        return (image - self.mean) / self.std


class OwnPixels(nn.Module):
    """The front of a run's network behind pictures of any size."""

    def __init__(self, front: nn.Module, image: Sequence[int]) -> None:
        super().__init__()
        self.front, self.channels, self.size = front, image[0], (image[1], image[2])

    def forward(self, inputs: Inputs) -> Tensor:
        return self.front({"image": fitting(inputs["image"], self.channels, self.size, "bilinear")})


def fitting(image: Tensor, channels: int, size: tuple[int, int], how: str) -> Tensor:
    """Pictures (b, c, h, w) as float32 with so many channels, of this size, still 0..255."""
    image = image.float()
    if image.shape[1] != channels and min(image.shape[1], channels) > 3:  # scans
        return nn.functional.interpolate(image[:, None], (channels, *size), mode="trilinear")[:, 0]
    if image.shape[1] != channels:
        if {image.shape[1], channels} != {1, 3}:
            raise AyatoriError(
                f"pictures must be grey or in colour, however the rows have {image.shape[1]} channels, and "
                f"{channels} is what the pretrained network sees"
            )
        image = image.mean(1, keepdim=True) if channels == 1 else image.expand(-1, channels, -1, -1)
    if tuple(image.shape[2:]) != size:
        image = nn.functional.interpolate(image, size, mode=how, antialias=True).clamp(0, 255)
    return image


class Slices(nn.Module):
    """Slabs of a scan as pictures, each as the front of a network for pictures sees it.

    **Shape** ``inputs["image"]`` (b, d, h, w), 0..255 -> (b, slices, ...)
    """

    def __init__(self, front: nn.Module, slices: int) -> None:
        super().__init__()
        self.front, self.slices = front, slices

    def forward(self, inputs: Inputs) -> Tensor:
        image = inputs["image"].float()
        depth, slices = image.shape[1], self.slices
        ends = [(slab * depth // slices, -(-(slab + 1) * depth // slices)) for slab in range(slices)]
        slabs = torch.stack([image[:, first:end].mean(1) for first, end in ends], 1)
        return self.front({"image": slabs.flatten(0, 1)[:, None]}).unflatten(0, (-1, slices))


class EachSlice(nn.Module):
    """A part of a network for pictures, on each slice. **Shape** (b, slices, ...) -> (b, slices, ...)"""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))


class SummedUp(nn.Module):
    """Mean and maximum over slices. **Shape** (b, slices, width) -> (b, 2 * width)"""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1), x.amax(1)], dim=1)


def sliced(
    front: nn.Module, parts: Sequence[nn.Module], slices: int
) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Front and parts of a network for pictures as those of one for scans.

    >>> front, parts = sliced(Pixels([3, 8, 8], [0.0], [1.0], "bilinear"), [nn.Flatten()], 4)
    >>> parts[0](front({"image": torch.zeros(2, 20, 8, 8)})).shape
    torch.Size([2, 384])
    """
    *first, last = (EachSlice(part).eval() for part in parts)
    return Slices(front, slices).eval(), (*first, nn.Sequential(last, SummedUp()).eval())
