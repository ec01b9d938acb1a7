"""Stage 1f. Files of pictures, sound or scans -> one uint8 array (n, c, s, s), each file decoded once."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ayatori.data.paths import kind_of
from ayatori.data.scan_files import UnseenError, dicom_picture, is_dicom
from ayatori.data.scans import choose_scans, see
from ayatori.data.sounds import UnheardError, choose_sound, hear
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Schema

KEPT_SIDE = 128  # square pictures of one size up to this side stay as they are
LARGE_SIDE, SMALL_SIDE = 96, 64
LARGE_PIXELS = 50_000_000  # pictures are read at 96 x 96 while all of them together have fewer pixels
MEGAPIXELS = 100  # larger pictures are refused before they are decoded
_SAMPLE = 256  # so many pictures decide the size
_CHUNK = 64  # files that a thread decodes in one go
_ALONE = 20_000_000  # pictures with more pixels are decoded one at a time, for the sake of memory
_WHOLE_FILE = 1 << 25  # bytes; larger files are read piece by piece
_ORIENTATION = 0x0112
_GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))

Progress = Callable[[int, int], None]
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Store:
    """Decoded pictures (n, c, s, s). ``kept`` (n,) are the positions of the files that could be read.

    ``recipe``: how they were read, with what was decided of recordings.
    """

    image: np.ndarray
    kept: np.ndarray
    notes: tuple[str, ...]
    recipe: DataRecipe


def read_pictures(
    files: Sequence[str],
    names: Sequence[str],
    recipe: DataRecipe,
    decide_on: int,
    shape: tuple[int, int, int] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Store:
    """Decode ``files`` to ``shape`` (c, s, s), or to what the first ``decide_on`` of them ask for.

    A picture is squeezed to the square as a whole, so that nothing is cut off, unless ``recipe.crop`` says
    otherwise. Transparent parts become white, an animation is its first frame, 16 bits (or as many as are
    used) become 8, the orientation that a camera wrote is respected.
    """
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what cannot be read is named below
        found, must_be_grey = "", 0
        kind = kind_of(files)
        if recipe.size and not 4 <= recipe.size <= 4096:
            raise AyatoriError(f"size must be between 4 and 4096 pixels, however size={recipe.size}")
        if shape is None:
            _only_for(kind, recipe)
        if shape is None and kind == "scans":
            shape, recipe, found = choose_scans(files[:decide_on], recipe)
        elif shape is None and kind == "recordings":
            side, seconds, hertz, found = choose_sound(files[:decide_on], recipe)
            recipe = dataclasses.replace(recipe, sound_seconds=seconds, sound_hertz=hertz)
            shape = (3 if recipe.colour == "rgb" else 1, side, side)
        elif shape is None:
            shape, found = _choose_shape(files[:decide_on], recipe, len(files))
            bits = recipe.bits or _choose_bits(files[:decide_on])
            recipe = dataclasses.replace(recipe, bits=bits)
            if bits and bits < 16:
                found += f", values of 16 bits from 0 to {2**bits - 1:,} become 0 to 255"
            found += ", grey" if shape[0] == 1 else ", in colour"
            must_be_grey = decide_on if recipe.colour == "auto" and shape[0] == 1 else 0
        store, broken, coloured = _decode_all(files, shape, must_be_grey, recipe, cache, progress)
        if coloured:
            shape, found = (3, *shape[1:]), found.removesuffix(", grey") + ", in colour"
            store, broken, _ = _decode_all(files, shape, 0, recipe, cache, progress)
    if found:
        notes.append(found)
    return _without(store, broken, names, recipe, notes)


def recipe_like(schema: Schema) -> DataRecipe:
    """How more pictures are read like those that a schema describes."""
    same = ("crop", "resample", "sound_seconds", "sound_hertz", "scan_window", "scan_mm", "bits")
    return DataRecipe(**{name: getattr(schema, name) for name in same})


def decode_pictures(
    files: Sequence[str], shape: tuple[int, int, int], recipe: DataRecipe
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode so many files as memory holds: pictures (files, c, s, s), and why some files are broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store, broken, _ = _decode_all(files, shape, 0, recipe, None, None)
    return store, broken


def _only_for(kind: str, recipe: DataRecipe) -> None:
    """Refuse what was asked for files of another kind."""
    if kind != "recordings" and (recipe.sound_seconds or recipe.sound_hertz):
        raise AyatoriError(f"sound_seconds and sound_hertz are for recordings, however these are {kind}")
    if kind != "scans" and (recipe.scan_window or recipe.scan_mm):
        raise AyatoriError(f"scan_window and scan_mm are for scans, however these are {kind}")


def _choose_shape(files: Sequence[str], recipe: DataRecipe, total: int) -> tuple[tuple[int, int, int], str]:
    """The shape for all pictures, from a sample spread over ``files``, and what was found, in words."""
    sizes, grey = [], recipe.colour != "rgb"
    for file in files[:: max(1, len(files) // _SAMPLE)]:
        with contextlib.suppress(_UnreadableError):  # named when all are decoded
            sizes.append(_size(file))
            if grey and recipe.colour == "auto":
                grey = not _read(file, min(*sizes[-1], LARGE_SIDE), 1, DataRecipe())[1]
    if not sizes:
        raise AyatoriError(f"pictures must be readable, however '{files[0]}' and the others tried are not")
    side = recipe.size or recipe.seen or _choose_side(sizes, total)
    widths, heights = zip(*sizes, strict=True)
    found = f"pictures are {side} x {side} pixels"
    if {(side, side)} != set(sizes):
        least, most = (min(widths), min(heights)), (max(widths), max(heights))
        span = " to ".join(f"{width} x {height}" for width, height in dict.fromkeys((least, most)))
        found = f"pictures of {span} pixels are squeezed to {side} x {side} as a whole"
        if recipe.crop:
            part = f"{recipe.crop:.1%} of the shorter side"
            found = f"of pictures of {span} pixels the middle, {part}, is read at {side} x {side}"
    return (1 if grey else 3, side, side), found


def _choose_bits(files: Sequence[str]) -> int:
    """How many bits pictures of 16 use, but for one pixel in a thousand; 0 where there are none of 16.

    Cameras and scanners of 10, 12 or 14 bits leave the others empty: as they are, they would be nearly black.
    """
    most = 0
    for file in files[:: max(1, len(files) // _SAMPLE)]:
        with contextlib.suppress(_UnreadableError), _open(file) as picture:
            if picture.mode.startswith("I;16"):
                most = max(most, int(np.quantile(np.asarray(picture), 0.999, method="lower")))
    return min(16, max(8, most.bit_length())) if most else 0


def _choose_side(sizes: Sequence[tuple[int, int]], total: int) -> int:
    width, height = sizes[0]
    if len(set(sizes)) == 1 and width == height <= KEPT_SIDE:
        return width
    cap = LARGE_SIDE if total * LARGE_SIDE**2 <= LARGE_PIXELS else SMALL_SIDE
    short = int(np.median([min(size) for size in sizes]))
    return min(cap, max(8, short // 8 * 8))


class _UnreadableError(Exception):
    """A file that is no picture, or a broken one; says why."""


# what our endings stand for, whatever a file's own ending is: other readers may start programs (EPS)
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO")


@contextlib.contextmanager
def _open(file: str):  # type: ignore[no-untyped-def]  # an iterator of Image.Image
    """Open a picture, not yet decoded. Whatever Pillow raises on the way becomes ``_UnreadableError``."""
    try:
        if is_dicom(file):
            yield dicom_picture(file)
            return
        with open(file, "rb", buffering=0) as raw:
            small = os.fstat(raw.fileno()).st_size <= _WHOLE_FILE
            with Image.open(io.BytesIO(raw.read()) if small else raw, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MEGAPIXELS * 1_000_000:
                    raise _too_large(file, f"{width} x {height} pixels")
                yield picture
    except (AyatoriError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_large(file, "far more") from None
    except UnidentifiedImageError:
        raise _UnreadableError(
            "no known kind of picture" if os.path.getsize(file) else "empty file"
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _UnreadableError(reason.splitlines()[0]) from None


def _too_large(file: str, found: str) -> AyatoriError:
    return AyatoriError(
        f"a picture must have at most {MEGAPIXELS} megapixels, however '{file}' has {found}; "
        "make it smaller or remove it"
    )


def _size(file: str) -> tuple[int, int]:
    with _open(file) as picture:
        return picture.size


def _read(file: str, side: int, channels: int, recipe: DataRecipe) -> tuple[np.ndarray, bool]:
    """A picture as (channels, side, side) uint8, and whether it has colours that one channel loses."""
    if recipe.sound_seconds:
        try:
            heard = hear(file, side, recipe.sound_seconds, recipe.sound_hertz)
        except UnheardError as error:
            raise _UnreadableError(str(error)) from None
        return np.stack([heard] * channels), False
    if recipe.scan_window:
        try:
            return see(file, (channels, side, side), recipe.scan_window, recipe.scan_mm), False
        except UnseenError as error:
            raise _UnreadableError(str(error)) from None
    with _open(file) as picture:
        width, height = picture.size
        with _one_at_a_time if width * height > _ALONE else contextlib.nullcontext():
            if picture.format == "JPEG":
                picture.draft(picture.mode, (2 * side, 2 * side))
            plain = _plain(_upright(picture), recipe.bits or 16)
            if plain.size != (side, side) or recipe.crop:
                box = _middle(plain.size, recipe.crop) if recipe.crop else None
                how = Image.Resampling[recipe.resample.upper()]
                plain = plain.resize((side, side), how, box, reducing_gap=2.0)
            pixels = np.asarray(plain)
    if pixels.ndim == 2:
        return (pixels[None] if channels == 1 else np.stack([pixels] * channels)), False
    if channels == 3:
        return pixels.transpose(2, 0, 1), False
    coloured = bool((pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any())
    return np.asarray(plain.convert("L"))[None], coloured


def _middle(size: tuple[int, int], share: float) -> tuple[float, float, float, float]:
    """The square in the middle whose side is ``share`` of the shorter one."""
    side = share * min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    said = picture.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
    if said and picture.getexif().get(_ORIENTATION, 1) != 1:
        return ImageOps.exif_transpose(picture)
    return picture


def _plain(picture: Image.Image, bits: int) -> Image.Image:
    """Any mode -> L or RGB; ``bits``: of larger values, that are used."""
    mode = picture.mode
    if "transparency" in picture.info or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        solid = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid)
        return flat.convert("L" if mode in _GREY_MODES else "RGB")
    if mode in ("L", "RGB"):
        return picture
    if mode.startswith("I") or mode == "F":
        values: np.ndarray = np.asarray(picture, dtype=np.float32)
        if mode.startswith("I;16") or values.max() > 255:
            values = values * 255 / (2**bits - 1)
        elif mode == "F" and values.max() <= 1:
            values = values * 255
        return Image.fromarray(np.clip(np.nan_to_num(np.round(values)), 0, 255).astype(np.uint8))
    return picture.convert("L" if mode in _GREY_MODES else "RGB")


def _decode_all(
    files: Sequence[str],
    shape: tuple[int, int, int],
    must_be_grey: int,
    recipe: DataRecipe,
    cache: Path | None,
    progress: Progress | None,
) -> tuple[np.ndarray, dict[int, str], bool]:
    """Decode into a new store: the store, why files are broken, whether a file that must be grey is not."""
    store = new_store((len(files), *shape), recipe.memory_gb, cache)

    several = 1 if recipe.scan_window else _CHUNK

    def chunk(start: int) -> tuple[dict[int, str], bool]:
        broken: dict[int, str] = {}
        for position in range(start, min(start + several, len(files))):
            try:
                store[position], coloured = _read(files[position], shape[1], shape[0], recipe)
                if coloured and position < must_be_grey:
                    return broken, True
            except _UnreadableError as error:
                broken[position] = str(error)
        return broken, False

    broken: dict[int, str] = {}
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for done, (found, coloured) in enumerate(pool.map(chunk, range(0, len(files), several)), 1):
            if coloured:
                discard(store)
                return store, {}, True
            broken.update(found)
            if progress:
                progress(min(done * several, len(files)), len(files))
    except BaseException:
        discard(store)
        raise
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
    if free < size + 1_000_000:  # a write to a mapped file on a full disk would kill the process
        raise AyatoriError(
            f"the decoded pictures need {size / 1e9:.1f} GB, however '{cache}' has {free / 1e9:.1f} GB free; "
            "free some space or choose a smaller size"
        )
    handle, path = tempfile.mkstemp(prefix="pictures-", suffix=".npy", dir=cache)
    os.close(handle)
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return store


def discard(store: np.ndarray) -> None:
    """Remove the file behind a store, if there is one."""
    if isinstance(store, np.memmap) and store.filename is not None:
        Path(store.filename).unlink(missing_ok=True)


def _without(
    store: np.ndarray, broken: dict[int, str], names: Sequence[str], recipe: DataRecipe, notes: list[str]
) -> Store:
    kept = np.setdiff1d(np.arange(len(store)), list(broken)).astype(np.int64)
    if not broken:
        return Store(store, kept, tuple(notes), recipe)
    try:
        notes += broken_notes(broken, names, recipe.strict or not len(kept), called_by(recipe))
    except AyatoriError:
        discard(store)
        raise
    for new, old in enumerate(kept):  # moved up in place: the store may be larger than memory
        if new != old:
            store[new] = store[old]
    return Store(store[: len(kept)], kept, tuple(notes), recipe)


def called_by(recipe: DataRecipe) -> str:
    """What one of the files is that were read so."""
    return "recording" if recipe.sound_seconds else "scan" if recipe.scan_window else "picture"


def broken_notes(
    broken: Mapping[int, str], names: Sequence[str] | np.ndarray, strict: bool, called: str
) -> list[str]:
    """What is said of broken files by their positions in ``names``; an AyatoriError when ``strict``.

    ``called``: what one of them is.
    """
    first = [f"'{names[position]}' ({reason})" for position, reason in sorted(broken.items())[:5]]
    listed = ", ".join(first) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
    if strict and broken:
        raise AyatoriError(
            f"every {called} must be readable, however {len(broken)} of them cannot be read: {listed}; "
            "mend or remove them"
        )
    what = f"1 broken {called} is" if len(broken) == 1 else f"{len(broken)} broken {called}s are"
    return [f"{what} skipped: {listed}"] if broken else []
