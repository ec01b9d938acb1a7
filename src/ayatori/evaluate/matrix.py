"""Stage 8. Inputs of every kind -> one matrix, for models that know columns alone.

Nothing is fitted here: what a row becomes depends on that row alone, so that no row tells of another.
"""

from __future__ import annotations

import numpy as np

from ayatori.records import Dataset

CELLS = 8  # scans are averaged down to at most so many parts each way
SIDE = 14  # pictures are averaged down to at most this side
SHAPE = 128  # values at most that say how series go, in coarse steps
KERNELS, TAPS = 128, 9  # random convolutions of series, and how many steps each looks at
WINDOWS = 1 << 24  # values of a block of windows


def whole_table(dataset: Dataset) -> tuple[np.ndarray, dict[str, slice]]:
    """All inputs as one matrix (n, features); which of its columns hold numbers, pixels and categories."""
    n = len(dataset)
    features = "features" in dataset.inputs  # what a frozen network says tells more than what it was shown
    if features and not (dataset.schema.image or dataset.schema.series):
        return dataset.inputs["features"], {"features": slice(0, dataset.inputs["features"].shape[1])}
    blocks = {}
    if "numbers" in dataset.inputs:
        blocks["numbers"] = np.asarray(dataset.inputs["numbers"], np.float64)
    if features:
        blocks["features"] = dataset.inputs["features"]
    elif "image" in dataset.inputs:
        image = dataset.inputs["image"]
        blocks["pixels"] = coarse_scans(image) if dataset.schema.slices else _pool(image)
    elif "series" in dataset.inputs:
        measured = described(dataset.inputs["series"])
        blocks["numbers"] = np.concatenate([*blocks.values(), measured], axis=1)
    if "categories" in dataset.inputs:
        blocks["categories"] = np.asarray(dataset.inputs["categories"], np.float32)
    if "words" in dataset.inputs:
        blocks["words"] = np.asarray(dataset.inputs["words"], np.float32)
    blocks = {kind: block.reshape(n, -1) for kind, block in blocks.items() if block.size}
    if not blocks:
        return np.zeros((n, 1), np.float32), {"numbers": slice(0, 1)}
    ends = np.cumsum([block.shape[1] for block in blocks.values()])
    kinds = {
        kind: slice(int(end) - block.shape[1], int(end))
        for (kind, block), end in zip(blocks.items(), ends, strict=True)
    }
    return np.concatenate(list(blocks.values()), axis=1), kinds


def without_words(table: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The matrix without the places of words, which come last, and are no numbers to calculate with."""
    words = dataset.inputs["words"].shape[1] if "words" in dataset.inputs else 0
    return table[:, : table.shape[1] - words]


def _pool(image: np.ndarray, batch: int = 4096) -> np.ndarray:
    """(n, c, h, w) uint8 -> (n, features) float32 from 0 to 1: averaged down to at most SIDE x SIDE."""
    n, channels, height, width = image.shape
    down, right = -(-height // SIDE), -(-width // SIDE)
    tall, wide = height // down, width // right
    pooled = np.empty((n, channels * tall * wide), np.float32)
    for start in range(0, n, batch):
        part = image[start : start + batch, :, : tall * down, : wide * right].astype(np.float32)
        cells = part.reshape(len(part), channels, tall, down, wide, right).mean(axis=(3, 5))
        pooled[start : start + batch] = cells.reshape(len(part), -1) / 255
    return pooled


def coarse_scans(image: np.ndarray) -> np.ndarray:
    """(n, slices, h, w) uint8 -> (n, features) float32 from 0 to 1: what a practitioner would look at.

    The means of at most CELLS x CELLS x CELLS parts of a scan, and which share of it is how bright.
    """
    ends = [np.arange(min(size, CELLS)) * size // min(size, CELLS) for size in image.shape[1:]]
    found = []
    for scan in image:
        cells, counts = scan.astype(np.float32), np.ones(1)
        for axis, starts in enumerate(ends):
            cells = np.add.reduceat(cells, starts, axis=axis)
            counts = np.multiply.outer(counts, np.diff([*starts, scan.shape[axis]]))
        bright = np.bincount(scan.ravel() >> 4, minlength=16) / scan.size
        found.append(np.concatenate([(cells / counts[0]).ravel() / 255, bright]).astype(np.float32))
    return np.stack(found) if found else np.zeros((0, 16), np.float32)


def described(series: np.ndarray) -> np.ndarray:
    """(n, channels, steps), NaN where missing -> (n, features) float32: what a practitioner would look at.

    Of each channel its mean, spread, extremes, mean step up or down and share of missing values; its
    course in coarse steps; and of random convolutions how often and how far they rise above their threshold
    (Dempster et al., "ROCKET", 2020, arXiv:1910.13051), on each series scaled by its own mean and spread.

    >>> described(np.zeros((2, 3, 40), np.float32)).shape
    (2, 394)
    """
    rows = max(1, WINDOWS // max(1, series[:1].size))
    blocks = [_described(series[start : start + rows]) for start in range(0, max(1, len(series)), rows)]
    return np.concatenate(blocks)


def _described(series: np.ndarray) -> np.ndarray:
    there = ~np.isnan(series)
    count = np.maximum(there.sum(axis=2), 1)
    filled = np.where(there, series, 0.0).astype(np.float32)
    mean = filled.sum(axis=2) / count
    off = np.where(there, series - mean[:, :, None], 0.0).astype(np.float32)
    spread = np.sqrt(np.square(off).sum(axis=2) / count)
    low = np.where(there, series, np.inf).min(axis=2)
    high = np.where(there, series, -np.inf).max(axis=2)
    both = there[:, :, 1:] & there[:, :, :-1]
    moves = np.where(both, np.abs(np.diff(filled, axis=2)), 0).sum(axis=2) / np.maximum(both.sum(axis=2), 1)
    none = ~there.any(axis=2)
    numbers = [mean, spread, np.where(none, 0, low), np.where(none, 0, high), moves, 1 - there.mean(axis=2)]
    scaled = off / np.maximum(spread, 1e-6)[:, :, None]
    parts = [*numbers, _coarse(filled, there), _convolved(scaled.astype(np.float32))]
    return np.concatenate([part.reshape(len(series), -1) for part in parts], axis=1).astype(np.float32)


def _coarse(filled: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Means of a few long steps of each channel; 0 where nothing is there."""
    _, channels, steps = filled.shape
    parts = min(steps, max(4, SHAPE // channels))
    starts = np.arange(parts) * steps // parts
    total = np.add.reduceat(filled, starts, axis=2)
    return total / np.maximum(np.add.reduceat(there, starts, axis=2, dtype=np.float32), 1)


def _convolved(scaled: np.ndarray) -> np.ndarray:
    """(n, 2 * KERNELS): of each kernel the share of steps above its threshold, and the largest answer."""
    n, channels, steps = scaled.shape
    chance = np.random.default_rng(31)
    most = max(0, int(np.log2(max(1, (steps - 1) / (TAPS - 1)))))
    dilations = 2 ** np.arange(most + 1)
    share = np.array_split(np.arange(KERNELS), len(dilations))
    found = np.empty((n, 2, KERNELS), np.float32)
    for dilation, kernels in zip(dilations.tolist(), share, strict=True):
        weights = chance.normal(size=(len(kernels), channels, TAPS))
        weights *= chance.random((len(kernels), channels, 1)) < min(1.0, 3 / channels)  # a few channels each
        weights -= weights.mean(axis=2, keepdims=True)
        threshold = chance.uniform(-1, 1, len(kernels)).astype(np.float32)
        flat = weights.transpose(2, 1, 0).reshape(TAPS * channels, len(kernels)).astype(np.float32)
        reach = dilation * (TAPS // 2)
        rows = max(1, WINDOWS // (TAPS * channels * steps))
        for start in range(0, n, rows):
            part = np.pad(scaled[start : start + rows], ((0, 0), (0, 0), (reach, reach)))
            windows = [part[:, :, tap * dilation : tap * dilation + steps] for tap in range(TAPS)]
            side = np.concatenate(windows, axis=1).transpose(0, 2, 1)
            answers = side @ flat - threshold
            found[start : start + rows, 0, kernels] = (answers > 0).mean(axis=1)
            found[start : start + rows, 1, kernels] = answers.max(axis=1)
    return found
