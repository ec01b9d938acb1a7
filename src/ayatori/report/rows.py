"""Stage 9d. Row numbers -> their pictures, or their values in the table they came from, while it is there."""

from __future__ import annotations

import base64
import io
import math
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from safetensors.numpy import load_file

from ayatori.data.files import TableSource, open_table
from ayatori.data.paths import beside, find
from ayatori.data.sounds import UnheardError, read_sound
from ayatori.data.text_files import read_text
from ayatori.records import AyatoriError

SIDE = 160  # pixels of a thumbnail
COLUMNS = 10  # of a table's row that are shown
LETTERS = 160  # of a value
SECONDS = 10.0  # of a recording that can be played
HERTZ = (8000, 11025, 12000, 16000, 22050, 24000)  # sampling rates of an MP3 that is small


def show_rows(
    run: Path,
    data: Mapping[str, Any],
    rows: np.ndarray,
    ids: Sequence[str],
    lines: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """``lines`` with the id of each row, and its picture or its values where they can be had."""
    found = [{"row": int(row), "id": name, **line} for row, name, line in zip(rows, ids, lines, strict=True)]
    if not found:
        return {"rows": [], "columns": [], "note": ""}
    if data["schema"].get("series"):
        said = _beside(run, data, rows, ids)
        for line, picture, cells in zip(found, _kept(run, rows), said, strict=True):
            line |= {"picture": picture, "sound": "", "beside": cells}
        return {"rows": found, "columns": [], "note": ""}
    if data["schema"].get("image"):
        # the file shows more than the small picture that the network saw
        named = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))["data"].get("pictures", "")
        paths = files_of(data["source"] if data["kind"] in ("pictures", "recordings") else "", ids, named)
        files = [_read(path) if path else "" for path in paths]
        pictures = [read or kept for read, kept in zip(files, _kept(run, rows), strict=True)]
        heard = data["schema"].get("sound_seconds")
        said = _beside(run, data, rows, ids)
        for line, picture, path, cells in zip(found, pictures, paths, said, strict=True):
            sound = sound_url(path, heard) if path and heard else ""
            line |= {"picture": picture, "sound": sound, "beside": cells}
        missing = not all(pictures)
        return {"rows": found, "columns": [], "note": "Some pictures are no longer there." if missing else ""}
    columns, values, note = _from_table(run, data, rows, ids)
    for line, own in zip(found, values, strict=False):
        line["cells"] = own
    return {"rows": found, "columns": columns, "note": note}


def near_rows(run: Path, rows: np.ndarray) -> dict[int, list[dict[str, Any]]]:
    """Row -> the rows nearest to it that its network learned from: number, id, label, picture or ""."""
    path, pictures = run / "near.parquet", run / "near.safetensors"
    if not path.is_file():
        return {}
    kept = load_file(pictures) if pictures.is_file() else {"row": np.zeros(0, int)}
    place = {int(row): at for at, row in enumerate(kept["row"])}
    found: dict[int, list[dict[str, Any]]] = {}
    table = pd.read_parquet(path)
    for row, near, name, label in table.loc[
        table["row"].isin(rows), ["row", "near", "id", "label"]
    ].itertuples(index=False):
        picture = data_url(_picture(kept["pixels"][place[near]])) if near in place else ""
        line = {"row": int(near), "id": str(name), "label": str(label), "picture": picture}
        found.setdefault(int(row), []).append(line)
    return found


def _kept(run: Path, rows: np.ndarray) -> list[str]:
    """Pictures that the run kept of its worst rows: ``image`` (k, c, h, w) uint8, ``row`` (k,)."""
    path = run / "worst.safetensors"
    if not path.is_file():
        return [""] * len(rows)
    kept = load_file(path)
    place = {int(row): at for at, row in enumerate(kept["row"])}
    return [data_url(_picture(kept["image"][place[row]])) if row in place else "" for row in rows.tolist()]


def _picture(pixels: np.ndarray) -> Image.Image:
    """(c, h, w) uint8, grey or colour."""
    if pixels.shape[0] == 3:
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return Image.fromarray(np.ascontiguousarray(pixels[0]))


def data_url(picture: Image.Image, side: int = SIDE) -> str:
    """A small PNG, or a JPEG where that is smaller by far; at most ``side`` pixels large, 0 = as it is.

    A drawing, most of it of one colour, is a WebP without loss.
    """
    if side:
        picture.thumbnail((side, side))
    out = io.BytesIO()
    small = max(picture.size) <= 48
    plain = max((count for count, _ in picture.getcolors(picture.width * picture.height) or ()), default=0)
    if small:
        picture.save(out, "PNG", optimize=True)
    elif 2 * plain > picture.width * picture.height:
        picture.save(out, "WEBP", lossless=True)
    else:
        picture.convert("L" if picture.mode == "L" else "RGB").save(out, "JPEG", quality=80)
    kind = "png" if small else "webp" if out.getvalue().startswith(b"RIFF") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def files_of(source: str, ids: Sequence[str], named: str = "") -> list[Path | None]:
    """The files that ids name, as seen from the folders that the run looked into, never outside of them.

    ``source``: the folder or table that was read, or ""; ``named``: the folder that was named as theirs.
    """
    if not source:
        return [None] * len(ids)
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    folders = [Path(named)] if named else [root, *beside(root)]

    def file_of(name: str) -> Path | None:
        found = ((folder, find(folder, name)) for folder in folders)
        inside = (path for folder, path in found if path and path.resolve().is_relative_to(folder.resolve()))
        return next(inside, None)

    return [file_of(name) for name in ids]


def _read(path: Path) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.draft("RGB", (2 * SIDE, 2 * SIDE))
                return data_url(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return ""  # the page shows the name instead


def sound_url(path: Path, seconds: float) -> str:
    """What the network heard of a recording, as a small MP3; "" where it can no longer be read."""
    import soundfile
    from scipy.signal import resample_poly

    try:
        samples, rate = read_sound(path, min(seconds, SECONDS))
    except UnheardError:
        return ""
    if "MP3" not in soundfile.available_formats():  # a system's own library may be of before 2022
        return ""
    hertz = max((one for one in HERTZ if one <= rate), default=HERTZ[0])
    divisor = math.gcd(rate, hertz)
    samples = resample_poly(samples, hertz // divisor, rate // divisor)
    out = io.BytesIO()
    soundfile.write(
        out, samples / max(1e-9, np.abs(samples).max()), hertz, format="MP3", compression_level=0.8
    )
    return f"data:audio/mpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _beside(run: Path, data: Mapping[str, Any], rows: np.ndarray, ids: Sequence[str]) -> list[str]:
    """What stands in the columns beside each file, "" where there are none, or they can no longer be read."""
    names, values, _ = _from_table(run, data, rows, ids)
    told = [[f"{name} {cell}" for name, cell in zip(names, own, strict=True) if cell] for own in values]
    return [", ".join(own) for own in told] if told else [""] * len(rows)


def _from_table(
    run: Path, data: Mapping[str, Any], rows: np.ndarray, ids: Sequence[str]
) -> tuple[list[str], list[list[str]], str]:
    """Names of columns and their values, from the file that the run read, if it is still what it was."""
    path = Path(data["source"] or ".")
    if data["kind"] == "table" and path.is_dir() and data["source"]:
        return ["text"], [[_beginning(path / name, data["schema"])] for name in ids], ""
    if data["kind"] == "arrays" or not path.is_file() or not _columns(data["schema"]):
        return [], [], ""
    if path.stat().st_mtime > (run / "data.json").stat().st_mtime:
        return [], [], "The file has changed since the run, so the values of these rows are not shown."
    schema = data["schema"]
    texts, wanted = list(schema.get("texts", ())), _columns(schema)
    try:
        opened = open_table(path, schema.get("encoding", ""))
        columns = sorted(
            (name for name in opened.names if name in wanted), key=lambda name: name not in texts
        )
        columns = columns[:COLUMNS]
        key = schema.get("id_column") or (None if data["kind"] == "table" else _naming(opened, ids))
        table = opened.read(
            [*columns, *([key] if key and key not in columns else [])], {key} if key else set()
        )
    except (AyatoriError, OSError):
        return [], [], "The file can no longer be read, so the values of these rows are not shown."
    at = _places(ids, table[key].to_pylist() if key else None, table.num_rows)
    cells = table.select(columns).take(at).to_pydict()
    values = [[_cell(cells[name][line]) for name in columns] for line in range(len(at))]
    return (columns, values, "") if len(values) == len(rows) else ([], [], "")


def _columns(schema: Mapping[str, Any]) -> list[str]:
    """The columns of a table that a network looks at."""
    return [*schema.get("texts", ()), *schema["numbers"], *schema["dates"], *schema["categories"]]


def _naming(opened: TableSource, ids: Sequence[str]) -> str | None:
    """The column that names the files ``ids``."""
    table = opened.read(list(opened.names), set(opened.names))
    return next((name for name in opened.names if set(ids) <= set(table[name].to_pylist())), None)


def _beginning(path: Path, schema: Mapping[str, Any]) -> str:
    """How a text begins, or "" where its file can no longer be read."""
    try:
        return _cell(read_text(path, schema.get("encoding", ""))[0])
    except AyatoriError:
        return ""


def _places(ids: Sequence[str], names: Sequence[Any] | None, rows: int) -> list[int]:
    """Line numbers of ``ids``; fewer than asked for where one is not in the file."""
    if names is None:
        return [int(name) for name in ids if name.isdigit() and int(name) < rows]
    place = {str(name): line for line, name in enumerate(names)}
    return [place[name] for name in ids if name in place]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value)[: 2 * LETTERS].split())
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
