"""Stage 2b. Dataset, pretrained network -> what its frozen parts say of every row, computed once.

Nothing is fitted here and no label is read, so that folds, bags, rounds, rivals and the look may share it,
sealed rows included. Kept on disk by a fingerprint of all it depends on, it is there in the next run too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ayatori.augment import augment
from ayatori.nets.beside import has_beside, of_columns
from ayatori.nets.network import lay_out
from ayatori.nets.source import Source, inputs_for
from ayatori.records import AyatoriError, Dataset
from ayatori.train.crew import crew
from ayatori.train.engine import look
from ayatori.train.memory import steady_heap
from ayatori.train.stream import VIEWS, pick_device, seed_of, take

ROWS = 8  # of one pass: what fits into a core's cache is twice as fast as what does not
KEPT_BYTES = 4 * 2**30  # of features on disk; the least lately used go first
ROWS_OF_DEVICE = 128
Progress = Callable[[float], None]
Said = TypeVar("Said")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """The part of a pretrained network that does not learn.

    ``cut``: how many of its parts tuned networks stand on; None where there are none. ``heads``: whether
    there are networks that stand on all of it.
    """

    source: Source
    cut: int | None = None
    heads: bool = True

    def facts(self) -> dict[str, Any]:
        """Plain JSON values, as a schema holds them."""
        return {"facts": dict(self.source.facts), "cut": self.cut}


def embed(
    dataset: Dataset,
    frozen: Frozen,
    device: str = "auto",
    varied: tuple[Any, int] = ("none", 1),
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
    dtype: str = "auto",
) -> Dataset:
    """The dataset as networks on ``frozen`` see it.

    ``inputs["features"]`` (n, width) float32; with a ``cut`` also ``inputs["activations"]`` (n, ...) float16,
    or where nothing is frozen the raw inputs. ``varied``: an augmentation, and how many views of each row are
    kept for training: the row as it is, then varied ones. ``cache``: a folder that outlives the run.
    ``dtype``: of products; "auto": bfloat16 where the machine is faster so.
    """
    raw = inputs_for(frozen.source, dataset.inputs, dataset.schema)
    name, views = varied
    views = views if "image" in raw and augment(name).pictures else 1
    bf16 = dtype_on(device, dtype) == "bfloat16"
    own = views > 1 and augment(name).own is not None
    cache = None if own else cache  # nobody knows whether a transform of the user's own is still the same
    key = _key(frozen, raw, ["" if views == 1 or own else name, views, seed, bf16], device)
    found = _recall(cache, key)
    if found is None:
        found = (
            {}
            if frozen.cut == 0 and not frozen.heads
            else _compute(frozen, raw, device, bf16, name, views, seed, progress)
        )
        _keep(cache, key, found)
    if frozen.cut == 0:
        found |= raw
    beside = of_columns(dataset.inputs) if has_beside(dataset.schema) else {}
    return dataclasses.replace(dataset, inputs={**found, **beside})


def dtype_on(device: str, dtype: str = "auto") -> str:
    """What ``dtype`` of products stands for on this machine: "float32" or "bfloat16"."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if look(pick_device(device)).bf16 else "float32"


def _compute(
    frozen: Frozen,
    raw: Mapping[str, np.ndarray],
    device: str,
    bf16: bool,
    name: Any,
    views: int,
    seed: int,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    """All rows through the frozen parts, a few at a time; each view is another pass."""
    target = pick_device(device)
    front, parts = _ready(frozen.source, target)
    vary = augment(name) if views > 1 else None
    total = len(next(iter(raw.values())))
    kept: dict[str, np.ndarray] = {}
    for view in range(views):

        def ask(rows: np.ndarray, view: int = view) -> dict[str, Tensor]:
            batch = take(raw, rows, target)
            if view and vary is not None:
                batch = vary(batch, torch.Generator(target).manual_seed(seed_of(seed, view, int(rows[0]))))
            return _pass(front(batch), parts, frozen)

        for rows, said in in_blocks(ask, total, target, bf16, frozen.source.facts.get("slices") or 1):
            for what, values in said.items():
                _put(kept, what, values, rows, view, (total, views))
            if progress:
                progress((view * total + rows[-1] + 1) / (views * total))
    return kept


def in_blocks(
    ask: Callable[[np.ndarray], Said], total: int, device: torch.device, bf16: bool, slices: int = 1
) -> Iterator[tuple[np.ndarray, Said]]:
    """(rows, what ``ask`` says of them) for a few rows at a time, in order, without gradients.

    On a CPU each core has rows of its own: faster than all cores on the same, and what is said of a row does
    not depend on how many cores there are. ``slices``: pictures that a row stands for.
    """

    def work(rows: np.ndarray) -> Said:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return ask(rows)

    size = max(1, (ROWS if device.type == "cpu" else ROWS_OF_DEVICE) // slices)
    blocks = [np.arange(start, min(start + size, total)) for start in range(0, total, size)]
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    with steady_heap(), crew(max(threads, 2) if device.type == "cpu" else 1) as hands:
        waiting: deque[tuple[np.ndarray, Future[Said]]] = deque()
        for rows in blocks:
            waiting.append((rows, hands.submit(work, rows)))
            if len(waiting) > 2 * threads:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _pass(x: Any, parts: list[nn.Module], frozen: Frozen) -> dict[str, Tensor]:
    said = {}
    for number, part in enumerate(parts):
        if number == frozen.cut and number > 0:
            said["activations"] = x
            if not frozen.heads:
                return said
        x = part(x)
    return {"features": x, **said}


def _put(
    kept: dict[str, np.ndarray],
    what: str,
    values: Tensor,
    rows: np.ndarray,
    view: int,
    shape: tuple[int, int],
) -> None:
    """Into the arrays of this input: rows as they are, and beside it all views where there are several."""
    dtype = np.float16 if what == "activations" else np.float32
    found = values.float().cpu().numpy()
    if what == "activations":
        # float16 ends at 65 504
        found = np.clip(found, -6e4, 6e4)
    if what not in kept:
        kept[what] = np.empty((shape[0], *found.shape[1:]), dtype)
        if shape[1] > 1:
            kept[what + VIEWS] = np.empty((*shape, *found.shape[1:]), dtype)
    if view == 0:
        kept[what][rows] = found
    if shape[1] > 1:
        kept[what + VIEWS][rows, view] = found


def _ready(source: Source, device: torch.device) -> tuple[nn.Module, list[nn.Module]]:
    """Front and parts on the device, in evaluation mode: anything else would not be frozen."""
    modules = [source.front, *source.parts]
    for module in modules:
        if any(part.training for part in module.modules()):
            raise AyatoriError(
                "a frozen network must be in evaluation mode, however "
                f"{source.facts['name']!r} is in training"
            )
        module.to(device)
        if source.facts["image"]:
            lay_out(module)
    return source.front, list(source.parts)


def _key(frozen: Frozen, raw: Mapping[str, np.ndarray], how: list[Any], device: str) -> str:
    """Of all that features depend on: weights, cut, preprocessing, rows, views, and how it is computed."""
    digest = blake2b(digest_size=16)
    facts = {key: value for key, value in frozen.source.facts.items() if key != "name"}
    how = [*how, pick_device(device).type, torch.__version__, ROWS]
    digest.update(json.dumps([facts, frozen.cut, frozen.heads, how], sort_keys=True).encode())
    for what, values in sorted(raw.items()):
        digest.update(f"{what}{values.shape}{values.dtype}".encode())
        for start in range(0, len(values), 256):
            digest.update(np.ascontiguousarray(values[start : start + 256]).data)
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """Where features outlive a run: $AYATORI_CACHE, or the user's cache folder; None if that is "off"."""
    said = os.environ.get("AYATORI_CACHE", "")
    if said.lower() in ("off", "none", "0"):
        return None
    if said:
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ayatori" / "features"


def _recall(cache: Path | None, key: str) -> dict[str, np.ndarray] | None:
    """What was kept under ``key``; None where there is nothing, or nothing whole."""
    if cache is None or not (path := cache / f"{key}.safetensors").is_file():
        return None
    try:
        with safetensors.safe_open(path, "np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = (file.metadata() or {}).get("digest") == _digest(found)
        os.utime(path)
    except (OSError, safetensors.SafetensorError):
        return None
    return found if whole else None


def _keep(cache: Path | None, key: str, found: Mapping[str, np.ndarray]) -> None:
    """Keep features for later runs; a run does not depend on it, so a full or closed disk is no error."""
    size = sum(values.nbytes for values in found.values())
    if cache is None or size > KEPT_BYTES:
        return
    draft = cache / f".{key}.{os.getpid()}.part"
    with contextlib.suppress(OSError, safetensors.SafetensorError):
        cache.mkdir(parents=True, exist_ok=True)
        _make_room(cache, size)
        try:
            tensors = {name: torch.from_numpy(values) for name, values in found.items()}
            draft.write_bytes(safetensors.torch.save(tensors, {"digest": _digest(found)}))
            draft.replace(cache / f"{key}.safetensors")
        finally:
            draft.unlink(missing_ok=True)


def _make_room(cache: Path, size: int) -> None:
    files = sorted(cache.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files) + size
    for path in files:
        if total <= KEPT_BYTES:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)


def _digest(found: Mapping[str, np.ndarray]) -> str:
    digest = blake2b(digest_size=16)
    for name, values in sorted(found.items()):
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
