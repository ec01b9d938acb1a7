"""Stage 9g. explore.parquet and thumbnails -> a page: 16-bit points, interned texts, one sheet."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

__all__ = ["SPACES", "atlas", "interned", "pack_table", "packed"]

SPACES = {
    "pca2": ("pca_x", "pca_y"),
    "pca3": ("pca_x", "pca_y", "pca_z"),
    "tsne2": ("tsne_x", "tsne_y"),
    "tsne3": ("tsne3_x", "tsne3_y", "tsne3_z"),
    "umap2": ("umap_x", "umap_y"),
    "umap3": ("umap3_x", "umap3_y", "umap3_z"),
    "learned2": ("learned_x", "learned_y"),  # the last hidden layer of a trained network
}
NOWHERE = 65535  # of a coordinate: this row is not on this map
UNKNOWN = 255  # of a share: it is not known
LONG = 120  # letters of a cell that are shown
IDS = 2_600_000  # bytes, packed, that ids may take; beyond, rows go by their number
CELLS = 1_600_000  # bytes, packed, that the rows' values may take
ATLAS = 2_200_000  # bytes of all thumbnails
PICTURES = 2000


def packed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Base64 of zlib of: length of the header (uint32), header (JSON), arrays, each from a multiple of 4.

    The header tells type, place and length of each array. Nothing in it can end a <script>.

    >>> text = packed({"n": 2}, {"x": np.array([1, 2], np.uint16)})
    >>> zlib.decompress(base64.b64decode(text))[4:].decode("latin-1").partition("}}")[0]
    '{"n":2,"arrays":{"x":["uint16",0,2]'
    """
    body, places = b"", {}
    for name, values in arrays.items():
        places[name] = [str(values.dtype), len(body), len(values)]
        body += np.ascontiguousarray(values).tobytes()
        body += b"\0" * (-len(body) % 4)
    # without blanks: padding the header keeps the arrays aligned
    text = json.dumps(
        {**header, "arrays": places}, allow_nan=False, separators=(",", ":"), ensure_ascii=False
    )
    head = text.encode("utf-8", "replace")
    head += b" " * (-len(head) % 4)
    raw = np.uint32(len(head)).tobytes() + head + body
    return base64.b64encode(zlib.compress(raw, 6)).decode()


def interned(texts: Sequence[str]) -> tuple[list[str], np.ndarray | None]:
    """Different texts, and which of them each row has; None where hardly any comes twice.

    >>> interned(["b", "a", "b", "b"])
    (['a', 'b'], array([1, 0, 1, 1], dtype=uint16))
    >>> interned(["b", "a"])
    (['b', 'a'], None)
    """
    codes, words = pd.factorize(np.asarray(texts, dtype=object), sort=True)
    if len(words) > 0.6 * len(texts):
        return list(texts), None
    return [str(word) for word in words], codes.astype(np.uint16 if len(words) <= 65535 else np.uint32)


def pack_table(table: pd.DataFrame, classes: Sequence[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of the drawn rows. ``table``: a line a row, as explore.parquet has it."""
    header: dict[str, Any] = {"n": len(table), "classes": list(classes), "columns": [], "fit": {}}
    arrays: dict[str, np.ndarray] = {"row": table["row"].to_numpy(np.uint32)}
    for space, names in SPACES.items():
        if set(names) <= set(table):
            points = table[list(names)].to_numpy(np.float64)
            if np.isfinite(points).all(axis=1).any():
                codes, header["fit"][space] = _quantised(points)
                arrays.update({f"{space}{axis}": codes[:, k] for k, axis in enumerate("xyz"[: len(names)])})
    if "class" in table:
        arrays["class"] = table["class"].to_numpy(np.int32)
    if "value" in table:
        arrays["value"] = table["value"].to_numpy(np.float32)
    arrays["sealed"] = (table["split"] == "sealed").to_numpy(np.uint8)
    for name in ("suspicion", "outlier"):
        if name in table:
            arrays[name] = _shares(table[name].to_numpy(np.float64))
    ids = table["id"].astype(str).tolist()
    plain = ids == [str(row) for row in arrays["row"].tolist()]
    fits = not plain and _size(ids) <= IDS
    header["ids"] = ids if fits else None
    header["ids_left_out"] = not plain and not fits
    _pack_cells(table, header, arrays)
    return header, arrays


def _pack_cells(table: pd.DataFrame, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """What the rows held, column by column while there is room."""
    spent = 0
    for name in [name for name in table if str(name).startswith("in_")]:
        cells = [cell_text(cell) for cell in table[name].tolist()]
        words, codes = interned(cells)
        spent += _size(words) + (0 if codes is None else len(zlib.compress(codes.tobytes(), 1)))
        if spent > CELLS:
            header["columns_left_out"] = True
            return
        if codes is not None:
            arrays[f"cell{len(header['columns'])}"] = codes
        header["columns"].append([str(name)[3:], words])


def cell_text(cell: Any) -> str:
    """A value as it is shown.

    >>> cell_text(None), cell_text(float("nan")), cell_text("x" * 200)[-3:]
    ('', '', 'xx…')
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    text = str(cell)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"


def _size(texts: Sequence[str]) -> int:
    return len(zlib.compress(json.dumps(texts, ensure_ascii=False).encode("utf-8", "replace"), 1))


def _shares(values: np.ndarray) -> np.ndarray:
    """(n,) from 0 to 1 as uint8: 0 to 254, and UNKNOWN."""
    known = np.isfinite(values)
    codes = np.full(len(values), UNKNOWN, np.uint8)
    codes[known] = np.round(np.clip(values[known], 0, 1) * 254).astype(np.uint8)
    return codes


def _quantised(points: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """(n, 2 or 3) uint16 on one scale for all axes, and what to show first: all but the farthest."""
    drawn = np.isfinite(points).all(axis=1)
    low, high = points[drawn].min(axis=0), points[drawn].max(axis=0)
    scale = 65534 / max(float((high - low).max()), 1e-12)
    codes = np.full(points.shape, NOWHERE, np.uint16)
    codes[drawn] = np.round((points[drawn] - low) * scale).astype(np.uint16)
    inner = np.quantile(points[drawn], [0.005, 0.995], axis=0)
    middle, half = inner.mean(axis=0), (inner[1] - inner[0]) / 2 * 1.12
    half = np.minimum(half, (high - low) / 2 * 1.02)
    # near enough to the whole: show the whole
    whole = (high - low) / 2 <= 1.5 * np.maximum(half, 1e-12)
    middle, half = np.where(whole, (high + low) / 2, middle), np.where(whole, (high - low) / 2 * 1.02, half)
    beyond = int((np.abs(points[drawn] - middle) > half + 1e-9).any(axis=1).sum())
    return codes, {
        "middle": ((middle - low) * scale).round(1).tolist(),
        "half": np.maximum(half * scale, 1.0).round(1).tolist(),
        "beyond": beyond,
        "drawn": int(drawn.sum()),
    }


def atlas(rows: np.ndarray, pixels: np.ndarray) -> dict[str, Any]:
    """All thumbnails as one picture. **Shape** ``rows`` (t,), ``pixels`` (t, 1 or 3, s, s) uint8.

    Gives its data URL, how many stand side by side, their size, and the rows. Lossless where that is small.
    """
    rows, pixels = rows[:PICTURES], pixels[:PICTURES]
    size, channels, height, width = pixels.shape
    across = max(math.ceil(math.sqrt(size)), 2)
    down = max(math.ceil(size / across), 2)
    sheet = np.zeros((down * across, channels, height, width), np.uint8)
    sheet[:size] = pixels
    sheet = sheet.reshape(down, across, channels, height, width).transpose(0, 3, 1, 4, 2)
    sheet = np.ascontiguousarray(sheet.reshape(down * height, across * width, channels))
    picture = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    kind, data = _encoded(picture)
    return {
        "url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        "across": across,
        "down": down,
        "side": max(height, width),
        "rows": rows.tolist(),
    }


def _encoded(picture: Image.Image) -> tuple[str, bytes]:
    """PNG if that is small, otherwise the best JPEG that is."""
    out = io.BytesIO()
    if picture.width * picture.height * len(picture.getbands()) <= 2_500_000:
        picture.save(out, "PNG")
        if out.tell() <= ATLAS // 2:
            return "png", out.getvalue()
    for quality in (88, 80, 70, 55, 40, 25):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        if out.tell() <= ATLAS:
            break
    return "jpeg", out.getvalue()
