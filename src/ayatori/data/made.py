"""Stage 1f. Files of pictures, recordings or scans -> how each was made, by its header alone.

Nothing of what a file shows or holds is looked at: only what comes with the machine, the program and the
settings that made it. Where that tells the classes apart, a network may learn it in place of the task.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ayatori.data.paths import kind_of
from ayatori.data.pictures import FORMATS
from ayatori.data.scan_files import header_of, is_dicom
from ayatori.data.sounds import traits_of_sound

MOST = 5_000  # files whose headers are read, evenly spread
_MAKER, _SOFTWARE = 0x010F, 0x0131  # of EXIF

Traits = dict[str, Any]


def made(files: Sequence[str]) -> pd.DataFrame | None:
    """A line for each file, a column for each trait; without a value where nobody tells. None: of series.

    >>> made([]) is None
    True
    """
    kind = kind_of(files)
    if not files or kind == "series":
        return None
    read: Callable[[str], Traits] = {"recordings": traits_of_sound, "scans": header_of}.get(kind, _of_picture)
    some = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST)).astype(int))
    lines: list[Traits] = [{} for _ in files]
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")
        for at, traits in zip(some.tolist(), pool.map(lambda at: _read(read, files[at]), some), strict=True):
            lines[at] = traits
    return pd.DataFrame(lines)


def _read(read: Callable[[str], Traits], file: str) -> Traits:
    try:
        return read(file)
    except Exception:  # readers raise nearly every kind of exception; broken files are named elsewhere
        return {}


def _of_picture(file: str) -> Traits:
    if is_dicom(file):
        return header_of(file)
    with Image.open(file, formats=FORMATS) as picture:
        width, height = picture.size
        traits: Traits = {
            "width": width,
            "height": height,
            "format": picture.format,
            "colours": picture.mode,
        }
        if tables := getattr(picture, "quantization", None):
            traits["coarseness of the JPEG"] = sum(tables[0])
        if "exif" in picture.info:
            said = picture.getexif()
            traits["camera"], traits["program"] = said.get(_MAKER), said.get(_SOFTWARE)
    return traits
