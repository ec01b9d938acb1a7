"""Stage 4, pictures. Picture sizes, outputs -> a front that normalises pixels, and a small residual CNN.

The CNN follows the size of the pictures: each early layer halves them, until the longer side is at most
``LAST_SIDE`` pixels; there, where an operation is cheap, come the widest layers and the residual blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.dropout import Dropout
from ayatori.nets.network import Inputs, NetSpec, activation, own_options
from ayatori.nets.scans import build_scans
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Schema, Task

LAST_SIDE = 7  # pixels
SAMPLE, BLOCK = 8192, 512  # rows that the front looks at, and how many of them at once


def measure_pictures(inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, Any]:
    """What a network is built from: ``{"image": [channels, height, width]}``; ``slices``: of a scan."""
    sizes = {"image": [int(size) for size in inputs["image"].shape[1:]]}
    return sizes | ({"slices": True} if schema.slices else {})


class PictureFront(nn.Module):
    """Pixels 0..255 -> mean 0 and standard deviation 1 per channel, over a member's own training rows.

    All slices of a scan are one channel.

    **Shape** ``forward``: ``inputs["image"]`` (b, c, h, w) uint8 or float -> (b, c, h, w) float

    >>> front = PictureFront({"image": [1, 2, 2]})
    >>> front.fit({"image": np.array([0, 0, 200, 200], np.uint8).reshape(1, 1, 2, 2)})
    >>> front({"image": torch.full((1, 1, 2, 2), 200)}).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        channels = 1 if sizes.get("slices") else sizes["image"][0]
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.full((channels,), 255.0))

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers from (n, c, h, w) uint8; of more than ``SAMPLE`` rows, evenly spaced ones."""
        image = inputs["image"]
        chosen = np.unique(np.linspace(0, len(image) - 1, min(len(image), SAMPLE)).astype(np.int64))
        channels = len(self.mean)
        total = np.zeros(channels, np.int64)
        squares = np.zeros(channels, np.int64)
        several = BLOCK * channels // image.shape[1] or 1
        for start in range(0, len(chosen), several):
            block = np.asarray(image[chosen[start : start + several]]).astype(np.uint32)
            block = block.reshape(len(block), channels, -1, image.shape[3])
            total += block.sum(axis=(0, 2, 3), dtype=np.int64)
            squares += (block * block).sum(axis=(0, 2, 3), dtype=np.int64)
        pixels = len(chosen) * image[0].size // channels
        mean = total / pixels
        std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.where(std > 0, std, 255.0)))

    def forward(self, inputs: Inputs) -> Tensor:
        image = inputs["image"].to(self.mean.dtype)
        return (image - self.mean[:, None, None]) / self.std[:, None, None]


class Residual(nn.Module):
    """Two 3x3 convolutions and a way around them (He et al. 2016, arXiv:1512.03385).

    **Shape** (b, width, h, w) -> (b, width, h, w)
    """

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        last = nn.BatchNorm2d(width)
        nn.init.zeros_(last.weight)  # starts as the way around (Goyal et al. 2017, arXiv:1706.02677, 5.1)
        self.convolutions = nn.Sequential(*_layer(width, width, act), _convolution(width, width), last)
        self.act = activation(act)

    def forward(self, picture: Tensor) -> Tensor:
        return self.act(picture + self.convolutions(picture))


class Flatten(nn.Flatten):
    """Pictures in the order in which they lie in memory: nothing is copied, and what comes back lies so too,
    which the activation before it takes a fifth of the time for.

    **Shape** (b, c, h, w) -> (b, h * w * c)
    """

    def forward(self, picture: Tensor) -> Tensor:
        return picture.permute(0, 2, 3, 1).flatten(1)


class Places(nn.Linear):
    """A linear layer of pictures (b, c, h, w) of these ``sizes``, as ``Flatten`` gives them.

    Its weights are in the order (c, h, w), as those of any layer behind ``nn.Flatten``.

    >>> picture, layer = torch.rand(5, 2, 3, 4), Places((2, 3, 4), 7)
    >>> apart = nn.functional.linear(picture.flatten(1), layer.weight, layer.bias)
    >>> bool(torch.allclose(layer(Flatten()(picture)), apart, atol=1e-6))
    True
    """

    def __init__(self, sizes: tuple[int, int, int], outputs: int) -> None:
        super().__init__(int(np.prod(sizes)), outputs)
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, self.sizes).permute(0, 2, 3, 1).flatten(1)
        return nn.functional.linear(x, weight, self.bias)


def build_pictures(spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """The front and the body that ``spec`` describes.

    ``spec.name`` is "cnn" (options ``width``: channels of the last layers, 0 = from the size; ``depth``:
    residual blocks; ``dropout``: share of features left out before the last layer) or "linear" (no options).
    Of scans see ``build_scans``.

    >>> spec = NetSpec("cnn", "classification", 10, {"image": [1, 28, 28]})
    >>> front, body = build_pictures(spec)
    >>> body(front({"image": torch.zeros(2, 1, 28, 28)})).shape
    torch.Size([2, 10])
    """
    sizes = spec.sizes["image"]
    if spec.sizes.get("slices"):
        return PictureFront(spec.sizes), build_scans(spec)
    if spec.name == "linear":
        own_options(spec, {})
        return PictureFront(spec.sizes), _linear(sizes, spec.outputs)
    if spec.name != "cnn":
        hint = nearest(spec.name, ["cnn", "linear"])
        raise AyatoriError(f"a network for pictures must be 'cnn' or 'linear', however: {spec.name!r}{hint}")
    options = own_options(spec, {"width": 0, "depth": 1, "dropout": 0.0})
    return PictureFront(spec.sizes), _cnn(sizes, spec.outputs, spec.activation or "relu", **options)


def picture_defaults(
    task: Task, rows: int, image: tuple[int, int, int], outputs: int, preset: str
) -> dict[str, Any]:
    """What a run uses where its recipe does not say, for members that train on ``rows`` rows.

    >>> picture_defaults("classification", 1_000, (1, 28, 28), 10, "good")["augment"]
    'light'
    """
    effort = {"quick": 0.5, "good": 1.0, "best": 3.0}[preset]
    epochs = max(2, round(effort * min(60, 254 * max(rows, 1) ** -0.368)))  # 20 for 1 000 rows, 5 for 43 000
    smoothing = 0.05 if rows < 4000 else 0.1
    return {
        "epochs": epochs,
        "batch_size": 32 if rows < 4000 else 64,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.2,
        "label_smoothing": smoothing if task == "classification" else 0.0,
        "beta2": 0.99,
        "patience": max(5, epochs // 2),
        # pictures that are seen only a few times teach most as they are
        "augment": "light" if epochs > 10 else "none",
    }


def _linear(image: list[int], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image)), outputs))


def _cnn(image: list[int], outputs: int, act: str, *, width: int, depth: int, dropout: float) -> nn.Module:
    channels, height, across = image
    halvings = 0
    while max(height, across) > LAST_SIDE:
        height, across, halvings = -(-height // 2), -(-across // 2), halvings + 1
    width = width or (64 if halvings <= 2 else 128)
    layers: list[nn.Module] = []
    for left in range(halvings, 0, -1):
        narrow = max(width >> left, min(width, 16))
        layers += _layer(channels, narrow, act, nn.MaxPool2d(2, ceil_mode=True))
        channels = narrow
    layers += _layer(channels, width, act)
    layers += [Residual(width, act) for _ in range(depth)]
    # the places are kept, not averaged: small pictures show their object in the middle
    layers += [Flatten(), Dropout(dropout), Places((width, height, across), outputs)]
    return nn.Sequential(*layers)


def _layer(width_in: int, width_out: int, act: str, *pool: nn.Module) -> list[nn.Module]:
    """Pooled before it is normalised: that is a quarter of the work."""
    return [_convolution(width_in, width_out), *pool, nn.BatchNorm2d(width_out), activation(act)]


def _convolution(width_in: int, width_out: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
