"""Stage 3. Dataset, Plan -> a Look: the map, the numbers, the verdict. Never the labels of sealed rows."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ayatori.clock import Clock
from ayatori.data import load
from ayatori.data.twins import NEAR_ROWS, Twins, bind, find_twins
from ayatori.embed import cache_folder, embed
from ayatori.explore.audit import Audit, audit
from ayatori.explore.bounds import Bounds, find_bounds
from ayatori.explore.features import fewer, representations
from ayatori.explore.maps import draw_maps
from ayatori.explore.names import alike_by_name
from ayatori.explore.neighbours import find_apart, find_neighbours, structure
from ayatori.explore.probes import Probed, fit_probes, probe_plan, sample_rows, take_rows
from ayatori.explore.sheet import Seen, look_of
from ayatori.explore.thumbs import shrunk
from ayatori.plan import make_plan, strata
from ayatori.pretrained import find_pretrained, freeze, source_name
from ayatori.recipe import Recipe, change
from ayatori.records import SCORE, STOP, UNUSED, AyatoriError, Dataset, Graph, Look, Map, Plan, Representation

NEIGHBOURS = 25  # nearest rows that are known of a row
MOST, MOST_PICTURES = 200_000, 30_000  # rows that are looked at
LARGEST = 96  # pixels of a picture's side that are looked at
PERMUTED = 2000  # rows that labels are permuted for
CELLS = 1_500_000  # rows times columns that quick models learn from
LEAST, LEAST_OF_CLASS = 40, 5  # rows that probes can be judged on
NOT_IN_TIME = (
    "later rows could not be judged by earlier ones (these are too few, or all alike): what is expected is "
    "of rows at random, and may be too much"
)
Show = Callable[[str, float], None]


@dataclass(frozen=True)
class _Rows:
    """The rows of a look. ``drawn`` (n,): numbers of those looked at, ``dataset`` and ``plan`` are of
    them alone; ``known`` (m,): the development rows among them, and ``open`` these rows: no other label is
    read; ``asked`` (k,): those of ``known`` that the probes judge."""

    whole: Dataset
    whole_plan: Plan
    twins: Twins
    drawn: np.ndarray
    dataset: Dataset
    plan: Plan
    known: np.ndarray
    open: Dataset
    asked: np.ndarray
    notes: tuple[str, ...]


def explore(
    data: Any,
    plan: Plan | None = None,
    recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
    *,
    y: Any = None,
    features: np.ndarray | None = None,
    embedded: np.ndarray | None = None,
    twins: Twins | None = None,
    show: Show | None = None,
) -> Look:
    """Look before training: what accuracy to expect, what these labels and features allow, what is wrong.

    Parameters
    ----------
    data
        A path, a DataFrame, arrays (with ``y``), a torch Dataset, or what ``ayatori.load`` gave.
    plan
        Who is sealed; by default the Plan that ``run`` would make of the same recipe.
    recipe
        ``recipe.explore`` says for which target, and how long; ``recipe.plan`` what is sealed.
    y
        (n,) or (n, labels), where ``data`` is an array.
    features
        (n, d) numbers of your own for each row.
    embedded
        (n, d) what the pretrained network of ``recipe.pretrained`` says of each row, where it is known.
    twins
        The copies among the rows, where they are known already.
    show
        Is told what happens, and which share of it is done.

    Raises
    ------
    AyatoriError
        With one sentence, for everything that the caller can mend.

    >>> import numpy as np
    >>> chance = np.random.default_rng(0)
    >>> y = np.repeat(["cat", "dog"], 100)
    >>> x = chance.normal(size=(200, 3)) + 4.0 * (y == "cat")[:, None]
    >>> explore(x, y=y).verdict
    'feasible'
    """
    say = show or (lambda text, share: None)
    clock = Clock()
    recipe, source = find_pretrained(recipe)
    dataset = data if isinstance(data, Dataset) else _read(data, y, recipe, say)
    clock.lap("read")
    if source is not None and embedded is None:
        dataset, frozen = freeze(dataset, source, change(recipe, "pretrained", finetune="none"))
        seen = embed(dataset, frozen, cache=cache_folder(), progress=lambda share: say("embed", 0.05 * share))
        embedded = seen.inputs["features"]
        clock.lap("embed")
    rows = _rows(dataset, plan, recipe, twins)
    clock.lap("copies")
    given = {} if features is None else {"your own features": features}
    given |= {} if embedded is None else {f"features of {source_name(recipe)}": embedded}
    return look_of(_seen(rows, given, recipe, say, clock), recipe)


def _seen(rows: _Rows, given: dict[str, np.ndarray], recipe: Recipe, say: Show, clock: Clock) -> Seen:
    """One line per step: points, neighbours, quick models beside maps, their bounds, the audit.

    All is done with one thread a product, whatever runs beside it: else the last digits would depend on what
    was done first.
    """
    say("neighbours", 0.08)
    own = {name: np.asarray(values)[rows.drawn] for name, values in given.items()}
    ways = representations(rows.dataset, rows.known, recipe.seed, own)
    # of pictures the quick models see the points that turn out best, else they need not wait for neighbours
    early = None if "image" in rows.open.inputs else _probes(rows, ways[0], recipe)
    graphs = [find_neighbours(way.values[rows.known], NEIGHBOURS, rows.asked) for way in ways]
    apart = graphs  # rows of a group, or copies, are no evidence for one another
    if rows.open.groups is not None:
        groups = rows.open.groups
        apart = [find_apart(way.values[rows.known], NEIGHBOURS, rows.asked, groups) for way in ways]
    structures = [_structure(graph, rows.open, recipe) for graph in apart]
    best = int(np.argmax([np.nan_to_num(one["agreement"]) for one in structures]))
    clock.lap("neighbours")
    with threadpool_limits(1):
        probes = early or _probes(rows, ways[best], recipe)
        ahead = rows.open.order is not None and _probes(rows, ways[best], recipe, in_time=True)
        maps = _maps(rows, ways[best], recipe, say)
        clock.lap("maps")
        bounds, notes = _bounds(rows, probes, apart, recipe, say)
        clock.lap("probes")
        say("audit", 0.8)
        found = _audited(rows, ways[best], graphs[best], bounds, recipe)
        if not (recipe.data.groups or recipe.data.time):
            alike, step = alike_by_name(rows.open, graphs[best])
            found = _with_sentences(found, [alike] if alike else [], step)
        if ahead:  # a run judges later rows by earlier ones, so that is what to expect of it
            anyhow, (bounds, notes) = bounds, _bounds(rows, ahead, apart, recipe, say, in_time=True)
            found = _with_sentences(found, _in_time(anyhow, bounds, rows.open.task))
            clock.lap("later rows")
        elif bounds and rows.open.order is not None:
            found = _with_sentences(found, [NOT_IN_TIME])
        bounds = bounds and _at_most(bounds, found.facts["error_floor"], rows.open.task)
    clock.lap("audit")
    by_chance = [1.0 if bounds is None else bounds.p, len(ways) * min(one["p"] for one in structures)]
    return Seen(
        whole=rows.whole,
        rows=rows.drawn,
        dataset=rows.dataset,
        sealed=rows.plan.sealed,
        open=rows.open,
        asked=rows.asked,
        ways=ways,
        structures=structures,
        best=best,
        bounds=bounds,
        p=min(1.0, *by_chance),
        found=found,
        maps=maps,
        notes=(*rows.notes, *notes),
        seconds=clock.laps,
    )


def _read(data: Any, y: Any, recipe: Recipe, say: Show) -> Dataset:
    test = recipe.plan.test if isinstance(recipe.plan.test, str) else None
    cache = Path(tempfile.mkdtemp(prefix="ayatori-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    return load(
        data,
        y,
        recipe.data,
        test=test,
        blind=True,
        cache=cache,
        progress=lambda done, whole: say("read", 0.02 * done / max(whole, 1)),
    )


def _rows(dataset: Dataset, plan: Plan | None, recipe: Recipe, twins: Twins | None) -> _Rows:
    twins = find_twins(dataset) if twins is None else twins
    notes: list[str] = []
    if plan is None:
        dataset, bound = bind(dataset, twins, recipe.plan)
        plan = make_plan(dataset, recipe.plan, recipe.seed)
        notes += [bound] if bound else []
    if len(dataset) > NEAR_ROWS:
        notes.append("of so many rows only exact copies were looked for, no near ones")
    sealed = plan.sealed
    drawn, limit = np.arange(len(dataset)), MOST_PICTURES if "image" in dataset.inputs else MOST
    if len(drawn) > limit:
        drawn = np.sort(np.random.default_rng([recipe.seed, 3]).choice(drawn, limit, replace=False))
        notes.append(f"{limit:,} of {len(dataset):,} rows were drawn to be looked at")
    some = take_rows(dataset, drawn)
    if "image" in some.inputs and max(some.inputs["image"].shape[2:]) > LARGEST:
        small = shrunk(dataset.inputs["image"], drawn, LARGEST)
        some = dataclasses.replace(some, inputs={**some.inputs, "image": small})
    known = np.flatnonzero(~sealed[drawn])
    open_ = take_rows(some, known)
    columns = sum(int(np.prod(values.shape[1:])) for values in open_.inputs.values())
    most = min(recipe.explore.look_rows, max(CELLS // max(columns, 1), 2000))
    asked = sample_rows(strata(open_), _judgeable(open_), most, recipe.seed)
    part = dataclasses.replace(plan, roles=plan.roles[drawn])
    return _Rows(dataset, plan, twins, drawn, some, part, known, open_, asked, tuple(notes))


def _judgeable(open_: Dataset) -> np.ndarray:
    """Rows that probes can be judged on: of classes with so many rows that every fold has some."""
    rows = np.arange(len(open_))
    if open_.task != "classification":
        return rows
    counts = np.bincount(open_.labels, minlength=len(open_.classes))
    return rows[counts[open_.labels] >= LEAST_OF_CLASS]


def _structure(graph: Graph, open_: Dataset, recipe: Recipe) -> dict[str, float]:
    """How much neighbours agree, beside shuffled labels."""
    labels = open_.labels
    if open_.task == "regression":
        labels = labels.astype(np.float64)
    everyone = np.ones(len(open_), bool)
    count = recipe.explore.permutations
    few = np.unique(np.linspace(0, len(graph.rows) - 1, min(PERMUTED, len(graph.rows))).astype(int))
    graph = Graph(graph.rows[few], graph.indices[few], graph.distances[few])
    agreement, by_chance, p = structure(graph, labels, everyone, open_.groups, count, recipe.seed)
    return {"agreement": agreement, "by_chance": by_chance, "p": p, "permutations": count}


def _probes(
    rows: _Rows, way: Representation, recipe: Recipe, in_time: bool = False
) -> Callable[[Show], Probed] | None:
    """Quick models, begun; None where there are too few rows for them. ``in_time``: judged on later rows."""
    judged = _asked(rows, in_time)
    kinds = len(np.unique(judged.labels, axis=0))
    if len(judged) < LEAST or kinds < 2 or (judged.groups is not None and len(np.unique(judged.groups)) < 4):
        return None
    plan = _plan_in_time(judged, recipe) if in_time else probe_plan(judged, recipe.seed)
    if plan is None:
        return None
    points = fewer(way.values[rows.known[rows.asked]]) if "image" in judged.inputs else None
    return fit_probes(judged, plan, recipe.seed, points)


def _plan_in_time(judged: Dataset, recipe: Recipe) -> Plan | None:
    """Later rows by earlier ones; None where too few are judged so, or earlier ones are all of one kind."""
    try:
        plan = probe_plan(judged, recipe.seed)
    except AyatoriError:
        return None
    scored = (plan.roles == SCORE).any(axis=1)
    kinds = [len(np.unique(judged.labels[own], axis=0)) for own in (*_learned(plan), scored)]
    return plan if scored.sum() >= LEAST and min(kinds) > 1 else None


def _learned(plan: Plan) -> list[np.ndarray]:
    """(m,) for each member: the rows that it learns from or stops by."""
    return [(own > UNUSED) & (own <= STOP) for own in plan.roles.T]


def _bounds(
    rows: _Rows,
    waiting: Callable[[Show], Probed] | None,
    graphs: list[Graph],
    recipe: Recipe,
    say: Show,
    in_time: bool = False,
) -> tuple[Bounds | None, list[str]]:
    """What the probes say."""
    if waiting is None:
        return None, []
    probes, notes = waiting(lambda text, share: say(f"quick models: {text}", 0.4 + 0.4 * share))
    judged = _asked(rows, in_time)
    times = _times(rows.open, judged, probe_plan(judged, recipe.seed)) if in_time else None
    learn = float((rows.whole_plan.roles <= 250).mean(axis=0).mean() * len(rows.whole))
    wanted = recipe.explore.target_accuracy or None
    return (
        find_bounds(judged, graphs, probes, rows.open.labels, round(learn), wanted, recipe.seed, times),
        notes,
    )


def _asked(rows: _Rows, in_time: bool) -> Dataset:
    """The rows that quick models judge, in time or in no order."""
    judged = take_rows(rows.open, rows.asked)
    return judged if in_time else dataclasses.replace(judged, order=None)


def _times(open_: Dataset, judged: Dataset, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """When the development rows were, and how late the rows were by which each one is judged."""
    assert open_.order is not None
    assert judged.order is not None
    until = np.full(len(judged), -np.inf)
    for member, learned in enumerate(_learned(plan)):
        until[plan.rows(member, SCORE)] = judged.order[learned].max()
    return open_.order, until


def _in_time(anyhow: Bounds | None, bounds: Bounds | None, task: str) -> list[str]:
    """Where later rows are harder to tell than rows at random."""
    if anyhow is None or bounds is None or bounds.expected[2] >= anyhow.expected[0]:
        return []
    figure = {"regression": "an R²", "multilabel": "a share of right labels"}.get(task, "an accuracy")
    return [
        f"quick models reach {figure} of {bounds.score:.2f} on later rows, and of {anyhow.score:.2f} on rows "
        "at random: what they learn holds less well later"
    ]


def _with_sentences(found: Audit, first: list[str], step: str = "") -> Audit:
    """The audit with these sentences before its own, and what to do before all else."""
    sentences, step = [*first, *found.facts["sentences"]], step or found.facts.get("step", "")
    return dataclasses.replace(found, facts={**found.facts, "sentences": sentences, "step": step})


def _at_most(bounds: Bounds, floor: float, task: str) -> Bounds:
    """No better than what equal inputs with different labels leave to any function of the inputs."""
    if task == "multilabel":  # the floor counts sets of labels, the bounds each label
        return bounds
    most = 1 - floor
    expected, ceiling = (
        (min(a, most), min(b, most), min(c, most)) for a, b, c in (bounds.expected, bounds.ceiling)
    )
    return dataclasses.replace(bounds, expected=expected, ceiling=ceiling)


def _audited(rows: _Rows, way: Representation, graph: Graph, bounds: Bounds | None, recipe: Recipe) -> Audit:
    """The audit of all rows, with what the probes and the neighbours said of some."""
    known = rows.drawn[rows.known]
    answers = None
    if bounds is not None:
        answers = np.full((len(rows.whole), *bounds.answers.shape[1:]), np.nan, np.float32)
        answers[known[rows.asked]] = bounds.answers
    near = Graph(known[graph.rows], known[graph.indices], graph.distances)
    return audit(rows.whole, rows.whole_plan, rows.twins, near, way, answers, recipe.seed)


def _maps(rows: _Rows, way: Representation, recipe: Recipe, say: Show) -> list[Map]:
    if not recipe.explore.maps:
        return []

    def tell(share: float) -> None:
        say("maps", 0.1 + 0.3 * share)

    own = rows.open.labels
    labels = np.zeros((len(rows.dataset), *own.shape[1:]), own.dtype)
    labels[rows.known] = own
    return draw_maps(way, labels, ~rows.plan.sealed, recipe.seed, recipe.explore.look_seconds, tell)
