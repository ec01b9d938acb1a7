"""START HERE. run(data, recipe) -> Result: one line per stage.

A run on disk can be killed at any moment and resumed: it reads the data again, makes the same Plan, and
goes on from the last checkpoint to the same result.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ayatori import sentences
from ayatori.archives import archive_of
from ayatori.assemble import assemble, fit_rivals, fits
from ayatori.clock import Clock
from ayatori.data.own_test import is_part
from ayatori.decide import Rules, decide, find_rules
from ayatori.distil import distil
from ayatori.evaluate import chosen, leaderboard, score_split
from ayatori.learned import explain
from ayatori.model import Model, deliver
from ayatori.model_files import save_model
from ayatori.outputs import predictions_table, worst_pictures
from ayatori.prepare import (
    Event,
    Ready,
    Show,
    advise_first,
    compare_ways,
    desk_of,
    how_to_go_on,
    look_first,
    prepare,
    show_varied,
    silent,
    tell,
)
from ayatori.recipe import Recipe, change, from_toml, to_toml
from ayatori.records import AyatoriError, Blend, Dataset, Entry, Look, Member, Plan, Predictions
from ayatori.store import RunFolder
from ayatori.train import Boosted, boost, predict, train_parts

__all__ = ["Event", "Result", "Show", "resume", "run"]

LIBRARIES = ("ayatori", "torch", "numpy", "scikit-learn", "pandas")


@dataclass(frozen=True)
class Result:
    """What a run found, and the model it hands over."""

    dataset: Dataset
    recipe: Recipe  # every setting, as decided
    plan: Plan
    members: tuple[Member, ...]
    predictions: Predictions
    blends: tuple[Blend, ...]
    leaderboard: tuple[Entry, ...]
    chosen: str
    model: Model
    stacked: tuple[Predictions, ...]  # the rivals that a stack may listen to, fitted
    student: Model | None  # one network that learned what the chosen ensemble says, where it was asked for
    seconds: dict[str, float]
    cost: Mapping[str, Any] = field(default_factory=dict)  # memory in bytes, energy in joules, where known
    ensembles: Mapping[str, Any] = field(default_factory=dict)  # how far members differ; what boosting did
    augment: Mapping[str, Any] = field(default_factory=dict)  # how the augmentations that were compared did
    look: Look | None = None  # what was seen before training; None where it was left out, or after a resume
    verdict: Mapping[str, Any] = field(default_factory=dict)
    advice: Mapping[str, Any] = field(default_factory=dict)  # on the pretrained network, where there is one
    folder: Path | None = None

    def facts(self) -> dict[str, Any]:
        """The content of result.json."""
        sealed = int(self.plan.sealed.sum())
        return {
            "task": self.dataset.task,
            "log": self.dataset.schema.log,
            "classes": self.dataset.classes,
            "rows": {"development": len(self.dataset) - sealed, "test": sealed},
            "leaderboard": self.leaderboard,
            "chosen": self.chosen,
            "delivered": self.model.name,
            "ensembles": self.ensembles,
            "augment": self.augment,
            "verdict": self.verdict,
            "advice": self.advice,
            "seconds": self.seconds,
            "cost": self.cost,
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in LIBRARIES},
            "seed": self.recipe.seed,
        }

    def report(self, path: str | Path) -> Path:
        """Write the page of this run to ``path``; the run needs a folder (``run(..., out=...)``)."""
        from ayatori.report import write_report

        if self.folder is None:
            raise AyatoriError(
                "a report is made from the run folder; give one by run(data, recipe, out='runs/mine')"
            )
        return write_report(self.folder, path)


def run(
    data: Any,
    recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
    out: str | Path | None = None,
    *,
    y: Any = None,
    show: Show | None = None,
    name: str = "",
) -> Result:
    """The whole flow: read, plan, train, predict, compare, hand over.

    Parameters
    ----------
    data
        A path, a DataFrame, arrays (with ``y``), a torch Dataset, or what ``ayatori.load`` gave.
    recipe
        All settings.
    out
        A new folder for everything that the run read, decided, measured and made; None keeps it in memory.
    y
        (n,) or (n, labels), where ``data`` is an array.
    show
        Is told what happens.
    name
        What data in memory is called.

    Raises
    ------
    AyatoriError
        With one sentence, for everything that the caller can mend.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(120, 3))
    >>> from ayatori.recipe import PlanRecipe, TrainRecipe
    >>> result = run(x, Recipe(plan=PlanRecipe(folds=2), train=TrainRecipe(epochs=3)), y=x[:, 0] > 0)
    >>> result.chosen
    'mean of 2 folds'
    """
    source = str(Path(data).resolve()) if isinstance(data, str | Path) else name
    if isinstance(recipe.plan.test, str) and not is_part(recipe.plan.test):
        recipe = change(recipe, "plan", test=str(Path(recipe.plan.test).resolve()))
    folder = None if out is None else RunFolder.create(out, to_toml(recipe), source)
    try:
        return _flow(data, y, recipe, folder, show or silent, name)
    except (AyatoriError, KeyboardInterrupt):
        if folder and not folder.has_checkpoint:
            folder.discard()  # nothing was trained yet, so nothing is lost
        raise


def resume(path: str | Path, data: Any = None, *, y: Any = None, show: Show | None = None) -> Result:
    """Go on with the run in ``path`` to the result that an unbroken run gives.

    ``data`` and ``y`` are needed where the run was given arrays; a path is read again.
    """
    folder = RunFolder.open(path)
    if folder.done:
        raise AyatoriError(
            f"'{path}' must be an unfinished run, however it is complete; read its result.json"
        )
    facts = folder.read_json("data.json")
    source = facts.get("given") or facts["source"]
    if data is None:
        if not source or not (Path(source).exists() or archive_of(Path(source))):
            raise AyatoriError(
                f"the data of a run must be there to resume it, however it was {source or 'in memory'!r}; "
                "put it back, or resume in Python by ayatori.resume(path, data, y=y)"
            )
        data = source
    recipe = from_toml((folder.path / "recipe.toml").read_text(encoding="utf-8"))
    return _flow(data, y, recipe, folder, show or silent, source, facts)


def _flow(
    data: Any,
    y: Any,
    recipe: Recipe,
    folder: RunFolder | None,
    show: Show,
    name: str,
    begun: Mapping[str, Any] = MappingProxyType({}),
) -> Result:
    clock = Clock()
    ready = prepare(data, y, recipe, folder, show, name, begun, clock)
    dataset, plan, recipe = ready.dataset, ready.plan, ready.recipe
    look, seen = look_first(ready, folder, show)
    clock.lap("explore")
    advice = advise_first(ready, folder, show)
    clock.lap("advise")
    show_varied(ready, folder, show)
    plan, compared = compare_ways(dataset, plan, recipe, folder, show)
    clock.lap("augment")
    tell(show, sentences.of_training(plan, recipe))
    trained = _train(dataset, plan, recipe, folder, show)
    plan, members = trained.plan, trained.members
    show(Event("train", "stopped because " + "; ".join(sorted({member.reason for member in members}))))
    clock.lap("train")
    hand = (dataset.schema, ready.frozen, (recipe.train.augment, recipe.train.tta))
    predictions = predict(members, dataset, plan, hand[-1])
    clock.lap("predict")
    numbers, total = itertools.count(1), fits(plan, recipe)
    rivals, stacked, notes = fit_rivals(
        dataset, plan, recipe, lambda text: show(Event("rivals", text, next(numbers) / total))
    )
    clock.lap("rivals")
    made, differ = assemble(dataset, plan, recipe, members, predictions, rivals, stacked, trained.groups)
    rules = find_rules(dataset, plan, members, recipe)
    made = decide(made, rules, plan, dataset)
    plan, student, made = _distil(dataset, plan, recipe, members, made, rules, folder, show)
    entries = leaderboard(made, dataset, plan, lambda: _open_test(dataset, plan, recipe, folder, show))
    name = chosen(entries, made, dataset.task)
    clock.lap("score")
    _explain(ready, plan, members, made, name, folder)
    clock.lap("explain")
    for note in notes:
        show(Event("rivals", note))
    result = Result(
        dataset=ready.whole,
        recipe=recipe,
        plan=plan,
        members=(*members, student) if student else tuple(members),
        predictions=predictions,
        blends=tuple(made),
        leaderboard=tuple(entries),
        chosen=name,
        model=deliver(name, made, members, stacked, *hand, rules),
        stacked=tuple(stacked),
        student=deliver("one network, taught", made, [*members, student], (), *hand) if student else None,
        seconds=clock.laps,
        cost=clock.cost(),
        ensembles={"diversity": differ, "boosting": trained.facts, "notes": trained.sentences},
        augment=compared,
        look=look,
        verdict=seen,
        advice=advice,
        folder=folder.path if folder else None,
    )
    if folder:
        _write(result, folder, notes)
    return result


def _distil(
    dataset: Dataset,
    plan: Plan,
    recipe: Recipe,
    members: Sequence[Member],
    made: Sequence[Blend],
    rules: Rules,
    folder: RunFolder | None,
    show: Show,
) -> tuple[Plan, Member | None, list[Blend]]:
    """Where it is asked for: a student of the best line of held-out rows, and its own line on the test."""
    if not recipe.ensemble.distill:
        return plan, None, list(made)
    name = chosen(score_split(made, dataset.labels, dataset, "out_of_fold"), made, dataset.task)
    best = next((b for b in made if b.network and b.name == name and b.split == "out_of_fold"), None)
    teacher = best or next((b for b in made if b.network and b.split == "out_of_fold"), None)
    if teacher is None:
        return plan, None, list(made)
    show(Event("train", f"one network learns what this says: {teacher.name}"))
    whole, student, line = distil(dataset, plan, recipe, members, teacher, desk_of(folder, show))
    if folder:
        folder.write_plan(whole)
    return whole, student, [*made, *decide([line], rules, whole, dataset)]


def _train(dataset: Dataset, plan: Plan, recipe: Recipe, folder: RunFolder | None, show: Show) -> Boosted:
    """All members: those of the Plan, then round by round those of boosting."""
    desk = desk_of(folder, show)
    try:
        members = train_parts(dataset, plan, recipe, desk)
        if "boosting" not in recipe.ensemble.kinds:
            return Boosted(plan, members)
        boosted = boost(
            dataset, plan, members, recipe, desk, lambda text, share: show(Event("boost", text, share))
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on(folder)) from None
    for sentence_ in boosted.sentences:
        show(Event("boost", sentence_))
    if folder:
        folder.write_plan(boosted.plan)
    return boosted


def _open_test(
    dataset: Dataset, plan: Plan, recipe: Recipe, folder: RunFolder | None, show: Show
) -> np.ndarray:
    """The one place where labels of sealed rows are read; each time is logged."""
    rows = int(plan.sealed.sum())
    show(Event("score", f"the {rows} sealed rows are opened"))
    if folder:
        folder.log_opening("final scores", rows, recipe.seed)
    return dataset.labels


def _explain(
    ready: Ready,
    plan: Plan,
    members: Sequence[Member],
    made: Sequence[Blend],
    name: str,
    folder: RunFolder | None,
) -> None:
    """What the networks made of the rows, for the page."""
    if folder:
        raw, seed = ready.whole.inputs, ready.recipe.seed
        drawn = folder.drawn_rows()
        folder.write_learned(explain(ready.dataset, plan, members, made, name, drawn, raw, seed))


def _write(result: Result, folder: RunFolder, notes: Sequence[str]) -> None:
    folder.write_members(list(result.members))
    folder.write_table("predictions.parquet", predictions_table(result.dataset, result.blends))
    if result.dataset.inputs.keys() & {"image", "series"}:
        folder.write_tensors(
            "worst.safetensors", worst_pictures(result.dataset, result.blends, result.chosen), {}
        )
    save_model(result.model, folder)
    if result.student:
        save_model(result.student, folder, "distilled")
    folder.write_json("result.json", {**result.facts(), "notes": notes, "openings": folder.openings()})
    folder.finish()
