"""The run folder: the only writer. Every file is written beside itself, synced, and renamed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors

from ayatori.records import AyatoriError, Dataset, Epoch, Look, Member, Plan
from ayatori.sheets import png_of, sheet_of

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS = "checkpoint*.safetensors"
REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the largest allowed file size is reached",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
}


class RunFolder:
    """A run on disk. ``RunFolder.create`` makes a new one, ``RunFolder.open`` goes back to one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path, recipe_toml: str, source: str) -> RunFolder:
        """Make the folder with what a resume needs already in it, in one step."""
        path = Path(path)
        if path.exists():
            raise AyatoriError(
                f"the output folder must be new, however '{path}' exists; choose another with --out, "
                f"or go on with it by: ayatori resume {quote(str(path))}"
            )
        draft = path.with_name(f".{path.name}.new-{os.getpid()}")
        with _said(path):
            draft.mkdir(parents=True)
        folder = cls(draft)
        try:
            folder.write_text("recipe.toml", recipe_toml)
            folder.write_json("data.json", {"source": source})
            with _said(path):
                draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    @classmethod
    def of_look(cls, path: str | Path, look: Look) -> RunFolder:
        """A new folder with nothing but a look in it, there whole or not at all."""
        path = Path(path)
        if path.exists():
            raise AyatoriError(
                f"the output folder must be new, however '{path}' exists; choose another with --out"
            )
        draft = path.with_name(f".{path.name}.new-{os.getpid()}")
        with _said(path):
            draft.mkdir(parents=True)
        try:
            cls(draft).write_look(look)
            with _said(path):
                draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        path = Path(path)
        for name in ("recipe.toml", "data.json"):
            if not (path / name).is_file():
                raise AyatoriError(f"'{path}' must be a run folder, however it has no {name}")
        with _said(path):
            for draft in path.rglob(".*.part"):  # left by a run that was killed
                draft.unlink()
        return cls(path)

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    @property
    def has_checkpoint(self) -> bool:
        return any(self.path.glob(CHECKPOINTS))

    def discard(self) -> None:
        """Remove a run that never trained."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def cache(self) -> Path:
        """Where decoded pictures that outgrow memory are mapped; deleted at the end."""
        return self.path / "cache"

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write one file so that it is there whole, or not at all."""
        target = self.path / name
        draft = target.with_name(f".{target.name}.part")
        with _said(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        self.write_bytes(name, table.to_parquet(index=False))

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], note: Mapping[str, str]) -> None:
        import safetensors.torch  # here, because a report needs no torch

        whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self.write_bytes(name, safetensors.torch.save(whole, dict(note)))

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AyatoriError(f"'{self.path}' must hold {name}, however it does not") from None
        except ValueError as error:
            raise AyatoriError(f"'{self.path / name}' must be JSON, however: {error}") from None

    def keeper(self, part: str = "") -> Checkpoint:
        """Where a part of the members keeps its progress."""
        return Checkpoint(self, f"checkpoint-{part}.safetensors" if part else "checkpoint.safetensors")

    def write_dataset(self, dataset: Dataset, known: int = 0) -> None:
        """data.json: what was read; ``known``: so many rows that judge are copies of rows learned from.

        ``given`` is what was asked for, such as an archive, ``source`` where its rows were read.
        """
        before = self.read_json("data.json")
        schema = dataclasses.asdict(dataset.schema)
        counts = None
        if dataset.task == "classification":
            counts = np.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()
        self.write_json(
            "data.json",
            {
                "given": before.get("given", before["source"]),
                "source": dataset.source,
                "kind": dataset.schema.kind,
                "task": dataset.task,
                "rows": len(dataset),
                "classes": dataset.classes,
                "class_counts": counts,
                "fingerprint": dataset.fingerprint,
                "notes": dataset.notes,
                "known_rows": known,
                "schema": schema,
            },
        )

    def write_keys(self, keys: np.ndarray) -> None:
        """rows.parquet: (n,) uint64 hashes of the rows that teach, for later runs to know them by."""
        self.write_table("rows.parquet", pd.DataFrame({"key": keys}))

    def write_plan(self, plan: Plan) -> None:
        """plan.parquet: a column a member, one byte a cell; what the columns are is in its metadata."""
        columns = {f"member_{index:03d}": plan.roles[:, index] for index in range(plan.members)}
        table = pd.DataFrame(columns)
        table.attrs = {
            "strategy": plan.strategy,
            "roles": "0 not used, 1-250 train so many times, 251 stop, 252 score, 253 sealed",
            "columns": [dataclasses.asdict(column) for column in plan.columns],
        }
        self.write_table("plan.parquet", table)

    def write_members(self, members: list[Member]) -> None:
        """members/000/: weights, history, and why it stopped."""
        for member in members:
            name = f"members/{member.index:03d}"
            self.write_tensors(f"{name}/weights.safetensors", member.network.state_dict(), {})
            self.write_table(f"{name}/history.parquet", history_table(member.history))
            self.write_json(
                f"{name}/member.json",
                {
                    **dataclasses.asdict(member.column),
                    "best_epoch": member.best_epoch,
                    "reason": member.reason,
                    "seconds": member.seconds,
                    "network": dataclasses.asdict(member.network.spec),
                },
            )

    def write_look(self, look: Look) -> None:
        """explore.json, explore.parquet, and small pictures of some rows: what explore.html is made of."""
        if look.pictures is not None:
            import torch

            tensors = {name: torch.from_numpy(values) for name, values in look.pictures.items()}
            self.write_tensors("explore_pictures.safetensors", tensors, {})
        self.write_table("explore.parquet", look.table)
        self.write_json("explore.json", look.facts)

    def drawn_rows(self) -> np.ndarray:
        """Numbers of the rows on the map that was drawn before training; none where there is none."""
        path = self.path / "explore.parquet"
        if not path.is_file():
            return np.zeros(0, np.int64)
        return pd.read_parquet(path, columns=["row"])["row"].to_numpy(np.int64)

    def write_learned(self, learned: Any) -> None:
        """learned.parquet, learned.json and near.parquet (with pictures): see ``ayatori.learned``."""
        import torch

        self.write_table("learned.parquet", learned.map)
        self.write_json("learned.json", learned.facts)
        self.write_table("near.parquet", learned.near)
        if learned.pictures:
            tensors = {name: torch.from_numpy(values) for name, values in learned.pictures.items()}
            self.write_tensors("near.safetensors", tensors, {})

    def write_varied(self, varied: Any, how: Any) -> None:
        """augment.png, a line of pictures for each row that was varied; and what the report says of it."""
        import torch

        self.write_tensors("augment.safetensors", {"image": torch.from_numpy(varied.pictures)}, {})
        facts = {
            "how": how if isinstance(how, str | dict) else str(how),
            "names": varied.names,
            "what": varied.what,
        }
        self.write_json("augment.json", {**facts, "warning": varied.warning, "figures": varied.figures})
        self.write_bytes("augment.png", png_of(sheet_of(varied.pictures)))

    def log_opening(self, what: str, rows: int, seed: int) -> None:
        """test_openings.jsonl: each time the labels of the sealed rows were read."""
        from datetime import UTC, datetime

        path = self.path / "test_openings.jsonl"
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "what": what,
            "rows": rows,
            "seed": seed,
        }
        self.write_text(path.name, earlier + json.dumps(line) + "\n")

    def openings(self) -> list[dict[str, Any]]:
        path = self.path / "test_openings.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def finish(self) -> None:
        """Remove what only an unfinished run needs, and say that it is done."""
        with _said(self.path):
            for path in self.path.glob(CHECKPOINTS):
                path.unlink()
            shutil.rmtree(self.cache, ignore_errors=True)
        self.write_text("DONE", "")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The progress of members that train together, in one file of a run folder."""

    folder: RunFolder
    name: str

    def save_checkpoint(self, progress: dict[int, dict[str, Any]], tensors: dict[str, Tensor]) -> None:
        self.folder.write_tensors(self.name, tensors, {"progress": json.dumps(progress)})

    def load_checkpoint(self) -> tuple[dict[int, dict[str, Any]], dict[str, Tensor]] | None:
        path = self.folder.path / self.name
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                progress = json.loads(file.metadata()["progress"])
                return {int(member): values for member, values in progress.items()}, tensors
        except (safetensors.SafetensorError, ValueError, KeyError, AttributeError) as error:
            raise AyatoriError(f"'{path}' must be a checkpoint of ayatori, however: {error}") from None


def new_file(path: str | Path) -> Path:
    """``path``, where nothing is yet; refused where there is."""
    path = Path(path)
    if path.exists():
        raise AyatoriError(
            f"the output file must be new, however '{path}' exists; remove it or choose another"
        )
    return path


def write_csv(path: str | Path, tables: Iterable[pd.DataFrame]) -> int:
    """Write tables below one another as one CSV, so that it is there whole, or not at all; how many rows.

    A table is written before the next is asked for. What asking raises leaves neither file nor folder behind.
    """
    path = Path(path)
    parts = iter(tables)
    first = next(parts)  # most of what is wrong shows here, before anything is written
    draft = path.with_name(f".{path.name}.part")
    made = [folder for folder in path.parents if not folder.exists()]
    rows = 0
    try:
        with _said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = draft.open("wb", buffering=0)
        with file:
            for table in itertools.chain([first], parts):
                content = memoryview(table.to_csv(index=False, header=table is first).encode())
                with _said(path):
                    while content:
                        content = content[file.write(content) :]
                rows += len(table)
            with _said(path):
                os.fsync(file.fileno())
        with _said(path):
            draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        raise
    return rows


def history_table(history: tuple[Epoch, ...]) -> pd.DataFrame:
    """One line per epoch; the columns of ``Epoch``."""
    names = [field.name for field in dataclasses.fields(Epoch)]
    return pd.DataFrame([dataclasses.asdict(line) for line in history], columns=names)


def digest(content: bytes) -> str:
    """BLAKE2b of a file's content, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def plain(value: Any) -> Any:
    """Plain JSON values; a number that JSON cannot write becomes null.

    >>> plain({"a": np.float32(0.5), "b": (float("nan"), np.int64(3))})
    {'a': 0.5, 'b': [None, 3]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise AyatoriError(f"'{path}' must be writable, however {reason}") from error


def check_same(begun: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuse to go on with other data, or on another pretrained network, than the run began with."""
    if not begun.get("fingerprint"):
        return
    if begun["fingerprint"] != dataset.fingerprint:
        raise AyatoriError(
            "the data must be what the run began with, however it has changed; start a new run"
        )
    before, now = begun["schema"].get("source"), dataset.schema.source
    if before and now and before["facts"]["digest"] != now["facts"]["digest"]:
        raise AyatoriError(
            f"the pretrained network must be what the run began with, however {now['facts']['name']!r} has "
            "changed; start a new run"
        )
