"""Stage 6. Trained folds -> more columns of the Plan, round by round: what was got wrong weighs more.

Each fold has a chain of its own, which knows its own training and stop rows only. All folds' next
rounds train together. A round of SAMME or AdaBoost.R2 learns from rows drawn by their weights, so that the
Plan holds all that it learned from; a round of gradient boosting learns, on the same rows, what the
sum of the rounds before it still lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ayatori.ensemble.boosting import Round, draw, ended, r2, rounds_to_keep, samme, samme_r, start_of
from ayatori.ensemble.losses import row_losses
from ayatori.ensemble.say import say
from ayatori.recipe import Recipe
from ayatori.records import STOP, Dataset, Group, Member, Plan
from ayatori.train.lesson import outputs_of
from ayatori.train.parts import Desk, recipe_of, train_some
from ayatori.train.predict import answers
from ayatori.train.settle import weaker

GRADIENT_RATE = 0.3
SMALL = (1, 64)  # depth and width of a step of gradient boosting
Key = tuple[int, int]
Say = Callable[[str, float], None]


@dataclass
class Chain:
    """The rounds of one fold: ``weights`` (r,) of its training ``rows``, ``losses`` on its stop rows."""

    key: Key
    column: int  # of the fold's own member
    rows: np.ndarray
    stop: np.ndarray
    weights: np.ndarray
    start: tuple[float, ...] = ()
    voices: list[int] = field(default_factory=list)
    votes: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    said: list[np.ndarray] = field(default_factory=list)  # (stop rows, c) of each round
    total: np.ndarray | None = None  # (rows then stop rows, c): the sum of the steps
    reason: str = ""


@dataclass(frozen=True)
class Boosted:
    """A Plan with the rounds in it, all members, each fold's group, and what is to be told of each chain."""

    plan: Plan
    members: list[Member]
    groups: Mapping[Key, Group] = field(default_factory=dict)
    facts: Sequence[dict[str, Any]] = ()
    sentences: tuple[str, ...] = ()


def boost(
    dataset: Dataset, plan: Plan, members: Sequence[Member], recipe: Recipe, desk: Desk, tell: Say
) -> Boosted:
    """Boost every fold of ``plan``'s own network until its chain ends.

    A chain ends when the weighted training loss is under ``boost_threshold``, when its round is no better
    than chance, when the stop rows have gained nothing for ``boost_patience`` rounds, or when the rounds are
    done. It keeps the rounds up to the lowest loss on its stop rows.
    """
    settings = recipe.ensemble
    way = _way(settings.boost, dataset)
    step = way == "gradient"
    own = _weaker(recipe, dataset, step)
    shared = own is None  # the folds' own networks are the first round
    chains = _chains(dataset, plan, step)
    everyone = list(members)
    for number in range(1, settings.rounds + 1):
        active = [chain for chain in chains if not chain.reason]
        if not active:
            break
        spent = sum(member.seconds for member in everyone)
        if number > 1 and 0 < recipe.time_limit <= spent:
            for chain in active:
                chain.reason = f"the time limit of {recipe.time_limit:g} s"
            break
        told = _rounds(desk, tell, number, settings.rounds)
        if number == 1 and shared:
            fresh = [everyone[chain.column] for chain in active]
        else:
            first = plan.members
            plan = _with_round(plan, active, number, recipe.seed, step)
            part = range(first, plan.members)
            rules = recipe_of(part, dataset, plan, own or recipe)
            given = {"offsets": _offsets(active, dataset)} if step else {}
            fresh = train_some(dataset, plan, part, rules, told, f"round-{number}", everyone, **given)
            everyone += fresh
        _judge(active, fresh, dataset, recipe, way)
        for chain in active:
            _end(chain, number, recipe)
    groups = {chain.key: _group(chain, way) for chain in chains}
    return Boosted(
        plan, everyone, groups, [_facts(chain, groups[chain.key]) for chain in chains], _told(chains)
    )


def _rounds(desk: Desk, tell: Say, number: int, rounds: int) -> Desk:
    """A desk that tells the share of all rounds."""
    words = f"round {number} of at most {rounds}"
    return dataclasses.replace(desk, on_step=lambda done: tell(words, (number - 1 + done) / rounds))


def _way(boost: str, dataset: Dataset) -> str:
    if boost != "auto":
        return boost
    return {"classification": "samme", "regression": "r2", "multilabel": "gradient"}[dataset.task]


def _weaker(recipe: Recipe, dataset: Dataset, step: bool) -> Recipe | None:
    """The recipe of a weaker network, where one was asked for; steps of gradient boosting are small."""
    settings = recipe.ensemble
    depth, width = settings.boost_depth, settings.boost_width
    if step and recipe.net.name == "mlp":
        depth, width = depth or SMALL[0], width or SMALL[1]
    if not (depth or width or settings.boost_epochs):
        return recipe if step else None
    return weaker(recipe, dataset, depth, width, settings.boost_epochs)


def _chains(dataset: Dataset, plan: Plan, step: bool) -> list[Chain]:
    chains = []
    for member, column in enumerate(plan.columns):
        if column.kind != "fold" or column.net != plan.columns[0].net:
            continue
        rows, stop = plan.train_rows(member), plan.rows(member, STOP)
        chain = Chain((column.repeat, column.fold), member, rows, stop, np.full(len(rows), 1 / len(rows)))
        if step:
            start = start_of(dataset.labels[rows], dataset.task, outputs_of(dataset))
            chain.start = tuple(start.tolist())
            chain.total = np.tile(start, (len(rows) + len(stop), 1))
        chains.append(chain)
    return chains


def _with_round(plan: Plan, active: Sequence[Chain], number: int, seed: int, step: bool) -> Plan:
    """One more column for each chain: its fold's rows, drawn by their weights."""
    roles, columns = [], []
    for chain in active:
        repeat, fold = chain.key
        drawn = int(np.random.default_rng([seed, 6, repeat, fold + 1, number]).integers(2**31))
        mine = plan.roles[:, chain.column].copy()
        if not step and number > 1:
            mine[chain.rows] = draw(chain.weights, len(chain.rows), drawn)  # a count of 0 is UNUSED
        roles.append(mine)
        own = plan.columns[chain.column]
        columns.append(dataclasses.replace(own, kind="round", round=number, seed=drawn))
    return plan.beside(np.stack(roles, axis=1), columns)


def _offsets(active: Sequence[Chain], dataset: Dataset) -> np.ndarray:
    """(chains, n, c): the sum so far, on each chain's own rows; NaN elsewhere."""
    found = np.full((len(active), len(dataset), outputs_of(dataset)), np.nan, np.float32)
    for place, chain in enumerate(active):
        assert chain.total is not None
        found[place, np.concatenate([chain.rows, chain.stop])] = chain.total
    return found


def _judge(
    active: Sequence[Chain], fresh: Sequence[Member], dataset: Dataset, recipe: Recipe, way: str
) -> None:
    """How wrong each chain's new member is on its training rows, and what that makes of their weights."""
    rows = [np.concatenate([chain.rows, chain.stop]) for chain in active]
    said = answers(fresh, dataset, rows)
    for chain, member, values in zip(active, fresh, said, strict=True):
        own, stop = np.split(values.astype(np.float64), [len(chain.rows)])
        truth = dataset.labels[chain.rows]
        if way == "gradient":
            rate = recipe.ensemble.boost_rate or GRADIENT_RATE
            assert chain.total is not None
            chain.total += rate * np.concatenate([own, stop])
            sums = say(chain.total[None], Group((0,), (1.0,), "sum", (0.0,) * own.shape[1]), dataset.task)
            error = _loss(sums[: len(own)], truth, dataset)
            made = Round(error=error, vote=rate, weights=chain.weights)
        else:
            made = _weighed(chain, own, truth, dataset, recipe, way)
        if made.reason:
            chain.reason = made.reason
            if chain.voices:  # worse than guessing: it is not heard
                continue
        chain.weights = made.weights
        chain.voices.append(member.index)
        chain.votes.append(made.vote)
        chain.errors.append(made.error)
        chain.said.append(stop)
        group = dataclasses.replace(
            _group(chain, way, len(chain.voices)), voices=tuple(range(len(chain.said)))
        )
        ensemble = say(np.stack(chain.said), group, dataset.task)
        chain.losses.append(_loss(ensemble, dataset.labels[chain.stop], dataset))


def _weighed(
    chain: Chain, own: np.ndarray, truth: np.ndarray, dataset: Dataset, recipe: Recipe, way: str
) -> Round:
    rate = recipe.ensemble.boost_rate or 1.0
    if way == "samme":
        return samme(chain.weights, own.argmax(axis=1) != truth, len(dataset.classes), rate)
    if way == "samme.r":
        return samme_r(chain.weights, own, truth, rate)
    spread = np.maximum(truth.std(axis=0), 1e-12)
    return r2(chain.weights, (np.abs(own - truth) / spread).mean(axis=1), rate)


def _loss(values: np.ndarray, truth: np.ndarray, dataset: Dataset) -> float:
    return float(row_losses(values, truth, dataset.task).mean())


def _end(chain: Chain, number: int, recipe: Recipe) -> None:
    """Why a chain ends here, if it does."""
    settings = recipe.ensemble
    if chain.reason:
        return
    if chain.errors[-1] < settings.boost_threshold:
        chain.reason = f"the weighted training loss is under {settings.boost_threshold:g}"
    elif ended(chain.losses, settings.boost_patience):
        chain.reason = f"the stop rows had gained nothing for {settings.boost_patience} rounds"
    elif number == settings.rounds:
        chain.reason = f"all {settings.rounds} rounds were done"


def _group(chain: Chain, way: str, rounds: int = 0) -> Group:
    """The first rounds of a chain; by default up to the lowest loss on its stop rows."""
    rounds = rounds or rounds_to_keep(chain.losses)
    voices, weights = tuple(chain.voices[:rounds]), np.asarray(chain.votes[:rounds])
    if way == "gradient":
        return Group(voices, tuple(weights.tolist()), "sum", chain.start)
    share = weights / weights.sum() if weights.sum() > 0 else np.full(rounds, 1 / rounds)
    how: Any = {"samme": "mean", "samme.r": "geometric", "r2": "median"}[way]
    return Group(voices, tuple(share.tolist()), how)


def _facts(chain: Chain, group: Group) -> dict[str, Any]:
    """What result.json says of a chain."""
    return {
        "repeat": chain.key[0],
        "fold": chain.key[1],
        "members": chain.voices,
        "kept": len(group.voices),
        "votes": chain.votes,
        "training_errors": chain.errors,
        "stop_losses": chain.losses,
        "reason": chain.reason,
    }


def _told(chains: Sequence[Chain]) -> tuple[str, ...]:
    """What boosting came to, in a sentence or two."""
    rounds = sorted(len(chain.voices) for chain in chains)
    kept = sorted(rounds_to_keep(chain.losses) for chain in chains)
    reasons = sorted({chain.reason for chain in chains})
    said = [f"boosting made {_span(rounds)} rounds a fold and keeps {_span(kept)}: {'; '.join(reasons[:3])}"]
    fitted = [chain for chain in chains if len(chain.voices) == 1 and "is under" in chain.reason]
    if fitted:
        worst = max(chain.errors[0] for chain in fitted)
        said.append(
            f"in {len(fitted)} of {len(chains)} folds the network fits its training rows "
            f"(error {worst:.2g}), so nothing is left to weigh up; "
            "a weaker network boosts: --boost-depth 1 or --boost-epochs 3"
        )
    return tuple(said)


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
