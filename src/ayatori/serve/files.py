"""Uploaded pictures, recordings and scans -> rows, after a look at how large they say that they are."""

from __future__ import annotations

import io
import itertools
import math
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ayatori.data.pictures import broken_notes, called_by, decode_pictures, recipe_like
from ayatori.data.scan_files import UnseenError, dicom_pixels, same_series, voxels_of
from ayatori.data.sounds import FORMATS as SOUND_FORMATS
from ayatori.data.sounds import UnheardError, measure
from ayatori.records import Dataset, Schema
from ayatori.serve.limits import Limits, RequestError, Upload, check_count

# what browsers show, and what cameras and scanners write; Pillow's other readers are older than their tests
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
MEGAPIXELS = 40  # of a picture
MEGAPIXELS_TOGETHER = 200  # of all pictures of a request
MEGAVOXELS = 200  # of all scans of a request
MINUTES = 60  # of all recordings of a request
GZIP = b"\x1f\x8b"
BEGINNINGS = {b"II*\0": ".tif", b"MM\0*": ".tif", b"\x93NUMPY": ".npy"}
SEGMENTS = 4096  # of a JPEG; each of them takes a reader a while, and a sound one has a few dozen

_SEGMENT = re.compile(rb"\xff[\xe0-\xef\xfe]\x00")


def read_files(uploads: Sequence[Upload], schema: Schema, limits: Limits) -> Dataset:
    """Files as ``ayatori predict`` reads them, after a look at their kind and size."""
    assert schema.image is not None
    if schema.kind == "scans":
        return _read_scans(uploads, schema, limits)
    check_count(len(uploads), limits)
    if schema.kind == "recordings":
        _check_sounds(uploads)
    elif (pixels := sum(_pixels(upload) for upload in uploads)) > MEGAPIXELS_TOGETHER * 10**6:
        raise RequestError(
            413,
            f"the pictures of a request must have at most {MEGAPIXELS_TOGETHER} megapixels together, "
            f"however they have {pixels / 10**6:.0f}; send several requests",
        )
    names = [upload.name for upload in uploads]
    with tempfile.TemporaryDirectory(prefix="ayatori-") as folder:
        files = [str(Path(folder) / str(at)) for at in range(len(uploads))]
        for file, upload in zip(files, uploads, strict=True):
            Path(file).write_bytes(upload.content)
        recipe = recipe_like(schema)
        image, broken = decode_pictures(files, schema.image, recipe)
    broken_notes(broken, names, True, called_by(recipe))
    return Dataset({"image": image}, None, schema, np.array(names))


def _read_scans(uploads: Sequence[Upload], schema: Schema, limits: Limits) -> Dataset:
    """Scans, a file each; slices of DICOM that come together are one scan."""
    assert schema.image is not None
    recipe = recipe_like(schema)
    with tempfile.TemporaryDirectory(prefix="ayatori-") as folder:
        files = []
        for at, upload in enumerate(uploads):
            path = Path(folder) / "scan" / f"{at}{_ending(upload)}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(upload.content)
            files.append(str(path))
        voxels = 0
        for file, upload in zip(files, uploads, strict=True):
            try:
                voxels += voxels_of(file)
            except UnseenError as error:
                raise RequestError(422, f"'{upload.name}' must be a scan, however: {error}") from None
        if voxels > MEGAVOXELS * 10**6:
            raise RequestError(
                413,
                f"the scans of a request must have at most {MEGAVOXELS} million voxels together, however "
                f"they have {voxels / 10**6:.0f}; send several requests",
            )
        names = [upload.name for upload in uploads]
        if len(files) > 1 and all(map(_is_dicom, uploads)) and same_series(files):
            files, names = [str(Path(folder) / "scan")], names[:1]
        check_count(len(files), limits)
        image, broken = decode_pictures(files, schema.image, recipe)
    broken_notes(broken, names, True, called_by(recipe))
    return Dataset({"image": image}, None, schema, np.array(names))


def _ending(upload: Upload) -> str:
    """How the file of a scan is called, by how it begins; by its own name where others begin so, too."""
    if _is_dicom(upload):
        return ".dcm"
    if upload.content[:2] == GZIP:
        return ".mgz" if upload.name.lower().endswith(".mgz") else ".nii.gz"
    return next((ending for begin, ending in BEGINNINGS.items() if upload.content.startswith(begin)), ".nii")


def _is_dicom(upload: Upload) -> bool:
    return upload.content[128:132] == b"DICM"


def _check_sounds(uploads: Sequence[Upload]) -> None:
    """How long recordings say that they are, before any of them is decoded."""
    seconds = 0.0
    for upload in uploads:
        try:
            seconds += measure(io.BytesIO(upload.content))[0]
        except UnheardError as error:
            kinds = ", ".join(SOUND_FORMATS)
            raise RequestError(
                422, f"'{upload.name}' must be a recording ({kinds}), however: {error}"
            ) from None
    if seconds > MINUTES * 60:
        raise RequestError(
            413,
            f"the recordings of a request must last at most {MINUTES} minutes together, however they last "
            f"{seconds / 60:.0f}; send several requests",
        )


def _pixels(upload: Upload) -> int:
    """How many pixels a picture says that it has, before any of them is decoded."""
    try:
        if _is_dicom(upload):
            return dicom_pixels(io.BytesIO(upload.content))
        if next(itertools.islice(_SEGMENT.finditer(upload.content), SEGMENTS, None), None):
            raise ValueError("endless segments")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(upload.content), formats=FORMATS) as picture:
                pixels = math.prod(picture.size)
    except Image.DecompressionBombError:
        pixels = -1
    except Exception:  # Pillow's readers raise nearly every kind of exception on broken files
        kinds = ", ".join(FORMATS)
        raise RequestError(
            422, f"'{upload.name}' must be a picture ({kinds}), however it is none that can be read"
        ) from None
    if not 0 <= pixels <= MEGAPIXELS * 10**6:
        found = "far more" if pixels < 0 else f"{pixels / 10**6:.0f}"
        raise RequestError(
            413,
            f"a picture must have at most {MEGAPIXELS} megapixels, however '{upload.name}' has {found}; "
            "make it smaller",
        )
    return pixels
