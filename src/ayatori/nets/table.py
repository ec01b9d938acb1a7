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
EPOCHS = {"quick": 10, "good": 24, "best": 64}  # at least, unless ...
VISITS = {"quick": 3_000_000, "good": 8_000_000, "best": 20_000_000}  # ... rows are seen so often in all
STEPS = {"quick": 300, "good": 1000, "best": 3000}  # at least, for few rows
QUICK_VISITS = 200_000  # at least, in at most twice the epochs of the quick preset (dev/LOG.md, 2026-11-28)
QUICK_DRY = 3000  # rows from which the quick preset leaves out dropout (dev/LOG.md, 2026-11-27)


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

    ``learning_rate`` is that of a weight with 256 inputs; a body's ``rates()`` say the others. A name
    that is not of ours ("own") gets what suits an ordinary module.

    >>> settings = table_defaults("classification", rows=11_520, outputs=26)
    >>> settings["epochs"], settings["batch_size"], settings["learning_rate"]
    (24, 256, 0.005)
    """
    batch = _batch(rows)
    epochs = _epochs(rows, batch, preset)
    kind: dict[str, float] = {
        "mlp": {"learning_rate": 0.005, "weight_decay": 0.32, "beta2": 0.95},
        "linear": {"learning_rate": 0.01, "weight_decay": 0.0, "beta2": 0.95},
    }.get(name, {"learning_rate": 0.001, "weight_decay": 0.01, "beta2": 0.999})
    # so few visits leave nothing to hold back
    options = {"dropout": 0.0} if name == "mlp" and preset == "quick" and rows >= QUICK_DRY else {}
    return {
        "options": options,
        "epochs": epochs,
        "batch_size": batch,
        "warmup": 0.05,
        "label_smoothing": 0.03 if task == "classification" and name == "mlp" else 0.0,
        "patience": max(10, epochs // 4),
        **kind,
    }


def _batch(rows: int) -> int:
    """Four steps an epoch or more, unless that leaves fewer than 16 rows a step."""
    if rows >= 200_000:
        return 1024
    return max(1, min(256, rows, max(16, rows // 4)))


def _epochs(rows: int, batch: int, preset: str) -> int:
    """Few rows are seen often, to make enough steps; many rows seldom."""
    steps = max(1, rows // batch)
    least = EPOCHS[preset]
    if preset == "quick":
        least = min(max(least, QUICK_VISITS // max(rows, 1)), 2 * least)
    epochs = max(least, min(-(-STEPS[preset] // steps), 400))
    return max(2, min(epochs, VISITS[preset] // max(rows, 1)))


def _check_options(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            hint = nearest(option, known)
            allowed = ", ".join(known) or "none"
            raise AyatoriError(f"options of this net must be among: {allowed}; however: {option!r}{hint}")
