"""Stage 1e. Picture files -> one uint8 array (n, c, s, s), decoded once."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .tga .ico".split()
)
KEPT_SIDE = 128  # square pictures of one size up to this side stay as they are
LARGE_SIDE, SMALL_SIDE = 96, 64
LARGE_PIXELS = 50_000_000  # pictures are read at 96 x 96 while all of them together have fewer pixels
MEGAPIXELS = 100
_SAMPLE = 256
_CHUNK = 64
_ORIENTATION = 0x0112
_GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Store:
    """Decoded pictures. ``kept`` (n,) are the positions of the files that could be read."""

    image: np.ndarray
    kept: np.ndarray
    notes: tuple[str, ...]


def read_pictures(
    files: Sequence[Path],
    names: Sequence[str],
    recipe: DataRecipe,
    decide_on: int,
    shape: tuple[int, int, int] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Store:
    """Decode ``files`` to the size and colours of ``shape`` (c, h, w), or what the first ``decide_on`` ask for.

    Pictures are squeezed to the square as a whole: nothing is cut off. Transparent parts become white, an
    animation is its first frame, 16 bits become 8, the orientation that a camera wrote is respected.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what cannot be read is named below
        notes: list[str] = []
        if shape is None:
            shape = _choose_shape(files[:decide_on], recipe, len(files), notes)
        free_colour = recipe.colour == "auto" and shape[0] == 1 and decide_on > 0
        store, broken, coloured = _decode_all(
            files, names, shape, decide_on if free_colour else 0, recipe, cache, progress
        )
        if coloured:
            shape = (3, *shape[1:])
            store, broken, _ = _decode_all(files, names, shape, 0, recipe, cache, progress)
    return _without(store, broken, names, recipe, notes)


def _choose_shape(
    files: Sequence[Path], recipe: DataRecipe, total: int, notes: list[str]
) -> tuple[int, int, int]:
    step = max(1, len(files) // _SAMPLE)
    sizes, grey = [], recipe.colour != "rgb"
    for file in files[::step]:
        try:
            width, height = _size(file)
            sizes.append((width, height))
            if grey and recipe.colour == "auto":
                grey = not _read(file, min(width, height, LARGE_SIDE), 1)[1]
        except AyatoriError:
            raise
        except Exception:  # a broken picture: named when all are decoded
            continue
    if not sizes:
        raise AyatoriError(f"pictures must be readable, however '{files[0]}' and all others tried are not")
    side = recipe.size or _choose_side(sizes, total)
    widths, heights = zip(*sizes, strict=True)
    found = f"{min(widths)} x {min(heights)} to {max(widths)} x {max(heights)}"
    if {(side, side)} == set(sizes):
        notes.append(f"pictures are {side} x {side}, {'grey' if grey else 'colour'}")
    else:
        notes.append(
            f"pictures of {found} pixels are squeezed to {side} x {side} as a whole, {'grey' if grey else 'colour'}"
        )
    return (1 if grey else 3, side, side)


def _choose_side(sizes: Sequence[tuple[int, int]], total: int) -> int:
    width, height = sizes[0]
    if len(set(sizes)) == 1 and width == height <= KEPT_SIDE:
        return width
    cap = LARGE_SIDE if total * LARGE_SIDE**2 <= LARGE_PIXELS else SMALL_SIDE
    short = int(np.median([min(size) for size in sizes]))
    return min(cap, max(8, short // 8 * 8))


def _open(file: Path) -> Image.Image:
    """Open a picture; its size is known, its pixels are not yet decoded."""
    try:
        picture = Image.open(file)
    except Image.DecompressionBombError:
        raise AyatoriError(
            f"a picture must have at most {MEGAPIXELS} megapixels, however '{file}' has far more; "
            "make it smaller or remove it"
        ) from None
    width, height = picture.size
    if width * height > MEGAPIXELS * 1_000_000:
        picture.close()
        raise AyatoriError(
            f"a picture must have at most {MEGAPIXELS} megapixels, however '{file}' has {width} x {height} pixels; "
            "make it smaller or remove it"
        )
    return picture


def _size(file: Path) -> tuple[int, int]:
    with _open(file) as picture:
        return picture.size


def _read(file: Path, side: int, channels: int) -> tuple[np.ndarray, bool]:
    """A picture as (channels, side, side) uint8, and whether it has colours that ``channels`` = 1 loses."""
    with _open(file) as picture:
        if picture.format == "JPEG":
            picture.draft(picture.mode, (2 * side, 2 * side))
        upright = picture
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            upright = ImageOps.exif_transpose(picture)
        plain = _plain(upright)
        if plain.size != (side, side):
            plain = plain.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.asarray(plain)
    if pixels.ndim == 2:
        return np.broadcast_to(pixels, (channels, side, side)), False
    if channels == 3:
        return pixels.transpose(2, 0, 1), False
    coloured = bool((pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any())
    return np.asarray(plain.convert("L"))[None], coloured


def _plain(picture: Image.Image) -> Image.Image:
    """Any mode -> L or RGB."""
    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture
    if mode.startswith("I") or mode == "F":
        values = np.asarray(picture, dtype=np.float32)
        if mode.startswith("I;16") or values.max() > 255:
            values = values / 257.0
        elif mode == "F" and values.max() <= 1:
            values = values * 255.0
        return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        solid = picture.convert("RGBA")
        white = Image.new("RGBA", solid.size, "white")
        flat = Image.alpha_composite(white, solid)
        return flat.convert("L" if mode in _GREY_MODES else "RGB")
    return picture.convert("L" if mode in _GREY_MODES else "RGB")


def _decode_all(
    files: Sequence[Path],
    names: Sequence[str],
    shape: tuple[int, int, int],
    must_be_grey: int,
    recipe: DataRecipe,
    cache: Path | None,
    progress: Progress | None,
) -> tuple[np.ndarray, dict[int, str], bool]:
    """Decode into a new store: the store, why files are broken, whether one of the first has colours."""
    store = new_store((len(files), *shape), recipe.memory_gb, cache)

    def chunk(start: int) -> tuple[dict[int, str], bool]:
        broken: dict[int, str] = {}
        for position in range(start, min(start + _CHUNK, len(files))):
            try:
                store[position], coloured = _read(files[position], shape[1], shape[0])
                if coloured and position < must_be_grey:
                    return broken, True
            except AyatoriError:
                raise
            except Exception as error:  # Pillow raises many kinds; the file is named with the reason
                broken[position] = str(error).splitlines()[0] if str(error) else type(error).__name__
        return broken, False

    broken: dict[int, str] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures = [pool.submit(chunk, start) for start in range(0, len(files), _CHUNK)]
        try:
            for done, future in enumerate(futures, 1):
                found, coloured = future.result()
                if coloured:
                    return store, {}, True
                broken.update(found)
                if progress:
                    progress(min(done * _CHUNK, len(files)), len(files))
        finally:
            pool.shutdown(cancel_futures=True)
    return store, broken, False


def new_store(shape: tuple[int, ...], memory_gb: float, cache: Path | None) -> np.ndarray:
    """An empty uint8 array; a memory-mapped .npy file in ``cache`` when it is larger than ``memory_gb``."""
    size = int(np.prod(shape))
    if size <= memory_gb * 1e9:
        return np.empty(shape, dtype=np.uint8)
    if cache is None:
        cache = Path(tempfile.mkdtemp(prefix="ayatori-"))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < size + 1_000_000:
        raise AyatoriError(
            f"the decoded pictures need {size / 1e9:.1f} GB, however '{cache}' has {free / 1e9:.1f} GB free; "
            "free some space or choose a smaller size"
        )
    handle, path = tempfile.mkstemp(prefix="pictures-", suffix=".npy", dir=cache)
    os.close(handle)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _without(
    store: np.ndarray, broken: dict[int, str], names: Sequence[str], recipe: DataRecipe, notes: list[str]
) -> Store:
    kept = np.setdiff1d(np.arange(len(store)), list(broken)).astype(np.int64)
    if not broken:
        return Store(store, kept, tuple(notes))
    first = [f"'{names[position]}' ({reason})" for position, reason in sorted(broken.items())[:5]]
    listed = ", ".join(first) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
    if recipe.strict:
        raise AyatoriError(f"every picture must be readable, however not {listed}; mend or remove them")
    if not len(kept):
        raise AyatoriError(f"pictures must be readable, however none is: {listed}")
    notes.append(f"{len(broken)} broken pictures are skipped: {listed}")
    for new, old in enumerate(kept):  # moved up in place: the store may be larger than memory
        if new != old:
            store[new] = store[old]
    return Store(store[: len(kept)], kept, tuple(notes))
