"""The page of a run on 10 000 rows: its size, and how soon a browser has it ready. Needs a Chromium."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

import ayatori
from ayatori.recipe import from_flat
from ayatori.report import write_report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from look_browser import Browser

SETTINGS = {"epochs": 1, "folds": 2, "net": "linear", "baselines": ("majority",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--opened", type=int, default=5, help="how often the page is opened")
    given = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(given.rows, 12))
    y = np.array([f"class {k}" for k in (x[:, :3] > 0) @ np.array([1, 2, 4])])
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        ayatori.run(x, from_flat(SETTINGS), out=run, y=y)
        page = write_report(run)
        ready, drawn = [], []
        with Browser(Path(folder) / "profile") as browser:
            for _ in range(given.opened):
                browser.open(page)  # returns when the map is drawn
                drawn.append(browser.run("performance.now()"))
                ready.append(browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        found = {"rows": given.rows, "megabytes": page.stat().st_size / 1e6}
        for name, times in (("loaded_ms", ready), ("map_drawn_ms", drawn)):
            found |= {name: statistics.median(times), f"{name}_worst": max(times)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
