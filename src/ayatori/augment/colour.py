"""Colours: brightness, contrast, saturation, hue and grey are one matrix a picture; then what bends them.

The first five are affine in the colours of a pixel. So they compose, in an order of each picture's own, to
3 x 4 numbers, and the picture is touched once; nothing is clipped in between.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ayatori.augment.chance import Chance
from ayatori.augment.changes import Changes

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
AFFINE = ("brightness", "contrast", "saturation", "hue", "grey")
REST = ("posterise", "blur", "noise")


def recolour(image: Tensor, changes: Changes, chance: Chance) -> Tensor:
    """(b, c, h, w) of 0 to 255 -> float32 of 0 to 255. Saturation, hue and grey want three channels."""
    steps = [name for name in REST if getattr(changes, name)]
    affine = [name for name in AFFINE if getattr(changes, name)]
    if image.shape[1] != 3:
        affine = [name for name in affine if name in ("brightness", "contrast")]
    if not affine and not steps:
        return image
    image = image.float()
    if affine:
        image = _affine(image, affine, changes, chance)
    # the order of the others is the batch's
    order = torch.randperm(len(steps), generator=chance.generator, device=chance.device).tolist()
    for place in order:
        name = steps[place]
        mine = torch.nonzero(chance.happens(name, getattr(changes, name)).to(image.device))[:, 0]
        strength = chance.uniform().to(image.device)
        if len(mine):
            image = image.index_copy(0, mine, _BENT[name](image[mine], strength[mine], chance))
    return image


def _affine(image: Tensor, names: list[str], changes: Changes, chance: Chance) -> Tensor:
    """All of ``names``, each picture in its own order, as one product."""
    b, c, h, w = image.shape
    luma = torch.tensor(LUMA if c == 3 else [1 / c] * c, device=chance.device)
    steps = torch.stack([_matrix(name, c, luma, changes, chance) for name in names], 1)
    towards = torch.stack([_fades(name, changes, chance, steps[:, i]) for i, name in enumerate(names)], 1)
    mean = image.mean((2, 3)).to(chance.device)
    order = chance.order(len(names))
    pictures = torch.arange(b, device=chance.device)
    matrix = torch.eye(c, device=chance.device).repeat(b, 1, 1)
    offset = torch.zeros(b, c, 1, device=chance.device)
    for place in range(len(names)):
        step, fade = steps[pictures, order[:, place]], towards[pictures, order[:, place]]
        # contrast leads towards the mean grey of the picture as it is by now
        middle = luma @ (matrix @ mean[..., None] + offset)[..., 0].mT
        matrix = step @ matrix
        offset = step @ offset + (fade * middle)[:, None, None]
    matrix, offset = matrix.to(image.device), offset.to(image.device)
    if c == 1:
        return torch.addcmul(offset[..., None], image, matrix[..., None]).clamp_(0, 255)
    return torch.baddbmm(offset, matrix, image.flatten(2)).clamp_(0, 255).view(b, c, h, w)


def _matrix(name: str, channels: int, luma: Tensor, changes: Changes, chance: Chance) -> Tensor:
    """(b, c, c): what one kind of change does to colours."""
    eye = torch.eye(channels, device=chance.device)
    if name in ("brightness", "contrast"):
        factor = 1 + chance.within(name, getattr(changes, name))
        return factor.clamp(min=0)[:, None, None] * eye
    grey = luma.expand(channels, channels)
    if name in ("saturation", "grey"):
        keep = (
            (1 + chance.within(name, changes.saturation)).clamp(min=0)
            if name == "saturation"
            else 1 - chance.happens(name, changes.grey).float()
        )[:, None, None]
        return keep * eye + (1 - keep) * grey
    # hue: the colours turn about the axis of greys (Rodrigues), and luma is kept as it was
    angle = chance.within(name, 2 * math.pi * changes.hue)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    third = torch.full((3, 3), 1 / 3, device=chance.device)
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=chance.device) / math.sqrt(3)
    turned = cos * eye + (1 - cos) * third + sin * cross
    return turned + torch.ones(3, 1, device=chance.device) @ (luma - luma @ turned)[:, None]


def _fades(name: str, changes: Changes, chance: Chance, step: Tensor) -> Tensor:
    """(b,): how much of the mean grey is added."""
    return 1 - step[:, 0, 0] if name == "contrast" else torch.zeros(chance.pictures, device=chance.device)


def _posterise(image: Tensor, strength: Tensor, chance: Chance) -> Tensor:
    """2 to 5 bits a channel."""
    levels = 2 ** (5 - (strength * 3.999).floor())
    step = (256 / levels)[:, None, None, None]
    return ((image / step).floor() * step).clamp(0, 255)


def _blur(image: Tensor, strength: Tensor, chance: Chance) -> Tensor:
    """A Gaussian of 0.3 pixels to a fortieth of the side (at least 1), columns first, then rows."""
    b, c, h, w = image.shape
    widest = max(1.0, min(h, w) / 40)
    reach = min(math.ceil(2.5 * widest), h - 1, w - 1)
    sigma = 0.3 + (widest - 0.3) * strength
    places = torch.arange(-reach, reach + 1, device=image.device)
    weights = torch.exp(-0.5 * (places / sigma[:, None]).square())
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None]
    flat = F.pad(image.reshape(1, b * c, h, w), (reach,) * 4, "reflect")
    flat = F.conv2d(flat, weights[..., None], groups=b * c)
    return F.conv2d(flat, weights[:, :, None], groups=b * c).view(b, c, h, w)


def _noise(image: Tensor, strength: Tensor, chance: Chance) -> Tensor:
    """Grain of up to a tenth of the range, each pixel and channel its own."""
    shape = (1, *image.shape[1:]) if chance.same else image.shape
    grain = torch.randn(shape, generator=chance.generator, device=chance.device).to(image.device)
    return (image + grain * (25.5 * strength)[:, None, None, None]).clamp(0, 255)


_BENT = {"posterise": _posterise, "blur": _blur, "noise": _noise}
