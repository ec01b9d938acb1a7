"""Archives (ZIP, tar, Parquet files with files in them) -> what they hold, unpacked once into a cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ayatori.errors import AyatoriError
from ayatori.shards import shards_of

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
TABLES = (
    *(".csv", ".tsv", ".data", ".parquet", ".pq", ".feather", ".xlsx", ".json", ".jsonl", ".npz"),
    *(".arff", ".dta"),
)
ABOUT = (".txt", ".md", ".rst", ".names", ".pdf", ".html", "")  # what is told beside a table
IDLE = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems put into archives by themselves
KILLED = 3600  # seconds after which nobody is still unpacking
# NotImplementedError: packed in a way that Python does not know; RuntimeError: locked
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)
Progress = Callable[[int, int], None]  # is told (bytes or rows done, all of them)
Steps = Callable[[Path], Iterator[tuple[int, int]]]  # unpacks into a folder, and says how far it is


def existing(path: str | Path) -> Path:
    """The path, unless nothing can be read there; it may lead into an archive: ``all.zip/train.csv``."""
    path = Path(path)
    there = path if path.exists() else archive_of(path)
    if there is None:
        raise AyatoriError(f"'{path}' must be a file or folder, however it does not exist")
    for file in [there] if there.exists() else shards_of(there):
        if not os.access(file, os.R_OK):
            raise AyatoriError(f"'{file}' must be readable, however you have no permission")
    return path


def archive_of(path: Path) -> Path | None:
    """The archive that a path is or leads into; what Parquet files hold (see ``shards_of``) is one, too."""
    parts = (part for part in (path, *path.parents) if part.name.lower().endswith(ENDINGS))
    return next((part for part in parts if part.is_file()), None) or (path if shards_of(path) else None)


def unpacked(path: str | Path, progress: Progress | None = None) -> Path:
    """The path; of an archive, or of something in it, where that lies unpacked.

    An archive with one table, or with one folder, stands for that one. Parquet files that hold pictures or
    recordings, or are pieces of one table (see ``shards_of``), become a table, with the paths of such files.
    It is unpacked at the first call, into ``$XDG_CACHE_HOME/ayatori`` (``~/.cache/ayatori``; where that
    cannot be written to, into the folder for temporary files), whole or not at all.

    Raises AyatoriError where it is damaged or locked, or does not fit on the disk.
    """
    path = existing(path)
    archive = archive_of(path)
    if archive is None:
        return path
    shards = shards_of(archive)
    parts = [(part.resolve(), part.stat()) for part in shards or [archive]]
    about = " ".join(f"{part} {stat.st_size} {stat.st_mtime_ns}" for part, stat in parts)
    name = archive.name.split(".")[0] or "table"
    folder = _cache() / f"{name}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    table = folder / f"{name}.parquet"
    if not folder.exists():
        if shards:
            from ayatori.packed import steps_of_shards  # loads pyarrow

            _unpack(archive, folder, lambda work: steps_of_shards(shards, work / table.name), progress)
        else:
            steps = _steps_of_zip if archive.suffix.lower() == ".zip" else _steps_of_tar
            _unpack(archive, folder, lambda work: steps(archive, work), progress)
    if shards:
        return table
    found = folder / path.relative_to(archive)
    if not found.exists() and not shards_of(found):
        raise AyatoriError(f"'{path}' must be in the archive, however that holds {_named(folder)}")
    found = _only(found) if path == archive else found
    return unpacked(found, progress)  # an archive may hold others


def _cache() -> Path:
    for home in (os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", tempfile.gettempdir()):
        folder = Path(home) / "ayatori"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise AyatoriError("archives are unpacked in the folder for temporary files, however it is read-only")


def _unpack(archive: Path, folder: Path, steps: Steps, progress: Progress | None) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):
        with contextlib.suppress(FileNotFoundError):  # it was finished just now
            if time.time() - left.stat().st_mtime > KILLED:
                shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for done, size in steps(work):
            if progress and done < size:
                progress(done, size)
        try:
            work.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise _damaged(archive, error) from None
        raise _no_room(archive, folder) from None
    except DAMAGED as error:
        raise _damaged(archive, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _steps_of_zip(archive: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Unpack member by member; yields (bytes done, bytes in all)."""
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        size, done = sum(member.file_size for member in members), 0
        if size > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, "")
        for member in members:
            opened.extract(member, folder)
            done += member.file_size
            yield done, size


def _steps_of_tar(archive: Path, folder: Path) -> Iterator[tuple[int, int]]:
    size = archive.stat().st_size
    with archive.open("rb") as file, tarfile.open(fileobj=file) as opened:
        for member in opened:
            opened.extract(member, folder, filter="data")
            yield file.tell(), size
        # tarfile takes a damaged header for the end, and meets the check of what is packed only there
        while rest := opened.fileobj.read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something stands behind its end")


def _damaged(archive: Path, error: Exception) -> AyatoriError:
    locked = "password" in str(error)
    what = "it is locked by a password; unpack it" if locked else f"it cannot be unpacked: {error}"
    return AyatoriError(f"'{archive}' must be a whole archive, however {what}")


def _no_room(archive: Path, folder: Path) -> AyatoriError:
    return AyatoriError(
        f"what '{archive}' holds must fit into '{folder.parent}', however that is full; unpack it where "
        "there is room, or name another place by XDG_CACHE_HOME"
    )


def _only(found: Path) -> Path:
    """The one folder or file that there is, if there is one; a single table beside files of other kinds."""
    while found.is_dir():
        inside = _visible(found)
        wanted = [entry for entry in inside if entry.is_dir() or entry.suffix.lower() not in ABOUT]
        if len(inside) != 1 and not (len(wanted) == 1 and wanted[0].name.lower().endswith(TABLES)):
            return found
        found = wanted[0] if wanted else inside[0]
    return found


def _visible(folder: Path) -> list[Path]:
    entries = (entry for entry in sorted(folder.iterdir()) if entry.name not in IDLE)
    return [entry for entry in entries if not entry.name.startswith(".")]


def _named(folder: Path) -> str:
    names = [entry.name for entry in _visible(folder)]
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "nothing"
