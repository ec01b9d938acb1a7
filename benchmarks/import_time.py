"""Seconds of ``import ayatori`` and of ``ayatori --help``, each in a fresh process; medians."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from common import AYATORI, machine, say

IMPORT = "import time; start = time.perf_counter(); import ayatori; print(time.perf_counter() - start)"


def import_seconds() -> float:
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True).stdout)


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([AYATORI, "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    before = machine()
    import_seconds(), help_seconds()  # the first call of each reads the files from disk
    pairs = [(import_seconds(), help_seconds()) for _ in range(repeats)]
    facts = {
        name: {"median": statistics.median(values), "best": min(values), "worst": max(values)}
        for name, values in zip(("import ayatori", "ayatori --help"), zip(*pairs, strict=True), strict=True)
    }
    say({"seconds": facts, "repeats": repeats}, before)


if __name__ == "__main__":
    main()
