"""Five folds of one MLP 256-256 on a table (letter): Ayatori, a plain loop, skorch, Lightning and fastai.

Equal network, rows, folds, epochs, batch, optimiser and hardware threads; seconds from arrays to the
probabilities of the held-out folds, each side in a process of its own, the sides in turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rivals
from common import compare


def read(options: argparse.Namespace) -> rivals.Task:
    dataset, plan = rivals.read_table(options.table, "lettr", options.rows)
    return rivals.Task(dataset, plan, rivals.wide_mlp, options.epochs, 256, options.learning_rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="letter.csv")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--rows", type=int, help="only the first of them")
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
