"""What the benchmarks share: a description of the machine, and JSON out."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

AYATORI = str(Path(sys.executable).parent / "ayatori")


def machine() -> dict[str, Any]:
    """Where the figures come from; ``load`` is the mean number of busy processes in the last minute."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
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
