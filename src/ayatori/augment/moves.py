"""Moves: one warp a picture, composed of all that is drawn for it, and shared by its mask and key points.

Where pictures are only mirrored and shifted by whole pixels, nothing is interpolated and nothing blurs.
Outside of a picture lies its mirror image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ayatori.augment.chance import Chance
from ayatori.augment.changes import Changes

BENDING = ("turn", "zoom", "stretch", "shear", "perspective")


@dataclass(frozen=True)
class Moves:
    """What b pictures of one size do.

    ``matrix`` (b, 3, 3) float32 leads from places (x, y, 1) in the new picture to places in the old one, in
    pixels from the middle. ``whole``: it mirrors and shifts by whole pixels alone. ``boxes`` (b, 4) int64:
    top, left, bottom, right of what is erased, or None.
    """

    matrix: Tensor
    whole: bool
    boxes: Tensor | None = None


def draw_moves(changes: Changes, height: int, width: int, chance: Chance) -> Moves | None:
    """The moves of a batch; None where there are none."""
    boxes = _boxes(changes, height, width, chance) if changes.erase else None
    bends = any(getattr(changes, name) for name in BENDING) or changes.crop < 1
    if not bends and not (changes.flip or changes.upside_down or changes.shift):
        return None if boxes is None else Moves(chance.identity(), True, boxes)
    matrix = chance.identity()
    for name, axis in (("flip", 0), ("upside_down", 1)):
        if getattr(changes, name):
            matrix[:, axis, axis] = 1 - 2 * chance.happens(name, getattr(changes, name)).float()
    if bends:
        matrix = matrix @ _bend(changes, height, width, chance)
    if changes.shift:
        by = torch.stack([_pixels(changes.shift, side, chance) for side in (width, height)], 1)
        matrix[:, :2, 2:] += matrix[:, :2, :2] @ (by * chance.on("shift")[:, None])[..., None]
    return Moves(matrix, not bends, boxes)


def _bend(changes: Changes, height: int, width: int, chance: Chance) -> Tensor:
    """(b, 3, 3): turned, zoomed, stretched, sheared, cropped, seen from aside."""
    angle = chance.within("turn", math.radians(changes.turn))
    shear = torch.tan(chance.within("shear", math.radians(changes.shear)))
    zoom = torch.exp(chance.within("zoom", math.log1p(changes.zoom)))
    stretch = torch.exp(chance.within("stretch", math.log1p(changes.stretch)) / 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = chance.identity()
    matrix[:, 0, 0] = cos * zoom * stretch
    matrix[:, 0, 1] = (cos * shear - sin) * zoom / stretch
    matrix[:, 1, 0] = sin * zoom * stretch
    matrix[:, 1, 1] = (sin * shear + cos) * zoom / stretch
    if changes.crop < 1:
        side = (1 - (1 - changes.crop) * chance.uniform() * chance.on("crop")).sqrt()
        matrix[:, :2, :2] *= side[:, None, None]
        for axis, length in enumerate((width, height)):
            matrix[:, axis, 2] = (1 - side) * (chance.uniform() - 0.5) * length
    if changes.perspective:
        tilted = chance.identity()
        for axis, length in enumerate((width, height)):
            # one edge at 1 - p of its length, the other at 1 + p
            tilted[:, 2, axis] = chance.within("perspective", changes.perspective / 2) * 2 / length
        matrix = matrix @ tilted
    return matrix


def _pixels(share: float, side: int, chance: Chance) -> Tensor:
    """(b,) float32: a shift by whole pixels, at least 1 at the most."""
    most = min(max(1, int(share * side + 1e-6)), side - 1)
    return chance.integers(-most, most).float()


def _boxes(changes: Changes, height: int, width: int, chance: Chance) -> Tensor:
    """(b, 4): top, left, bottom, right, or nothing (Zhong et al. 2017, arXiv 1708.04896)."""
    share = changes.erase_least + (changes.erase_most - changes.erase_least) * chance.uniform()
    side, ratio = share.sqrt(), torch.exp(chance.signed() * math.log(3.3) / 2)
    happens = chance.happens("erase", changes.erase)
    found = []
    for length, relative in ((height, side * ratio), (width, side / ratio)):
        extent = (relative * length).round().clamp(1, length) * happens
        start = (chance.uniform() * (length - extent + 1)).floor()
        found.append((start, start + extent))
    return torch.stack([found[0][0], found[1][0], found[0][1], found[1][1]], 1).long()


def move_picture(image: Tensor, moves: Moves) -> Tensor:
    """(b, c, h, w), of any kind -> moved, in float32 where it is interpolated; not erased yet."""
    if moves.whole:
        return _take(image, moves.matrix)
    return F.grid_sample(
        image.float(), _grid(moves.matrix, *image.shape[-2:]), "bilinear", "reflection", align_corners=False
    )


def across_slices(scans: Tensor, changes: Changes, chance: Chance) -> Tensor:
    """(b, slices, h, w) -> shifted by whole slices; at the ends the first and the last slice go on.

    >>> scans = torch.arange(6).reshape(1, 6, 1, 1)
    >>> changes = Changes(shift=0.5)
    >>> across_slices(scans, changes, Chance(changes, 1, torch.Generator().manual_seed(3))).flatten().tolist()
    [0, 0, 0, 0, 1, 2]
    """
    slices = scans.shape[1]
    if slices < 2:
        return scans
    by = (_pixels(changes.shift, slices, chance) * chance.on("shift")).long().to(scans.device)
    places = (torch.arange(slices, device=scans.device) + by[:, None]).clamp(0, slices - 1)
    return scans[torch.arange(len(scans), device=scans.device)[:, None], places]


def move_mask(mask: Tensor, moves: Moves) -> Tensor:
    """(b, h, w) of whole numbers -> each place's own, the nearest; 0 where the picture is erased."""
    if moves.whole:
        moved = _take(mask[:, None], moves.matrix)[:, 0]
    else:
        grid = _grid(moves.matrix, *mask.shape[-2:])
        moved = F.grid_sample(mask[:, None].float(), grid, "nearest", "reflection", align_corners=False)[:, 0]
        moved = moved.to(mask.dtype)
    return moved if moves.boxes is None else moved.masked_fill(_covered(moves.boxes, *mask.shape[-2:]), 0)


def move_points(points: Tensor, moves: Moves, height: int, width: int) -> Tensor:
    """(b, k, 3) of x, y in pixels and whether it is to be seen -> where they went.

    A point that left the picture, or is erased, is not to be seen. Left and right do not change their names.
    """
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=points.device)
    there = torch.linalg.inv(moves.matrix.to(points.device))
    placed = torch.cat([points[..., :2] - middle, torch.ones_like(points[..., :1])], -1) @ there.mT
    place = placed[..., :2] / placed[..., 2:] + middle
    limit = torch.tensor([width - 0.5, height - 0.5], device=points.device)
    seen = (points[..., 2] > 0) & ((place >= -0.5) & (place < limit)).all(-1)
    if moves.boxes is not None:
        top, left, bottom, right = moves.boxes.to(points.device)[:, None].unbind(-1)
        x, y = place.round().unbind(-1)
        seen &= ~((x >= left) & (x < right) & (y >= top) & (y < bottom))
    return torch.cat([place, seen[..., None].to(points.dtype)], -1)


def erase(image: Tensor, moves: Moves, chance: Chance) -> Tensor:
    """(b, c, h, w) of 0 to 255 with a box of one random colour, where there is one."""
    if moves.boxes is None:
        return image
    colour = chance.integers(0, 255, image.shape[1]).to(image.device, image.dtype)[..., None, None]
    return torch.where(_covered(moves.boxes, *image.shape[-2:])[:, None], colour, image)


def stripe(image: Tensor, most: float, chance: Chance) -> Tensor:
    """(b, c, h, w) with one stripe of columns and one of rows black, up to ``most`` of the side each."""
    for axis in (3, 2):
        side = image.shape[axis]
        wide = most * side * chance.uniform() * chance.on("stripes")
        start = (side - wide) * chance.uniform()
        places = torch.arange(side, device=wide.device)
        hidden = (places >= start[:, None]) & (places < (start + wide)[:, None])
        shape = [len(image), 1, 1, 1]
        shape[axis] = side
        image = image.masked_fill(hidden.view(shape).to(image.device), 0)
    return image


def _covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """(b, h, w) bool: what lies in the boxes."""
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = (torch.arange(side, device=boxes.device) for side in (height, width))
    inside_rows, inside_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def _take(image: Tensor, matrix: Tensor) -> Tensor:
    """Whole pixels from elsewhere in the picture, mirrored at its border."""
    height, width = image.shape[-2:]
    columns, rows = (_sources(matrix[:, axis], axis, side) for axis, side in ((0, width), (1, height)))
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1).to(image.device)
    return image.flatten(2).gather(2, places[:, None].expand(-1, image.shape[1], -1)).view_as(image)


def _sources(line: Tensor, axis: int, side: int) -> Tensor:
    """(b, side) int64: which column (or row) each one of a picture comes from."""
    middle = (side - 1) / 2
    places = torch.arange(side, device=line.device) - middle
    found = (line[:, axis, None] * places + line[:, 2, None] + middle).round().long().abs()
    return torch.where(found < side, found, 2 * (side - 1) - found)


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """(b, h, w, 2): where each place of the new picture lies in the old one, from -1 to 1."""
    x, y = (torch.arange(side, device=matrix.device) - (side - 1) / 2 for side in (width, height))
    grid = torch.empty(len(matrix), height, width, 2, device=matrix.device)
    for axis, side in enumerate((width, height)):
        own = matrix[:, axis] * (2 / side)
        torch.add(
            (own[:, :1] * x)[:, None, :], (own[:, 1:2] * y + own[:, 2:])[:, :, None], out=grid[..., axis]
        )
    if bool((matrix[:, 2, :2] != 0).any()):
        depth = matrix[:, 2]
        grid /= ((depth[:, :1] * x)[:, None, :] + (depth[:, 1:2] * y + depth[:, 2:])[:, :, None])[..., None]
    return grid
