"""Five folds of a small CNN with batch normalisation on Fashion-MNIST, flipped and moved.

Ayatori and the plain loop move whole batches. Lightning and skorch move each picture with torchvision's v2
transforms in two loader workers; fastai has two workers too and moves whole batches, as is its way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rivals
from common import compare
from fashion import read_idx

from ayatori import load
from ayatori.plan import make_plan
from ayatori.recipe import PlanRecipe


def read(options: argparse.Namespace) -> rivals.Task:
    dataset, plan = read_pictures(options.folder, options.rows)
    return rivals.Task(
        *(dataset, plan, rivals.small_cnn, options.epochs, 128, options.learning_rate),
        augment=options.augment,
        workers=2,
    )


def read_pictures(folder: Path, rows: int) -> tuple:
    """The first ``rows`` training pictures as a Dataset, and five folds of them."""
    x, y = (read_idx(folder / f"train-{name}-ubyte.gz")[:rows] for name in ("images-idx3", "labels-idx1"))
    dataset = load(x[:, None].copy(), y=y.astype(int))
    return dataset, make_plan(dataset, PlanRecipe(folds=5, test=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the idx.gz files are")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_000, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--augment", default="moved", choices=rivals.WAYS)
    sides = {
        "ayatori": rivals.ayatori,
        "plain": rivals.plain,
        "skorch": rivals.skorch,
        "lightning": rivals.lightning,
        "fastai": rivals.fastai,
    }
    compare(parser, sides, read)


if __name__ == "__main__":
    main()
