"""Rows as small pictures for people: pictures made smaller, slices of scans side by side, series as lines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

SIDE = 48  # pixels
TILES = 4  # slices of a scan that are shown, a square number
# a channel each, told apart by colour-blind readers too (Okabe & Ito 2008); further ones are grey
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OTHERS = "#999999"
EDGE = 0.005  # share of the values of a channel that may leave the picture at either side
SAMPLE = 2000  # rows that say how far a channel reaches


def thumbs_of(inputs: Mapping[str, np.ndarray], rows: np.ndarray, side: int = SIDE) -> np.ndarray | None:
    """(t, c, s, s) uint8: the ``rows`` as people see them; None for what is neither pictures nor series."""
    if "image" in inputs:
        shown = visible(inputs["image"], rows)
        return shrunk(shown, np.arange(len(rows)), side)
    return drawn(inputs["series"], rows, side) if "series" in inputs else None


def visible(image: np.ndarray, rows: np.ndarray, most: int = TILES) -> np.ndarray:
    """(t, 1 or 3, h, w) uint8: the pictures of ``rows``; of many channels, or slices, some side by side.

    >>> visible(np.zeros((5, 20, 8, 8), np.uint8), np.array([0, 3])).shape
    (2, 1, 16, 16)
    """
    channels, height, width = image.shape[1:]
    if channels in (1, 3):
        return image[rows]
    across = int(min(channels, most) ** 0.5) if channels >= 4 else channels
    down = across if channels >= 4 else 1
    # the first and the last slices of a scan show its ends, and little else
    places = ((np.arange(across * down) + 0.5) * channels / (across * down)).astype(int)
    tiles = image[rows[:, None], places].reshape(len(rows), down, across, height, width)
    return tiles.transpose(0, 1, 3, 2, 4).reshape(len(rows), 1, down * height, across * width)


def shrunk(image: np.ndarray, rows: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(t, c, s, s) uint8: the pictures of ``rows``, square, at most ``side`` pixels wide."""
    side = min(side, max(image.shape[2:]))
    parts = []
    for start in range(0, len(rows), 256):
        part = torch.from_numpy(np.ascontiguousarray(image[rows[start : start + 256]])).float()
        if tuple(part.shape[2:]) != (side, side):
            part = functional.interpolate(part, (side, side), mode="bilinear", antialias=True)
        parts.append(part.round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(parts)


def drawn(series: np.ndarray, rows: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(t, 3, side, side) uint8: the series (n, channels, steps) of ``rows`` as lines, time to the right.

    Every channel has the height of the picture, from its lowest to its highest values in all rows, so
    that rows can be compared.

    >>> drawn(np.zeros((2, 1, 9), np.float32), np.array([0, 1]), 16).shape
    (2, 3, 16, 16)
    """
    even = np.unique(np.linspace(0, len(series) - 1, min(len(series), SAMPLE)).astype(int))
    flat = series[even].transpose(1, 0, 2).reshape(series.shape[1], -1).astype(np.float64)
    flat = np.where(np.isnan(flat).all(axis=1, keepdims=True), 0.0, flat)
    low, high = np.nanquantile(flat, [EDGE, 1 - EDGE], axis=1)
    middle, reach = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    large = 2 * side  # drawn large and made smaller: the lines come out smooth
    across = np.linspace(0.04, 0.96, series.shape[2]) * large
    parts = []
    for row in rows.tolist():
        picture = Image.new("RGB", (large, large), "white")
        pen = ImageDraw.Draw(picture)
        heights = (0.5 - 0.44 * np.clip((series[row] - middle[:, None]) / reach[:, None], -1.1, 1.1)) * large
        for channel in range(len(heights) - 1, -1, -1):
            colour = COLOURS[channel] if channel < len(COLOURS) else OTHERS
            for own in np.ma.clump_unmasked(np.ma.masked_invalid(heights[channel])):
                points = np.stack([across[own], heights[channel][own]], axis=1).ravel().tolist()
                pen.line(points if len(points) > 2 else points * 2, fill=colour, width=max(2, side // 40))
        small = picture.resize((side, side), Image.Resampling.LANCZOS)
        parts.append(np.asarray(small, np.uint8).transpose(2, 0, 1))
    return np.stack(parts) if parts else np.zeros((0, 3, side, side), np.uint8)
