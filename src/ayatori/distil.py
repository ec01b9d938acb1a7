"""What the chosen ensemble says -> one network that learned it, for where prediction must be cheap.

Its teacher is the ensemble's answer on held-out rows, so that no row is taught by who had learned it by
heart. It learns from all development rows: only the sealed test can score it, and so it is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ayatori.plan import stop_rows
from ayatori.recipe import Recipe
from ayatori.records import SEALED, STOP, UNUSED, Blend, Column, Dataset, Member, Plan
from ayatori.train import Desk, answers, train_some


def distil(
    dataset: Dataset, plan: Plan, recipe: Recipe, members: Sequence[Member], teacher: Blend, desk: Desk
) -> tuple[Plan, Member, Blend]:
    """Train the student of ``teacher``, a line of held-out rows: the Plan with it, it, and its line."""
    said = np.flatnonzero(teacher.rows & ~plan.sealed)
    seed = int(np.random.default_rng([recipe.seed, 7]).integers(2**31))
    learn, stop = stop_rows(dataset, said, recipe.plan.stop, seed)
    roles = np.full((len(dataset), 1), UNUSED, np.uint8)
    roles[plan.sealed], roles[learn], roles[stop] = SEALED, 1, STOP
    whole = plan.beside(roles, [Column(kind="student", net=plan.columns[0].net, seed=seed)])
    (student,) = train_some(
        dataset, whole, (plan.members,), recipe, desk, "student", members, teacher=teacher.values
    )
    values: np.ndarray = np.full(teacher.values.shape, np.nan, np.float32)
    sealed = np.flatnonzero(plan.sealed)
    if len(sealed):
        values[sealed] = answers([student], dataset, [sealed], (recipe.train.augment, recipe.train.tta))[0]
    line = Blend(
        name="one network, taught",
        split="test",
        values=values,
        rows=plan.sealed,
        fold=np.full(len(values), -1, np.int16),
        members=(student.index,),
        seconds_train=student.seconds,
        seconds_predict=teacher.seconds_predict / max(len(teacher.members), 1),
        ensemble="",
    )
    return whole, student, line
