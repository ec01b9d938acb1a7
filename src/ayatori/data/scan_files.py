"""Stage 1f. NIfTI, MGH and DICOM files -> a scan, the right way up; a flat DICOM file -> a picture."""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from ayatori.records import AyatoriError

WHOLE = (".nii", ".nii.gz", ".mgh", ".mgz", ".npy", ".img")  # a file for each scan; beside .img lies its .hdr
HEADER = ".hdr"
PAGES = (".tif", ".tiff")  # of many pages are scans
DICOM = (".dcm", ".dicom")  # a file for each slice, for each scan, or for each picture
_SETTINGS = {
    "maker": "Manufacturer",
    "machine": "ManufacturerModelName",
    "software": "SoftwareVersions",
    "institution": "InstitutionName",
    "station": "StationName",
    "view": "ViewPosition",
    "kernel": "ConvolutionKernel",
    "kilovolts": "KVP",
    "field in tesla": "MagneticFieldStrength",
    "slice thickness": "SliceThickness",
    "intercept": "RescaleIntercept",
}
_NUMBERS = ("KVP", "MagneticFieldStrength", "SliceThickness", "RescaleIntercept")
MOST_VOXELS = 2**29  # larger scans are refused before they are read
_PACKAGES = "pip install 'ayatori[scans]'"


class UnseenError(AyatoriError):
    """A file that is no scan, or a broken one; says why."""


@dataclass(frozen=True)
class Scan:
    """A scan the right way up: slices to the head, rows to the back, columns to the patient's left.

    **Shape** ``values`` (d, h, w) float32, finite. ``spacing`` (d, h, w): millimetres of a voxel; None where
    nobody tells.
    """

    values: np.ndarray
    spacing: tuple[float, float, float] | None = None


def read_scan(file: str) -> Scan:
    """The scan in a file, or in a folder of slices. Raises UnseenError."""
    try:
        scan = _read_dicom(file) if os.path.isdir(file) or is_dicom(file) else _read_whole(file)
    except (AyatoriError, MemoryError):
        raise
    except Exception as error:  # readers raise nearly every kind of exception on broken files
        raise UnseenError(_reason(file, error)) from None
    if not np.isfinite(scan.values).all():
        there = np.isfinite(scan.values)
        if not there.any():
            raise UnseenError("it holds no numbers")
        scan.values[~there] = scan.values[there].min()
    return scan


def voxels_of(file: str) -> int:
    """How many voxels a file says that it has, before any of them is read. Raises UnseenError."""
    try:
        if is_dicom(file):
            return dicom_pixels(file)
        if file.lower().endswith(".npy"):
            return int(np.load(file, mmap_mode="r", allow_pickle=False).size)
        if file.lower().endswith(PAGES):
            with Image.open(file, formats=("TIFF",)) as picture:
                return picture.width * picture.height * pages_of(file)
        return int(np.prod(_nibabel().load(file).shape))
    except AyatoriError:
        raise
    except Exception as error:  # readers raise nearly every kind of exception on broken files
        raise UnseenError(_reason(file, error)) from None


def dicom_pixels(file: str | BinaryIO) -> int:
    """How many pixels all frames of a DICOM file have, by its header."""
    head = _pydicom().dcmread(file, stop_before_pixels=True)
    return int(head.get("NumberOfFrames", 1) or 1) * int(head.Rows) * int(head.Columns)


@functools.lru_cache(maxsize=1 << 12)
def pages_of(file: str) -> int:
    """How many pages a TIFF has; 1 for what is none, or where a page is smaller, as a preview is."""
    try:
        with Image.open(file, formats=("TIFF",)) as picture:
            sizes = [page.size for page in ImageSequence.Iterator(picture)]
            return len(sizes) if len(set(sizes)) == 1 else 1
    except (
        Exception
    ):  # Pillow raises nearly every kind of exception on broken files, named when they are read
        return 1


def is_dicom(file: str) -> bool:
    """Whether a file ends like DICOM, or has no known ending and begins so."""
    return file.lower().endswith(DICOM) or _begins_so(file)


@functools.lru_cache(maxsize=1 << 16)
def _begins_so(file: str) -> bool:
    stem = os.path.splitext(file)[1].lstrip(".")
    if stem and not stem.isdigit():  # 1.2.840.113619.2.5 is a name that machines give
        return False
    try:
        with open(file, "rb") as content:
            return content.read(132)[128:] == b"DICM"
    except OSError:
        return False


@functools.lru_cache(maxsize=1 << 12)
def is_flat(file: str) -> bool:
    """Whether a DICOM file holds a single picture, not a whole scan."""
    try:
        head = _pydicom().dcmread(file, stop_before_pixels=True)
    except AyatoriError:
        raise
    except Exception:  # it is named as broken when it is read
        return True
    return int(head.get("NumberOfFrames", 1) or 1) == 1


def same_series(files: Sequence[str]) -> bool:
    """Whether DICOM files are slices of one scan, by the headers of the first two."""
    told = []
    for file in files[:2]:
        try:
            head = _pydicom().dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            told.append(str(head.get("SeriesInstanceUID", "")))
        except AyatoriError:
            raise
        except Exception:  # it is named as broken when it is read
            return False
    return len(told) == 2 and told[0] == told[1] != ""


def slices_of(folder: str) -> list[str]:
    """The DICOM files that lie in a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.path for e in entries if e.is_file() and e.name[:1] != "." and is_dicom(e.path))
    except OSError:
        return []


def dicom_picture(file: str) -> Image.Image:
    """A flat DICOM file as a picture, as its header wants it shown: windowed, what is dense is bright."""
    pydicom = _pydicom()
    head = pydicom.dcmread(file)
    values = _frames(head)
    if values.ndim == 3 and values.shape[-1] in (3, 4):
        return Image.fromarray(values[..., :3].astype(np.uint8))
    shown = np.asarray(pydicom.pixels.apply_modality_lut(values, head), np.float32)
    low, high = float(shown.min()), float(shown.max())
    if "VOILUTSequence" in head:
        shown = np.asarray(pydicom.pixels.apply_voi_lut(shown.astype(np.int64), head), np.float32)
        low, high = float(shown.min()), float(shown.max())
    elif head.get("WindowWidth") and head.get("WindowCenter") is not None:
        middle, width = (_first(head[name].value) for name in ("WindowCenter", "WindowWidth"))
        low, high = middle - width / 2, middle + width / 2
    shown = np.clip((shown - low) * (255 / max(high - low, 1e-12)), 0, 255)
    if head.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = 255 - shown
    return Image.fromarray(np.round(shown).astype(np.uint8))


def _first(value: Any) -> float:
    """The first of several values, or the only one."""
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)


def header_of(file: str) -> dict[str, Any]:
    """How a scan, or a flat DICOM file, was made: sizes, the machine and its settings."""
    if os.path.isdir(file) or is_dicom(file):
        files = slices_of(file) if os.path.isdir(file) else [file]
        head = _pydicom().dcmread(files[0], stop_before_pixels=True)
        down, right = (float(size) for size in head.get("PixelSpacing", None) or (np.nan, np.nan))
        traits: dict[str, Any] = {"slices": len(files)} if os.path.isdir(file) else {}
        traits |= {"rows": int(head.Rows), "columns": int(head.Columns), "pixel height": down}
        traits["pixel width"] = right
        for name, tag in _SETTINGS.items():
            value = head.get(tag, None)
            traits[name] = float(value) if tag in _NUMBERS and value not in (None, "") else str(value or "")
        return traits
    if file.lower().endswith(PAGES):
        with Image.open(file, formats=("TIFF",)) as picture:
            return {"pages": pages_of(file), "width": picture.width, "height": picture.height}
    if file.lower().endswith(".npy"):
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        sides = {f"side {way}": size for way, size in enumerate(array.shape, 1)}
        return {**sides, "type of numbers": str(array.dtype)}
    image = _nibabel().load(file)
    traits = {f"voxels {way}": size for way, size in zip("xyz", image.shape[:3], strict=False)}
    zooms = image.header.get_zooms()[:3]
    traits |= {f"voxel size {way}": round(float(size), 3) for way, size in zip("xyz", zooms, strict=False)}
    traits["orientation"] = "".join(code or "?" for code in _nibabel().aff2axcodes(image.affine))
    traits["type of numbers"] = str(image.get_data_dtype())
    if "descrip" in image.header:
        traits["description"] = bytes(image.header["descrip"]).split(b"\0")[0].decode("latin-1")
    return traits


def patient_of(file: str) -> str:
    """Whom a DICOM file, or a folder of slices, is of, by its header; "" where nobody tells."""
    first = file
    if os.path.isdir(file):
        first = next(iter(slices_of(file)), "")
    if not first or not is_dicom(first):
        return ""
    try:
        head = _pydicom().dcmread(first, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(head.get("PatientID", "") or "").strip()
    except Exception:  # what cannot be read is named when all are read
        return ""


def _read_whole(file: str) -> Scan:
    if file.lower().endswith(".npy"):
        return _read_array(file)
    if file.lower().endswith(PAGES):
        return _read_pages(file)
    image = _nibabel().load(file)
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        several = math.prod(shape[3:])
        raise UnseenError(f"it holds {several} scans, however one is wanted; write each to a file")
    if len(shape) < 2 or np.prod(shape) > MOST_VOXELS or not np.prod(shape):
        raise UnseenError(f"its size is {' x '.join(map(str, image.shape))}")
    values = np.asarray(image.dataobj, np.float32).reshape(*shape, *(1,) * (3 - len(shape)))
    spacing = tuple(float(size) for size in image.header.get_zooms()[:3])
    return _upright(values, image.affine, spacing if len(shape) == 3 else None)


def _read_array(file: str) -> Scan:
    """A plain array (d, h, w), as it is: nobody tells which way is up."""
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    sides = tuple(size for size in array.shape if size > 1)
    if array.dtype.kind not in "buif" or len(sides) not in (2, 3) or array.size > MOST_VOXELS:
        raise UnseenError(f"it is an array {array.shape} of {array.dtype}")
    return Scan(np.array(array, np.float32).reshape((1, *sides)[-3:]))


def _read_pages(file: str) -> Scan:
    """The pages of a TIFF as slices, colours averaged."""
    pages = []
    with Image.open(file, formats=("TIFF",)) as picture:
        if picture.width * picture.height * pages_of(file) > MOST_VOXELS:
            raise UnseenError(f"its size is {pages_of(file)} x {picture.height} x {picture.width}")
        for page in ImageSequence.Iterator(picture):
            values = np.asarray(page, np.float32)
            pages.append(values if values.ndim == 2 else values[..., :3].mean(axis=2))
    return Scan(np.stack(pages))


def _read_dicom(file: str) -> Scan:
    pydicom = _pydicom()
    if not os.path.isdir(file):
        head = pydicom.dcmread(file)
        values = _grey(_frames(head), head)
        return Scan(values if values.ndim == 3 else values[None], _frame_spacing(head))
    heads = [head for path in slices_of(file) if "Rows" in (head := pydicom.dcmread(path))]
    heads.sort(key=lambda head: float(head.get("InstanceNumber", 0) or 0))
    if not heads:
        raise UnseenError("it holds neither slices nor a single scan")
    # a scout, or another series, lies beside many a scan
    series = Counter((str(h.get("SeriesInstanceUID", "")), h.Rows, h.Columns) for h in heads)
    (wanted, count), *_ = series.most_common(1)
    heads = [h for h in heads if (str(h.get("SeriesInstanceUID", "")), h.Rows, h.Columns) == wanted]
    if count == 1:
        values = _grey(_frames(heads[0]), heads[0])
        return Scan(values if values.ndim == 3 else values[None], _frame_spacing(heads[0]))
    if count * wanted[1] * wanted[2] > MOST_VOXELS:
        raise UnseenError(f"its size is {count} x {wanted[1]} x {wanted[2]}")
    places, across = _places(heads)
    # of several moments at one place the first
    order = np.unique(np.round(places, 3), return_index=True)[1]
    values = np.stack([_grey(_frames(heads[at]), heads[at]) for at in order])
    if across is None:
        return Scan(values)
    step = float(np.median(np.diff(places[order]))) if len(order) > 1 else 0.0
    down, right = (float(size) for size in heads[0].PixelSpacing)
    step = step if step > 0 else float(heads[0].get("SliceThickness", 0) or 0)
    affine = np.eye(4)
    # of voxels (column, row, slice), from the patient's left and back to right and front
    affine[:3, :3] = np.stack([right * across[0], down * across[1], step * across[2]], axis=1)
    affine[:2] *= -1
    spacing = (right, down, step) if min(right, down, step) > 0 else None
    return _upright(values.transpose(2, 1, 0), affine, spacing)


def _places(heads: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Where slices lie (n,), and which ways columns, rows and slices go (3, 3); None: nobody tells."""
    if all("ImagePositionPatient" in h and "ImageOrientationPatient" in h for h in heads):
        right, down = np.array(heads[0].ImageOrientationPatient, float).reshape(2, 3)
        through = np.cross(right, down)
        places = np.array([h.ImagePositionPatient for h in heads], float) @ through
        if "PixelSpacing" in heads[0] and np.ptp(places) > 0:
            return places, np.stack([right, down, through])
    numbers = np.array([float(head.get("InstanceNumber", 0) or 0) for head in heads])
    return (numbers if len(np.unique(numbers)) == len(numbers) else np.arange(len(heads))), None


def _frame_spacing(head: Any) -> tuple[float, float, float] | None:
    """Millimetres of the voxels of a file with many frames."""
    for shared in head.get("SharedFunctionalGroupsSequence", [])[:1]:
        head = next(iter(shared.get("PixelMeasuresSequence", [])), head)
    if "PixelSpacing" not in head:
        return None
    down, right = (float(size) for size in head.PixelSpacing)
    step = float(head.get("SpacingBetweenSlices", 0) or head.get("SliceThickness", 0) or 0)
    return (step, down, right) if min(step, down, right) > 0 else None


def _frames(head: Any) -> np.ndarray:
    size = int(head.get("NumberOfFrames", 1) or 1) * int(head.Rows) * int(head.Columns)
    if size > MOST_VOXELS:
        raise UnseenError(f"it holds {size:,} voxels")
    return head.pixel_array


def _grey(values: np.ndarray, head: Any) -> np.ndarray:
    """What was measured, as float32: rescaled by the header, colours averaged."""
    if int(head.get("SamplesPerPixel", 1)) > 1:
        return values.mean(axis=-1, dtype=np.float32)
    slope, start = float(head.get("RescaleSlope", 1) or 1), float(head.get("RescaleIntercept", 0) or 0)
    measured = values.astype(np.float32) * slope + start
    return -measured if head.get("PhotometricInterpretation") == "MONOCHROME1" else measured


def _upright(values: np.ndarray, affine: np.ndarray, spacing: tuple[float, ...] | None) -> Scan:
    """Voxels (x, y, z) of any order, as an affine of nibabel's tells -> the right way up."""
    orientations = _nibabel().orientations
    found = orientations.io_orientation(affine)
    if np.isnan(found).any():
        found = np.array([[0, 1], [1, 1], [2, 1]], float)
    wanted = orientations.axcodes2ornt(("L", "P", "S"))
    turn = orientations.ornt_transform(found, wanted)
    turned = orientations.apply_orientation(values, turn).transpose(2, 1, 0)
    if spacing is not None:
        places = np.argsort(turn[:, 0])
        across, down, through = (abs(spacing[int(at)]) for at in places)
        told = (through, down, across)
        spacing = told if min(told) > 0 and np.isfinite(told).all() else None
    return Scan(np.ascontiguousarray(turned, np.float32), spacing)


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise AyatoriError(f"scans need the package nibabel, however it is not there; {_PACKAGES}") from None
    nibabel.imageglobals.logger.setLevel(60)
    return nibabel


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise AyatoriError(f"DICOM needs the package pydicom, however it is not there; {_PACKAGES}") from None
    pydicom.config.logger.setLevel(60)
    return pydicom


def _reason(file: str, error: Exception) -> str:
    if os.path.isfile(file) and not os.path.getsize(file):
        return "empty file"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if said.startswith("Cannot work out file type"):
        return "no known kind of scan"
    return said.splitlines()[0].rstrip(".").replace(file, "it")
