"""What balance gives and takes: Fashion-MNIST with one class cut to 1 % of all rows, in training and test.

One network each for ``none``, ``weight`` and ``sample``: recall of the rare class, accuracy, and calibration,
all on test pictures with the true (unequal) shares.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, say
from fashion import CLASSES, read_idx

from ayatori import load, run
from ayatori.evaluate.intervals import wilson
from ayatori.recipe import from_flat


def cut(labels: np.ndarray, rare: int, share: float, most: int, seed: int) -> np.ndarray:
    """Row numbers: up to ``most`` of the other classes, and so many of the rare one that it has ``share``."""
    order = np.random.default_rng([seed, 3]).permutation(len(labels))
    others = order[labels[order] != rare][:most]
    few = order[labels[order] == rare][: round(share / (1 - share) * len(others))]
    return np.sort(np.concatenate([others, few]))


def price(folder: Path, rare: str, rows: int, how: str, seed: int) -> dict[str, Any]:
    """Test figures of one network."""
    code = CLASSES.index(rare)
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    x, y, test_x, test_y = (read_idx(folder / f"{name}-ubyte.gz") for name in names)
    own, asked = cut(y, code, 0.01, rows, seed), cut(test_y, code, 0.01, len(test_y), seed)
    pictures = np.concatenate([x[own], test_x[asked]])[:, None]
    labels = np.concatenate([y[own], test_y[asked]])
    data = load(pictures, y=labels)
    data = dataclasses.replace(data, fixed_test=np.arange(len(pictures)) >= len(own))
    settings = {"strategy": "holdout", "balance": how, "seed": seed, "balance_price": False}
    result = run(data, from_flat({**settings, "baselines": (), "look": False}))
    line = next(entry for entry in result.leaderboard if entry.split == "test")
    blend = next(blend for blend in result.blends if blend.split == "test" and blend.name == line.name)
    said = (blend.values if blend.decided is None else blend.decided)[len(own) :].argmax(1)
    of_class = labels[len(own) :] == code
    recall = float((said[of_class] == code).mean())
    low, high = wilson(recall, int(of_class.sum()))
    return {
        "recall": {"value": recall, "low": low, "high": high, "n": int(of_class.sum())},
        "precision": float((labels[len(own) :][said == code] == code).mean()) if code in said else None,
        **{name: line.scores[name].value for name in ("accuracy", "balanced_accuracy", "log_loss", "ece")},
        "seconds": result.seconds["train"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the idx.gz files are")
    parser.add_argument("--rare", nargs="+", default=["coat"], choices=CLASSES)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--balance", nargs="+", default=["none", "weight", "sample"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    before = machine()
    found = {
        rare: {how: price(options.folder, rare, options.rows, how, options.seed) for how in options.balance}
        for rare in options.rare
    }
    say({**found, "options": vars(options) | {"folder": ""}}, before)


if __name__ == "__main__":
    main()
