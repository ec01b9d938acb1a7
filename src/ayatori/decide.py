"""Stage 8. What a run says of a row, where that is not simply the likeliest class.

Each fold has its own rule, from its own training and stop rows alone, and rows that it is scored on are
decided by it; new rows by the mean of all folds' rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ayatori.evaluate.decision import FIGURES, cost_rule, fit_rule, leaning
from ayatori.recipe import Recipe, nearest
from ayatori.records import STOP, AyatoriError, Blend, Dataset, Member, Plan
from ayatori.train import answers, balance_rows

Rules = Mapping[int, np.ndarray]  # of each member that has one


def check_decide(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse, before training, what cannot be decided so."""
    name, known = recipe.decide.name, ("auto", "likely", *FIGURES)
    if name not in known:
        raise AyatoriError(
            f"`decide` must be one of {', '.join(known)}, however: {name!r}{nearest(name, known)}"
        )
    if dataset.task == "regression" and (name not in ("auto", "likely") or recipe.decide.costs):
        raise AyatoriError("`decide` and `costs` must be left out where numbers are predicted")
    if recipe.decide.costs:
        if dataset.task == "multilabel":
            raise AyatoriError(
                "`costs` must be left out where a row has several labels; use --decide macro_f1"
            )
        if name in FIGURES:
            raise AyatoriError(
                f"labels must be decided one way, however: costs and --decide {name}; leave one out"
            )
        cost_rule(recipe.decide.costs, dataset.classes)


def find_rules(dataset: Dataset, plan: Plan, members: Sequence[Member], recipe: Recipe) -> Rules:
    """The rule of every member of the run's own network; none where the likeliest class is said."""
    name, task = recipe.decide.name, dataset.task
    if task == "regression" or name == "likely":
        return {}
    own = [m for m in members if m.column.kind == "fold" and m.column.net == plan.columns[0].net]
    if recipe.decide.costs:
        rule = cost_rule(recipe.decide.costs, dataset.classes)
        return {member.index: rule for member in own}
    if name in FIGURES:
        rows = [plan.rows(member.index, STOP) for member in own]
        said = answers(own, dataset, rows)
        return {
            member.index: fit_rule(values, dataset.labels[mine], name, task)
            for member, values, mine in zip(own, said, rows, strict=True)
        }
    if recipe.balance.name == "none" or not recipe.balance.balance_correct:
        return {}
    found = {}
    for member in own:
        back = balance_rows(dataset, plan.counts(member.index), True, recipe, member.column).back
        assert back is not None
        # what led the probabilities back to the true shares, the other way: all classes as they were trained
        lean = np.exp(-back.astype(float))
        found[member.index] = lean if task == "multilabel" else np.diag(lean / lean.sum())
    return found


def decide(made: Sequence[Blend], rules: Rules, plan: Plan, dataset: Dataset) -> list[Blend]:
    """Every line of a network or an ensemble with what it says of each row."""
    return [_decided(blend, rules, plan, dataset) if blend.network else blend for blend in made]


def _decided(blend: Blend, rules: Rules, plan: Plan, dataset: Dataset) -> Blend:
    whole = rule_of(blend, rules, plan)
    if whole is None:
        return blend
    leans: np.ndarray = np.full(blend.values.shape, np.nan)
    for fold in np.unique(blend.fold[blend.rows]).tolist():
        rows = np.flatnonzero(blend.rows & (blend.fold == fold))
        rule = whole if fold < 0 else rule_of(blend, rules, plan, fold)
        leans[rows] = leaning(blend.values[rows], whole if rule is None else rule, dataset.task)
    return dataclasses.replace(blend, decided=leans, rule=whole)


def rule_of(blend: Blend, rules: Rules, plan: Plan, fold: int | None = None) -> np.ndarray | None:
    """The mean rule of the folds that a blend's members learned in, of one of them where it is named.

    None for networks that were trained beside the run's own without being balanced.
    """

    def key(member: int) -> tuple[int, int]:
        return plan.columns[member].repeat, plan.columns[member].fold

    columns = [plan.columns[member] for member in blend.members if member < plan.members]
    if not rules or all(column.kind == "plain" for column in columns):
        return None
    keys = {(c.repeat, c.fold) for c in columns if fold is None or c.fold == fold}
    keys = keys or {key(member) for member in rules}
    found = [rule for member, rule in rules.items() if key(member) in keys]
    return np.mean(found or list(rules.values()), axis=0)
