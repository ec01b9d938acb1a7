"""Stage 4, pictures. Picture sizes, outputs -> a front that normalises pixels, and a small residual CNN.

The CNN follows the size of the pictures: strided convolutions bring the longer side down to at most
``FIRST_SIDE`` pixels, then residual stages halve it until it is at most ``LAST_SIDE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.network import Inputs, NetSpec, activation
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Schema, Task

FIRST_SIDE, LAST_SIDE = 24, 7  # pixels; a stage on more of them costs a CPU more than it is worth
SAMPLE, BLOCK = 8192, 512  # rows that the front looks at, and how many of them at once


def measure_pictures(inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, Any]:
    """The sizes that a picture network is built from: ``{"image": [channels, height, width]}``."""
    return {"image": [int(size) for size in inputs["image"].shape[1:]]}


class PictureFront(nn.Module):
    """Pixels 0..255 -> mean 0 and standard deviation 1 per channel, over a member's own training rows.

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
        channels = sizes["image"][0]
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.full((channels,), 255.0))

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers from (n, c, h, w) uint8; of more than ``SAMPLE`` rows, evenly spaced ones."""
        image = inputs["image"]
        chosen = np.unique(np.linspace(0, len(image) - 1, min(len(image), SAMPLE)).astype(np.int64))
        total = np.zeros(image.shape[1], np.int64)
        squares = np.zeros(image.shape[1], np.int64)
        for start in range(0, len(chosen), BLOCK):
            block = np.asarray(image[chosen[start : start + BLOCK]]).astype(np.uint32)
            total += block.sum(axis=(0, 2, 3), dtype=np.int64)
            squares += (block * block).sum(axis=(0, 2, 3), dtype=np.int64)
        pixels = len(chosen) * image.shape[2] * image.shape[3]
        mean = total / pixels
        std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.where(std > 0, std, 255.0)))

    def forward(self, inputs: Inputs) -> Tensor:
        image = inputs["image"].to(self.mean.dtype)
        return (image - self.mean[:, None, None]) / self.std[:, None, None]


class Residual(nn.Module):
    """Two 3x3 convolutions and a way around them (He et al. 2016, arXiv:1512.03385).

    **Shape** (b, width_in, h, w) -> (b, width_out, ceil(h / stride), ceil(w / stride))
    """

    def __init__(self, width_in: int, width_out: int, stride: int, act: nn.Module) -> None:
        super().__init__()
        second = _convolution(width_out, width_out, 1)
        nn.init.zeros_(second[1].weight)  # starts as the way around (arXiv:1706.02677, 5.1)
        self.convolutions = nn.Sequential(*_convolution(width_in, width_out, stride), act, *second)
        self.around = nn.Sequential()
        if stride > 1:
            self.around.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        if width_in != width_out:
            self.around.append(nn.Conv2d(width_in, width_out, 1, bias=False))
            self.around.append(nn.BatchNorm2d(width_out))
        self.act = act

    def forward(self, picture: Tensor) -> Tensor:
        return self.act(self.convolutions(picture) + self.around(picture))


def build_pictures(spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """The front and the body that ``spec`` describes.

    ``spec.name`` is "cnn" (options ``width``: channels of the first stage, ``depth``: residual blocks a
    stage, ``dropout``: share of features left out before the last layer) or "linear" (no options).

    >>> spec = NetSpec("cnn", "classification", 10, {"image": [1, 28, 28]})
    >>> front, body = build_pictures(spec)
    >>> body(front({"image": torch.zeros(2, 1, 28, 28)})).shape
    torch.Size([2, 10])
    """
    sizes = spec.sizes["image"]
    if spec.name == "linear":
        _options(spec, {})
        return PictureFront(spec.sizes), _linear(sizes, spec.outputs)
    if spec.name != "cnn":
        hint = nearest(spec.name, ["cnn", "linear"])
        raise AyatoriError(f"a network for pictures must be 'cnn' or 'linear', however: {spec.name!r}{hint}")
    options = _options(spec, {"width": 32, "depth": 1, "dropout": 0.0})
    return PictureFront(spec.sizes), _cnn(
        sizes, spec.outputs, activation(spec.activation or "relu"), **options
    )


def picture_defaults(
    task: Task, rows: int, image: tuple[int, int, int], outputs: int, preset: str
) -> dict[str, Any]:
    """What a run uses where its recipe does not say, for members that train on ``rows`` rows.

    >>> picture_defaults("classification", 50_000, (1, 28, 28), 10, "good")["augment"]
    'light'
    """
    steps = {"quick": 700, "good": 1500, "best": 6000}[preset]
    batch_size = 64 if rows < 4000 else 128
    epochs = max(4, min(60, round(steps * batch_size / max(rows, 1))))
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.2,
        "label_smoothing": 0.1 if task == "classification" else 0.0,
        "beta2": 0.99,
        "patience": max(5, epochs // 3),
        "augment": "light",
    }


def _options(spec: NetSpec, known: dict[str, float]) -> dict[str, Any]:
    for name, value in spec.options.items():
        if name not in known:
            hint = nearest(name, list(known))
            raise AyatoriError(
                f"options of the network '{spec.name}' must be among {sorted(known)}, however: '{name}'{hint}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or value < (name != "dropout"):
            raise AyatoriError(f"the network's option '{name}' must be a positive number, however: {value!r}")
    return known | dict(spec.options)


def _linear(image: list[int], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image)), outputs))


def _cnn(
    image: list[int], outputs: int, act: nn.Module, *, width: int, depth: int, dropout: float
) -> nn.Module:
    channels, side = image[0], max(image[1:])
    halvings = 0
    while side > FIRST_SIDE:
        side, halvings = (side + 1) // 2, halvings + 1
    layers: list[nn.Module] = []
    for left in reversed(range(max(halvings, 1))):
        layers += [*_convolution(channels, width if left == 0 else width // 2, 2 if halvings else 1), act]
        channels = width if left == 0 else width // 2
    layers += [Residual(channels, channels, 1, act) for _ in range(depth)]
    while side > LAST_SIDE:
        layers.append(Residual(channels, 2 * channels, 2, act))
        side, channels = (side + 1) // 2, 2 * channels
        layers += [Residual(channels, channels, 1, act) for _ in range(depth - 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, outputs)]
    return nn.Sequential(*layers)


def _convolution(width_in: int, width_out: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False), nn.BatchNorm2d(width_out)
