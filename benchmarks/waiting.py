"""Stacks of a small table's networks, and how threads wait for one another: seconds of training.

Each cell is a fresh process, in turns: threads that sleep while they wait, as those of the command do
(``OMP_WAIT_POLICY=PASSIVE``), or spin, as in a script; one stack on one core or on all, or a stack for each
core; and what the rule takes. ``--burners`` keeps so many cores busy with something else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import CORES, machine, say

TABLES = {"letter": "lettr", "satellite": "classes", "titanic": "survived", "wine": "target"}
# name -> threads of the recipe (0: the rule), cores that torch may use
WAYS = {
    "one stack, one core": (1, 1),
    "one stack, all cores": (1, CORES),
    "a stack a core": (CORES, CORES),
    "the rule": (0, CORES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the CSV files")
    parser.add_argument("--data", nargs="+", choices=TABLES, default=["titanic", "letter"])
    parser.add_argument(
        "--visits", type=int, default=46_000, help="rows that each network learns from, in all"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burners", type=int, default=0)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print("\n" + json.dumps(train(options.tables, options.cell[0], int(options.cell[1]), options.visits)))
        return
    before = machine()
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.burners)]
    try:
        found = {data: times(options, data) for data in options.data}
    finally:
        for burner in burners:
            burner.kill()
    say({"seconds": found, "burners": options.burners}, before)


def times(options: argparse.Namespace, data: str) -> dict[str, Any]:
    """Median seconds of each way, by how threads wait."""
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for policy in ("sleep", "spin"):
            for way in options.ways:
                threads, cores = WAYS[way]
                cell = [data, str(threads), "--tables", str(options.tables), "--visits", str(options.visits)]
                environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
                environment["OMP_WAIT_POLICY"] = "PASSIVE" if policy == "sleep" else "ACTIVE"
                command = [sys.executable, __file__, "--cell", *cell]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                told = json.loads(done.stdout.splitlines()[-1])
                seconds.setdefault(f"{policy}: {way}", []).append(told)
                print(f"{data}, {policy}, {way}: {told:.1f} s", file=sys.stderr, flush=True)
    return {way: round(statistics.median(own), 2) for way, own in seconds.items()}


def train(tables: Path, data: str, threads: int, visits: int) -> float:
    """Seconds of training the default networks of five folds for a fixed number of epochs."""
    import pandas as pd

    import ayatori
    from ayatori.recipe import (
        DataRecipe,
        EngineRecipe,
        EvaluateRecipe,
        ExploreRecipe,
        Recipe,
        TrainRecipe,
    )

    table = pd.read_csv(tables / f"{data}.csv")
    epochs = min(400, -(-visits // round(0.576 * len(table))))
    recipe = Recipe(
        data=DataRecipe(target=TABLES[data]),
        train=TrainRecipe(epochs=epochs, patience=epochs),
        explore=ExploreRecipe(look=False),
        evaluate=EvaluateRecipe(baselines=()),
        engine=EngineRecipe(threads=threads),
    )
    return ayatori.run(table, recipe).seconds["train"]


if __name__ == "__main__":
    main()
