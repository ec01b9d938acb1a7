"""Stage 4. Columns beside a picture, a recording, a scan or a series: what both say adds up.

Logits of what is seen and of the columns are added, as independent evidence is in naive Bayes. So any network
for files, on a pretrained one or not, takes columns beside it as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.mlp import TableLinear, TableMLP
from ayatori.nets.network import Inputs, NetSpec, Network
from ayatori.nets.table_front import Features, TableFront, measure_table
from ayatori.records import Dataset, Schema

COLUMNS = ("numbers", "categories", "words")
# learning rate and weight decay of a table's network alone, and of networks for files (see their defaults)
OWN = (0.005, 0.32)
QUIET = 0.1  # of a table's network alone, that columns begin by saying little; of nothing, Adam makes noise
SLOWER = 0.3  # a head on frozen features, that columns may be heard (dev/LOG.md, 2026-11-28)
HEAD, TUNED, FRESH = (1e-3, 0.1), (3e-4, 0.05), (4e-3, 0.05)
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


def files_alone(dataset: Dataset) -> Dataset:
    """The rows without the columns beside their files."""
    if not has_beside(dataset.schema):
        return dataset
    none: dict[str, Any] = {"numbers": (), "dates": (), "month_first": (), "text_widths": ()}
    schema = dataclasses.replace(dataset.schema, **none, categories={}, texts={})
    return dataclasses.replace(dataset, inputs=of_files(dataset.inputs), schema=schema)


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
    """Logits of files plus logits of columns, which begin near 0. **Shape** of the front -> (b, outputs)."""

    def __init__(
        self, files: nn.Module, columns: nn.Module, slower: float, pace: tuple[float, float]
    ) -> None:
        super().__init__()
        self.files = files
        self.columns = columns
        self._slower, self._pace = slower, pace

    def forward(self, seen: tuple[Any, Features]) -> Tensor:
        files, columns = seen
        return self.files(files) + self.columns(columns)

    def rates(self) -> Rates:
        """Factors of learning rate and weight decay, of columns as if they were alone."""
        found: Rates = {}
        for name, part, rate, decay in (
            ("files", self.files, self._slower, 1.0),
            ("columns", self.columns, *self._pace),
        ):
            own: Rates = {key: (1.0, float(value.ndim > 1)) for key, value in part.named_parameters()}
            own |= getattr(part, "rates", dict)()
            found |= {f"{name}.{key}": (rate * a, decay * b) for key, (a, b) in own.items()}
        return found


def stand_beside(files: tuple[nn.Module, nn.Module], spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """Front and body of the network for files, with a network for the columns beside it."""
    front = TableFront(spec.sizes["beside"])
    plain = front.numbers == 0 and not front.vocabulary  # texts alone: layers would have nothing to look at
    body = TableLinear(front, spec.outputs) if plain else TableMLP(front, spec.outputs, "silu")
    if isinstance(body, TableMLP):
        with torch.no_grad():
            body.last.weight.mul_(QUIET)
            body.last.bias.zero_()
    theirs = HEAD if "embedded" in spec.sizes else TUNED if spec.name == "tuned" else FRESH
    pace = (OWN[0] / theirs[0], OWN[1] / theirs[1])
    slower = SLOWER if "embedded" in spec.sizes else 1.0
    return BesideFront(files[0], front), Beside(files[1], body, slower, pace)


def files_of(network: Network) -> tuple[nn.Module, nn.Module]:
    """Front and body of a network for files, without what may stand beside it."""
    if isinstance(network.front, BesideFront) and isinstance(network.body, Beside):
        return network.front.files, network.body.files
    return network.front, network.body


def voices_of(network: Network) -> tuple[nn.Module, ...]:
    """The bodies whose logits are added up: one, or those of files and of columns."""
    body = network.body
    return (body.files, body.columns) if isinstance(body, Beside) else (body,)
