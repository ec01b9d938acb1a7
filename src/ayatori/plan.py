"""Stage 2. Dataset, recipe -> Plan: who learns from which row. Sealed rows are set aside first.

        member 0   member 1   member 2
row 0    train      train      SCORE
row 1    stop       SCORE      train
row 2    sealed     sealed     sealed
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
)

from ayatori.recipe import PlanRecipe
from ayatori.records import SCORE, SEALED, STOP, UNUSED, AyatoriError, Column, Dataset, Plan

Split = tuple[np.ndarray, np.ndarray]  # row numbers: learn from, judge by


def make_plan(dataset: Dataset, recipe: PlanRecipe, seed: int = 0, net: str = "auto") -> Plan:
    """The Plan of a run: test rows sealed, then one column a member.

    >>> import numpy as np
    >>> from ayatori.data import load
    >>> data = load(np.arange(40.0).reshape(20, 2), y=np.repeat(["cat", "dog"], 10))
    >>> plan = make_plan(data, PlanRecipe(folds=4, test=0.2))
    >>> plan.roles.shape, int(plan.sealed.sum()), len(plan.train_rows(0)), len(plan.rows(0, SCORE))
    ((20, 4), 4, 10, 4)
    """
    _check_recipe(recipe)
    sealed = seal(dataset, recipe, seed)
    development = np.flatnonzero(~sealed if dataset.barred is None else ~sealed & ~dataset.barred)
    by_time = dataset.order is not None and recipe.splitter is None
    if by_time and dataset.fixed_test is None:
        development = _apart(dataset, development, np.flatnonzero(sealed))
    if len(development) < 4:
        raise AyatoriError(
            f"training needs at least 4 rows besides the test rows, however of {len(dataset)} in all it has "
            f"{len(development)}; bring more rows or seal fewer with --test"
        )
    roles, columns = [], []
    for repeat in range(recipe.repeats):
        splits = _splits(dataset, development, recipe, seed + 7919 * repeat)
        for fold, (own, judge) in enumerate(splits):
            own = _apart(dataset, own, judge) if by_time else own
            column = np.zeros(len(dataset), np.uint8)
            column[sealed] = SEALED
            member_seed = int(np.random.default_rng([seed, repeat, fold]).integers(2**31))
            if recipe.strategy == "rotate":
                column[own], column[judge] = 1, STOP
            else:
                learn, stop = stop_rows(dataset, own, recipe.stop, member_seed)
                learn = _apart(dataset, learn, stop) if by_time else learn
                column[learn], column[stop], column[judge] = 1, STOP, SCORE
            roles.append(column)
            columns.append(Column(fold=fold, repeat=repeat, net=net, seed=member_seed))
    if recipe.strategy == "holdout":
        columns = [dataclasses.replace(column, fold=-1) for column in columns]
    plan = Plan(np.stack(roles, axis=1), tuple(columns), recipe.strategy)
    check_plan(plan, dataset)
    return plan


def seal(dataset: Dataset, recipe: PlanRecipe, seed: int) -> np.ndarray:
    """(n,) bool: the rows of the test file, or a share of all rows (the latest ones where there is time)."""
    if dataset.fixed_test is not None:
        _check_groups(dataset, dataset.fixed_test)
        return dataset.fixed_test
    sealed = np.zeros(len(dataset), bool)
    if isinstance(recipe.test, str) or recipe.test == 0:
        return sealed
    everything = np.arange(len(dataset))
    sealed[_share(dataset, everything, recipe.test, seed)] = True
    return sealed


def _check_groups(dataset: Dataset, sealed: np.ndarray) -> None:
    if dataset.groups is None:
        return
    tested = np.unique(dataset.groups[sealed])
    shared = int(np.isin(tested, dataset.groups[~sealed]).sum())
    if shared:
        raise AyatoriError(
            f"the test must be of groups that no other row is of, however {shared} of its {len(tested)} "
            "groups have rows to learn from too; give other test rows, or leave out --groups"
        )


def _apart(dataset: Dataset, own: np.ndarray, judge: np.ndarray) -> np.ndarray:
    """The rows of ``own`` whose group has none in ``judge``: splits by time part rows, whosever they are.

    Who comes back later is left out earlier, rather than judged by what is known of him.
    """
    if dataset.groups is None or not len(judge):
        return own
    kept = own[~np.isin(dataset.groups[own], dataset.groups[judge])]
    if len(kept) < min(4, len(own)):
        raise AyatoriError(
            "in time order, rows whose group comes back in later ones cannot be learned from, however only "
            f"{len(kept)} of {len(own)} rows are of other groups; leave out --time or --groups, or use fewer "
            "--folds"
        )
    return kept


def check_plan(plan: Plan, dataset: Dataset) -> None:
    """Refuse a Plan that could leak: every rule that makes its figures honest, checked once."""
    roles = plan.roles
    if roles.dtype != np.uint8 or roles.shape != (len(dataset), plan.members):
        raise AyatoriError(
            f"a plan must have one uint8 role per row and member ({len(dataset)}, {plan.members}), "
            f"however: {roles.dtype} {roles.shape}"
        )
    sealed = plan.sealed
    if (roles[sealed] != SEALED).any():
        raise AyatoriError("a sealed row must be sealed for every member, however one learns from it")
    if dataset.barred is not None and (roles[dataset.barred] != UNUSED).any():
        raise AyatoriError("a copy of a row of the given test must teach nobody, however a member has it")
    # codes rather than sets of names: a set operation of numpy's takes a second per million rows
    names, codes = (
        np.unique(dataset.groups, return_inverse=True) if dataset.groups is not None else ((), None)
    )
    for member in range(plan.members):
        learn, stop = plan.train_rows(member), plan.rows(member, STOP)
        if not len(learn) or not len(stop):
            raise AyatoriError(
                f"every member needs rows to train on and rows to stop by, however member {member} has "
                f"{len(learn)} and {len(stop)}; use fewer folds or bring more rows"
            )
        judged = np.concatenate([plan.rows(member, SCORE), np.flatnonzero(sealed)])
        seen = np.concatenate([learn, stop])
        if codes is not None:
            for a, b, what in ((seen, judged, "judged"), (learn, stop, "stop")):
                here, there = np.zeros((2, len(names)), bool)
                here[codes[a]], there[codes[b]] = True, True
                if (here & there).any():
                    group = names[int((here & there).argmax())]
                    raise AyatoriError(
                        f"a group must stay on one side of a split, however group {group} is in "
                        f"the training and in the {what} rows of member {member}"
                    )
        if dataset.order is not None and dataset.fixed_test is None and len(judged):
            scored = plan.rows(member, SCORE)
            late = dataset.order[scored] if len(scored) else dataset.order[judged]
            if dataset.order[seen].max() > late.min():
                raise AyatoriError(f"member {member} must learn from rows before those it is judged by")


def _check_recipe(recipe: PlanRecipe) -> None:
    if recipe.strategy not in ("kfold", "holdout", "rotate"):
        raise AyatoriError(f"`strategy` must be kfold, holdout or rotate, however: {recipe.strategy!r}")
    if not isinstance(recipe.test, str) and not 0 <= recipe.test < 0.9:
        raise AyatoriError(f"`test` must be a share from 0 to 0.9 or a file, however: {recipe.test}")
    if recipe.strategy != "holdout" and recipe.splitter is None and recipe.folds < 2:
        raise AyatoriError(
            f"`folds` must be at least 2, however: {recipe.folds}; for one network use --folds 1 or holdout"
        )
    if not 0 < recipe.stop < 0.9:
        raise AyatoriError(f"`stop` must be a share between 0 and 0.9, however: {recipe.stop}")
    if recipe.repeats < 1:
        raise AyatoriError(f"`repeats` must be at least 1, however: {recipe.repeats}")


def _splits(dataset: Dataset, rows: np.ndarray, recipe: PlanRecipe, seed: int) -> Iterator[Split]:
    """(learn from, judge by) of every member, as row numbers of the whole data set."""
    if isinstance(recipe.splitter, str):
        raise AyatoriError(
            f"`splitter` must be a scikit-learn splitter, however the recipe only names {recipe.splitter}: "
            "its settings cannot be written; give it in Python, by PlanRecipe(splitter=...)"
        )
    if recipe.splitter is not None:
        groups = None if dataset.groups is None else dataset.groups[rows]
        pairs: Iterable[Split] = recipe.splitter.split(rows[:, None], strata(dataset)[rows], groups)
        yield from ((rows[own], rows[judge]) for own, judge in pairs)
    elif recipe.strategy == "holdout":
        judge = _share(dataset, rows, max(recipe.stop, 0.1), seed + 1)
        yield np.setdiff1d(rows, judge), judge
    elif dataset.order is not None:
        yield from _in_time(dataset.order, rows, recipe.folds)
    else:
        _check_smallest_class(dataset, rows, recipe.folds)
        yield from _kfold(dataset, rows, recipe.folds, seed)


def _in_time(order: np.ndarray, rows: np.ndarray, folds: int) -> list[Split]:
    """Later rows judge, those before all of them teach; where few times have many rows, whole times do."""
    by_time = rows[np.argsort(order[rows], kind="stable")]
    splits = []
    for own, judge in TimeSeriesSplit(folds).split(by_time):
        before = by_time[own]
        splits.append((before[order[before] < order[by_time[judge]].min()], by_time[judge]))
    if all(len(own) for own, _ in splits):
        return splits
    times = np.unique(order[rows])
    if len(times) <= folds:
        ways = f"use --folds {len(times) - 1}" if len(times) > 2 else "leave out --time"
        raise AyatoriError(
            f"in time order every fold must have earlier rows to learn from, however besides the test there "
            f"are only {len(times)} different times for folds={folds}; {ways}"
        )
    return [
        (rows[order[rows] <= times[own].max()], rows[np.isin(order[rows], times[judge])])
        for own, judge in TimeSeriesSplit(folds).split(times)
    ]


def _kfold(dataset: Dataset, rows: np.ndarray, folds: int, seed: int) -> Iterator[Split]:
    """Shuffled folds: stratified by class, groups kept whole."""
    if dataset.groups is not None:
        units = _count(dataset.groups[rows])
        if units < folds:
            raise AyatoriError(
                f"`folds` must be at most the number of groups, however folds={folds} and there are {units} "
                f"groups; use --folds {max(units, 2)}"
            )
        if _mostly_alone(dataset, rows, folds):
            yield from _kfold_of_units(dataset, rows, folds, seed)
            return
    groups = None if dataset.groups is None else dataset.groups[rows]
    stratified = dataset.task != "regression"
    kind = {
        (True, True): StratifiedGroupKFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (False, False): KFold,
    }[stratified, groups is not None]
    splitter = kind(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # a class rarer than the folds is met by _check_smallest_class where it matters
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for own, judge in splitter.split(rows[:, None], strata(dataset)[rows], groups):
            yield rows[own], rows[judge]


def _count(groups: np.ndarray) -> int:
    """How many different ones there are; np.unique alone takes its slow way by hashes."""
    return 1 + int(np.count_nonzero(np.diff(np.sort(groups)))) if len(groups) else 0


def _mostly_alone(dataset: Dataset, rows: np.ndarray, folds: int) -> bool:
    """Whether most groups are single rows and none is large, as where only copies are held together."""
    assert dataset.groups is not None
    _, first, sizes = np.unique(dataset.groups[rows], return_index=True, return_counts=True)
    kinds = np.bincount(strata(dataset)[rows[first]])
    return 2 * len(first) > len(rows) and 2 * folds * sizes.max() <= len(rows) and kinds.max() >= folds


def _kfold_of_units(dataset: Dataset, rows: np.ndarray, folds: int, seed: int) -> Iterator[Split]:
    """Folds of the first rows of all groups; the others follow. StratifiedGroupKFold takes 2 ms a group."""
    assert dataset.groups is not None
    _, first, unit = np.unique(dataset.groups[rows], return_index=True, return_inverse=True)
    alone = dataclasses.replace(dataset, groups=None)
    for _, judge in _kfold(alone, rows[first], folds, seed):
        judged = np.isin(rows[first], judge)[unit]
        yield rows[~judged], rows[judged]


def _share(dataset: Dataset, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """About ``share`` of ``rows``: the latest where there is time, else stratified, groups whole."""
    if dataset.order is not None:
        cut = np.sort(dataset.order[rows])[-max(1, round(share * len(rows)))]
        late = rows[dataset.order[rows] >= cut]
        late = late if len(late) < len(rows) else rows[dataset.order[rows] > cut]
        if len(late):  # rows of one time are in no order
            return late
    if dataset.groups is None:
        return rows[_proportional(strata(dataset)[rows], share, seed)]
    groups = _count(dataset.groups[rows])
    if groups < 2:
        raise AyatoriError(
            f"each side of a split must have groups of its own, however the {len(rows)} rows that are to be "
            "parted are one group; use fewer --folds, or groups that are smaller"
        )
    # one fold of 1/share, or all but one where more than half is wanted
    parts = int(np.clip(round(1 / min(share, 1 - share)), 2, groups))
    kinds = np.bincount(strata(dataset)[rows])
    flat = dataset.task == "regression" or kinds.max() < parts
    plain = dataclasses.replace(dataset, target=np.zeros(len(dataset), np.int64)) if flat else dataset
    keep, part = next(iter(_kfold(plain, rows, parts, seed)))
    return part if share <= 0.5 else keep


def _proportional(strata: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Sorted places of about ``share`` of the rows, every stratum in proportion and none emptied."""
    counts = np.bincount(strata)
    whole = int(np.clip(round(share * len(strata)), 1, len(strata) - 1))
    most = np.maximum(counts - 1, 0) if (counts - 1).clip(0).sum() >= whole else counts
    wanted = np.minimum(share * counts, most)
    taken = np.floor(wanted).astype(int)
    while taken.sum() < whole:
        open_ = np.where(taken < most, wanted - taken, -np.inf)
        taken[open_.argmax()] += 1
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    place = np.arange(len(strata)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < np.repeat(taken, counts)])


def stop_rows(dataset: Dataset, own: np.ndarray, share: float, seed: int) -> Split:
    """A member's own rows -> rows to train on, rows to stop by (20 of them where a fifth allows it)."""
    stop = _share(dataset, own, max(share, min(20 / len(own), 0.2)), seed)
    return np.setdiff1d(own, stop), stop


def strata(dataset: Dataset) -> np.ndarray:
    """(n,) int64: what splits keep in proportion: classes, or sets of labels (rare ones together)."""
    target = dataset.labels
    if dataset.task == "classification":
        return target.astype(np.int64)
    if dataset.task == "multilabel":
        _, codes, counts = np.unique(target, axis=0, return_inverse=True, return_counts=True)
        codes = codes.reshape(-1)
        return np.where(counts[codes] >= 10, codes + 1, 0)
    return np.zeros(len(dataset), np.int64)


def _check_smallest_class(dataset: Dataset, rows: np.ndarray, folds: int) -> None:
    if dataset.task != "classification":
        if len(rows) < folds:
            raise AyatoriError(
                f"`folds` must be at most the number of rows, however folds={folds}, rows={len(rows)}"
            )
        return
    counts = np.bincount(dataset.labels[rows], minlength=len(dataset.classes))
    smallest = int(counts.argmin())
    if counts[smallest] < folds:
        ways = [f"use --folds {counts[smallest]}"] * int(counts[smallest] >= 2)
        ways += ["merge the class", f"leave out classes of few rows with --rarest {folds + 2}"]
        if all(name.lstrip("-").isdecimal() for name in dataset.classes):
            ways.append("have numbers predicted by --task regression")
        some = f"{counts[smallest]} row{'s' * int(counts[smallest] != 1)}"
        raise AyatoriError(
            f"`folds` must be between 2 and the size of the smallest class, however folds={folds} and class "
            f"'{dataset.classes[smallest]}' has {some} besides the test rows; {', or '.join(ways)}"
        )
