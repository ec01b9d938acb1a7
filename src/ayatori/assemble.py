"""What members and rivals say -> every line of the leaderboard, and what is to be told of the ensembles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ayatori.decide import check_decide
from ayatori.ensemble import (
    Kind,
    blends,
    blends_of,
    chained,
    fold_members,
    grow,
    networks,
    one_network,
    other_networks,
    out_of_bag,
    stack,
    votes,
    with_net,
    with_plain,
)
from ayatori.ensemble.diversity import diversity
from ayatori.evaluate import check_baselines, fit_baselines, title_of, whole_table
from ayatori.evaluate.matrix import without_words
from ayatori.model_files import check_last
from ayatori.nets import find_net, kind_of
from ayatori.plan import make_plan
from ayatori.pretrained import partner
from ayatori.recipe import NetRecipe, Recipe
from ayatori.records import SCORE, STOP, Blend, Dataset, Ensemble, Group, Member, Plan, Predictions
from ayatori.train import answers, balances, weaker

Say = Callable[[str], None]


def check_parts(dataset: Dataset, recipe: Recipe, written: bool) -> None:
    """Refuse, before training, parts of an ensemble that nobody knows or that could not be ``written``."""
    settings = recipe.ensemble
    if "boosting" in settings.kinds:
        weaker(recipe, dataset, settings.boost_depth, settings.boost_width, settings.boost_epochs)
    if "stacking" in settings.kinds:
        for net in settings.stack_nets:
            find_net(NetRecipe(net), kind_of(dataset))
        check_baselines(dataclasses.replace(recipe.evaluate, baselines=settings.stack_rivals))
        if written:
            check_last(settings.stack_model, dataset.task)


def whole_plan(dataset: Dataset, recipe: Recipe, written: bool) -> Plan:
    """Folds, and beside them what ensembles, tuning and the price of balance want."""
    check_parts(dataset, recipe, written)
    check_decide(recipe, dataset)
    net = find_net(recipe.net, kind_of(dataset))[0]
    own = make_plan(dataset, recipe.plan, recipe.seed, net)
    beside = partner(recipe)
    wanted = (beside, *recipe.ensemble.stack_nets) if beside else recipe.ensemble.stack_nets
    others = tuple(other for other in dict.fromkeys(wanted) if other != net)
    plan = grow(own, dataset, recipe.ensemble, recipe.plan, recipe.seed, others)
    plan = with_net(plan, own, beside) if beside else plan
    priced = balances(recipe) and recipe.balance.balance_price and recipe.plan.strategy != "rotate"
    return with_plain(plan, own) if priced else plan


def fit_rivals(
    dataset: Dataset, plan: Plan, recipe: Recipe, progress: Say
) -> tuple[list[Predictions], list[Predictions], list[str]]:
    """The simple rivals: those of the leaderboard on every fold; those of a stack on its pairs too, kept.

    Both (m members, n, c); the second have a member for each fold, then one for each pair of folds.
    """
    shown, stacked = recipe.evaluate.baselines, _stacked(recipe)
    base = _base(plan)
    pairs = fold_members(plan, ("pair",), plan.columns[0].net)
    columns = [*base, *(member for members in pairs.values() for member in members)]
    alone = tuple(name for name in shown if name not in stacked)
    rules = dataclasses.replace(recipe.evaluate, baselines=alone)
    found, notes = fit_baselines(dataset, plan.only(base), rules, progress)
    rules = dataclasses.replace(recipe.evaluate, baselines=stacked)
    kept, more = fit_baselines(dataset, plan.only(sorted(columns)), rules, progress, keep=True)
    titles = {title_of(name, dataset.task) for name in shown}
    found += [rival.only(range(len(base))) for rival in kept if rival.name in titles]
    order = [title_of(name, dataset.task) for name in shown]
    found.sort(key=lambda rival: order.index(rival.name))
    return found, kept, [*notes, *more]


def fits(plan: Plan, recipe: Recipe) -> int:
    """How many times a rival is fitted, for the bar."""
    pairs = sum(column.kind == "pair" and column.net == plan.columns[0].net for column in plan.columns)
    names = set(recipe.evaluate.baselines) | set(_stacked(recipe))
    return max(1, len(names) * len(_base(plan)) + len(_stacked(recipe)) * pairs)


def assemble(
    dataset: Dataset,
    plan: Plan,
    recipe: Recipe,
    members: Sequence[Member],
    predictions: Predictions,
    rivals: Sequence[Predictions],
    stacked: Sequence[Predictions],
    chains: Mapping[tuple[int, int], Group],
) -> tuple[list[Blend], dict[str, Any]]:
    """Every line that can be scored, and how far the members of each ensemble differ.

    ``predictions`` (m, n, c) of all members; ``chains``: the rounds of each fold, where there was boosting.
    """
    base = _base(plan)
    folds, task = plan.only(base), dataset.task
    losses = np.array([min((line.stop_loss for line in one.history), default=np.inf) for one in members])
    seconds = np.array([member.seconds for member in members])
    made = blends(predictions.only(base), folds, losses[base].tolist())
    kinds = recipe.ensemble.kinds
    ensembles: list[Ensemble] = []
    if plan.strategy != "rotate":
        steps = any(group.how == "sum" for group in chains.values())
        heard = ("fold", "bag") if steps else ("fold", "bag", "round")
        ensembles = [
            *other_networks(plan),
            *votes(plan, kinds, task, _stop_answers(dataset, plan, members), heard),
        ]
        ensembles += [chained(chains, plan)] if chains else []
        made += one_network(plan, predictions, losses.tolist(), seconds)
    made += _unbalanced(plan, predictions, losses)
    for ensemble in ensembles:
        made += blends_of(ensemble, predictions, plan, task, seconds)
    if "bagging" in kinds:
        made += out_of_bag(plan, predictions, seconds)
    # of greedy or weighted voices the first of one fold is not that of another
    alike = [ensemble for ensemble in ensembles if ensemble.name in ("bagging", "boosting")]
    voices = {ensemble.name: _voices(ensemble, predictions, plan) for ensemble in alike}
    if "stacking" in kinds:
        parts = [*_networks(plan, predictions, seconds), *_rivals(plan, stacked)]
        inputs = None
        if recipe.ensemble.stack_inputs:
            inputs = without_words(whole_table(dataset)[0], dataset)
        made += stack(parts, folds, dataset, recipe.ensemble.stack_model, inputs, recipe.seed)
        voices["stacking"] = _kinds_out_of_fold(parts, folds)
    for rival in rivals:
        made += blends(rival, folds, losses[base].tolist())
    facts = {
        name: diversity(values, dataset.labels, task, names)
        for name, (values, names) in voices.items()
        if len(values) > 1
    }
    return made, facts


def _unbalanced(plan: Plan, predictions: Predictions, losses: np.ndarray) -> list[Blend]:
    """The lines of the folds that were trained once more with no class balanced; nobody delivers them."""
    plain = [member for member, column in enumerate(plan.columns) if column.kind == "plain"]
    if not plain:
        return []
    lines = blends(predictions.only(plain), plan.only(plain), losses[plain].tolist())
    return [
        dataclasses.replace(
            line,
            name=f"not balanced, {line.name.removeprefix('one network, ')}",
            members=tuple(plain[member] for member in line.members),
            ensemble="",
            single=False,
        )
        for line in lines
    ]


def _base(plan: Plan) -> list[int]:
    """The folds of the run's own network, which come first."""
    return [m for m, c in enumerate(plan.columns) if c.kind == "fold" and c.net == plan.columns[0].net]


def _stacked(recipe: Recipe) -> tuple[str, ...]:
    return recipe.ensemble.stack_rivals if "stacking" in recipe.ensemble.kinds else ()


def _stop_answers(dataset: Dataset, plan: Plan, members: Sequence[Member]) -> Any:
    """What members of one fold say of the rows that they stopped by, and the truth there."""

    def stop(numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        rows = plan.rows(numbers[0], STOP)
        said = answers([members[number] for number in numbers], dataset, [rows] * len(numbers))
        return np.stack(said), dataset.labels[rows]

    return stop


def _networks(plan: Plan, predictions: Predictions, seconds: np.ndarray) -> list[Kind]:
    """Every network of the Plan as a kind of voice."""
    found = []
    for net in networks(plan):
        folds = {fold: own[0] for (_, fold), own in fold_members(plan, net=net).items()}
        pairs = {
            (plan.columns[member].fold, plan.columns[member].other): member
            for own in fold_members(plan, ("pair",), net).values()
            for member in own
        }
        everyone = [*folds.values(), *pairs.values()]
        predict = predictions.seconds * len(folds) / len(predictions.values)
        name = "network" if net == networks(plan)[0] else f"{net} network"
        train = float(seconds[everyone].sum())
        found.append(Kind(name, predictions.values, folds, pairs, tuple(folds.values()), train, predict))
    return found


def _rivals(plan: Plan, stacked: Sequence[Predictions]) -> list[Kind]:
    """Every rival that was fitted for the stack, as a kind of voice; its voices come after all members."""
    base = _base(plan)
    pairs = sorted(
        member for own in fold_members(plan, ("pair",), plan.columns[0].net).values() for member in own
    )
    found = []
    for number, rival in enumerate(stacked):
        first = plan.members + number * len(base)
        share = len(base) / len(rival.values)
        found.append(
            Kind(
                rival.name,
                rival.values,
                {plan.columns[member].fold: place for place, member in enumerate(base)},
                {
                    (plan.columns[member].fold, plan.columns[member].other): len(base) + place
                    for place, member in enumerate(pairs)
                },
                tuple(range(first, first + len(base))),
                rival.seconds_train,
                rival.seconds * share,
            )
        )
    return found


def _voices(ensemble: Ensemble, predictions: Predictions, plan: Plan) -> tuple[np.ndarray, list[str]]:
    """(k, n, c): what the first, second, ... voice of each fold says of its held-out rows; NaN elsewhere."""
    most = max(len(group.voices) for group in ensemble.folds.values())
    if any(group.how == "sum" for group in ensemble.folds.values()):
        return np.zeros((0, *predictions.values.shape[1:]), np.float32), []
    values = np.full((most, *predictions.values.shape[1:]), np.nan, np.float32)
    for group in ensemble.folds.values():
        rows = plan.rows(group.voices[0], SCORE)
        for place, voice in enumerate(group.voices):
            values[place, rows] = predictions.values[voice, rows]
    what = "bag" if ensemble.name == "bagging" else "round"
    return values, [f"{what} {place + 1}" for place in range(most)]


def _kinds_out_of_fold(kinds: Sequence[Kind], folds: Plan) -> tuple[np.ndarray, list[str]]:
    values = np.full((len(kinds), *kinds[0].values.shape[1:]), np.nan, np.float32)
    for member, column in enumerate(folds.columns):
        rows = folds.rows(member, SCORE)
        for place, kind in enumerate(kinds):
            values[place, rows] = kind.values[kind.folds[column.fold], rows]
    return values, [kind.name for kind in kinds]
