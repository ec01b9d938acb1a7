"""Stage 4. Columns beside a picture, a recording, a scan or a series: what both say adds up.

Logits of what is seen and of the columns are added, as independent evidence is in naive Bayes. So any network
for files, on a pretrained one or not, takes columns beside it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.mlp import TableLinear, TableMLP
from ayatori.nets.network import Inputs, NetSpec, Network
from ayatori.nets.table_front import Features, TableFront, measure_table
from ayatori.records import Schema

COLUMNS = ("numbers", "categories", "words")
Rates = dict[str, tuple[float, float]]


def of_columns(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that are columns of a table."""
    return {name: values for name, values in inputs.items() if name in COLUMNS}


def of_files(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that are pictures, series, or what a frozen network says of them."""
    return {name: values for name, values in inputs.items() if name not in COLUMNS}


def has_beside(schema: Schema) -> bool:
    """Whether rows are files with columns beside them."""
    files = schema.image is not None or schema.series is not None
    return files and bool(schema.numbers or schema.categories or schema.texts)


def measure_beside(inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, Any]:
    """``{"beside": ...}``: sizes of the columns beside files, or {}."""
    return {"beside": measure_table(of_columns(inputs), schema)} if has_beside(schema) else {}


class BesideFront(nn.Module):
    """The fronts of files and of columns.

    **Shape** inputs of b rows -> (what files say (b, ...), Features).
    """

    def __init__(self, files: nn.Module, columns: TableFront) -> None:
        super().__init__()
        self.files = files
        self.columns = columns

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fit both to a member's own training rows (raw, row first); of files there may be a sample."""
        self.files.fit(of_files(inputs))  # type: ignore[operator]
        self.columns.fit(of_columns(inputs))

    def forward(self, inputs: Inputs) -> tuple[Any, Features]:
        return self.files(of_files(inputs)), self.columns(of_columns(inputs))


class Beside(nn.Module):
    """Logits of files plus logits of columns, which begin at 0. **Shape** of the front -> (b, outputs)."""

    def __init__(self, files: nn.Module, columns: nn.Module) -> None:
        super().__init__()
        self.files = files
        self.columns = columns

    def forward(self, seen: tuple[Any, Features]) -> Tensor:
        files, columns = seen
        return self.files(files) + self.columns(columns)

    def rates(self) -> Rates:
        """Factors of learning rate and weight decay, of either as if it were alone."""
        found: Rates = {}
        for name, part in self.named_children():
            own: Rates = getattr(part, "rates", dict)()
            found |= {f"{name}.{key}": value for key, value in own.items()}
        return found


def stand_beside(files: tuple[nn.Module, nn.Module], spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """Front and body of the network for files, with a network for the columns beside it."""
    front = TableFront(spec.sizes["beside"])
    plain = front.numbers == 0 and not front.vocabulary  # texts alone: layers would have nothing to look at
    body = TableLinear(front, spec.outputs) if plain else TableMLP(front, spec.outputs, "silu")
    if isinstance(body, TableMLP):
        with torch.no_grad():
            body.last.weight.zero_()
            body.last.bias.zero_()
    return BesideFront(files[0], front), Beside(files[1], body)


def files_of(network: Network) -> tuple[nn.Module, nn.Module]:
    """Front and body of a network for files, without what may stand beside it."""
    if isinstance(network.front, BesideFront) and isinstance(network.body, Beside):
        return network.front.files, network.body.files
    return network.front, network.body


def voices_of(network: Network) -> tuple[nn.Module, ...]:
    """The bodies whose logits are added up: one, or those of files and of columns."""
    body = network.body
    return (body.files, body.columns) if isinstance(body, Beside) else (body,)
