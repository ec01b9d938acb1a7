"""Stage 6. What members may be given besides labels: where a step begins, what a teacher says.

``offsets`` make a network one step of a sum (gradient boosting): it learns what is still missing.
A ``teacher`` makes it a student (Hinton, Vinyals, Dean 2015, arXiv 1503.02531): it learns from probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ayatori.records import STOP, AyatoriError, Dataset, Plan
from ayatori.train.learner import Learner
from ayatori.train.stream import to_device

TEACHER = 0.5  # of a soft target; the label has the rest


def check_offsets(offsets: np.ndarray, dataset: Dataset, plan: Plan) -> None:
    """Refuse what could not be added to each member's own outputs."""
    _check("offsets", offsets, (plan.members, len(dataset), outputs_of(dataset)))
    for member in range(plan.members):
        own = (plan.roles[:, member] > 0) & (plan.roles[:, member] <= STOP)
        _check_finite("offsets", offsets[member, own], member)


def soft_targets(teacher: np.ndarray, dataset: Dataset, plan: Plan) -> np.ndarray:
    """What the members learn instead of labels: half of it is the label, half what the teacher says.

    **Shape** ``teacher``: (n, outputs), or (members, n, outputs) where each has its own; so is the answer.

    A teacher that never saw a row may be wrong of it, where the label is the truth; a label is drawn once,
    where the teacher knows how likely it was. Half of each was better than either alone, and needs no
    label smoothing.
    """
    outputs = outputs_of(dataset)
    everyone = (plan.members,) if teacher.ndim == 3 else ()
    _check("teacher", teacher, (*everyone, len(dataset), outputs))
    for member in range(plan.members):
        says = teacher[member] if everyone else teacher
        _check_finite("teacher", says[plan.train_rows(member)], member)
    truth = dataset.labels
    if dataset.task == "classification":
        truth = np.eye(outputs, dtype=np.float32)[truth]
    return (TEACHER * teacher.astype(truth.dtype) + (1 - TEACHER) * truth).astype(truth.dtype)


def own_values(
    learners: Sequence[Learner], kind: Literal["offset", "soft"], rows: np.ndarray, device: torch.device
) -> Tensor | None:
    """What each member was given for its ``rows`` (k, b): (k, b, outputs); None where nothing was."""
    values = [getattr(learner, kind) for learner in learners]
    if values[0] is None:
        return None
    return to_device(np.stack([own[mine] for own, mine in zip(values, rows, strict=True)]), device)


def outputs_of(dataset: Dataset) -> int:
    """How many numbers a network says of a row."""
    return dataset.labels.shape[1] if dataset.task == "regression" else len(dataset.classes)


def _check(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype.kind != "f":
        raise AyatoriError(
            f"`{name}` must be floating-point numbers {shape}, however: {values.dtype} {values.shape}"
        )


def _check_finite(name: str, values: np.ndarray, member: int) -> None:
    if not np.isfinite(values).all():
        raise AyatoriError(
            f"`{name}` must be finite for every row that a member learns from, however member {member} has "
            f"{int((~np.isfinite(values)).any(axis=-1).sum())} rows where they are not"
        )
