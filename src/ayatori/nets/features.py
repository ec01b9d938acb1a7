"""Stage 4, pretrained. What a frozen network says of a row -> a head; and the last parts of it that learn on.

A head sees the frozen network's last features, standardised. A tuned network is made of the parts that are
not frozen and of a head behind them; its batch normalisation keeps the statistics of the source, so that
no row depends on those beside it. A CNN of ours that learns on as a whole is itself again, with a fresh last
layer: trained as from scratch, but from better weights.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.beside import files_of
from ayatori.nets.dropout import Dropout
from ayatori.nets.network import Inputs, NetSpec, Network, activation
from ayatori.nets.pictures import build_pictures
from ayatori.nets.source import Source, find_source, over_slices, source_of
from ayatori.recipe import Recipe, nearest
from ayatori.records import AyatoriError, Schema, Task

HEADS = ("linear", "mlp")
TUNED, WHOLE = "tuned", "cnn"  # WHOLE: a CNN of ours, all of it


def measure_features(inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, Any]:
    """The sizes that a head, or a tuned network, is built from.

    ``{"embedded": [d]}``, or where the inputs hold none: ``{"activations": [...]}``, or the raw inputs, with
    the facts of the ``source`` and where it is ``cut``.
    """
    if "features" in inputs:
        return {"embedded": [int(size) for size in inputs["features"].shape[1:]]}
    assert schema.source is not None
    facts = {"source": schema.source["facts"], "cut": schema.source["cut"]}
    if "activations" in inputs:
        return {"activations": [int(size) for size in inputs["activations"].shape[1:]], **facts}
    raw = {name: [int(size) for size in values.shape[1:]] for name, values in inputs.items()}
    return {**{name: size for name, size in raw.items() if not name.endswith("_views")}, **facts}


class FeatureFront(nn.Module):
    """Features -> mean 0 and standard deviation 1 each, over a member's own training rows.

    **Shape** ``forward``: ``inputs["features"]`` (b, d) -> (b, d) float32
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers from (n, d); a feature that never changes becomes 0."""
        values = inputs["features"].astype(np.float64)
        mean, std = values.mean(axis=0), values.std(axis=0)
        # a spread that is only rounding would be blown up to noise
        known = std > 1e-6 * np.maximum(np.abs(mean), 1e-3)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(np.where(known, 1 / np.where(known, std, 1.0), 0.0)))

    def forward(self, inputs: Inputs) -> Tensor:
        return (inputs["features"].float() - self.mean) * self.scale


class Passed(nn.Module):
    """What the frozen parts said, as it is. **Shape** ``inputs["activations"]`` (b, ...) -> float32"""

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Nothing is measured: the source has its own statistics."""

    def forward(self, inputs: Inputs) -> Tensor:
        return inputs["activations"].float()


class Given(nn.Module):
    """The front of the source, which nothing is fitted to any more."""

    def __init__(self, front: nn.Module) -> None:
        super().__init__()
        self.front = front

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Nothing is measured: the source has its own statistics."""

    def forward(self, inputs: Inputs) -> Any:
        return self.front(inputs)


class Tuned(nn.Module):
    """Pretrained parts that learn on, their features standardised, and a head.

    **Shape** what the frozen parts say (b, ...) -> (b, outputs)
    """

    def __init__(
        self, parts: Sequence[nn.Module], width: int, head: nn.Module, rate: float, decay: float
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.norm = FeatureFront(width)
        self.head = head
        self._rates = (rate, decay)

    def train(self, mode: bool = True) -> Tuned:
        """Its parts never leave evaluation mode: neither their statistics nor their dropout."""
        super().train(mode)
        self.parts.eval()
        return self

    def forward(self, x: Any) -> Tensor:
        for part in self.parts:
            x = part(x)
        return self.head(self.norm({"features": x}))

    def rates(self) -> dict[str, tuple[float, float]]:
        """Each part learns more slowly than the next; biases and norms do not decay."""
        rate, decay = self._rates
        count = len(self.parts)
        found = {}
        for number, part in enumerate(self.parts):
            factor = rate * decay ** (count - 1 - number)
            for name, value in part.named_parameters(prefix=f"parts.{number}"):
                found[name] = (factor, 1.0 if value.ndim > 1 else 0.0)
        return found


def build_features(spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """The front and the body that ``spec`` describes: "linear" or "mlp" on features, "tuned", or "cnn".

    Options: ``width`` and ``depth`` of the hidden layers of an mlp, ``dropout``; of a tuned network also
    ``head``, ``rate`` and ``decay`` (see ``Tuned.rates``). Its pretrained weights are loaded by ``begin``.

    >>> front, body = build_features(NetSpec("mlp", "classification", 3, {"embedded": [8]}))
    >>> body(front({"features": torch.zeros(2, 8)})).shape
    torch.Size([2, 3])
    """
    if spec.name == WHOLE:
        return _whole(spec)
    if spec.name != TUNED:
        if "embedded" not in spec.sizes:
            raise AyatoriError(f"a network on a frozen one must be a head, however: {spec.name!r}")
        (width,) = spec.sizes["embedded"]
        return FeatureFront(width), _head(spec.name, width, spec, _options(spec))
    options = _options(spec)
    source = source_of(spec.sizes["source"])
    parts = [_learning(part) for part in source.parts[spec.sizes["cut"] :]]
    head = _head(options["head"], source.width, spec, options)
    front = Given(source.front) if spec.sizes["cut"] == 0 else Passed()
    return front, Tuned(parts, source.width, head, options["rate"], options["decay"])


def begin(network: Network, spec: NetSpec) -> None:
    """Give a fresh network that learns on the weights of its source; others are left as they are."""
    if "source" not in spec.sizes:
        return
    source = same_source(spec.sizes["source"])
    cut = spec.sizes["cut"]
    front, body = files_of(network)
    with torch.no_grad():
        if spec.name == WHOLE:
            learned = [value for part in source.parts for value in part.state_dict().values()]
            own = list(body.state_dict().values())
            # the same layers in the same order; a last layer's weights and biases stay as they are
            for value, theirs in zip(own[:-2], learned[: len(own) - 2], strict=True):
                value.copy_(theirs)
            front.front.load_state_dict(source.front.state_dict())  # type: ignore[union-attr]
            return
        for mine, theirs in zip(body.parts, source.parts[cut:], strict=True):  # type: ignore[arg-type]
            mine.load_state_dict(theirs.state_dict())
        if cut == 0:
            front.front.load_state_dict(source.front.state_dict())  # type: ignore[union-attr]


def same_source(facts: Mapping[str, Any]) -> Source:
    """The source of a run that has begun; refused where its weights have changed since."""
    source = find_source(facts["name"])
    source = over_slices(source, facts["slices"]) if facts.get("slices") else source
    if source.facts["digest"] != facts["digest"]:
        raise AyatoriError(
            f"the pretrained network must be what the run began with, however {facts['name']!r} has changed"
        )
    return source


def head_state(network: Network) -> dict[str, Tensor]:
    """A trained head as the beginning of a tuned network: its tensors by their names there."""
    found = {}
    files = "files." if "beside" in network.spec.sizes else ""  # columns beside them stay where they are
    for name, value in network.state_dict().items():
        if name.startswith(f"front.{files}"):
            found[f"body.{files}norm.{name.removeprefix(f'front.{files}')}"] = value
        elif name.startswith(f"body.{files}"):
            found[f"body.{files}head.{name.removeprefix(f'body.{files}')}"] = value
        else:
            found[name] = value
    return found


def tuned_options(head: str, recipe: Recipe) -> dict[str, Any]:
    """Options of the tuned network around the head that the recipe describes."""
    settings = recipe.pretrained
    options: dict[str, Any] = {**recipe.net.options, "head": head, "decay": settings.tune_decay}
    return options | ({"rate": settings.tune_rate} if settings.tune_rate else {})


def options_beside(net: str, recipe: Recipe) -> dict[str, Any] | None:
    """Options of the network that stands beside the recipe's own, on the same source; None for others."""
    if recipe.net.name != TUNED:
        return tuned_options(str(recipe.net.name), recipe) if net == TUNED else None
    if net != recipe.net.options["head"]:
        return None
    return {
        name: value for name, value in recipe.net.options.items() if name not in ("head", "rate", "decay")
    }


def feature_defaults(task: Task, rows: int, net: str, preset: str) -> dict[str, Any]:
    """What a run uses where its recipe does not say, for members that train on ``rows`` rows."""
    effort = {"quick": 0.5, "good": 1.0, "best": 3.0}[preset]
    if net == TUNED:
        epochs = max(3, round(effort * min(20, 300 * max(rows, 1) ** -0.5)))
        return {
            "epochs": epochs,
            "batch_size": 16 if rows < 500 else 32,
            "learning_rate": 3e-4,
            "weight_decay": 0.05,
            "warmup": 0.1,
            "label_smoothing": 0.0,
            "beta2": 0.99,
            "patience": max(3, epochs // 3),
        }
    epochs = max(10, round(effort * min(60, 2000 * max(rows, 1) ** -0.5)))
    return {
        "epochs": epochs,
        "batch_size": 32 if rows < 4000 else 128,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "warmup": 0.1,
        "label_smoothing": 0.0,
        "beta2": 0.99,
        "patience": max(5, epochs // 4),
    }


def _options(spec: NetSpec) -> dict[str, Any]:
    known: dict[str, Any] = {"dropout": 0.0}
    if spec.name == TUNED:
        known |= {"head": "linear", "rate": 1.0, "decay": 0.8}
    if "mlp" in (spec.name, spec.options.get("head")):
        known |= {"width": 256, "depth": 1, "dropout": 0.2}
    for name, value in spec.options.items():
        if name not in known:
            hint = nearest(name, list(known))
            raise AyatoriError(
                f"options of the network '{spec.name}' must be among {sorted(known)}, however: '{name}'{hint}"
            )
        if isinstance(known[name], float) and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise AyatoriError(f"the network's option '{name}' must be from 0 to 1, however: {value!r}")
        if type(known[name]) is int and not (type(value) is int and 0 < value < 2**20):
            raise AyatoriError(f"the network's option '{name}' must be a whole number, however: {value!r}")
    return known | dict(spec.options)


def _whole(spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """The CNN that the source is, for other outputs; its front is the source's."""
    facts = spec.sizes.get("source", {})
    if facts.get("kind") != "run" or not facts["image"] or spec.sizes["cut"] != 0:
        raise AyatoriError("a cnn on a pretrained network must be a CNN of ours that learns on as a whole")
    if spec.options:
        raise AyatoriError(
            f"a CNN that learns on must stay as it is, however options are given: {sorted(spec.options)}"
        )
    theirs = NetSpec(**facts["architecture"])
    _, body = build_pictures(dataclasses.replace(theirs, task=spec.task, outputs=spec.outputs))
    return Given(source_of(facts).front), body


def _head(name: str, width: int, spec: NetSpec, options: Mapping[str, Any]) -> nn.Module:
    if name == "linear":
        last = nn.Linear(width, spec.outputs)
        # nothing is random, and nothing is said before something is learned
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(Dropout(options["dropout"]), last) if options["dropout"] else last
    layers: list[nn.Module] = []
    for _ in range(options["depth"]):
        layers += [nn.Linear(width, options["width"]), activation(spec.activation or "relu")]
        layers += [Dropout(options["dropout"])]
        width = options["width"]
    return nn.Sequential(*layers, nn.Linear(width, spec.outputs))


def _learning(part: nn.Module) -> nn.Module:
    part = copy.deepcopy(part)
    for value in part.parameters():
        value.requires_grad_(True)
    return part
