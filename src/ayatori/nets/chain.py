"""Stage 4, pretrained. A network -> the chain of its parts, found by trying whether it is one."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ayatori.nets.dropout import Dropout, global_chance, seed_globally
from ayatori.nets.mlp import TableMLP
from ayatori.nets.network import Network
from ayatori.records import AyatoriError

CLOSE = 1e-4  # how near a chain must come to its network, of the largest feature
# what a module says to inputs that are not for it
MISFITS = (
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    AssertionError,
    NotImplementedError,
)
LISTS = (nn.Sequential, nn.ModuleList)
PLACES = 2  # quarters of a picture, each with its mean


def timm_library() -> Any:
    """timm, which takes a second or two to be imported."""
    try:
        import timm
    except ImportError:
        raise AyatoriError(
            "a pretrained network needs timm, however it is missing; pip install timm"
        ) from None
    return timm


def create(architecture: str, image: Sequence[int], options: str = "{}", **given: Any) -> Any:
    """A network of timm without a classifier, its weights fresh; the generators of all are left as found.

    ``options``: JSON of further arguments of timm's.
    """
    timm = timm_library()
    cfg = {"input_size": tuple(image), **given}
    with global_chance():
        model = timm.create_model(
            architecture, pretrained=False, num_classes=0, pretrained_cfg_overlay=cfg, **json.loads(options)
        )
    return model.eval()


class Whole(nn.Module):
    """A network of timm as one part: features, then what its head does before the classifier."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(self.model.forward_features(x), pre_logits=True)


class Beginning(nn.Module):
    """What a transformer does before its blocks: patches, class token, positions."""

    def __init__(self, model: Any, called: Collection[str]) -> None:
        super().__init__()
        kept = {
            name: child if child is None or name in called else nn.Identity()
            for name, child in model._modules.items()
        }
        self.model = copy.copy(model)
        self.model._modules = {**kept, "blocks": nn.Sequential(), "norm": nn.Identity()}

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)


class End(nn.Module):
    """What a network does with its features: pooling, and all of its head but the classifier."""

    def __init__(self, model: Any, called: Collection[str]) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = {k: v for k, v in model._modules.items() if k not in called}
        self.model._parameters = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(x, pre_logits=True)


class Scaled(nn.Module):
    """The columns of a table behind the scale that was learned for them."""

    def __init__(self, body: TableMLP) -> None:
        super().__init__()
        self.columns, self.scale = body.columns, body.scale

    def forward(self, features: Any) -> Tensor:
        return self.columns(features) * self.scale


@dataclass(frozen=True)
class Cut:
    """How the networks of an architecture are cut, whatever their weights are.

    ``way``: "children", "blocks", "called" (see ``steps``) or "", where they are no chain. ``opened``: names
    of modules that are a chain of their children. ``called``: children that ``forward_features`` calls, in
    order.
    """

    way: str
    opened: frozenset[str]
    called: tuple[str, ...]
    width: int

    def parts(self, model: nn.Module) -> list[nn.Module]:
        return _merged(list(self.steps(model))) if self.way else [Whole(model).eval()]

    def steps(self, model: Any) -> Iterator[nn.Module]:
        """Layers and blocks in order."""
        if self.way == "children":
            yield from self._flat(model, "")
        elif self.way == "blocks":
            yield from (Beginning(model, self.called), *model.blocks, model.norm, End(model, self.called))
        else:
            for name in self.called:
                yield from self._flat(model, name)
            yield End(model, self.called)

    def _flat(self, model: nn.Module, name: str) -> Iterator[nn.Module]:
        """Sequences and stages taken apart, down to their blocks."""
        module = model.get_submodule(name)
        if name and type(module) not in LISTS and name not in self.opened:
            yield module
            return
        for child, _ in module.named_children():
            yield from self._flat(model, f"{name}.{child}" if name else child)


@functools.lru_cache(maxsize=64)
def cut_of(architecture: str, image: tuple[int, ...], options: str = "{}") -> Cut:
    """How a network of timm is cut: a trial on two pictures.

    The weights of the trial are random and large: with those that a fresh network begins with, a part that
    does next to nothing yet could be left out and not be missed.
    """
    with global_chance(), torch.no_grad():
        seed_globally(0)
        model = create(architecture, image, options)
        chance = torch.Generator().manual_seed(0)
        for value in model.parameters():
            size = (value.numel() / len(value)) ** -0.5 if value.ndim > 1 else 0.1
            value.add_(size * torch.randn(value.shape, generator=chance))
        pictures = torch.randn(2, *image, generator=chance)
        expected, opened, called = _watched(model, pictures)
        if expected.ndim != 2:
            raise AyatoriError(
                "a pretrained network must give one vector a picture, however "
                f"{architecture!r} gives the shape {tuple(expected.shape[1:])}"
            )
        for way in ("children", "blocks", "called"):
            cut = Cut(way, opened, called, expected.shape[1])
            if _is_chain(cut, model, pictures, expected):
                return cut
    return Cut("", opened, called, expected.shape[1])


def _watched(model: Any, pictures: Tensor) -> tuple[Tensor, frozenset[str], tuple[str, ...]]:
    """Features of the pictures; modules that are a chain of their children; the children in order of call."""
    calls: list[str] = []
    seen: dict[str, tuple[Any, Any]] = {}

    def note(name: str, given: Any, said: Any) -> None:
        seen[name] = (given[0] if len(given) == 1 else None, said)
        calls.append(name.partition(".")[0])

    stages = {name for name, module in model.named_modules() if name and _may_be_stage(module)}
    # a list of modules is not called itself
    tops = {
        f"{name}.{place}" if type(child) is nn.ModuleList else name
        for name, child in model.named_children()
        for place in (range(len(child)) if type(child) is nn.ModuleList else (0,))
    }
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, given, said, name=name: note(name, given, said)
        )
        for name in stages | tops
    ]
    features = model.forward_features(pictures)
    called = tuple(dict.fromkeys(calls))
    expected = model.forward_head(features, pre_logits=True)
    for hook in hooks:
        hook.remove()
    opened = frozenset(name for name in stages & set(seen) if _gives(_items(model, name), *seen[name]))
    return expected, opened, called


def _may_be_stage(module: nn.Module) -> bool:
    """Whether it has a list of blocks, or blocks of one kind and nothing else."""
    children = list(module.children())
    if type(module) in LISTS or not children:
        return False
    alike = len({type(child) for child in children}) == 1 and next(children[0].children(), None) is not None
    return alike or type(getattr(module, "blocks", None)) in LISTS


def _items(model: nn.Module, name: str) -> Iterator[nn.Module]:
    for child in model.get_submodule(name).children():
        yield from child.children() if type(child) is nn.ModuleList else (child,)


def _is_chain(cut: Cut, model: nn.Module, pictures: Tensor, expected: Tensor) -> bool:
    try:
        steps = list(cut.steps(model))
    except MISFITS:
        return False
    return len(steps) > 1 and _gives(steps, pictures, expected)


def _gives(steps: Sequence[nn.Module] | Iterator[nn.Module], x: Any, expected: Any) -> bool:
    """Whether the steps one after another, each giving a tensor, turn ``x`` into ``expected``."""
    try:
        for step in steps:
            if not isinstance(x, Tensor):
                return False
            x = step.eval()(x)
    except MISFITS:
        return False
    both = isinstance(x, Tensor) and isinstance(expected, Tensor) and x.shape == expected.shape
    return both and bool((x - expected).abs().max() <= CLOSE * expected.abs().max())


def _merged(parts: Sequence[nn.Module]) -> list[nn.Module]:
    """Each layer or block together with the norms, activations and pools behind it."""
    groups: list[list[nn.Module]] = []
    for part in parts:
        if groups and not (_mixes(part) and any(map(_mixes, groups[-1]))):
            groups[-1].append(part)
        else:
            groups.append([part])
    return [(group[0] if len(group) == 1 else nn.Sequential(*group)).eval() for group in groups]


def _mixes(part: nn.Module) -> bool:
    return any(value.ndim > 1 for value in part.parameters())


class Seen(nn.Module):
    """What a CNN of ours saw: the mean of its last maps in each quarter, and the logits of its own task.

    **Shape** (b, c, h, w) -> (b, 4 c + outputs). All places of the maps, as its last layer has them, are too
    many numbers for few rows (see dev/LOG.md).
    """

    def __init__(self, last: nn.Linear) -> None:
        super().__init__()
        self.last = last

    def forward(self, maps: Tensor) -> Tensor:
        quarters = nn.functional.adaptive_avg_pool2d(maps, PLACES).flatten(1)
        said = nn.functional.linear(maps.flatten(1), self.last.weight, self.last.bias)
        return torch.cat([quarters, said], 1)


def parts_of_own(network: Network) -> tuple[list[nn.Module], int]:
    """The parts of a network of ours, its last layer left out, and how many features they give."""
    body = network.body
    if isinstance(body, TableMLP):
        return [Scaled(body), *body.layers], body.last.in_features
    layers = list(body.children()) if isinstance(body, nn.Sequential) else []
    last = layers[-1] if layers else None
    if not isinstance(last, nn.Linear) or not any(map(_mixes, layers[:-1])):
        raise AyatoriError(
            "a run must have learned features to be built upon, however its network is "
            f"{network.spec.name!r}; use a run of an mlp or a cnn"
        )
    kept = [part for part in layers[:-1] if not isinstance(part, Dropout)]
    if not isinstance(kept[-1], nn.Flatten):
        return _merged(kept), last.in_features
    parts = _merged(kept[:-1])
    channels = [part.num_features for part in body.modules() if isinstance(part, nn.BatchNorm2d)][-1]
    parts[-1] = nn.Sequential(parts[-1], Seen(last)).eval()
    return parts, PLACES * PLACES * channels + last.out_features
