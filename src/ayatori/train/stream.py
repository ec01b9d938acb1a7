"""Rows -> tensors: the stream of batches that all members share, and what belongs to one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import Augmentation
from ayatori.records import AyatoriError, Dataset

FIT_BYTES = 256 * 2**20  # of pictures that a front's statistics come from


@dataclass(frozen=True)
class Batch:
    """Rows of the stream, read once for all members. ``key`` is (seed, epoch, number in the epoch)."""

    rows: np.ndarray  # (b,) row numbers
    inputs: Mapping[str, Tensor]
    target: Tensor
    rate: float  # factor of the learning rate
    key: tuple[int, int, int]


def read_batch(
    dataset: Dataset,
    rows: np.ndarray,
    vary: Augmentation,
    rate: float,
    key: tuple[int, int, int],
    device: torch.device,
) -> Batch:
    """Read, move and augment ``rows``, whoever of the members still needs them."""
    generator = torch.Generator(device).manual_seed(seed_of(*key))
    inputs = vary(take(dataset.inputs, rows, device), generator)
    return Batch(rows, inputs, to_device(dataset.labels[rows], device), rate, key)


def batches(stream: np.ndarray, steps: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The rows of an epoch in random order, cut into ``steps`` nearly equal batches."""
    order = np.random.default_rng([seed, epoch]).permutation(stream)
    yield from np.array_split(order, steps)


def take(inputs: Mapping[str, np.ndarray], rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """Raw rows as tensors on ``device``; pictures channels-last, no float64 where there is none."""
    batch = {name: to_device(values[rows], device) for name, values in inputs.items()}
    if "image" in batch:
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


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


def own_inputs(dataset: Dataset, own: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Raw inputs of a member's own training rows; of pictures a sample of at most FIT_BYTES."""
    inputs = {}
    for name, values in dataset.inputs.items():
        rows = own
        if name == "image":
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
