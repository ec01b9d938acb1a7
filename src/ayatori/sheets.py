"""Varied pictures -> one picture of them all: a line for each row, the original first."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

TILE, GAP = 64, 3  # pixels


def sheet_of(pictures: np.ndarray) -> Image.Image:
    """(k, 9, c, h, w) uint8 -> lines of nine small pictures."""
    lines = [line_of_pictures(line) for line in pictures]
    width, height = lines[0].size
    sheet = Image.new("RGB", (width, len(lines) * (height + GAP) - GAP), "white")
    for number, line in enumerate(lines):
        sheet.paste(line, (0, number * (height + GAP)))
    return sheet


def line_of_pictures(pictures: np.ndarray) -> Image.Image:
    """(k, c, h, w) uint8 side by side, the first set apart; small ones are enlarged pixel by pixel."""
    height, width = pictures.shape[-2:]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    line = Image.new("RGB", (len(pictures) * (size[0] + GAP) + 2 * GAP, size[1]), "grey")
    for number, pixels in enumerate(pictures):
        colours = pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels[0]
        tile = Image.fromarray(np.ascontiguousarray(colours)).convert("RGB").resize(size, way)
        line.paste(tile, (number * (size[0] + GAP) + (3 * GAP if number else 0), 0))
    return line


def png_of(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
