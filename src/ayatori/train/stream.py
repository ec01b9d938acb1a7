"""Rows -> tensors: the stream of batches that all members share, and what belongs to one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import Augmentation
from ayatori.nets import find_net, kind_of, reads
from ayatori.recipe import Recipe
from ayatori.records import STOP, AyatoriError, Dataset, Plan

FIT_BYTES = 256 * 2**20  # of pictures that a front's statistics come from
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
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    target: Tensor | None = None


def make_stream(dataset: Dataset, plan: Plan, batch_size: int) -> Stream:
    """About ``batch_size`` rows of each member a step; pictures are shared, rows of a table are not.

    A shared row that counts twice for a member weighs twice; of a table it is drawn twice as often.
    """
    shared = None
    if "image" in dataset.inputs:
        shared = np.flatnonzero(((plan.roles > 0) & (plan.roles < STOP)).any(axis=1))
    counts = (plan.counts(member) for member in plan.typical)
    rows = [int(own.sum(dtype=np.int64) if shared is None else np.count_nonzero(own)) for own in counts]
    own = round(float(np.median(rows)))
    steps = max(1, round(own / batch_size))
    return Stream(steps, max(1, round(own / steps)), shared)


def read_batch(
    dataset: Dataset,
    rows: np.ndarray,
    vary: Augmentation,
    factor: float,
    key: tuple[int, int, int],
    device: torch.device,
    layout: str,
) -> Batch:
    """Read, move and augment ``rows``, whoever of the members still needs them."""
    generator = torch.Generator(device).manual_seed(seed_of(*key))
    inputs = vary(take(dataset.inputs, rows, device, layout), generator)
    return Batch(key, factor, rows, inputs, to_device(dataset.labels[rows], device))


def read_by(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The dataset with those inputs alone that the network of ``recipe`` looks at."""
    names = reads(find_net(recipe.net, kind_of(dataset))[0], dataset.inputs)
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
        picked = values[flat] if varied is None or views is None else varied[flat, views[flat]]
        batch[name] = to_device(picked, device)
    if "image" in batch and layout == "channels_last":
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return {name: value.unflatten(0, rows.shape) for name, value in batch.items()}


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
    """Raw inputs of a member's own training rows; of pictures a sample of at most FIT_BYTES."""
    inputs = {}
    for name, values in dataset.inputs.items():
        if name.endswith(VIEWS):
            continue
        rows = own
        if name in ("image", "activations"):
            most = max(1, FIT_BYTES // int(np.prod(values.shape[1:])))
            if len(own) > most:
                rows = np.sort(np.random.default_rng(seed).choice(own, most, replace=False))
        inputs[name] = values[rows]
    return inputs


def row_weights(dataset: Dataset, counts: np.ndarray, class_weights: tuple[float, ...]) -> np.ndarray:
    """(n,) float32: weight of each row in the loss; mean 1 over a member's own training rows."""
    weight = counts.astype(np.float64)
    if class_weights:
        if dataset.task == "regression" or len(class_weights) != len(dataset.classes):
            raise AyatoriError(
                f"`class_weights` must hold one weight for each of the {len(dataset.classes)} classes, "
                f"however: {len(class_weights)}"
            )
        factors = np.asarray(class_weights)
        if dataset.task == "classification":
            weight *= factors[dataset.labels]
        else:
            # a row weighs as much as the heaviest of the labels it carries
            weight *= np.where(dataset.labels > 0, factors, 1.0).max(axis=1)
    return (weight / weight[counts > 0].mean()).astype(np.float32)
