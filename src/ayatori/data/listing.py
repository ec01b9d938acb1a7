"""Stage 1e. Which files there are, and their labels: folders of classes, tables of paths."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ayatori.archives import unpacked
from ayatori.data.columns import RawColumn, decode
from ayatori.data.files import TableSource, open_table
from ayatori.data.label_lists import labels_like
from ayatori.data.own_test import PARTS, TRAIN
from ayatori.data.parts import parts_of, told_by
from ayatori.data.paths import (
    PICTURES,
    SOUNDS,
    Named,
    counted,
    is_media,
    is_sound,
    is_steps,
    is_text,
    kind_of,
    named_pictures,
)
from ayatori.data.scan_files import DICOM, HEADER, WHOLE, is_dicom, is_flat, patient_of, same_series
from ayatori.data.table import (
    check_names,
    default_target,
    no_columns,
    row_names,
    target_column,
    texts_of,
    times_of,
)
from ayatori.data.target import NO_TARGET, missing_rows
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".json", ".xlsx", ".feather")
FEWEST_PATIENTS = 10  # of whom there must be so many for splits to go by them
Wanted = Callable[[str], bool]  # whether a path is one of those looked for


@dataclass(frozen=True)
class Listing:
    """Files in a fixed order, and what a folder or a table says of each. **Shape** (n,) each.

    ``beside``: (n rows) of the columns that are learned from beside the files, if any.
    """

    files: list[str]
    ids: np.ndarray
    target: list[RawColumn] | None
    groups: np.ndarray | None = None
    order: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    folders: bool = False  # whether folders name the classes
    beside: pa.Table | None = None


def list_one(path: Path) -> Listing:
    """A single file."""
    return Listing([str(path)], np.array([_shown(path.name)]), None)


def list_labelled(folder: Path, recipe: DataRecipe) -> tuple[Listing, Listing | None]:
    """The files of a folder with their labels, and those of its own test.

    A folder that holds only ``train/`` and ``test/``, with classes in both, has its own test.
    """
    no_columns(dataclasses.replace(recipe, groups="", target="", time=""), f"'{folder}' is a folder of files")
    inside = {entry.name for entry in _visible(folder) if entry.is_dir()}
    parts = (folder / "train", folder / "test")
    classes = all(recipe.target or any(e.is_dir() for e in _visible(part)) for part in parts if part.is_dir())
    if inside == {"train", "test"} and classes:
        return _labelled(parts[0], recipe, "train/"), _labelled(parts[1], recipe, "test/")
    if not recipe.target:
        _check_tables(folder, inside)
        _check_parts(folder, inside)
    return _labelled(folder, recipe), None


def _labelled(folder: Path, recipe: DataRecipe, prefix: str = "") -> Listing:
    """The files of a folder, labelled by their subfolder; or by their paths, as the recipe says.

    So may their groups and times be told by their paths.
    """
    listing = list_folder(folder, not recipe.target, prefix)
    paths = [name.removeprefix(prefix) for name in listing.ids.tolist()]
    if recipe.groups:
        listing = dataclasses.replace(listing, groups=told_by(paths, recipe.groups, "groups"))
    if recipe.time:
        times = pa.table({recipe.time: told_by(paths, recipe.time, "time").tolist()})
        listing = dataclasses.replace(listing, order=times_of(times, recipe.time, np.arange(len(paths))))
    if not recipe.target:
        return listing
    if not isinstance(recipe.target, str):
        raise AyatoriError(
            "`target` of a folder must be one part of the paths, such as 2, or a pattern, however it is "
            f"{', '.join(recipe.target)}"
        )
    words = pa.chunked_array([told_by(paths, recipe.target, "target").tolist()])
    return dataclasses.replace(listing, target=[target_column("label", words, recipe.task)], folders=False)


def _check_parts(folder: Path, inside: set[str]) -> None:
    """Refuse parts such as train, val and test that would be taken for classes."""
    words = {name.lower() for name in inside}
    if len(inside) < 2 or not words <= PARTS:
        return
    classes = sorted({e.name for name in inside for e in _visible(folder / name) if e.is_dir()})
    if not classes and not words & TRAIN:
        return
    train, *others = sorted(inside, key=lambda name: (not name.lower().startswith("train"), name))
    test = next((name for name in others if name.lower().startswith("test")), others[0])
    tables = [_table_of(folder / name) for name in (train, test)]
    learned, tested = (table or folder / name for table, name in zip(tables, (train, test), strict=True))
    how = f"give them one by one: ayatori run '{learned}' --test '{tested}'"
    if classes:
        shown = f"with the classes {', '.join(classes[:3])}{' ...' if len(classes) > 3 else ''} inside"
    else:
        shown = "without folders of classes inside"
        how = how if all(tables) else f"give what is labelled, and say how: ayatori run '{folder / train}'"
    raise AyatoriError(
        f"the folders in '{folder}' must be classes, however {', '.join(sorted(inside))} are parts, "
        f"{shown}; {how}"
    )


def _check_tables(folder: Path, inside: set[str]) -> None:
    """Refuse what is no folder of classes, but holds a table that names its pictures."""
    if len(inside) > 1 and not {name.lower() for name in inside} <= PARTS:
        return
    if table := _table_of(folder):
        raise AyatoriError(
            f"folder '{folder}' must hold one subfolder per class, however its table "
            f"'{table.name}' names them; give the table: ayatori run '{table}'"
        )


def _table_of(folder: Path) -> Path | None:
    """The table in a folder that names the files there."""
    tables = [entry.name for entry in _visible(folder) if entry.name.lower().endswith(TABLES)]
    for name in sorted(tables, key=lambda name: (not name.lower().startswith("train"), name)):
        try:
            if named_pictures(open_table(folder / name), DataRecipe(), known=True) is not None:
                return folder / name
        except AyatoriError:
            continue
    return None


def list_test(test: str | Path | TableSource, like: Listing, recipe: DataRecipe) -> Listing:
    """The pictures of a test folder or table, labelled as those of ``like`` are."""
    if not isinstance(test, TableSource):
        path = unpacked(test)
        if path.is_dir():
            if like.beside is not None:
                raise AyatoriError(
                    f"the test '{path}' must be a table with the columns beside the files, however it is a "
                    "folder"
                )
            return _labelled(path, recipe)
        test = open_table(path, recipe.encoding)
    target = tuple(column.name for column in like.target or ())
    test = labels_like(test, target)
    named = named_pictures(test, recipe, known=True)
    if named is None:
        raise AyatoriError(
            f"the test{test.called} must name files like the other rows, however no column does"
        )
    words: list[str] = []
    if like.beside is not None:
        recipe = dataclasses.replace(recipe, beside=tuple(like.beside.column_names))
        words = [field.name for field in like.beside.schema if not pa.types.is_primitive(field.type)]
    return list_table(test, named, recipe, target, words=words)


def list_folder(
    folder: Path, need_classes: bool = True, prefix: str = "", scans: bool | None = None
) -> Listing:
    """The files under ``folder``, one class per subfolder; ``prefix`` begins every id.

    Hidden files, files of other kinds, and links that leave the folder are skipped. Where there are neither
    pictures nor recordings nor scans, tables are series, one each; and where there are no tables, texts are
    looked for. ``scans``: whether slices that lie in one
    folder are a scan; None: by their headers, but not right in the folder of a class.
    """
    wanted = _looked_for(folder)
    root = folder.resolve()
    notes: list[str] = []
    found: list[tuple[str, str]] = []
    loose: list[tuple[str, str]] = []
    counts = {"other": 0, "links": 0}
    for entry in _visible(folder):
        if entry.is_dir(follow_symlinks=False):
            pictures = [(path, entry.name) for path in _walk(entry.path, root, counts, wanted)]
            if not pictures:
                kinds = {is_steps: "no series", is_text: "no texts"}.get(
                    wanted, "no pictures, recordings or scans"
                )
                notes.append(f"folder '{entry.name}' is left out: it holds {kinds}")
            found += pictures
        else:
            loose += [(path, "") for path in _one(entry, root, counts, wanted)]
    if loose and found:
        notes.append(f"left out: {counted([path for path, _ in loose])} outside the class folders")
    if not found and not need_classes:
        found = loose
    if counts["other"]:
        other = counts["other"]
        what = "1 file of another kind" if other == 1 else f"{other} files of other kinds"
        notes.append(f"left out: {what}")
    if counts["links"]:
        what = "1 link leads" if counts["links"] == 1 else f"{counts['links']} links lead"
        notes.append(f"left out: {what} out of the folder, or to a folder")
    if not found:
        what = "pictures, recordings, scans or texts" + (
            " in subfolders, one per class" if need_classes else ""
        )
        seen = (
            f"it holds {counted([path for path, _ in loose])} without a class" if loose else "it holds none"
        )
        if loose and need_classes:
            seen = _tables(loose[0][0]) if wanted is is_steps else seen + _told_how(loose[0][0])
        if counts["other"] and not loose:
            seen = _others(folder)
        raise AyatoriError(f"folder '{folder}' must hold {what}, however {seen}")
    found = _of_one_kind(found, notes)
    found = _gathered(found, folder, need_classes, scans)
    found.sort()
    labels = [_shown(label) for _, label in found]
    start = len(str(folder)) + 1
    return Listing(
        files=[path for path, _ in found],
        ids=np.array([prefix + _shown(path[start:] or root.name).replace(os.sep, "/") for path, _ in found]),
        target=[_text_column("class", labels)] if any(labels) else None,
        notes=tuple(notes),
        folders=any(labels),
    )


def _tables(path: str) -> str:
    """What a folder holds in which tables lie without a class, and what to do with them."""
    how = _told_how(path).partition(", or ")[2]
    return f"it holds tables; give one: ayatori run '{_shown(path)}', or where each is one series, {how}"


def _told_how(path: str) -> str:
    """How files that lie in no folder of a class may be labelled after all."""
    name = _shown(Path(path).name)
    first = next(iter(parts_of(name)), name)
    return (
        f"; give a table of them, or say which part of a name is the class: --target 1 is {first} in '{name}'"
    )


def _of_one_kind(found: list[tuple[str, str]], notes: list[str]) -> list[tuple[str, str]]:
    """All pictures, recordings or scans, whichever are most; the others are noted."""
    if not is_media(found[0][0]) and kind_of([found[0][0]]) == "texts":
        return found
    kinds: dict[str, list[tuple[str, str]]] = {"pictures": [], "recordings": [], "scans": []}
    for one in found:
        whole = one[0].lower().endswith(WHOLE)
        kinds["recordings" if is_sound(one[0]) else "scans" if whole else "pictures"].append(one)
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    others = [kind for kind, own in kinds.items() if own and kind != most]
    if others:
        count = len(found) - len(kinds[most])
        what = f"{' and '.join(others)} among {kind_of([path for path, _ in kinds[most]])}"
        notes.append(f"left out: {what}, {count} of {len(found)} files")
    return kinds[most]


def _gathered(
    found: list[tuple[str, str]], folder: Path, need_classes: bool, scans: bool | None
) -> list[tuple[str, str]]:
    """Slices in one folder -> that folder, a scan; others as they are."""
    folders: dict[str, list[tuple[str, str]]] = {}
    for one in found if scans is not False else ():
        if is_dicom(one[0]):
            folders.setdefault(os.path.dirname(one[0]), []).append(one)
    if need_classes and scans is None:
        folders = {path: own for path, own in folders.items() if path != str(folder / own[0][1])}
    several = next(([path for path, _ in own] for own in folders.values() if len(own) > 1), [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd headers
        if not several or not is_flat(several[0]) or not (scans or same_series(several)):
            return found
    inside = {path for own in folders.values() for path, _ in own}
    scanned = [(path, own[0][1]) for path, own in folders.items()]
    return scanned + [one for one in found if one[0] not in inside]


def with_patients(first: Listing, later: Listing | None) -> tuple[Listing, Listing | None]:
    """Both with a group for each patient, where the headers of all files tell whom they are of."""
    parts = [part for part in (first, later) if part is not None]
    if not all(os.path.isdir(part.files[0]) or is_dicom(part.files[0]) for part in parts):
        return first, later
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")  # remarks on odd headers
        told = [np.array(list(pool.map(patient_of, part.files))) for part in parts]
    everyone = np.concatenate(told)
    patients, own = len(np.unique(everyone)), len(np.unique(told[0]))
    if (everyone == "").any() or own < 2 or patients == len(everyone):
        return first, later  # of one alone: their names were taken away
    what = kind_of(first.files)
    note = f"{what} are of {own} patients, as their headers say; "
    if own < FEWEST_PATIENTS:
        note += "these are too few to keep apart, and the scores say little of others"
        return dataclasses.replace(first, notes=(*first.notes, note)), later
    note += "those of one stay together"
    if later is not None and (known := np.isin(told[1], told[0])).any():
        note += f"; {known.sum()} of {len(known)} rows of the test are of patients that others are of, too: "
        note += "their score is too good"
        told[1] = np.char.add("test ", told[1])
    grouped = [dataclasses.replace(part, groups=own) for part, own in zip(parts, told, strict=True)]
    grouped[0] = dataclasses.replace(grouped[0], notes=(*first.notes, note))
    return grouped[0], grouped[1] if later is not None else None


def _others(folder: Path) -> str:
    """What is in a folder that holds no picture."""
    names = [name.lower() for name in _names(folder)]
    endings = Counter(Path(name.removesuffix(".gz")).suffix + ".gz" * name.endswith(".gz") for name in names)
    most = [ending for ending, _ in endings.most_common(3) if ending]
    they = f"end in {', '.join(most)}" if most else "have no ending"
    return (
        f"its files {they}; pictures end in {', '.join(PICTURES[:3])}, {PICTURES[7]} and the like, "
        f"recordings in {', '.join(SOUNDS[:3])} and the like, scans in {', '.join((*WHOLE[:2], *DICOM[:1]))} "
        "and the like"
    )


def _shown(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise AyatoriError(f"folder '{folder}' must be readable, however: {error.strerror}") from None
    return sorted(seen, key=lambda entry: entry.name)


def _looked_for(folder: Path) -> Wanted:
    """Pictures and recordings, or tables: what is in the subfolders, else what is in the folder itself."""
    for entries in (
        [entry.path for entry in _visible(folder) if entry.is_dir(follow_symlinks=False)],
        [str(folder)],
    ):
        for kind in (is_media, is_dicom, is_steps, is_text):
            if any(kind(name) for path in entries for name in _names(path)):
                return kind
    return is_media


def _names(folder: str | Path) -> Iterator[str]:
    """The paths of all files below a folder."""
    return (os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)


def _walk(folder: str, root: Path, counts: dict[str, int], wanted: Wanted) -> Iterator[str]:
    for entry in _visible(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, root, counts, wanted)
        else:
            yield from _one(entry, root, counts, wanted)


def _one(entry: os.DirEntry[str], root: Path, counts: dict[str, int], wanted: Wanted) -> Iterator[str]:
    if entry.is_symlink() and not (entry.is_file() and Path(entry.path).resolve().is_relative_to(root)):
        counts["links"] += 1
    elif wanted(entry.path) and entry.is_file():
        yield entry.path
    elif not entry.name.lower().endswith(HEADER):
        counts["other"] += 1


def _text_column(name: str, values: list[str]) -> RawColumn:
    words = sorted(set(values))
    place = {word: code for code, word in enumerate(words)}
    codes = np.array([place[value] for value in values], dtype=np.int32)
    return RawColumn(name, "text", codes, tuple(words))


def list_table(
    opened: TableSource,
    pictures: Named,
    recipe: DataRecipe,
    target: tuple[str, ...] | None,
    need_target: bool = True,
    words: Collection[str] = (),
) -> Listing:
    """The pictures that a table names; ``target`` None finds it by the recipe.

    ``words``: columns beside them that are read as text, whatever they look like.
    """
    paths = pictures.column
    check_names(opened, (recipe.groups, recipe.time, recipe.ids, *recipe.drop))
    notes = list(opened.notes)
    if target is None:
        target = default_target(opened, recipe, {paths}, notes)
    if need_target:
        check_names(opened, target)
    target = target if set(target) <= set(opened.names) else ()
    used = dict.fromkeys(name for name in (paths, *target, recipe.groups, recipe.time, recipe.ids) if name)
    beside = _beside(opened, recipe, used)
    table = opened.read([*used, *beside], {paths, recipe.ids, *recipe.texts, *words} - {""})
    named = decode(paths, table[paths], guess=False)
    if named.kind != "text" or named.missing.any():
        raise AyatoriError(f"column '{paths}' must hold a path in every row, however some are missing")
    files = [pictures.file(word.strip()) for word in named.words]
    if opened.folder is not None and pictures.folder.resolve() != opened.folder.resolve():
        notes.append(f"column '{paths}' names {kind_of(files)} in '{pictures.folder}'")
    left = [name for name in opened.names if name not in {*used, *beside, *recipe.drop}]
    if left and need_target:
        more = " ..." if len(left) > 8 else ""
        notes.append(
            f"columns beside the {kind_of(files)} are left out: {', '.join(left[:8])}{more}; --beside learns "
            "from those that are named, too"
        )
    rows = np.arange(table.num_rows)
    columns = [target_column(name, table[name], recipe.task) for name in target]
    listing = Listing(
        files=[files[code] for code in named.values],
        ids=row_names(table, recipe.ids or paths, rows),
        target=columns or None,
        groups=texts_of(table, recipe.groups) if recipe.groups else None,
        order=times_of(table, recipe.time, rows),
        notes=tuple(notes),
        beside=table.select(beside) if beside else None,
    )
    return _with_target(listing, columns) if need_target else listing


def _beside(opened: TableSource, recipe: DataRecipe, used: Collection[str]) -> list[str]:
    """The columns to learn from beside the files."""
    if recipe.beside == ("all",) and "all" not in opened.names:
        return [name for name in opened.names if name not in {*used, *recipe.drop}]
    check_names(opened, recipe.beside)
    for name in recipe.beside:
        if name in used:
            raise AyatoriError(f"column '{name}' cannot stand beside the files, however it has another use")
    return list(dict.fromkeys(recipe.beside))


def _with_target(listing: Listing, columns: list[RawColumn]) -> Listing:
    missing = missing_rows(columns)
    if not missing.any() or missing.all():
        return listing
    kept = np.flatnonzero(~missing)
    note = f"{missing.sum()} of {len(missing)} {kind_of(listing.files)} are left out: {NO_TARGET}"
    return Listing(
        files=[listing.files[row] for row in kept],
        ids=listing.ids[kept],
        target=[column.take(kept) for column in columns],
        groups=None if listing.groups is None else listing.groups[kept],
        order=None if listing.order is None else listing.order[kept],
        notes=(*listing.notes, note),
        beside=None if listing.beside is None else listing.beside.take(pa.array(kept)),
    )
