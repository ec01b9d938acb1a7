"""Stage 1e. Which column of a table names pictures, recordings or scans, and the folder they are in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ayatori.archives import unpacked
from ayatori.data.files import TableSource
from ayatori.data.scan_files import DICOM, PAGES, WHOLE, is_dicom, is_flat, pages_of, slices_of
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

PICTURES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
)
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".w64")
SUFFIXES = PICTURES + SOUNDS + WHOLE + DICOM
TEXTS = (".txt", ".text", ".md", ".htm", ".html", ".xml", ".eml", ".tex", ".rst")
SHEETS = (
    *(".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm", ".feather", ".arrow"),
    *(".arff", ".dta"),
)  # tables of other kinds
STEPS = (".csv", ".tsv", ".parquet", ".pq")  # a series in a file, a step in each line
BEGINNING = 1024  # bytes of a file that tell whether it is a text
MOST_FOLDERS, MOST_ENTRIES, MOST_INSIDE = 64, 1000, 8  # beside a table, that are looked into


@dataclass(frozen=True)
class Named:
    """Pictures or recordings that ``column`` names, with or without their ending, as seen from ``folder``.

    ``sure``: they are what the rows are about. Otherwise the table has more to learn from, and its owner
    must say so.
    """

    column: str
    folder: Path
    sure: bool = True

    def file(self, word: str) -> str:
        """The file that a value of the column names. It must stay inside the folder."""
        path = find(self.folder, word) or self.folder / word
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise AyatoriError(
                f"paths must stay inside '{self.folder}', however '{word}' does not; name the folder that "
                "holds them all as `pictures`"
            )
        return str(path)


def is_media(name: str) -> bool:
    """Whether a name ends like that of a picture, a recording or a scan."""
    return name.lower().endswith(SUFFIXES)


def is_sound(name: str) -> bool:
    """Whether a name ends like a recording's."""
    return name.lower().endswith(SOUNDS)


def is_scan(path: str) -> bool:
    """Whether a path is that of a scan: a file of one, a TIFF of many pages, or a folder of its slices."""
    if path.lower().endswith(PAGES):
        return pages_of(path) > 1
    return path.lower().endswith(WHOLE) or os.path.isdir(path) or (is_dicom(path) and not is_flat(path))


def is_steps(name: str) -> bool:
    """Whether a name ends like that of a table, which may be one series."""
    return name.lower().endswith(STEPS)


def is_text(path: str) -> bool:
    """Whether a file is a text: by its ending, or, where its ending says nothing, by how it begins."""
    if path.lower().endswith(TEXTS):
        return True
    if path.lower().endswith((*SUFFIXES, *STEPS, *SHEETS)):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(BEGINNING)
    except OSError:
        return False
    # letters, tabs and ends of lines; what is above ASCII may be of any encoding
    return bool(head) and not any(byte < 9 or 13 < byte < 27 for byte in head)


def counted(files: Sequence[str]) -> str:
    """How many pictures, recordings, scans or texts, in words."""
    kind = kind_of(files)
    return f"{len(files)} {kind if kind == 'series' or len(files) != 1 else kind.removesuffix('s')}"


def kind_of(files: Sequence[str]) -> str:
    """What files are: "pictures", "recordings", "scans", "series" or "texts", by the first of them."""
    if not files:
        return "pictures"
    if is_steps(files[0]):
        return "series"
    if is_sound(files[0]):
        return "recordings"
    return "scans" if is_scan(files[0]) else "texts" if is_text(files[0]) else "pictures"


def find(folder: Path, word: str) -> Path | None:
    """The file in ``folder`` called ``word``, or ``word`` and an ending; or the folder of one scan."""
    endings = (
        ("",) if is_media(word) or is_steps(word) else (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    )
    # os.path: a text that is too long for a name is none, where Path.is_file raises
    found = next((path for end in endings if os.path.isfile(path := folder / f"{word}{end}")), None)
    return found or (_scan_in(folder / word) if word else None)


def _scan_in(folder: Path) -> Path | None:
    """A folder of slices, or the one scan below a folder, such as sub-01/anat/sub-01_T1w.nii.gz."""
    if not os.path.isdir(folder):
        return None
    if slices_of(str(folder)):
        return folder
    below = (os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)
    scans = [path for path in itertools.islice(below, MOST_ENTRIES) if path.lower().endswith(WHOLE)]
    return Path(scans[0]) if len(scans) == 1 else None


def named_pictures(opened: TableSource, recipe: DataRecipe, known: bool = False) -> Named | None:
    """The column of a table that names pictures, and where they are; None where there is none.

    They are in the folder ``recipe.pictures``, or else in the folder of the table or in one folder beside it.
    Names that end like a picture's always count; others if the folder or columns beside the files were named,
    if the rows are ``known`` to be pictures, or if nothing else is there to learn from.
    """
    folders = _folders(opened, recipe.pictures, known)
    if not folders:
        return None
    sample = {
        name: words
        for name, values in opened.sample().items()
        if name not in recipe.drop and (words := [value.strip() for value in values if value.strip()])
    }
    for name, words in sample.items():
        media = all(map(is_media, words))
        if not (media or all(map(is_steps, words))):
            continue
        there = [folder for folder in folders if any(find(folder, word) for word in words)]
        if media or there:
            return Named(name, _only(name, words[0], there, folders))
    if not known and not recipe.pictures:
        folders = [folder for folder in folders if _shows(folder)]
    targets = (recipe.target,) if isinstance(recipe.target, str) else recipe.target
    used = {*recipe.drop, *targets, recipe.groups, recipe.time}
    for name, words in sample.items():
        there = [folder for folder in folders if _holds(folder, words)] if name not in used else []
        others = [other for other in opened.names if other not in {*used, name, recipe.ids}]
        sure = known or bool(recipe.pictures or recipe.beside) or len(others) <= (0 if any(targets) else 1)
        if there and (sure or len(there) == 1):
            return Named(name, _only(name, words[0], there, folders), sure)
    if recipe.pictures and not known:
        raise AyatoriError(
            f"the table must have a column that names the files in '{recipe.pictures}', with or without "
            f"their ending, however none of {', '.join(opened.names[:5])} does"
        )
    return None


def _folders(opened: TableSource, pictures: str, known: bool) -> list[Path]:
    """Where the pictures may be: in the folder that was named, else in the table's or one beside it."""
    named = [unpacked(pictures)] if pictures else []
    if named and not named[0].is_dir():
        raise AyatoriError(f"`pictures` must be a folder, however '{pictures}' is a file")
    if opened.folder is None or (named and not known):
        return named
    return [opened.folder, *beside(opened.folder), *named]


def beside(folder: Path) -> Iterator[Path]:
    """The folders in the folder of a table."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))
    except OSError:  # the table itself was readable; what is beside it need not be
        return
    yield from (folder / name for name in names[:MOST_FOLDERS])


def _shows(folder: Path) -> bool:
    """Whether pictures are among the first entries of a folder; names without endings are sought there."""
    try:
        with os.scandir(folder) as entries:
            some = list(itertools.islice(entries, MOST_ENTRIES))
        inside = itertools.islice((Path(e.path) for e in some if e.is_dir()), MOST_INSIDE)
        return any(is_media(e.name) for e in some) or any(map(_scan_in, inside))
    except OSError:
        return False


def _holds(folder: Path, words: Sequence[str]) -> bool:
    """Whether the first of ``words``, and half of all, name pictures in a folder."""
    if find(folder, words[0]) is None:
        return False
    return 2 * sum(find(folder, word) is not None for word in words) >= len(words)


def _only(name: str, word: str, there: Sequence[Path], folders: Sequence[Path]) -> Path:
    """The first of ``folders``, or else the only one ``there``, that holds what a column names."""
    if not there:
        raise AyatoriError(
            f"column '{name}' must hold paths as seen from '{folders[0]}' or a folder in it, "
            f"however '{word}' is not there; mend the paths, name the folder as `pictures`, or leave it out"
        )
    if there[0] != folders[0] and len({folder.resolve() for folder in there}) > 1:
        raise AyatoriError(
            f"column '{name}' must name files of one folder, however '{word}' is in '{there[0]}' and in "
            f"'{there[1]}'; name the folder as `pictures`, or move the table into it"
        )
    return there[0]
