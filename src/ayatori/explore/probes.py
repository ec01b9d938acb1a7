"""Stage 3b. Dataset, Plan -> what quick models say of rows they did not learn from, at several sizes.

The probes are fitted as the simple rivals of stage 8 are. A size below 1 learns from a part of every
fold's rows and is judged on the same rows: the learning curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ayatori.aside import aside
from ayatori.data.rows import take_rows as rows_of
from ayatori.evaluate import fit_baselines, title_of
from ayatori.plan import make_plan, strata
from ayatori.recipe import EvaluateRecipe, PlanRecipe
from ayatori.records import SCORE, STOP, UNUSED, Dataset, Plan, Predictions

SIZES = (0.25, 0.5)  # of a fold's rows, for the learning curve
LEAST = 40  # rows that a part must have
PROBES = {"majority": 0.0, "linear": 0.1, "trees": 1.0, "perceptron": 5.0}  # and about how long they take

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Probe:
    """Out-of-fold answers of one quick model. **Shape** ``values`` (n, c), NaN for rows never judged."""

    name: str
    size: float  # share of a fold's rows that it learned from
    rows: int  # the same in rows
    values: np.ndarray


Probed = tuple[list[Probe], list[str]]


def take_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The ``rows`` (m,) of a dataset, numbered anew, none of them a test."""
    return dataclasses.replace(rows_of(dataset, rows), fixed_test=None, notes=())


def sample_rows(kinds: np.ndarray, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``rows``, each of their ``kinds`` (n,) in proportion, sorted."""
    if len(rows) <= most:
        return rows
    shuffled = np.random.default_rng([seed, 17]).permutation(rows)
    shuffled = shuffled[np.argsort(kinds[shuffled], kind="stable")]
    return np.sort(shuffled[np.arange(most) * len(rows) // most])


def probe_plan(dataset: Dataset, seed: int) -> Plan:
    """Five folds, or fewer where the smallest class, the groups or few times ask for it; nothing is sealed.

    With an ``order`` later rows are judged by earlier ones, and the earliest by nobody.
    """
    folds = 5
    if dataset.task == "classification":  # a class with too few rows to be judged may be missing
        present, codes = np.unique(dataset.labels, return_inverse=True)
        schema = dataclasses.replace(dataset.schema, classes=tuple(dataset.classes[code] for code in present))
        dataset = dataclasses.replace(dataset, target=codes, schema=schema)
        folds = int(np.clip(np.bincount(codes).min(), 2, 5))
    if dataset.groups is not None:
        folds = int(np.clip(len(np.unique(dataset.groups)), 2, folds))
    if dataset.order is not None:
        folds = int(np.clip(len(np.unique(dataset.order)) - 1, 2, folds))
    return make_plan(dataset, PlanRecipe(test=0.0, folds=folds), seed)


def fit_probes(
    dataset: Dataset, plan: Plan, seed: int, points: np.ndarray | None = None
) -> Callable[[Progress | None], Probed]:
    """Begin every probe at every size, see ``aside``; what is returned waits for all of them.

    They come with notes on what was left out. ``points`` (n, d): the rows of pictures.
    """
    kinds = strata(dataset)
    sizes = [size for size in SIZES if size * len(dataset) * 0.8 >= LEAST] + [1.0]
    plans = {size: thinned(plan, kinds, size, seed) for size in sizes}
    seen = dataset if points is None else dataclasses.replace(dataset, inputs={})
    jobs = [(size, name, member) for size in sizes for name in PROBES for member in range(plan.members)]
    begun = [
        aside(fit_baselines, seen, plans[size].only([member]), EvaluateRecipe((name,)), points=points)
        for size, name, member in jobs
    ]

    def wait(progress: Progress | None = None) -> Probed:
        say = progress or (lambda text, share: None)
        said = {}
        done, total = 0.0, sum(size * PROBES[name] for size, name, _ in jobs)
        # from the last on: what the second process has not begun is done here meanwhile
        for job, answer in zip(reversed(jobs), reversed(begun), strict=True):
            size, name, _ = job
            said[job] = answer()
            done += size * PROBES[name]
            say(title_of(name, dataset.task), done / total)
        found = []
        notes: dict[str, list[str]] = {}
        for size in sizes:
            rows = int(np.mean([_learned(plans[size], member).sum() for member in range(plan.members)]))
            for name in PROBES:
                own = [said[size, name, member] for member in range(plan.members)]
                left = next((left for _, left in own if left and size == 1.0), [])
                for what, _, rest in (note.rpartition(": ") for note in left):
                    notes.setdefault(what, []).append(rest)  # the same of several models is said once
                if all(rivals for rivals, _ in own):
                    values = _judged([rivals[0] for rivals, _ in own], plans[size])
                    found.append(Probe(title_of(name, dataset.task), size, rows, values))
        return found, [f"{what}: {', '.join(rest)}" for what, rest in notes.items()]

    return wait


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


def _judged(found: Sequence[Predictions], plan: Plan) -> np.ndarray:
    """(n, c): what each row's own fold says of it, of one model a fold."""
    values = np.full(found[0].values.shape[1:], np.nan, np.float32)
    for member, own in enumerate(found):
        rows = plan.rows(member, SCORE)
        values[rows] = own.values[0, rows]
    return values
