"""Stage 2. Plan -> the same Plan with more columns: bags of each fold, other networks, pairs of folds.

Nothing here opens a row to a member: a bag draws from the training rows of its fold, a pair leaves out
two folds where a fold's own member leaves out one.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from ayatori.ensemble.bagging import bootstrap
from ayatori.ensemble.stacking import make_last
from ayatori.plan import check_plan, stop_rows, strata
from ayatori.recipe import EnsembleRecipe, PlanRecipe, nearest
from ayatori.records import SCORE, SEALED, STOP, UNUSED, AyatoriError, Column, Dataset, Plan

KINDS = ("mean", "majority", "median", "weighted", "greedy", "bagging", "boosting", "stacking")


def grow(
    plan: Plan, dataset: Dataset, recipe: EnsembleRecipe, folds: PlanRecipe, seed: int, nets: tuple[str, ...]
) -> Plan:
    """The Plan of everything that the ensembles of ``recipe`` train before boosting begins.

    ``nets`` stand beside the run's own network in a stack. The first columns stay as they are.

    >>> from ayatori.data import load
    >>> from ayatori.plan import make_plan
    >>> data = load(np.arange(80.0).reshape(40, 2), y=np.repeat(["cat", "dog"], 20))
    >>> plan = make_plan(data, PlanRecipe(folds=4))
    >>> recipe = EnsembleRecipe(kinds=("bagging", "stacking"), bags=3)
    >>> [column.kind for column in grow(plan, data, recipe, PlanRecipe(folds=4), 0, ()).columns].count("pair")
    6
    """
    check_ensembles(recipe, plan, dataset)
    own = plan
    if "bagging" in recipe.kinds:
        plan = _with_bags(plan, own, dataset, recipe, seed)
    if "stacking" in recipe.kinds:
        pairs = None if dataset.order is not None else _pairs(own, dataset, folds, seed)
        for number, net in enumerate((own.columns[0].net, *nets)):
            for part in (own, pairs):
                if part is not None and not (number == 0 and part is own):
                    plan = plan.beside(part.roles, [_of_net(c, net, number) for c in part.columns])
    check_plan(plan, dataset)
    return plan


def with_net(plan: Plan, own: Plan, net: str) -> Plan:
    """``plan`` with a column of the network ``net`` for each one of ``own``, unless it has them."""
    if any(column.net == net and column.kind == "fold" for column in plan.columns):
        return plan
    return plan.beside(own.roles, [_of_net(column, net, 1) for column in own.columns])


def with_plain(plan: Plan, own: Plan) -> Plan:
    """``plan`` with each column of ``own`` once more, to be trained without any class being balanced."""
    return plan.beside(own.roles, [dataclasses.replace(column, kind="plain") for column in own.columns])


def check_ensembles(recipe: EnsembleRecipe, plan: Plan, dataset: Dataset) -> None:
    """Refuse what this Plan, or this kind of target, cannot have."""
    for kind in recipe.kinds:
        if kind not in KINDS:
            raise AyatoriError(
                f"`ensemble` must be some of {', '.join(KINDS)}, however: {kind!r}{nearest(kind, KINDS)}"
            )
    if plan.strategy == "rotate" and set(recipe.kinds) - {"mean"}:
        raise AyatoriError(
            "`ensemble` must be left out where the best of rotated networks is kept, however: "
            f"{', '.join(recipe.kinds)}; use --strategy kfold"
        )
    for name, least in (("bags", 1), ("rounds", 1), ("boost_patience", 1)):
        if getattr(recipe, name) < least:
            raise AyatoriError(f"`{name}` must be at least {least}, however: {getattr(recipe, name)}")
    for name in ("bag_share", "bag_features"):
        if not 0 < getattr(recipe, name) <= 1:
            raise AyatoriError(f"`{name}` must be above 0 and at most 1, however: {getattr(recipe, name)}")
    for name in ("boost_threshold", "boost_rate"):
        if getattr(recipe, name) < 0:
            raise AyatoriError(f"`{name}` must not be negative, however: {getattr(recipe, name)}")
    _check_task(recipe, dataset)
    if "stacking" in recipe.kinds:
        make_last(recipe.stack_model, dataset.task, 1)
    if "stacking" in recipe.kinds and (plan.members < 3 or len({c.repeat for c in plan.columns}) > 1):
        raise AyatoriError(
            "stacking learns from out-of-fold outputs, so `folds` must be 3 or more and `repeats` 1, however "
            f"networks: {plan.members}; use --folds 5 and no --repeats"
        )


def _check_task(recipe: EnsembleRecipe, dataset: Dataset) -> None:
    regression = dataset.task == "regression"
    if "median" in recipe.kinds and not regression:
        raise AyatoriError("`median` must be of numbers, however the target has classes; use majority")
    if "majority" in recipe.kinds and regression:
        raise AyatoriError("`majority` must be of classes, however the target is a number; use median")
    known = {
        "classification": ("auto", "samme", "samme.r", "gradient"),
        "multilabel": ("auto", "gradient"),
        "regression": ("auto", "r2", "gradient"),
    }[dataset.task]
    if recipe.boost not in known:
        raise AyatoriError(
            f"`boost` for {dataset.task} must be one of {', '.join(known)}, however: {recipe.boost!r}"
            f"{nearest(recipe.boost, known)}"
        )


def _with_bags(plan: Plan, own: Plan, dataset: Dataset, recipe: EnsembleRecipe, seed: int) -> Plan:
    """Bootstrap samples of each member's training rows; who stops and scores it stays."""
    kinds = strata(dataset)
    roles, columns = [], []
    for member, column in enumerate(own.columns):
        rows = own.train_rows(member)
        for bag in range(1, recipe.bags + 1):
            drawn = int(np.random.default_rng([seed, 3, column.repeat, column.fold + 1, bag]).integers(2**31))
            mine = own.roles[:, member].copy()
            counts = bootstrap(kinds[rows], recipe.bag_share, recipe.bag_stratified, drawn)
            mine[rows] = counts  # a count of 0 is UNUSED
            roles.append(mine)
            columns.append(
                dataclasses.replace(column, kind="bag", bag=bag, seed=drawn, features=recipe.bag_features)
            )
    return plan.beside(np.stack(roles, axis=1), columns)


def _pairs(own: Plan, dataset: Dataset, folds: PlanRecipe, seed: int) -> Plan:
    """A column for each two folds, which sees neither: so a stack is scored on rows that taught none of it.

    The last model for fold j learns from fold i's rows by members that have never seen j.
    """
    roles, columns = [], []
    for i, j in itertools.combinations(range(own.members), 2):
        judged = (own.roles[:, i] == SCORE) | (own.roles[:, j] == SCORE)
        rows = np.flatnonzero(~own.sealed & ~judged & _used(own, i) & _used(own, j))
        drawn = int(np.random.default_rng([seed, 4, i, j]).integers(2**31))
        mine = np.full(len(dataset), UNUSED, np.uint8)
        mine[own.sealed] = SEALED
        learn, stop = stop_rows(dataset, rows, folds.stop, drawn)
        mine[learn], mine[stop], mine[judged] = 1, STOP, SCORE
        roles.append(mine)
        first, second = own.columns[i].fold, own.columns[j].fold
        columns.append(Column(fold=first, other=second, kind="pair", net=own.columns[i].net, seed=drawn))
    return Plan(np.stack(roles, axis=1), tuple(columns), own.strategy)


def _used(plan: Plan, member: int) -> np.ndarray:
    return plan.roles[:, member] != UNUSED


def _of_net(column: Column, net: str, number: int) -> Column:
    """The same rows for another network, with a seed of its own."""
    seed = int(np.random.default_rng([column.seed, 5, number]).integers(2**31)) if number else column.seed
    return dataclasses.replace(column, net=net, seed=seed)
