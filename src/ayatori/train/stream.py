"""Rows -> tensors: the stream of batches that all members share, and what belongs to one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import Augmentation, augment, candidates
from ayatori.nets import find_net, has_beside, kind_of, reads
from ayatori.recipe import Recipe
from ayatori.records import STOP, Dataset, Plan

FIT_BYTES = 256 * 2**20  # of pictures that a front's statistics come from
EXACT_FROM = 16  # steps of an epoch; with fewer, half of one would be felt
EVEN_ROWS = 32  # what a processor does at once; the rest of a batch it does one by one
SMALL_PICTURE = 4096  # bytes: of a batch of such, reading costs nothing beside a step
VIEWS = "_views"  # ends the name of an input that holds several views of each row


@dataclass(frozen=True)
class Stream:
    """How an epoch is cut into steps.

    ``shared`` rows are read and augmented once for all members, who take their own from each batch. Where
    reading costs nothing (``shared`` is None), each member draws ``size`` rows a step in an own order.
    """

    steps: int
    size: int
    shared: np.ndarray | None


@dataclass(frozen=True)
class Batch:
    """What one step of an epoch gives to every member. ``key`` is (seed, epoch, number of the step)."""

    key: tuple[int, int, int]
    factor: float  # of the learning rate
    rows: np.ndarray | None = None  # (b,) row numbers of a shared batch
    inputs: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)  # by the name of augmentations
    target: Tensor | None = None


@dataclass(frozen=True)
class Given:
    """What k members make a step on, b rows each; targets and offsets are in the target's own units."""

    inputs: dict[str, Tensor]  # (k, b, ...)
    target: Tensor  # (k, b, ...)
    weight: Tensor | None  # (k, b), or (k, b, labels) where each label of a row has its own
    rows: Tensor | int  # how many of the b rows are there, for all or (k,) for each; the others weigh 0
    offset: Tensor | None  # (k, b, outputs), added to what the members say

    def tensors(self) -> list[Tensor]:
        """All that depends on the rows, in order."""
        rest = (self.target, self.weight, self.rows, self.offset)
        return [*self.inputs.values(), *(value for value in rest if isinstance(value, Tensor))]

    def shapes(self) -> list[Any]:
        """What operations that were noted depend on besides the values."""
        rest = {"target": self.target, "weight": self.weight, "rows": self.rows, "offset": self.offset}
        return [
            (name, value.shape, value.dtype) if isinstance(value, Tensor) else (name, value)
            for name, value in [*self.inputs.items(), *rest.items()]
        ]

    def part(self, part: slice) -> Given:
        """Some of the b rows; their loss is still divided by how many there are in all."""
        weight, offset = (value if value is None else value[:, part] for value in (self.weight, self.offset))
        inputs = {name: value[:, part] for name, value in self.inputs.items()}
        return Given(inputs, self.target[:, part], weight, self.rows, offset)


def make_stream(dataset: Dataset, plan: Plan, recipe: Recipe) -> Stream:
    """About ``batch_size`` rows of each member a step; pictures are shared, rows of a table are not.

    Nor are small pictures in memory that nothing is done to: they cost as little to read as rows of a table,
    and steps of equally many rows can be noted (see ``Stack.note``).

    Of a table an epoch of many steps has exactly ``batch_size`` rows in each, and may so be half a step
    shorter or longer than all rows: products of 128 rows are a tenth faster than of 129. With fewer steps the
    batches are as long as an even epoch wants, to a multiple of EVEN_ROWS where they are long.
    A shared row that counts twice for a member weighs twice; of a table it is drawn twice as often. Where
    rare rows are drawn more often, nothing is shared: which ones are rare only a member's own rows may say.
    """
    shared, batch_size = None, recipe.train.batch_size
    if "image" in dataset.inputs and recipe.balance.name != "sample" and _cost(dataset, plan, recipe):
        shared = np.flatnonzero(((plan.roles > 0) & (plan.roles < STOP)).any(axis=1))
    counts = (plan.counts(member) for member in plan.typical)
    rows = [int(own.sum(dtype=np.int64) if shared is None else np.count_nonzero(own)) for own in counts]
    own = round(float(np.median(rows)))
    steps = max(1, round(own / batch_size))
    exact = shared is None and steps >= EXACT_FROM
    if exact:
        return Stream(steps, batch_size, shared)
    size = max(1, round(own / steps))
    if shared is None and size >= 4 * EVEN_ROWS:
        size = EVEN_ROWS * round(size / EVEN_ROWS)
    return Stream(steps, size, shared)


def _cost(dataset: Dataset, plan: Plan, recipe: Recipe) -> bool:
    """Whether it takes time to make a batch of pictures: they are large, on disk or still to be varied."""
    image = dataset.inputs["image"]
    if type(image) is not np.ndarray or image[:1].nbytes > SMALL_PICTURE:
        return True
    own = {column.augment for column in plan.columns if column.augment}
    ways = [*own, *(candidates(recipe.train.augment) or [recipe.train.augment])]
    return any(augment(how).pictures for how in ways)


def read_batch(
    dataset: Dataset,
    rows: np.ndarray,
    ways: Mapping[str, Augmentation],
    factor: float,
    key: tuple[int, int, int],
    device: torch.device,
    layout: str,
) -> Batch:
    """Read and move ``rows``, and augment them in all the ``ways`` that members learn with."""
    raw = take(dataset.inputs, rows, device, "contiguous")
    varied = {}
    for name, vary in ways.items():
        varied[name] = vary(raw, torch.Generator(device).manual_seed(seed_of(*key)))
        if "image" in raw and layout == "channels_last":
            varied[name]["image"] = varied[name]["image"].contiguous(memory_format=torch.channels_last)
    return Batch(key, factor, rows, varied, to_device(dataset.labels[rows], device))


def read_by(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The dataset with those inputs alone that the network of ``recipe`` looks at."""
    net = find_net(recipe.net, kind_of(dataset))[0]
    names = reads(net, dataset.inputs, has_beside(dataset.schema))
    return dataclasses.replace(dataset, inputs={name: dataset.inputs[name] for name in names})


def batches(stream: np.ndarray, steps: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The rows of an epoch in random order, cut into ``steps`` nearly equal batches."""
    order = np.random.default_rng([seed, epoch]).permutation(stream)
    yield from np.array_split(order, steps)


def own_order(rows: np.ndarray, stream: Stream, seed: int, epoch: int) -> np.ndarray:
    """(steps, size) rows of an epoch, out of one endless series of shuffles of what a member may draw.

    So every batch is full, and every row comes equally often.

    >>> own_order(np.array([3, 5, 8]), Stream(steps=2, size=3, shared=None), seed=0, epoch=0).tolist()
    [[8, 3, 5], [8, 3, 5]]
    """
    first, last = epoch * stream.steps * stream.size, (epoch + 1) * stream.steps * stream.size
    shuffles = [
        np.random.default_rng([seed, number]).permutation(rows.astype(np.int32))
        for number in range(first // len(rows), -(-last // len(rows)))
    ]
    start = first % len(rows)
    order = np.concatenate(shuffles)[start : start + last - first]
    return order.reshape(stream.steps, stream.size)


def sampled_order(rows: np.ndarray, share: np.ndarray, stream: Stream, seed: int, epoch: int) -> np.ndarray:
    """(steps, size) rows of an epoch, each as often as its ``share`` (rows,) of all draws.

    Over epochs every row comes as often as it should, to within one.
    """
    length = stream.steps * stream.size
    phase = np.random.default_rng([seed, 21]).random(len(rows))
    counts = np.diff([np.floor(share * length * end + phase) for end in (epoch, epoch + 1)], axis=0)[0]
    chance = np.random.default_rng([seed, epoch, 22])
    order = chance.permutation(np.repeat(rows, counts.astype(np.int64)))[:length]
    missing = chance.choice(rows, length - len(order), p=share)
    return np.concatenate([order, missing]).reshape(stream.steps, stream.size)


def take(
    inputs: Mapping[str, np.ndarray],
    rows: np.ndarray,
    device: torch.device,
    layout: str = "channels_last",
    views: np.ndarray | None = None,
) -> dict[str, Tensor]:
    """Raw rows (any shape of row numbers) as tensors on ``device``; no float64 where there is none.

    ``views`` (n,): which view of each row is taken, where there are several; None takes rows as they are.
    """
    flat, batch = rows.reshape(-1), {}
    for name, values in inputs.items():
        if name.endswith(VIEWS):
            continue
        varied = None if views is None else inputs.get(name + VIEWS)
        picked = pick(values, flat) if varied is None or views is None else varied[flat, views[flat]]
        batch[name] = to_device(picked, device)
    if "image" in batch and layout == "channels_last":
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return {name: value.unflatten(0, rows.shape) for name, value in batch.items()}


def pick(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``values[rows]``, by torch: two to three times as fast, but it warns of what may not be written to."""
    plain = isinstance(values, np.ndarray) and values.flags.writeable and values.flags.c_contiguous
    if not plain or rows.dtype.kind != "i":
        return values[rows]
    return torch.from_numpy(values).index_select(0, torch.from_numpy(rows)).numpy()


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    if device.type == "mps" and tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.to(device, non_blocking=True)


def pick_device(name: str) -> torch.device:
    """``auto``: CUDA, then MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def seed_of(*key: int) -> int:
    """A seed that follows from numbers alone.

    >>> seed_of(0, 1, 2) == seed_of(0, 1, 2), seed_of(0, 1, 2) == seed_of(0, 2, 1)
    (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def views_of(inputs: Mapping[str, np.ndarray], seed: int, epoch: int) -> np.ndarray | None:
    """(n,) which view of each row this epoch sees, the same for all members; None where there is one."""
    varied = next((values for name, values in inputs.items() if name.endswith(VIEWS)), None)
    if varied is None:
        return None
    return np.random.default_rng([seed, epoch, 5]).integers(varied.shape[1], size=len(varied))


def own_inputs(dataset: Dataset, own: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Raw inputs of a member's own training rows; of pictures and series a sample of at most FIT_BYTES."""
    inputs = {}
    for name, values in dataset.inputs.items():
        if name.endswith(VIEWS):
            continue
        rows = own
        if name in ("image", "activations", "series"):
            most = max(1, FIT_BYTES // values[:1].nbytes)
            if len(own) > most:
                rows = np.sort(np.random.default_rng(seed).choice(own, most, replace=False))
        inputs[name] = values[rows]
    return inputs
