"""Stage 4, series. Sizes, outputs -> a front that scales channels, and a CNN, an RNN or a Transformer.

All begin with convolutions that halve the steps, until at most ``LAST_STEPS`` are left, and end with the mean
and the maximum over the steps that are left, so that it does not matter where in a series something happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.dropout import Dropout
from ayatori.nets.network import Inputs, NetSpec, activation, own_options
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Task

LAST_STEPS = 32
HEADS = 4  # of attention
WIDTH = 64  # channels of the last layers
DEPTHS = {"cnn": 2, "gru": 1, "lstm": 1, "transformer": 2}
SERIES_NETS = (*DEPTHS, "linear")


def measure_series(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The sizes that a network for series is built from, from a member's own training rows.

    ``gaps``: whether a value is missing, be it after the end of a series that is shorter than others.
    """
    series = inputs["series"]
    return {"series": [int(size) for size in series.shape[1:]], "gaps": bool(np.isnan(series).any())}


class SeriesFront(nn.Module):
    """Values -> mean 0 and standard deviation 1 per channel, over a member's own training rows.

    What is missing becomes 0, the mean; where the training rows have gaps, one more channel says which
    steps are there.

    **Shape** ``forward``: ``inputs["series"]`` (b, channels, steps), NaN = missing -> (b, channels or one
    more, steps) float

    >>> front = SeriesFront({"series": [1, 4], "gaps": True})
    >>> rows = np.array([[[1.0, 3.0, np.nan, np.nan]]], np.float32)
    >>> front.fit({"series": rows})
    >>> front({"series": torch.from_numpy(rows)}).tolist()
    [[[-1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        channels = sizes["series"][0]
        self.gaps = bool(sizes["gaps"])
        self.channels = channels + self.gaps
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers from (n, channels, steps), NaN where missing."""
        series = inputs["series"].astype(np.float64)
        there = ~np.isnan(series)
        count = np.maximum(there.sum(axis=(0, 2)), 1)
        mean = np.where(there, series, 0.0).sum(axis=(0, 2)) / count
        off = np.where(there, series - mean[:, None], 0.0)
        std = np.sqrt(np.square(off).sum(axis=(0, 2)) / count)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))

    def forward(self, inputs: Inputs) -> Tensor:
        series = inputs["series"].to(self.mean.dtype)
        scaled = (series - self.mean[:, None]) / self.std[:, None]
        there = ~scaled.isnan()
        scaled = scaled.nan_to_num(0.0)
        if not self.gaps:
            return scaled
        return torch.cat([scaled, there.any(dim=-2, keepdim=True).to(scaled.dtype)], dim=-2)


class Residual(nn.Module):
    """Two convolutions over time and a way around them (He et al. 2016, arXiv:1512.03385).

    **Shape** (b, width, steps) -> (b, width, steps)
    """

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        last = nn.BatchNorm1d(width)
        nn.init.zeros_(last.weight)  # starts as the way around (Goyal et al. 2017, arXiv:1706.02677, 5.1)
        self.convolutions = nn.Sequential(
            _convolution(width, width, 5),
            nn.BatchNorm1d(width),
            activation(act),
            _convolution(width, width, 3),
            last,
        )
        self.act = activation(act)

    def forward(self, series: Tensor) -> Tensor:
        return self.act(series + self.convolutions(series))


class Recurrent(nn.Module):
    """A GRU or an LSTM over the steps, forwards and backwards. **Shape** (b, width, steps) -> the same"""

    def __init__(self, cells: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, series: Tensor) -> Tensor:
        return self.cells(series.transpose(1, 2))[0].transpose(1, 2)


class Attention(nn.Module):
    """A layer of a Transformer, normalised first (Xiong et al. 2020, arXiv:2002.04745).

    **Shape** (b, steps, width) -> (b, steps, width)
    """

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), activation(act), nn.Linear(2 * width, width)
        )

    def forward(self, steps: Tensor) -> Tensor:
        asked = self.ask(self.before(steps)).unflatten(-1, (3, HEADS, -1)).transpose(1, 3)
        query, key, value = asked.unbind(2)  # (b, heads, steps, width / heads) each
        # of few steps half the time of torch's own in bfloat16 on a CPU (dev/LOG.md, 2026-11-28)
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        seen = weights @ value
        steps = steps + self.join(seen.transpose(1, 2).flatten(2))
        return steps + self.think(steps)


class Transformer(nn.Module):
    """Layers of attention over steps that know their place. **Shape** (b, width, steps) -> the same"""

    def __init__(self, steps: int, width: int, depth: int, act: str) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(steps, width))
        self.layers = nn.Sequential(*(Attention(width, act) for _ in range(depth)), nn.LayerNorm(width))

    def forward(self, series: Tensor) -> Tensor:
        return self.layers(series.transpose(1, 2) + self.place).transpose(1, 2)


class Summary(nn.Module):
    """Mean and maximum over the steps. **Shape** (b, width, steps) -> (b, 2 * width)"""

    def forward(self, series: Tensor) -> Tensor:
        return torch.cat([series.mean(-1), series.amax(-1)], dim=-1)


def build_series(spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """The front and the body that ``spec`` describes.

    ``spec.name`` is "cnn", "gru", "lstm" or "transformer" (options ``width``: channels of the last layers;
    ``depth``: residual blocks, recurrent layers or layers of attention; ``dropout``: share of features left
    out before the last layer) or "linear" (no options).

    >>> spec = NetSpec("gru", "classification", 3, {"series": [6, 100], "gaps": False})
    >>> front, body = build_series(spec)
    >>> body(front({"series": torch.zeros(2, 6, 100)})).shape
    torch.Size([2, 3])
    """
    front = SeriesFront(spec.sizes)
    steps = spec.sizes["series"][1]
    if spec.name == "linear":
        own_options(spec, {})
        return front, nn.Sequential(nn.Flatten(), nn.Linear(front.channels * steps, spec.outputs))
    if spec.name not in DEPTHS:
        hint = nearest(spec.name, SERIES_NETS)
        raise AyatoriError(
            f"a network for series must be {', '.join(SERIES_NETS)}, however: {spec.name!r}{hint}"
        )
    options = own_options(spec, {"width": WIDTH, "depth": DEPTHS[spec.name], "dropout": 0.0})
    width, dropout = options["width"], options["dropout"]
    if width < 2 * HEADS or width % (2 * HEADS):
        raise AyatoriError(
            f"the network's option 'width' must be a multiple of {2 * HEADS}, however: {width}"
        )
    act = spec.activation or "relu"
    layers, steps = _stem(front.channels, steps, width, act)
    layers += _trunk(spec.name, steps, width, options["depth"], act)
    return front, nn.Sequential(*layers, Summary(), Dropout(dropout), nn.Linear(2 * width, spec.outputs))


def _stem(channels: int, steps: int, width: int, act: str) -> tuple[list[nn.Module], int]:
    """Convolutions that halve the steps, narrow where there are many, and how many steps are left."""
    halvings = 0
    left = steps
    while left > LAST_STEPS:
        left, halvings = -(-left // 2), halvings + 1
    layers: list[nn.Module] = []
    for more in range(halvings, -1, -1):
        narrow = max(width >> more, min(width, 32))
        pool = [nn.MaxPool1d(2, ceil_mode=True)] if more else []
        layers += [_convolution(channels, narrow, 7), *pool, nn.BatchNorm1d(narrow), activation(act)]
        channels = narrow
    return layers, left


def _trunk(name: str, steps: int, width: int, depth: int, act: str) -> list[nn.Module]:
    if name == "cnn":
        return [Residual(width, act) for _ in range(depth)]
    if name == "transformer":
        return [Transformer(steps, width, depth, act)]
    cell = nn.GRU if name == "gru" else nn.LSTM
    return [Recurrent(cell(width, width // 2, depth, batch_first=True, bidirectional=True))] if depth else []


def _convolution(width_in: int, width_out: int, across: int) -> nn.Conv1d:
    return nn.Conv1d(width_in, width_out, across, padding=across // 2, bias=False)


def series_defaults(task: Task, rows: int, steps: int, preset: str) -> dict[str, Any]:
    """What a run uses where its recipe does not say, for members that train on ``rows`` rows.

    >>> series_defaults("classification", 1_000, 128, "good")["batch_size"]
    32
    """
    effort = {"quick": 0.5, "good": 1.0, "best": 3.0}[preset]
    epochs = max(4, round(effort * min(80, 1500 * max(rows, 1) ** -0.5)))
    return {
        "epochs": epochs,
        "batch_size": 16 if rows < 400 else 32 if rows < 4000 else 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.2,
        "label_smoothing": 0.05 if task == "classification" else 0.0,
        "beta2": 0.99,
        "patience": max(8, epochs // 2),
        # only what is seen often must vary (dev/LOG.md, 2026-11-28)
        "augment": "light" if epochs > 40 else "none",
    }
