"""t-SNE and UMAP of Ayatori against openTSNE and umap-learn on digits and Fashion-MNIST: trust and seconds.

``--data`` names the folder with Fashion-MNIST's idx.gz files; without it, digits alone. ``cold`` is the
import and the first call in a fresh process, ``warm`` the second call; ``busy`` the same in processor time.
Trustworthiness is scikit-learn's, 15 neighbours. Every side is given the same rows (of Fashion-MNIST, 50
principal components).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import fresh_process, machine, say

NEAREST = 15
Layout = Callable[[np.ndarray, int, int], np.ndarray]  # (n, d) rows, dimensions, seed -> (n, dimensions)


def ayatori_tsne(values: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """As `draw_maps` draws it when all rows are laid out."""
    from ayatori.explore.maps import PERPLEXITY, principal
    from ayatori.explore.neighbours import find_neighbours
    from ayatori.explore.tsne import tsne

    start = principal(values, dimensions, seed)[:, :dimensions]
    return tsne(find_neighbours(values, int(3 * PERPLEXITY)), start, PERPLEXITY)


def ayatori_umap(values: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    from ayatori.explore.maps import NEIGHBOURS, principal
    from ayatori.explore.neighbours import find_neighbours
    from ayatori.explore.umap import umap

    start = principal(values, dimensions, seed)[:, :dimensions]
    return umap(find_neighbours(values, NEIGHBOURS), start, seed)


def opentsne(values: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    from openTSNE import TSNE

    how = "fft" if dimensions == 2 else "bh"
    method = TSNE(dimensions, random_state=seed, n_jobs=-1, negative_gradient_method=how, neighbors="exact")
    return np.asarray(method.fit(values))


def umap_learn(values: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    from umap import UMAP

    return UMAP(n_components=dimensions, random_state=seed, n_jobs=1).fit_transform(values)


SIDES: dict[str, Layout] = {
    "ayatori tsne": ayatori_tsne,
    "openTSNE": opentsne,
    "ayatori umap": ayatori_umap,
    "umap-learn": umap_learn,
}


def read(name: str, options: argparse.Namespace) -> np.ndarray:
    """(n, d) float32: digits, or Fashion-MNIST's first pictures as 50 principal components."""
    if name == "digits":
        from sklearn.datasets import load_digits

        return load_digits().data[: options.rows].astype(np.float32)
    from fashion import read_idx
    from sklearn.decomposition import PCA

    pictures = read_idx(options.data / "train-images-idx3-ubyte.gz")[: options.rows]
    flat = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    return PCA(min(50, *flat.shape), random_state=0).fit_transform(flat).astype(np.float32)


def measure(side: str, name: str, options: argparse.Namespace) -> dict[str, float]:
    values = read(name, options)
    found = {}
    for call in ("cold", "warm")[: options.calls]:
        start, busy = time.perf_counter(), time.process_time()
        points = SIDES[side](values, options.dimensions, options.seed)
        found[call] = time.perf_counter() - start
        found[f"{call}_busy"] = time.process_time() - busy
    from sklearn.manifold import trustworthiness

    return {"trustworthiness": float(trustworthiness(values, points, n_neighbors=NEAREST)), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's idx.gz files")
    parser.add_argument("--rows", type=int, default=5000, help="the first so many")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, choices=(1, 2), default=2, help="1: only the cold one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--only", choices=("digits", "fashion"), help="one of the data sets")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print("\n" + json.dumps(measure(options.side, options.only, options)))
        return
    before, tables = machine(), {}
    for name in [options.only] if options.only else ["digits", *(["fashion"] if options.data else [])]:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in options.sides}
        for _ in range(options.rounds):
            for side in options.sides:
                found[side].append(fresh_process("--side", side, "--only", name, threads=options.threads))
                print(name, side, found[side][-1], file=sys.stderr)
        tables[name] = {
            side: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
            for side, turns in found.items()
        }
    say({"maps": tables, "dimensions": options.dimensions, "options": sys.argv[1:]}, before)


if __name__ == "__main__":
    main()
