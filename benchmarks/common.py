"""What the benchmarks share: the machine, JSON out, the real command, and sides that take turns."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

AYATORI = str(Path(sys.executable).parent / "ayatori")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
RIVALS = (
    "skorch",
    "lightning",
    "fastai",
    "pytabkit",
    "torchensemble",
    "autogluon.tabular",
    "scikit-learn",
    "torchvision",
)
Side = Callable[[Any], np.ndarray]  # a task -> (n, classes) probabilities of its n rows


def machine() -> dict[str, Any]:
    """Where the figures come from; ``load`` is the mean number of busy processes in the last minute."""
    return {
        "cores": CORES,
        "load": round(os.getloadavg()[0], 1),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "ayatori": importlib.metadata.version("ayatori"),
    }


def say(facts: dict[str, Any], before: dict[str, Any]) -> None:
    """Print the facts as JSON, with the machine as it was ``before`` the measurement."""
    print(json.dumps({**facts, "machine": before}, indent=2))


def run_command(*arguments: str) -> dict[str, Any]:
    """``ayatori run ... --json`` as a user would; its result.json."""
    done = subprocess.run([AYATORI, "run", *arguments, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def scores(result: dict[str, Any], score: str) -> dict[str, Any]:
    """Name and split of each line of the leaderboard -> value and 95 % interval."""
    return {
        f"{line['name']} ({line['split']})": {
            key: line["scores"][score][key] for key in ("value", "low", "high", "n")
        }
        for line in result["leaderboard"]
        if score in line["scores"]
    }


def compare(
    parser: argparse.ArgumentParser, sides: Mapping[str, Side], read: Callable[[argparse.Namespace], Any]
) -> None:
    """Run the sides in turns, each in a fresh process, and print seconds, ratios and accuracies as JSON.

    ``read`` makes the task, ``sides`` turn it into (n, classes) probabilities of its n rows, NaN where
    they were not asked. Only the side itself is timed, after it did a small part of the task once: its
    imports and what its libraries set up on first use burden nobody.
    """
    parser.add_argument("--sides", nargs="+", choices=sides, default=list(sides))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=CORES, help="cores that each side may use")
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print("\n" + json.dumps(measure(sides[options.side], read(options))))
        return
    before, found = machine(), take_turns(options.sides, options.rounds, options.threads)
    seconds = {name: statistics.median(each["seconds"] for each in turns) for name, turns in found.items()}
    ours = seconds.get("ayatori")
    facts = {
        "seconds": seconds,
        "ratio": {name: ours / value for name, value in seconds.items() if ours and name != "ayatori"},
        "accuracy": {
            name: statistics.fmean(each["accuracy"] for each in turns) for name, turns in found.items()
        },
        "rows_scored": {name: turns[0]["rows_scored"] for name, turns in found.items()},
        "all_seconds": {name: [each["seconds"] for each in turns] for name, turns in found.items()},
        "rounds": options.rounds,
        "threads": options.threads,
        "options": sys.argv[1:],
    }
    say(facts, {**before, **versions()})


def measure(side: Side, task: Any) -> dict[str, float]:
    """Seconds of one side from arrays to probabilities, and its accuracy on the rows that it was asked."""
    side(task.small())
    start = time.perf_counter()
    values = side(task)
    seconds = time.perf_counter() - start
    asked = np.isfinite(values).all(axis=1)
    right = values[asked].argmax(axis=1) == task.dataset.labels[asked]
    return {"seconds": seconds, "accuracy": float(right.mean()), "rows_scored": int(asked.sum())}


def take_turns(sides: Sequence[str], rounds: int, threads: int) -> dict[str, list[dict[str, Any]]]:
    """What each side found in each round; another side goes first in the next round."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds):
        first = number % len(sides)
        for name in (*sides[first:], *sides[:first]):
            found[name].append(fresh_process("--side", name, threads=threads))
            print(f"round {number + 1}, {name}: {found[name][-1]}", file=sys.stderr)
    return found


def fresh_process(*arguments: str, threads: int, python: str = sys.executable) -> dict[str, Any]:
    """This script once more with more ``arguments``: the JSON in the last line that it prints."""
    # no accelerator, and as many threads as the cores that it may use
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
    command = [python, *sys.argv, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def versions() -> dict[str, str]:
    """The rivals that are installed."""
    known = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    return {name: known[name] for name in RIVALS if name in known}
