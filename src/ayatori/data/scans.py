"""Stage 1f. A scan in three dimensions -> a picture whose channels are its slices.

Where all scans tell the size of their voxels, one size is used for all, so that what is larger stays larger.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ayatori.data.scan_files import MOST_VOXELS, UnseenError, read_scan, slices_of
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset

SIDE = 48  # voxels of the longest side, where nobody says otherwise
SEEN = 112  # at most, where a network for larger pictures looks at slices
# where the darkest of most scans is dark as air (or marked as outside), and nothing is brighter than metal,
# values are Hounsfield units, which mean the same in all
AIR, METAL = (-3100.0, -700.0), 3100.0
ALIKE = 2.0  # so much may the highest values of scans differ, as a factor, that have one scale
SLABS = 4  # a scan that is looked at as a picture has so many channels
_TYPICAL = 500  # scans that say what all share
_COPY = 0.75  # correlation of copies, see dev/LOG.md
_EDGE = 0.005  # share of the voxels of a scan that may lie beyond what is told apart, at either end
_SAMPLE = 24  # so many scans decide how all are read
_TELLING = 200_000  # voxels of a scan that tell how its values are spread
_LARGE = 2**25  # bytes of files; larger scans are read one at a time, for the sake of memory
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class _Glance:
    """What a scan tells of how all should be read: its shape, its voxels, its lowest and highest values."""

    shape: tuple[int, ...]
    spacing: tuple[float, float, float] | None
    reach: tuple[float, float]


def choose_scans(files: Sequence[str], recipe: DataRecipe) -> tuple[tuple[int, int, int], DataRecipe, str]:
    """Shape (slices, side, side) of all scans, how they are read, and that in words: from a sample."""
    window = recipe.scan_window
    if window not in ("", "own"):
        window = spelled(*window_of(window))
    if recipe.scan_mm and not 0.001 <= recipe.scan_mm <= 1000:
        raise AyatoriError(f"scan_mm must be between 0.001 and 1000, however scan_mm={recipe.scan_mm:g}")
    seen = _glances(files[:: max(1, len(files) // _SAMPLE)])
    shape, voxel, how = _choose_shape(seen, recipe)
    window = window or _choose_window(seen)
    if window == "own":
        how += ", each from its own darkest to its own brightest"
    else:
        low, high = window_of(window)
        how += f", values from {low:,g} to {high:,g}"
    return shape, dataclasses.replace(recipe, scan_window=window, scan_mm=voxel), how


def _glances(files: Sequence[str]) -> list[_Glance]:
    reasons: list[str] = []

    def glance(file: str) -> _Glance | None:
        try:
            with _turn(file):
                scan = read_scan(file)
                return _Glance(scan.values.shape, scan.spacing, reach_of(scan.values))
        except UnseenError as error:  # those of a few are named when all are read
            reasons.append(str(error))
            return None

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        seen = [found for found in pool.map(glance, files) if found is not None]
    if not seen:
        more = f", nor are {len(reasons) - 1} others" if len(reasons) > 1 else ""
        raise AyatoriError(
            f"scans must be readable, however '{files[0]}' is not ({reasons[0]}){more}; mend or remove them"
        )
    return seen


def _choose_shape(seen: Sequence[_Glance], recipe: DataRecipe) -> tuple[tuple[int, int, int], float, str]:
    """The shape, the size of a voxel in millimetres (0: scans are squeezed as a whole), and that in words."""
    sizes = np.array([one.shape for one in seen])
    ends = (int(sizes.prod(axis=1).argmin()), int(sizes.prod(axis=1).argmax()))
    span = " to ".join(dict.fromkeys(" x ".join(map(str, sizes[at])) for at in ends))
    side = recipe.size or min(recipe.seen or SIDE, SEEN, int(sizes.max()))
    told = [one.spacing for one in seen if one.spacing is not None]
    if len(told) < len(seen):
        if recipe.scan_mm:
            raise AyatoriError("scan_mm needs the size of voxels, however some scans do not tell it")
        usual = np.median(sizes, axis=0)
        slices = max(1, min(side, round(side * float(usual[0] / usual[1:].max()))))
        how = f"scans of {span} voxels are read at {slices} x {side} x {side}"
        return (slices, side, side), 0.0, how
    extents = np.quantile(sizes * np.array(told), 0.95, axis=0)  # millimetres
    voxel = recipe.scan_mm or float(f"{extents.max() / side:.3g}")
    slices = max(1, min(side, round(float(extents[0]) / voxel)))
    how = f"scans of {span} voxels are read at {slices} x {side} x {side}, {voxel:g} mm each"
    return (slices, side, side), voxel, how


def _choose_window(seen: Sequence[_Glance]) -> str:
    """Values that are told apart, "LOW,HIGH", where they mean the same in all scans, else "own"."""
    low, high = np.array([one.reach for one in seen]).T
    air = AIR[0] <= np.median(low) <= AIR[1] and 0 < np.median(high) <= METAL
    if not air and not 0 < high.max() <= ALIKE * high.min():
        return "own"
    low, high = np.quantile(low, 0.1), np.quantile(high, 0.9)
    return spelled(float(f"{low:.3g}"), float(f"{high:.3g}")) if high > low else "own"


def window_of(text: str) -> tuple[float, float]:
    """Of "LOW,HIGH" both numbers.

    >>> window_of("-1000,400")
    (-1000.0, 400.0)
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise AyatoriError(f"scan_window must be own, or LOW,HIGH such as -1000,400, however: {text!r}")
    return low, high


def spelled(low: float, high: float) -> str:
    """A window as text, see ``window_of``."""
    return f"{low:g},{high:g}"


def see(file: str, shape: tuple[int, int, int], window: str = "own", mm: float = 0.0) -> np.ndarray:
    """The scan (slices, side, side) uint8 in a file or in a folder of slices, as networks see it.

    ``window``: "own", or which values become 0 and 255, "LOW,HIGH". ``mm``: the size of a voxel, whose middle
    is cut to ``shape`` or filled up to it; 0: the scan is squeezed to it as a whole. Raises UnseenError.
    """
    with _turn(file):
        scan = read_scan(file)
        low, high = reach_of(scan.values) if window == "own" else window_of(window)
        values = scan.values
        if mm and scan.spacing is None:
            raise UnseenError("it does not tell the size of its voxels, as others do")
        if mm and scan.spacing is not None:
            sizes = zip(values.shape, scan.spacing, strict=True)
            wanted = [max(1, round(size * own / mm)) for size, own in sizes]
            if math.prod(wanted) > MOST_VOXELS:
                raise UnseenError(f"at {mm:g} mm its size is {' x '.join(map(str, wanted))}")
            values = _resized(values, wanted)
            values = _fitted(values, shape, low)
        else:
            values = _resized(values, shape)
    bright = (values - low) * (255 / max(high - low, 1e-12))
    return np.clip(np.rint(bright), 0, 255).astype(np.uint8)


def _turn(file: str) -> contextlib.AbstractContextManager[object]:
    """Large scans wait for each other."""
    files = slices_of(file) if os.path.isdir(file) else [file]
    size = len(files) * os.path.getsize(files[0]) if files and os.path.exists(files[0]) else 0
    return _one_at_a_time if size > _LARGE else contextlib.nullcontext()


def reach_of(values: np.ndarray) -> tuple[float, float]:
    """Between which values nearly all of a scan lies."""
    some = values.ravel()[:: max(1, values.size // _TELLING) | 1]
    low, high = np.quantile(some, [_EDGE, 1 - _EDGE])
    return float(low), float(high)


def _resized(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(d, h, w) -> ``shape``: first each slice, then across slices; what becomes fewer is averaged."""
    slices, height, width = shape
    if values.shape[1:] != (height, width):
        values = np.stack([_scaled(one, (height, width)) for one in values])
    if len(values) != slices:
        values = _scaled(values.reshape(len(values), -1), (slices, height * width))
    return values.reshape(slices, height, width)


def _scaled(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 -> ``shape``, between the nearest values."""
    return np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR))


def _fitted(values: np.ndarray, shape: Sequence[int], fill: float) -> np.ndarray:
    """The middle of (d, h, w) that has ``shape``; what is beyond its ends is ``fill``."""
    for axis, size in enumerate(shape):
        have = values.shape[axis]
        if have > size:
            first = (have - size) // 2
            values = np.take(values, range(first, first + size), axis)
        elif have < size:
            before = (size - have) // 2
            pad = [(before, size - have - before) if at == axis else (0, 0) for at in range(3)]
            values = np.pad(values, pad, constant_values=fill)
    return values


def flattened(dataset: Dataset) -> np.ndarray:
    """Pictures (n, c, h, w) uint8 of rows, for what knows pictures: of a scan the means of a few slabs."""
    image = dataset.inputs["image"]
    if not dataset.schema.slices or image.shape[1] <= SLABS:
        return image
    flat = np.empty((len(image), SLABS, *image.shape[2:]), np.uint8)
    ends = np.arange(SLABS + 1) * image.shape[1] // SLABS
    for row, scan in zip(flat, image, strict=True):
        for slab, (start, end) in enumerate(itertools.pairwise(ends)):
            row[slab] = scan[start:end].mean(axis=0)
    return flat


def alike_in_depth(image: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(k,) bool: whether scans whose slabs are alike (k, 2) are so voxel by voxel, beside what all share.

    Heads are like heads, and slabs of few details more so.
    """
    some = np.unique(np.linspace(0, len(image) - 1, min(len(image), _TYPICAL)).astype(int))
    usual = image[some].mean(axis=0, dtype=np.float32)

    @functools.lru_cache(maxsize=64)
    def own(row: int) -> np.ndarray:
        values = image[row] - usual
        return (values - values.mean()) / max(float(values.std()), 1e-6)

    return np.array([(own(a) * own(b)).mean() > _COPY for a, b in pairs.tolist()], bool)
