"""Stage 1f. Which pictures there are, and which class each belongs to: a folder, or a table of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ayatori.data.pictures import SUFFIXES
from ayatori.records import AyatoriError


@dataclass(frozen=True)
class Listing:
    """Picture files in a fixed order; ``labels`` is None where they have none."""

    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]


def train_and_test(folder: Path) -> tuple[Path, Path | None]:
    """A folder that holds only ``train/`` and ``test/`` is both; any other is the development rows."""
    inside = {entry.name: entry for entry in _visible(folder) if entry.is_dir()}
    if set(inside) == {"train", "test"} and any(e.is_dir() for e in _visible(Path(inside["train"].path))):
        return folder / "train", folder / "test"
    return folder, None


def list_folder(folder: Path, need_classes: bool = True) -> Listing:
    """The pictures under ``folder``, one class per subfolder. Links that leave the folder are skipped."""
    root = folder.resolve()
    notes: list[str] = []
    found: list[tuple[str, str, Path]] = []
    loose: list[Path] = []
    counts = {"other": 0, "links": 0}
    for entry in _visible(folder):
        if entry.is_dir(follow_symlinks=False):
            pictures = list(_walk(Path(entry.path), root, counts))
            if not pictures:
                notes.append(f"folder '{entry.name}' is left out: it holds no pictures")
            found += [(entry.name, path.relative_to(folder).as_posix(), path) for path in pictures]
        else:
            loose += list(_one(entry, root, counts))
    if loose and found:
        notes.append(f"{len(loose)} pictures outside the class folders are left out")
    if loose and not found and not need_classes:
        found = [("", path.name, path) for path in loose]
    if counts["other"]:
        notes.append(f"{counts['other']} files that are not pictures are left out")
    if counts["links"]:
        notes.append(f"{counts['links']} links are skipped: they lead out of the folder or to another folder")
    if not found:
        what = "pictures in subfolders, one per class" if need_classes else "pictures"
        seen = f"{len(loose)} pictures without a class" if loose else "no pictures"
        raise AyatoriError(f"folder '{folder}' must hold {what}, however it holds {seen}")
    found.sort(key=lambda item: item[1])
    labelled = bool(found[0][0])
    return Listing(
        files=tuple(path for _, _, path in found),
        names=tuple(name for _, name, _ in found),
        labels=tuple(label for label, _, _ in found) if labelled else None,
        notes=tuple(notes),
    )


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)


def _walk(folder: Path, root: Path, counts: dict[str, int]) -> Iterator[Path]:
    for entry in _visible(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), root, counts)
        else:
            yield from _one(entry, root, counts)


def _one(entry: os.DirEntry[str], root: Path, counts: dict[str, int]) -> Iterator[Path]:
    path = Path(entry.path)
    if entry.is_symlink() and (not path.is_file() or not path.resolve().is_relative_to(root)):
        counts["links"] += 1
    elif path.suffix.lower() in SUFFIXES:
        yield path
    else:
        counts["other"] += 1
