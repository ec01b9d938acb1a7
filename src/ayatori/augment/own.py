"""The user's own transform, as one call on a batch: of kornia, of torchvision, or a function."""

from __future__ import annotations

import importlib
import inspect
import random
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from ayatori.records import AyatoriError

Batch = dict[str, Tensor]
Kind = Literal["batch", "kornia", "picture"]
_ALONE = threading.Lock()  # networks that read for themselves do so on several threads, and chance is global


def find_transform(how: str | Callable[..., Any]) -> Callable[..., Any]:
    """The transform that is meant: an object, or ``package:name`` of one or of a function that makes it."""
    found: Any = how
    if isinstance(how, str):
        package, _, name = how.partition(":")
        try:
            found = importlib.import_module(package)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise AyatoriError(f"augment must name what can be imported, however {how!r}: {error}") from None
    if isinstance(found, type) or (inspect.isroutine(found) and not _required(found)):
        found = found()
    if not callable(found):
        raise AyatoriError(f"augment must be a transform that can be called, however {how!r} is {found!r}")
    return found


def kind_of_transform(transform: Callable[..., Any]) -> Kind:
    """How a transform is called.

    - ``batch``: it takes a batch and a generator, as our own do
    - ``kornia``: it is kornia's, and takes floats (b, c, h, w) of 0 to 1
    - ``picture``: anything else, such as torchvision's; it takes one picture (c, h, w) of bytes
    """
    if any(kind.__module__.split(".")[0] == "kornia" for kind in type(transform).__mro__):
        return "kornia"
    if not isinstance(transform, torch.nn.Module) and len(_required(transform)) >= 2:
        return "batch"
    return "picture"


def _required(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ["unknown"]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in positional and one.default is one.empty]


def apply_own(transform: Callable[..., Any], batch: Batch, generator: Generator) -> Batch:
    """The batch as ``transform`` changes it. Global generators are left as they were."""
    kind = kind_of_transform(transform)
    if kind == "batch":
        return transform(dict(batch), generator)
    image, mask = batch["image"], batch.get("mask")
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    if kind == "kornia":
        if mask is not None:
            raise AyatoriError(
                "a transform of kornia changes pictures alone, however there are masks, which must move with "
                "them; give a function (batch, generator) -> batch that does both"
            )
        with _Seeded(seed):
            return {**batch, "image": _back(transform(image.float() / 255), image)}
    with _Seeded(seed):
        masks = [None] * len(image) if mask is None else mask
        changed = [_one(transform, *both) for both in zip(image, masks, strict=True)]
    moved = {**batch, "image": _back(torch.stack([one[0] for one in changed]), image)}
    return moved if mask is None else {**moved, "mask": torch.stack([one[1] for one in changed])}


def _one(transform: Callable[..., Any], image: Tensor, mask: Tensor | None) -> tuple[Tensor, Any]:
    from torchvision import tv_tensors  # here: it takes a second

    if mask is None:
        return torch.as_tensor(transform(image)), None
    picture, moved = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
    return torch.as_tensor(picture), torch.as_tensor(moved)


def _back(changed: Tensor, image: Tensor) -> Tensor:
    """In the kind and shape of ``image``; floats are taken as 0 to 1."""
    if changed.shape != image.shape:
        raise AyatoriError(
            f"a transform must keep the shape of a picture {tuple(image.shape[1:])}, however it gave "
            f"{tuple(changed.shape[1:])}"
        )
    if changed.is_floating_point() and not image.is_floating_point():
        changed = (changed * 255).round().clamp(0, 255)
    return changed.as_subclass(Tensor).to(image.dtype)


class _Seeded:
    """Global generators that start from a seed, and are left as they were found."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        _ALONE.acquire()
        self._torch, self._random = torch.default_generator.get_state(), random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002
        torch.default_generator.manual_seed(self.seed)
        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002 (the transform may draw from it)

    def __exit__(self, *error: object) -> None:
        torch.default_generator.set_state(self._torch)
        random.setstate(self._random)
        np.random.set_state(self._numpy)  # noqa: NPY002
        _ALONE.release()
