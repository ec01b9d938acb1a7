"""What bags cost: training 5 folds of the default table network, and the same with 10 bags in each.

Fifty-five networks for five would be eleven times the work; shared data, stacks that are better filled and
bags that stop early pay for some of it. Wall and processor seconds of training alone, in one process.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
from common import machine, say

import ayatori
from ayatori.ensemble import grow
from ayatori.plan import make_plan
from ayatori.recipe import EnsembleRecipe, PlanRecipe, Recipe
from ayatori.records import Dataset
from ayatori.train import Desk, settle, train_parts


def measure(data: Dataset, bags: int, preset: Any) -> dict[str, float]:
    """Seconds of training, and how many epochs a network made."""
    kinds = ("mean", "bagging") if bags else ("mean",)
    recipe = Recipe(preset=preset, ensemble=EnsembleRecipe(kinds=kinds, bags=max(bags, 1)))
    plan = grow(make_plan(data, PlanRecipe(), 0, "mlp"), data, recipe.ensemble, recipe.plan, 0, ())
    recipe = settle(recipe, data, plan)
    wall, processor = time.perf_counter(), time.process_time()
    members = train_parts(data, plan, recipe, Desk(lambda part: None))
    return {
        "networks": plan.members,
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
        "epochs": sum(len(member.history) for member in members) / len(members),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="a CSV")
    parser.add_argument("target", help="its column to predict")
    parser.add_argument("--bags", type=int, default=10)
    parser.add_argument("--rows", type=int, help="only the first of them")
    parser.add_argument("--preset", default="good", choices=("quick", "good", "best"))
    options = parser.parse_args()
    before = machine()
    data = ayatori.load(pd.read_csv(options.table, nrows=options.rows), target=options.target)
    measure(data, 0, "quick")  # the first one pays for what is made once
    folds, bags = (measure(data, number, options.preset) for number in (0, options.bags))
    ratios = {name: bags[name] / folds[name] for name in ("seconds", "processor_seconds")}
    say({"folds": folds, "folds_with_bags": bags, "ratios": ratios}, before)


if __name__ == "__main__":
    main()
