"""What augmentation gives on a few pictures: 2 000 of Fashion-MNIST, 40 epochs, one network, the whole test.

Each seed draws other pictures and other weights. The scored pictures are the data set's own test set.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, say
from fashion import read_idx

from ayatori import Recipe, load, run
from ayatori.recipe import from_flat


def accuracy(folder: Path, how: str, rows: int, epochs: int, seed: int) -> dict[str, Any]:
    """Test accuracy of one network, and its seconds of training."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    x, y, test_x, test_y = (read_idx(folder / f"{name}-ubyte.gz") for name in names)
    picked = np.random.default_rng([seed, 1]).choice(len(x), rows, replace=False)
    pictures = np.concatenate([x[picked], test_x])[:, None]
    data = load(pictures, y=np.concatenate([y[picked], test_y]))
    data = dataclasses.replace(data, fixed_test=np.arange(len(pictures)) >= rows)
    settings = {"strategy": "holdout", "epochs": epochs, "patience": epochs, "augment": how, "seed": seed}
    recipe: Recipe = from_flat({**settings, "baselines": (), "look": False})
    result = run(data, recipe)
    line = next(entry for entry in result.leaderboard if entry.split == "test")
    return {"accuracy": line.scores["accuracy"].value, "seconds": result.seconds["train"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the idx.gz files are")
    parser.add_argument("--augment", nargs="+", default=["none", "light", "standard", "strong"])
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    before = machine()
    found = {
        how: [
            accuracy(options.folder, how, options.rows, options.epochs, seed) for seed in range(options.seeds)
        ]
        for how in options.augment
    }
    means = {how: statistics.mean(one["accuracy"] for one in runs) for how, runs in found.items()}
    gains = {how: mean - means[options.augment[0]] for how, mean in means.items()}
    say({"accuracy": means, "gain": gains, "runs": found, "options": vars(options) | {"folder": ""}}, before)


if __name__ == "__main__":
    main()
