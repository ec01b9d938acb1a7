"""Which Parquet files a path means, if they are more than one plain table, as of Hugging Face and Spark."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ayatori.errors import AyatoriError

ENDINGS = (".parquet", ".pq", ".arrow")
# train-00000-of-00002.parquet, with or without a hash behind it; part-00000.snappy.parquet; 0000.parquet;
# data-00000-of-00001.arrow
PIECE = re.compile(
    r"(?:(.*?)[-_.]?\d+-of-\d+(?:-[0-9a-f]+)?|part[-_.]?\d+.*|\d+)\.(?:parquet|pq|arrow)", re.IGNORECASE
)
ABOUT = (".md", ".txt", ".json", ".yaml", ".crc", "")  # what stands beside the pieces of a table


def shards_of(path: Path) -> list[Path]:
    """The Parquet or Arrow files that a path means, if they are more than a plain table; else [].

    ``data/train`` means ``data/train-00000-of-00002.parquet`` and its like, and so does ``data``, or a folder
    with nothing but that one, where there are no others.

    Raises AyatoriError where a folder holds the pieces of several tables.
    """
    if path.name.lower().endswith(ENDINGS):
        return [path] if path.is_file() and _holds_files(path) else []
    if not path.is_dir():
        return _pieces(path.parent).get(path.name, []) if path.name else []
    found = _pieces(path)
    if len(found) > 1:
        folder = next(iter(found.values()))[0].parent
        names = ", ".join(str(folder / name) for name in found if name)
        raise AyatoriError(
            f"'{path}' must hold one table, however it holds {len(found)}; name the one to learn from, "
            f"of {names}"
        )
    return next(iter(found.values()), [])


def _pieces(folder: Path) -> dict[str, list[Path]]:
    """The pieces of tables in a folder that holds nothing else, by the names of the tables."""
    found: dict[str, list[Path]] = {}
    inside: list[str] = []
    try:
        with os.scandir(folder) as entries:  # of a million pictures the first is enough
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                if piece := PIECE.fullmatch(entry.name):
                    found.setdefault(piece[1] or "", []).append(folder / entry.name)
                elif entry.is_dir():
                    inside.append(entry.name)
                elif Path(entry.name).suffix.lower() not in ABOUT:
                    return {}
    except OSError:
        return {}
    if inside:
        return _pieces(folder / inside[0]) if len(inside) == 1 and not found else {}
    return {name: sorted(found[name]) for name in sorted(found)}


def _holds_files(path: Path) -> bool:
    from ayatori.packed import is_packed  # loads pyarrow, which `ayatori --help` can do without

    return is_packed(path)
