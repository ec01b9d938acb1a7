"""Stage 6. A member's own training rows -> how much each counts, and the way back to the true shares.

Rare classes (labels, values) count more in the loss ("weight") or are drawn more often ("sample"). What a
network then believes leans towards them by a known factor, which is taken out of its probabilities again
(Elkan 2001; Saerens, Latinne, Decaestecker 2002), while labels are still decided as it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ayatori.recipe import BalanceRecipe, Recipe, nearest
from ayatori.records import AyatoriError, Column, Dataset

RARER = 0.1  # of the typical density of a target: rarer values count no more than at this


@dataclass(frozen=True)
class Balance:
    """How a member's rows count.

    ``weight`` (n,) or (n, labels) float32: in the loss, mean 1 over its own rows. ``share`` (n,) float64 of
    all draws, or None where each row is drawn as often as it counts. ``back`` (outputs,) float32: what is
    added to logits, so that probabilities are those of the true shares.
    """

    weight: np.ndarray
    share: np.ndarray | None
    back: np.ndarray | None


def balances(recipe: Recipe) -> bool:
    """Whether rare rows count more."""
    return recipe.balance.name != "none"


def check_balance(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse what contradicts itself, or does not fit the task."""
    balance = recipe.balance
    for name, value, known in (
        ("balance", balance.name, ("none", "weight", "sample")),
        ("balance_rule", balance.balance_rule, ("inverse", "effective")),
    ):
        if value not in known:
            raise AyatoriError(
                f"`{name}` must be one of {', '.join(known)}, however: {value!r}{nearest(str(value), known)}"
            )
    if not 0 <= balance.balance_strength <= 2:
        raise AyatoriError(
            f"`balance_strength` must be from 0 (nothing) to 2, however: {balance.balance_strength}"
        )
    if not 0 < balance.balance_beta < 1:
        raise AyatoriError(f"`balance_beta` must be between 0 and 1, however: {balance.balance_beta}")
    if balance.name == "sample" and recipe.loss.class_weights and not balance.balance_both:
        raise AyatoriError(
            "rare classes must be handled once, however `balance` is sample and `class_weights` are given "
            "too: they would count twice; leave one out, or say --balance-both if you mean it"
        )
    class_weights(recipe.loss.class_weights, dataset)
    _check_shares(balance, dataset)


def _check_shares(balance: BalanceRecipe, dataset: Dataset) -> None:
    """Refuse shares that no classes can have."""
    shares = balance.balance_shares
    if not shares:
        return
    if dataset.task != "classification" or balance.name == "none":
        raise AyatoriError(
            "`balance_shares` are of classes that are balanced, however the task is "
            f"{dataset.task} and `balance` is {balance.name}"
        )
    for name in shares:
        if name not in dataset.classes:
            raise AyatoriError(
                f"`balance_shares` must name classes, however: {name!r}{nearest(name, list(dataset.classes))}"
            )
    rest = 1 - sum(shares.values())
    whole = len(shares) == len(dataset.classes)
    if min(shares.values()) <= 0 or (abs(rest) > 1e-6 if whole else rest <= 0):
        raise AyatoriError(
            "`balance_shares` must be positive, and 1 together (below 1 where classes are left out), "
            f"however: {dict(shares)}"
        )


def class_weights(given: tuple[float, ...] | Mapping[str, float], dataset: Dataset) -> np.ndarray | None:
    """(classes,) float64 of ``class_weights``, in the order of the classes or by their names (others 1)."""
    if not given:
        return None
    if dataset.task == "regression":
        raise AyatoriError(
            "`class_weights` must be left out where numbers are predicted: there are no classes"
        )
    if isinstance(given, Mapping):
        found = np.ones(len(dataset.classes))
        for name, value in given.items():
            if name not in dataset.classes:
                hint = (
                    nearest(str(name), list(dataset.classes))
                    or f"; they are {', '.join(dataset.classes[:9])}"
                )
                raise AyatoriError(f"`class_weights` must name classes, however: {name!r}{hint}")
            found[dataset.classes.index(name)] = value
    else:
        found = np.asarray(given, float)
    if len(found) != len(dataset.classes):
        raise AyatoriError(
            f"`class_weights` must hold one weight for each of the {len(dataset.classes)} classes, "
            f"however: {len(found)}"
        )
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise AyatoriError(f"`class_weights` must be positive numbers, however: {found.tolist()}")
    return found


def balance_rows(
    dataset: Dataset, counts: np.ndarray, drawn: bool, recipe: Recipe, column: Column, taught: bool = False
) -> Balance:
    """How the rows of one member count, from its own training rows alone.

    ``counts`` (n,): how often it trains on each. ``drawn``: a row that counts twice is drawn twice, and does
    not weigh twice. Rounds of boosting and students (``taught``) have their own ways and are left alone.
    """
    settings, given = recipe.balance, class_weights(recipe.loss.class_weights, dataset)
    weight = (np.sign(counts) if drawn else counts).astype(np.float64)
    own = counts > 0
    if settings.name == "none" or taught or column.kind == "round":
        if given is not None:
            weight *= _by_hand(given, dataset)
        return Balance(_even(weight, own), None, None)
    by_hand = given is not None and settings.name == "weight"
    factors = _by_hand(given, dataset, each=True) if by_hand and given is not None else None
    if factors is None:
        factors = rarity(dataset, counts, settings)
    if settings.name == "weight":
        back = way_back(dataset, counts, factors) if settings.balance_correct else None
        return Balance(_even((weight[:, None] if factors.ndim == 2 else weight) * factors, own), None, back)
    rows = factors.mean(axis=1) if factors.ndim == 2 else factors
    if given is not None:
        weight *= _by_hand(given, dataset)
    back = None
    if settings.balance_correct:
        back = way_back(dataset, counts, rows if given is None else rows * weight)
    share = counts * rows
    return Balance(_even(weight, own), share / share.sum(), back)


def rarity(dataset: Dataset, counts: np.ndarray, settings: BalanceRecipe) -> np.ndarray:
    """(n,), or (n, labels) where there are several labels a row: how much more a rare row counts.

    Classes and labels: one over their frequency, or over the effective number of rows
    (1 - beta^n) / (1 - beta) (Cui et al. 2019, arXiv 1901.05555). Numbers: one over the density of the target
    (Yang et al. 2021, arXiv 2102.09554, smooth over values), at most ten times the typical one. All to the
    power ``balance_strength``.
    """

    def factor(rows: np.ndarray) -> np.ndarray:
        rows = np.maximum(np.asarray(rows, float), 1e-9)
        if settings.balance_rule == "effective":
            beta = settings.balance_beta
            rows = -np.expm1(rows * np.log(beta)) / (1 - beta)
        return rows**-settings.balance_strength

    labels, counts = dataset.labels, counts.astype(float)
    if dataset.task == "classification":
        there = np.bincount(labels, weights=counts, minlength=len(dataset.classes))
        if settings.balance_shares:
            return (_wanted(settings.balance_shares, there, dataset.classes) / np.maximum(there, 1))[labels]
        found = np.where(there > 0, factor(there), 0.0)[labels]
    elif dataset.task == "multilabel":
        yes = counts @ (labels > 0.5)
        found = np.where(labels > 0.5, factor(yes), factor(counts.sum() - yes))
    else:
        found = density(labels, counts) ** -settings.balance_strength
    return found


def _wanted(shares: Mapping[str, float], there: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(classes,): the shares that were asked for; classes that were not named part the rest as they are."""
    given = np.array([shares.get(name, 0.0) for name in classes])
    others = np.where(given > 0, 0.0, there)
    return given + others * ((1 - given.sum()) / max(others.sum(), 1.0))


def density(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(n,): how dense the own values are around each row's, 1 on average, and at least ``RARER``.

    Gaussian kernels of Scott's width on a grid of 512 places; several values: the mean of their logarithms.
    """
    own, found = counts > 0, np.zeros(len(values))
    for column in values.T:
        mine, repeated = column[own], counts[own].astype(float)
        spread = mine.std()
        if spread == 0:
            continue
        width = spread * len(mine) ** -0.2
        edges = np.linspace(mine.min() - 3 * width, mine.max() + 3 * width, 513)
        middles, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
        bins, _ = np.histogram(mine, edges, weights=repeated)
        reach = min(int(np.ceil(4 * width / step)), 255)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
        smooth = np.interp(column, middles, np.convolve(bins, kernel, "same"))
        typical = np.average(smooth[own], weights=repeated)
        found += np.log(np.maximum(smooth / typical, RARER)) / values.shape[1]
    return np.exp(found)


def way_back(dataset: Dataset, counts: np.ndarray, factors: np.ndarray) -> np.ndarray | None:
    """(outputs,) float32 to add to logits: log of true shares over those that ``factors`` made of them."""
    if dataset.task == "regression":
        return None
    counts = counts.astype(float)
    if dataset.task == "classification":
        size = len(dataset.classes)
        true = np.bincount(dataset.labels, weights=counts, minlength=size)
        made = np.bincount(dataset.labels, weights=counts * factors, minlength=size)
        there = true > 0
        back = np.zeros(size)
        back[there] = np.log(true[there] / true.sum()) - np.log(made[there] / made.sum())
        return back.astype(np.float32)
    yes = dataset.labels > 0.5
    factors = factors if factors.ndim == 2 else factors[:, None]
    shares = (counts @ yes, counts @ ~yes)
    leaning = ((counts[:, None] * factors * yes).sum(0), (counts[:, None] * factors * ~yes).sum(0))
    there = (shares[0] > 0) & (shares[1] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        back = np.log(shares[0] / shares[1]) - np.log(leaning[0] / leaning[1])
    return np.where(there, back, 0.0).astype(np.float32)


def _by_hand(given: np.ndarray, dataset: Dataset, each: bool = False) -> np.ndarray:
    """(n,): the weight of each row's class. Several labels: of its heaviest one, or of ``each``."""
    if dataset.task == "classification":
        return given[dataset.labels]
    labels = np.where(dataset.labels > 0, given, 1.0)
    return labels if each else labels.max(axis=1)


def _even(weight: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean 1 over a member's own rows, so that the length of a step stays."""
    return (weight / weight[own].mean()).astype(np.float32)
