"""A network of the user's own: any factory, class or module, behind the same fronts."""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ayatori.nets.dropout import with_own_dropout
from ayatori.nets.mlp import Columns
from ayatori.nets.network import NetSpec
from ayatori.nets.pictures import PictureFront
from ayatori.nets.scans import Deep
from ayatori.nets.series import SeriesFront
from ayatori.nets.table_front import Features, TableFront
from ayatori.nets.words import Said
from ayatori.records import AyatoriError

Factory = Callable[[tuple[int, ...], int], nn.Module]


class Flat(nn.Module):
    """The user's module on a table: numbers, flags and embedded categories side by side; and what texts say.

    **Shape** Features of b rows -> (b, outputs).
    """

    def __init__(self, columns: Columns, module: nn.Module, texts: Said | None = None) -> None:
        super().__init__()
        self.columns = columns
        self.module = module
        self.texts = texts

    def forward(self, features: Features) -> Tensor:
        logits = self.module(self.columns(features))
        return logits if self.texts is None else logits + self.texts(features.terms)


class Swapped(nn.Sequential):
    """A sequence that pools before each ReLU: a quarter of the work, and the same numbers there and back.

    The largest of what a ReLU gives is what it gives for the largest, and both pass a gradient to the same
    place. It stays the user's sequence for whoever looks into it.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self)
        for place, (part, pool) in enumerate(itertools.pairwise(self)):
            if type(part) is nn.ReLU and type(pool) is nn.MaxPool2d and not pool.return_indices:
                parts[place : place + 2] = pool, part
        for part in parts:
            x = part(x)
        return x

    def _get_name(self) -> str:
        return "Sequential"


def build_own(spec: NetSpec, factory: Factory | nn.Module) -> tuple[nn.Module, nn.Module]:
    """Front and body around ``factory(shape, outputs)``; ``shape`` is that of one row as the module gets it.

    Tables: ``(width,)`` of scaled numbers, flags and embeddings, to whose outputs is added what texts say.
    Pictures: ``(channels, height, width)``,
    scans: ``(1, slices, height, width)``, and series: ``(channels, steps)``, normalised. A module instance is
    copied, and every part that can be reset is.
    """
    if spec.sizes.get("slices"):
        deep = _module(factory, (1, *spec.sizes["image"]), spec)
        return PictureFront(spec.sizes), nn.Sequential(Deep(), deep)
    if "image" in spec.sizes:
        return PictureFront(spec.sizes), _module(factory, tuple(spec.sizes["image"]), spec)
    if "series" in spec.sizes:
        series = SeriesFront(spec.sizes)
        shape = (series.channels, int(spec.sizes["series"][1]))
        return series, _module(factory, shape, spec)
    front = TableFront(spec.sizes)
    columns = Columns(front, "plain", 0.0)
    texts = None if front.words is None else Said(front.words, spec.outputs)
    return front, Flat(columns, _module(factory, (columns.width,), spec), texts)


def find_factory(name: str) -> Factory:
    """The object that ``package:factory`` names."""
    package, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(package), attribute)
    except (ImportError, AttributeError) as error:
        raise AyatoriError(
            f"net must be package:factory that can be imported, however {name!r}: {error}"
        ) from None


def _module(factory: Factory | nn.Module, shape: tuple[int, ...], spec: NetSpec) -> nn.Module:
    module: Any
    if isinstance(factory, nn.Module):
        module = copy.deepcopy(factory)
        for part in module.modules():
            if callable(getattr(part, "reset_parameters", None)):
                part.reset_parameters()
    else:
        module = factory(shape, spec.outputs, **spec.options)
    if not isinstance(module, nn.Module):
        raise AyatoriError(f"a net factory must give a torch.nn.Module, however: {type(module).__name__}")
    for part in module.modules():
        if type(part) is nn.Sequential:
            part.__class__ = Swapped
    return with_own_dropout(module)
