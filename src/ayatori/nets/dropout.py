"""Dropout that draws from a generator of its member, so that members can share threads and stacks."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """``nn.Dropout`` with one to two bytes of chance a value, a quarter to half of the time.

    ``exact=False`` rounds ``p`` to a 256th. ``generators`` holds one generator, or one for each network of
    a stack (see ``Joined``); empty: torch's global one.

    >>> _ = torch.manual_seed(0)
    >>> Dropout(0.25)(torch.ones(1000, 100)).mean().round(decimals=2)
    tensor(1.)
    """

    def __init__(self, p: float, exact: bool = False) -> None:
        super().__init__()
        self.p = p
        self.bits = 16 if exact and (256 * p) % 1 else 8
        self.generators: tuple[torch.Generator, ...] = ()
        # rows of a step, and rows that chance is drawn for: equal for all who take rows from one batch,
        # so that the next layer finds the generator where it would be without the others
        self.span = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.keep >= 2**self.bits:
            return x
        return x * _Mask.apply(x.detach(), self)

    @property
    def keep(self) -> int:
        """How many of the 256 (or 65 536) chances keep a value."""
        return round(2**self.bits * (1 - self.p))

    def mask(self, like: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
        """(generators, ...) of the same dtype as ``like``: 0, or 1 / the share that is kept."""
        here, drawn_for = self.span
        rows = like.shape[1]
        columns = -(-rows * drawn_for // here)  # rows that chance is drawn for
        count = like[0].numel() // max(rows, 1) * columns
        bound = 2**63 - 1
        drawn = [
            torch.randint(
                -bound, bound, (-(-count * self.bits // 64),), generator=generator, device=like.device
            )
            for generator in generators
        ]
        chance = torch.stack(drawn).view(torch.uint8 if self.bits == 8 else torch.int16)[:, :count]
        low = 0 if self.bits == 8 else -(2**15)
        # in place: 0 and 1 of the same kind take a tenth of the time that truth values take
        mask = chance.lt_(self.keep + low).to(like.dtype).mul_(2**self.bits / max(self.keep, 1))
        if like.ndim == 3:  # features first, as the layers of a stack lie
            return mask.view(len(like), like.shape[2], columns)[:, :, :rows].mT
        return mask.view(len(like), columns, *like.shape[2:])[:, :rows]


class _Mask(torch.autograd.Function):
    """The mask of a whole batch; under ``vmap`` each network's part comes from its own generator."""

    @staticmethod
    def forward(x: Tensor, dropout: Dropout) -> Tensor:
        # in memory as the values lie
        return torch.empty_like(x).copy_(dropout.mask(x[None], dropout.generators or (None,))[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], x: Tensor, dropout: Dropout) -> tuple[Tensor, int]:
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        return dropout.mask(x, dropout.generators or (None,) * info.batch_size), 0


def own_chance(network: nn.Module, generators: Iterable[torch.Generator]) -> None:
    """Let every dropout of ``network`` draw from ``generators``."""
    for part in network.modules():
        if isinstance(part, Dropout):
            part.generators, part.span = tuple(generators), (1, 1)


def seed_globally(seed: int) -> None:
    """The generators that everybody shares: torch's, NumPy's, Python's."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (a network may draw from it)
    random.seed(seed)


@contextlib.contextmanager
def forked(devices: Iterable[int] = ()) -> Iterator[None]:
    """Torch's own generators are left as found, those of the CUDA ``devices`` too.

    As ``torch.random.fork_rng``, which loads torch's whole compiler (more than a second) at its first call.
    """
    states = {device: torch.cuda.get_rng_state(device) for device in devices}
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
        for device, own in states.items():
            torch.cuda.set_rng_state(own, device)


@contextlib.contextmanager
def global_chance(devices: Iterable[int] = ()) -> Iterator[None]:
    """Whatever happens inside, the generators that everybody shares are left as found."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with forked(devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def with_own_dropout(module: nn.Module) -> nn.Module:
    """``module`` with each ``nn.Dropout`` in it replaced by one that can have a generator of its own."""
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if type(part) is nn.Dropout:
            replacement = Dropout(part.p, exact=True)
            if not name:
                return replacement
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, replacement)
    return module
