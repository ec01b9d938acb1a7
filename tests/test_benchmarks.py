"""The benchmarks still run: each once, on a few rows. What they measure is for a quiet machine."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
QUICK = ["--epochs", "1", "--folds", "1", "--baselines", "none"]


def facts_of(script: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_one_network_and_the_plain_loop_learn_the_same() -> None:
    facts = facts_of("one_network.py", "--kind", "pictures", "--rows", 300, "--epochs", 2, "--pairs", 1)
    losses = facts["pictures"]["best_stop_loss"]
    assert losses["ayatori"] == pytest.approx(losses["plain"], rel=1e-3)
    assert facts["pictures"]["ratio"]["median"] > 0


def test_import_time_is_measured() -> None:
    seconds = facts_of("import_time.py", "--repeats", 1)["seconds"]
    assert seconds["ayatori --help"]["median"] > seconds["import ayatori"]["median"] > 0


def test_the_memory_of_a_long_table_is_measured() -> None:
    facts = facts_of("million_rows.py", "--rows", 500, "--columns", 4)
    assert 0.1 < facts["peak_resident_gb"] < 4


def test_a_table_of_numbers_is_scored_by_r2(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=200)})
    frame.assign(y=frame.x * 2.5).to_csv(tmp_path / "numbers.csv", index=False)
    (tmp_path / "targets.json").write_text('{"numbers.csv": "y"}', encoding="utf-8")
    facts = facts_of("tables.py", tmp_path, "--targets", tmp_path / "targets.json", *QUICK)["tables"]
    assert facts["numbers.csv"]["score"] == "r2"
    tests = [line for name, line in facts["numbers.csv"].items() if "(test)" in name]
    assert [line["n"] for line in tests] == [40]


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def test_fashion_writes_each_picture_into_the_folder_of_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fashion = importlib.import_module("fashion")
    pictures = {"train": np.random.default_rng(0).integers(0, 256, (20, 5, 4)), "t10k": np.zeros((10, 5, 4))}
    for prefix, values in pictures.items():
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", values)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(len(values)) % 10)
    fashion.write_pictures(tmp_path, tmp_path / "pictures")
    assert len(list(tmp_path.glob("pictures/test/*/*.png"))) == 10
    with Image.open(tmp_path / "pictures" / "train" / "trouser" / "00011.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures["train"][11])
