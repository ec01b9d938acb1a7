"""Fashion-MNIST as folders of PNG files, its own 10 000 pictures as the sealed test: accuracy and minutes.

``--data`` names a folder with the four idx.gz files. Other options go to ``ayatori run``.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path

import numpy as np
from common import machine, run_command, say, scores
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
PARTS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx.gz file: a magic number whose last byte counts the dimensions, sizes, bytes."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape.astype(int))


def write_pictures(data: Path, folder: Path) -> None:
    """FOLDER/train/CLASS/00000.png and FOLDER/test/CLASS/00000.png."""
    for part, prefix in PARTS.items():
        pictures = read_idx(data / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(data / f"{prefix}-labels-idx1-ubyte.gz")
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            Image.fromarray(picture).save(folder / part / CLASSES[label] / f"{number:05}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="keep the pictures and the run folder here")
    options, rest = parser.parse_known_args()
    before = machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        write_pictures(options.data, folder / "pictures")
        train, test = (str(folder / "pictures" / part) for part in PARTS)
        result = run_command(train, "--test", test, "--out", str(folder / "run"), *rest)
    facts = {"options": rest, "chosen": result["chosen"], "accuracy": scores(result, "accuracy")}
    say({**facts, "minutes": result["seconds"]["total"] / 60, "seconds": result["seconds"]}, before)


if __name__ == "__main__":
    main()
