"""Stage 4. Sizes of a table -> its network (front and body), and how such a network is best trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ayatori.nets.mlp import TableLinear, TableMLP
from ayatori.nets.network import NetSpec
from ayatori.nets.table_front import TableFront, measure_table
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Task

__all__ = ["build_table", "measure_table", "table_defaults"]

BODIES = {"mlp": TableMLP, "linear": TableLinear}
EPOCHS = {"quick": 16, "good": 48, "best": 128}


def build_table(spec: NetSpec) -> tuple[nn.Module, nn.Module]:
    """Front and body of the table network ``spec.name``; their buffers are still to be fitted.

    ``spec.options`` of the MLP: ``width``, ``depth``, ``dropout``, ``numbers`` ("periodic" or "plain")
    and ``sigma``.
    """
    front = TableFront(spec.sizes)
    if spec.name == "linear":
        _check_options(spec.options, ())
        return front, TableLinear(front, spec.outputs)
    if spec.name not in BODIES:
        hint = nearest(spec.name, list(BODIES))
        raise AyatoriError(f"net of a table must be {', '.join(BODIES)}, however: {spec.name!r}{hint}")
    known = inspect.signature(TableMLP).parameters.values()
    _check_options(spec.options, tuple(p.name for p in known if p.kind is p.KEYWORD_ONLY))
    name = spec.activation or "silu"
    return front, TableMLP(front, spec.outputs, name, **spec.options)


def table_defaults(
    task: Task, rows: int, outputs: int, name: str = "mlp", preset: str = "good"
) -> dict[str, Any]:
    """How to train a table network that has ``rows`` training rows.

    ``learning_rate`` is that of a weight with 256 inputs; a body's ``rates()`` say the others.
    """
    batch = 256 if rows < 200_000 else 1024
    least = {"quick": 400, "good": 1500, "best": 4000}[preset]  # steps
    steps = max(1, rows // min(batch, rows))
    epochs = max(EPOCHS[preset], -(-least // steps))
    if rows * epochs > 20_000_000:
        epochs = max(3, 20_000_000 // rows)
    return {
        "epochs": min(epochs, 400),
        "batch_size": max(1, min(batch, rows)),
        "learning_rate": 0.005,
        "weight_decay": 0.32,
        "warmup": 0.05,
        "label_smoothing": 0.03 if task == "classification" else 0.0,
        "beta2": 0.95,
        "patience": max(10, epochs // 4),
    }


def _check_options(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            hint = nearest(option, known)
            allowed = ", ".join(known) or "none"
            raise AyatoriError(f"options of this net must be among: {allowed}; however: {option!r}{hint}")
