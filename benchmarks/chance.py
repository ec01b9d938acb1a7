"""Random labels: does any ensemble score better, or worse, than chance? A stack that peeks does.

Each seed draws rows and labels that have nothing to do with each other, half of each class, and makes every
ensemble of them. Per line of the leaderboard: in how many seeds its 95 % interval leaves a half (one in
twenty does by chance), and its mean accuracy with its standard error. Beside them: what a careless stack
would say of itself: a last model, scored on the folds whose outputs it learned from by cross-validation,
without pairs; once as ours (weights that are never negative), once as plain logistic regression.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict

import numpy as np
from common import machine, say

import ayatori
from ayatori.ensemble.say import last_says
from ayatori.ensemble.stacking import fit_last
from ayatori.recipe import (
    EnsembleRecipe,
    EvaluateRecipe,
    ExploreRecipe,
    NetRecipe,
    PlanRecipe,
    Recipe,
    TrainRecipe,
)
from ayatori.records import SCORE

KINDS = ("mean", "bagging", "boosting", "stacking", "greedy", "weighted", "majority")
RECIPE = Recipe(
    plan=PlanRecipe(folds=5),
    explore=ExploreRecipe(look=False),
    net=NetRecipe("mlp", options={"width": 16, "depth": 1, "numbers": "plain"}),
    train=TrainRecipe(epochs=3),
    ensemble=EnsembleRecipe(kinds=KINDS, bags=3, rounds=3, stack_rivals=("neighbours", "linear")),
    evaluate=EvaluateRecipe(baselines=()),
)


def run(seed: int, rows: int) -> dict[str, tuple[float, float, float]]:
    """(accuracy, low, high) of every line, and of careless stacks."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(rows) % 2)
    data = ayatori.load(random.normal(size=(rows, 5)), y=labels.astype(str))
    result = ayatori.run(data, dataclasses.replace(RECIPE, seed=seed))
    found = {}
    for entry in result.leaderboard:
        score = entry.scores["accuracy"]
        found[f"{entry.name} ({entry.split})"] = (score.value, score.low, score.high)
    for kind in ("auto", "logistic"):
        value = careless(result, kind)
        found[f"careless stack, {kind} (out_of_fold)"] = (value, np.nan, np.nan)
    return found


def careless(result: ayatori.run, kind: str) -> float:
    """Accuracy of a stack that is cross-validated on the outputs of the folds' own members alone."""
    plan, truth = result.plan, result.dataset.labels
    folds = [m for m, c in enumerate(plan.columns) if c.kind == "fold" and c.net == plan.columns[0].net]
    others = [m for m, c in enumerate(plan.columns) if c.kind == "fold" and c.net != plan.columns[0].net]
    scored = [plan.rows(m, SCORE) for m in folds]
    voices = [result.predictions.values[folds], result.predictions.values[others]]
    voices += [rival.values[: len(folds)] for rival in result.stacked]
    right = []
    for judged in range(len(folds)):
        learn = [i for i in range(len(folds)) if i != judged]
        said = np.stack([np.concatenate([v[i][scored[i]] for i in learn]) for v in voices])
        rows = np.concatenate([scored[i] for i in learn])
        last = fit_last(said, truth[rows], "classification", kind)
        heard = np.stack([v[judged][scored[judged]] for v in voices])
        right.append(last_says(last, heard, "classification").argmax(1) == truth[scored[judged]])
    return float(np.concatenate(right).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--rows", type=int, default=150)
    options = parser.parse_args()
    before = machine()
    lines: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for seed in range(options.seeds):
        for name, values in run(seed, options.rows).items():
            lines[name].append(values)
    table = {}
    for name, values in lines.items():
        accuracy, low, high = np.array(values).T
        table[name] = {
            "seeds": len(values),
            "outside": None if np.isnan(low).all() else int(((low > 0.5) | (high < 0.5)).sum()),
            "mean_accuracy": float(accuracy.mean()),
            "standard_error": float(accuracy.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None,
        }
    say({"rows": options.rows, "lines": table}, before)


if __name__ == "__main__":
    main()
