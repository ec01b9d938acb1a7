"""Stage 3b. Dataset, Plan -> what quick models say of rows they did not learn from, at several sizes.

The probes are fitted as the simple rivals of stage 8 are. A size below 1 learns from a part of every
fold's rows and is judged on the same rows: the learning curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ayatori.evaluate import fit_baselines
from ayatori.plan import make_plan, strata
from ayatori.recipe import EvaluateRecipe, PlanRecipe
from ayatori.records import SCORE, STOP, UNUSED, Dataset, Plan, Predictions

SIZES = (0.25, 0.5)  # of a fold's rows, for the learning curve
LEAST = 40  # rows that a part must have
PROBES = ("majority", "linear", "trees", "perceptron")

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Probe:
    """Out-of-fold answers of one quick model. **Shape** ``values`` (n, c), NaN for rows never judged."""

    name: str
    size: float  # share of a fold's rows that it learned from
    rows: int  # the same in rows
    values: np.ndarray


def take_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The ``rows`` (m,) of a dataset, numbered anew."""

    def some(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    return dataclasses.replace(
        dataset,
        inputs={name: values[rows] for name, values in dataset.inputs.items()},
        target=some(dataset.target),
        ids=dataset.ids[rows],
        groups=some(dataset.groups),
        order=some(dataset.order),
        fixed_test=None,
        notes=(),
    )


def sample_rows(kinds: np.ndarray, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``rows``, each of their ``kinds`` (n,) in proportion, sorted."""
    if len(rows) <= most:
        return rows
    shuffled = np.random.default_rng([seed, 17]).permutation(rows)
    shuffled = shuffled[np.argsort(kinds[shuffled], kind="stable")]
    return np.sort(shuffled[np.arange(most) * len(rows) // most])


def probe_plan(dataset: Dataset, seed: int) -> Plan:
    """Five folds, or fewer where the smallest class or the groups ask for it; nothing is sealed."""
    folds = 5
    if dataset.task == "classification":
        folds = int(np.clip(np.bincount(dataset.labels).min(), 2, 5))
    if dataset.groups is not None:
        folds = int(np.clip(len(np.unique(dataset.groups)), 2, folds))
    # what comes later in time is not needed to see whether classes can be told apart
    return make_plan(dataclasses.replace(dataset, order=None), PlanRecipe(test=0.0, folds=folds), seed)


def fit_probes(
    dataset: Dataset,
    plan: Plan,
    seed: int,
    points: np.ndarray | None = None,
    progress: Progress | None = None,
) -> tuple[list[Probe], list[str]]:
    """Every probe at every size, and notes on what was left out. ``points`` (n, d): the rows of pictures."""
    say = progress or (lambda text, share: None)
    found: list[Probe] = []
    notes: list[str] = []
    kinds = strata(dataset)
    sizes = [size for size in SIZES if size * len(dataset) * 0.8 >= LEAST] + [1.0]
    recipe = EvaluateRecipe(PROBES)
    total = sum(sizes) * len(PROBES) * plan.members
    done = 0.0
    for size in sizes:
        thin = thinned(plan, kinds, size, seed)

        def count(text: str, size: float = size) -> None:
            nonlocal done
            done += size
            say(text, done / total)

        rivals, left = fit_baselines(dataset, thin, recipe, count, points)
        rows = int(np.mean([_learned(thin, member).sum() for member in range(thin.members)]))
        found += [Probe(rival.name, size, rows, _judged(rival, thin)) for rival in rivals]
        notes = left
    return found, notes


def thinned(plan: Plan, kinds: np.ndarray, size: float, seed: int) -> Plan:
    """The Plan with a ``size`` share of every member's rows; a smaller share is a part of a larger one."""
    if size == 1.0:
        return plan
    order = np.random.default_rng([seed, 23]).permutation(len(kinds))
    # a class is thinned evenly: its rows, in one shuffled order, count in turns
    place = np.empty(len(kinds))
    for kind in np.unique(kinds):
        own = order[kinds[order] == kind]
        place[own] = (np.arange(len(own)) * 0.6180339887498949 + 0.5) % 1.0
    keep = place < size
    first = np.unique(kinds[order], return_index=True)[1]
    keep[order[first]] = True
    roles = plan.roles.copy()
    learned = (roles > UNUSED) & (roles <= STOP)
    roles[learned & ~keep[:, None]] = UNUSED
    for member in range(plan.members):  # a few of both roles are kept at every size
        for role in (1, STOP):
            roles[np.flatnonzero(plan.roles[:, member] == role)[:2], member] = role
    return dataclasses.replace(plan, roles=roles)


def _learned(plan: Plan, member: int) -> np.ndarray:
    return (plan.roles[:, member] > UNUSED) & (plan.roles[:, member] <= STOP)


def _judged(found: Predictions, plan: Plan) -> np.ndarray:
    """(n, c): what each row's own fold says of it."""
    values = np.full(found.values.shape[1:], np.nan, np.float32)
    for member in range(plan.members):
        rows = plan.rows(member, SCORE)
        values[rows] = found.values[member, rows]
    return values
