"""Stage 3j. How files were made, labels -> whether the one tells the other: a network may learn it instead.

A collection of one hospital beside one of another, photographs of two cameras, recordings of two machines:
what is scored then is how well they can be told apart, and new files may be made otherwise (for X-rays:
DeGrave, Janizek & Lee 2021, doi:10.1038/s42256-021-00338-7).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from ayatori.records import Dataset

FOLDS, FEWEST, MOST, NAMED = 5, 30, 4000, 3
TELLING = 0.25  # of the way from chance to all right
SURE = 3.0  # standard errors from chance
TREES = 60


def making(dataset: Dataset, open_: np.ndarray, seed: int = 0) -> dict[str, Any] | None:
    """What the headers of the files of the rows ``open_`` tell of their labels; None where there is nothing.

    ``score``: balanced accuracy (R2 of numbers) of a forest on the headers alone, out of fold, groups whole.
    """
    if dataset.made is None or dataset.task == "multilabel":
        return None
    table = _coded(dataset.made.iloc[open_])
    some = open_[table.notna().any(axis=1).to_numpy()]
    if len(some) > MOST:
        some = np.sort(np.random.default_rng([seed, 17]).choice(some, MOST, replace=False))
    table = _coded(dataset.made.iloc[some])
    labels, groups = dataset.labels[some], np.arange(len(some))
    if dataset.groups is not None:
        groups = dataset.groups[some]
    if dataset.task == "classification":
        counts = np.bincount(labels)
        often = counts[labels] >= FOLDS
        table, labels, groups = table[often], labels[often], groups[often]
    else:
        labels = labels[:, 0]
    if len(table) < FEWEST or not table.shape[1] or len(np.unique(labels)) < 2:
        return None
    score, chance, sure = _told(table, labels, groups, dataset.task == "classification")
    if not sure:
        return None
    alone = {name: _told(table[[name]], labels, groups, dataset.task == "classification") for name in table}
    first = [name for name, found in alone.items() if found[2] and found[0] - chance > (score - chance) / 2]
    first = sorted(first, key=lambda name: -alone[name][0])[:NAMED]
    return {
        "score": score,
        "chance": chance,
        "traits": first or list(table)[:NAMED],
        "sentence": _sentence(score, chance, first or list(table)[:NAMED], dataset),
        "step": (
            f"See whether new {dataset.schema.kind} will be made as these were: that alone tells the target, "
            "and the scores say nothing of files that are made otherwise."
        ),
    }


def _sentence(score: float, chance: float, traits: list[str], dataset: Dataset) -> str:
    told = f"{100 * score:.0f} % right, chance {100 * chance:.0f} %"
    if dataset.task == "regression":
        told = f"R2 {score:.2f}"
    *others, last = traits
    by = f"{', '.join(others)} and {last}" if others else last
    return (
        f"how {dataset.schema.kind} were made tells the target ({told}, by {by} alone): a network may learn "
        "that instead, and be wrong of files that are made otherwise"
    )


def _coded(made: pd.DataFrame) -> pd.DataFrame:
    """Numbers as they are, words as codes of the frequent ones; what is the same everywhere is left out."""
    found = {}
    for name, values in made.items():
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().sum() < values.notna().sum():
            often = values.astype(str).where(values.notna(), "").value_counts()
            places = {word: at for at, word in enumerate(often.index[:50])}
            numbers = values.astype(str).where(values.notna(), "").map(places).fillna(50.0)
        if numbers.nunique(dropna=False) > 1:
            found[str(name)] = numbers.astype(float)
    return pd.DataFrame(found, index=made.index)


def _told(
    table: pd.DataFrame, labels: np.ndarray, groups: np.ndarray, classes: bool
) -> tuple[float, float, bool]:
    """Score of a forest out of fold, that of chance, and whether it is far above."""
    values = table.fillna(-1.0).to_numpy()
    said = np.zeros(len(labels), labels.dtype)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0) if classes else GroupKFold(FOLDS)
    if len(np.unique(groups)) < FOLDS:
        return 0.0, 0.0, False
    model: Any = ExtraTreesRegressor(TREES, min_samples_leaf=3, random_state=0)
    if classes:
        model = ExtraTreesClassifier(TREES, min_samples_leaf=3, class_weight="balanced", random_state=0)
    for learn, judge in folds.split(values, labels, groups):
        said[judge] = model.fit(values[learn], labels[learn]).predict(values[judge])
    if not classes:
        score = 1 - float(np.square(said - labels).mean() / max(labels.var(), 1e-300))
        return score, 0.0, score > TELLING
    there, codes = np.unique(labels, return_inverse=True)
    right = np.bincount(codes, weights=said == labels) / np.bincount(codes)
    chance = 1 / len(there)
    # rows of one group say the same thing again
    once = np.array([len(np.unique(groups[codes == code])) for code in range(len(there))])
    error = np.sqrt((chance * (1 - chance) / once).sum()) / len(there)
    score = float(right.mean())
    return score, chance, score > chance + max(TELLING * (1 - chance), SURE * error)
