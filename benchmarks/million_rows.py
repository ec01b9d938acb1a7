"""One epoch of one MLP on a table of 1 000 000 rows and 20 columns, by the real command: peak memory."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import machine, run_command, say


def write_table(path: Path, rows: int, columns: int) -> None:
    """Normal numbers, two classes that depend on the first three of them, 2 % of the values missing."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rows, columns))
    target = np.where(values[:, 0] * values[:, 1] + values[:, 2] > 0, "yes", "no")
    values[generator.random(values.shape) < 0.02] = np.nan
    frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(columns)]).assign(target=target)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    options, rest = parser.parse_known_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"table.{options.format}")
        write_table(path, options.rows, options.columns)
        single = ["--net", "mlp", "--folds", "1", "--epochs", "1", "--baselines", "none"]
        result = run_command(str(path), "--target", "target", "--out", f"{folder}/run", *single, *rest)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    kilobytes = peak / 1024 if sys.platform == "darwin" else peak
    facts = {"rows": options.rows, "columns": options.columns, "format": options.format}
    say({**facts, "peak_resident_gb": kilobytes * 1024 / 1e9, "seconds": result["seconds"]}, before)


if __name__ == "__main__":
    main()
