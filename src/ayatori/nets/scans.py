"""Stage 4, scans. The shape of scans, outputs -> a small residual CNN in three dimensions.

As that for pictures: each early layer halves the scan, until its longest side is at most ``LAST_SIDE``
voxels; there come the widest layers and the residual blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ayatori.nets.dropout import Dropout
from ayatori.nets.network import NetSpec, activation, own_options
from ayatori.recipe import nearest
from ayatori.records import AyatoriError

LAST_SIDE = 6  # voxels
WIDTH = 64  # channels of the last layers
LONG = 32  # voxels of a side; longer scans are halved by the first convolution


class Deep(nn.Module):
    """A scan of one channel. **Shape** (b, slices, h, w) -> (b, 1, slices, h, w)"""

    def forward(self, scan: Tensor) -> Tensor:
        return scan.unsqueeze(-4)


class Residual(nn.Module):
    """Two convolutions and a way around them (He et al. 2016, arXiv:1512.03385).

    **Shape** (b, width, d, h, w) -> (b, width, d, h, w)
    """

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        last = nn.BatchNorm3d(width)
        nn.init.zeros_(last.weight)  # starts as the way around (Goyal et al. 2017, arXiv:1706.02677, 5.1)
        self.convolutions = nn.Sequential(*_layer(width, width, act), _convolution(width, width), last)
        self.act = activation(act)

    def forward(self, scan: Tensor) -> Tensor:
        return self.act(scan + self.convolutions(scan))


class Summary(nn.Module):
    """Mean and maximum over all places. **Shape** (b, width, d, h, w) -> (b, 2 * width)"""

    def forward(self, scan: Tensor) -> Tensor:
        places = scan.flatten(-3)
        return torch.cat([places.mean(-1), places.amax(-1)], dim=-1)


def build_scans(spec: NetSpec) -> nn.Module:
    """The body that ``spec`` describes, behind a front for pictures.

    ``spec.name`` is "cnn" (options ``width``: channels of the last layers; ``depth``: residual blocks;
    ``dropout``: share of features left out before the last layer) or "linear" (no options).

    >>> spec = NetSpec("cnn", "classification", 2, {"image": [28, 32, 32], "slices": True})
    >>> build_scans(spec)(torch.zeros(3, 28, 32, 32)).shape
    torch.Size([3, 2])
    """
    shape = [int(size) for size in spec.sizes["image"]]
    if spec.name == "linear":
        own_options(spec, {})
        slices, height, width = shape
        return nn.Sequential(nn.Flatten(), nn.Linear(slices * height * width, spec.outputs))
    if spec.name != "cnn":
        hint = nearest(spec.name, ["cnn", "linear"])
        raise AyatoriError(f"a network for scans must be 'cnn' or 'linear', however: {spec.name!r}{hint}")
    options = own_options(spec, {"width": WIDTH, "depth": 1, "dropout": 0.0})
    act, width = spec.activation or "relu", options["width"]
    layers = [Deep(), *_stem(shape, width, act)]
    layers += [Residual(width, act) for _ in range(options["depth"])]
    last = [Summary(), Dropout(options["dropout"]), nn.Linear(2 * width, spec.outputs)]
    return nn.Sequential(*layers, *last)


def _stem(shape: list[int], width: int, act: str) -> list[nn.Module]:
    """Convolutions that halve a scan, narrow where there are many voxels."""
    layers: list[nn.Module] = []
    channels, narrow = 1, min(16, width)
    if max(shape) > LONG:
        stride = [min(2, size) for size in shape]
        first = nn.Conv3d(1, narrow, 5, stride=tuple(stride), padding=2, bias=False)  # type: ignore[arg-type]
        layers += [first, nn.BatchNorm3d(narrow), activation(act)]
        shape, channels = [-(-size // 2) for size in shape], narrow
    while max(shape) > LAST_SIDE:
        layers += _layer(channels, narrow, act, nn.MaxPool3d(2, ceil_mode=True))
        shape, channels, narrow = [-(-size // 2) for size in shape], narrow, min(2 * narrow, width)
    return layers + _layer(channels, width, act)


def _layer(width_in: int, width_out: int, act: str, *pool: nn.Module) -> list[nn.Module]:
    return [_convolution(width_in, width_out), *pool, nn.BatchNorm3d(width_out), activation(act)]


def _convolution(width_in: int, width_out: int) -> nn.Conv3d:
    return nn.Conv3d(width_in, width_out, 3, padding=1, bias=False)
