"""A folder as `ayatori explore` writes it, made up: for tests of the page alone."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

SPACES = {
    "pca": ("pca_x", "pca_y", "pca_z"),
    "tsne": ("tsne_x", "tsne_y"),
    "tsne3": ("tsne3_x", "tsne3_y", "tsne3_z"),
    "umap": ("umap_x", "umap_y"),
    "umap3": ("umap3_x", "umap3_y", "umap3_z"),
}


def make_folder(
    folder: Path,
    rows: int = 600,
    classes: tuple[str, ...] = ("cat", "dog", "bird"),
    pictures: int = 0,
    side: int = 28,
    channels: int = 1,
    columns: int = 0,
    seed: int = 0,
) -> Path:
    """Clumps, one for each class (none: a value to predict); a fifth of the rows sealed."""
    generator = np.random.default_rng(seed)
    size = len(classes)
    codes = generator.integers(0, max(size, 1), rows)
    centres = generator.normal(size=(max(size, 1), 3)) * 4
    sealed = np.arange(rows) % 5 == 0
    table: dict[str, Any] = {
        "row": np.arange(rows),
        "id": [f"{classes[c] if size else 'row'}/{n:06d}.png" for n, c in enumerate(codes)],
    }
    if size:
        table["class"] = np.where(sealed, -1, codes)
    else:
        table["value"] = np.where(sealed, np.nan, generator.normal(50, 20, rows))
    table["split"] = np.where(sealed, "sealed", "development")
    table["suspicion"] = np.where(sealed, np.nan, generator.beta(0.3, 4, rows))
    table["outlier"] = generator.beta(0.3, 4, rows)
    table["twin"] = np.full(rows, -1)
    for names in SPACES.values():
        points = centres[codes] + generator.normal(size=(rows, 3))
        for axis, name in enumerate(names):
            table[name] = points[:, axis].astype(np.float32)
    table["tsne_x"][1] = table["tsne_y"][1] = np.nan
    for column in range(columns):
        values = generator.normal(size=rows)
        table[f"in_number {column}"] = (
            [f"{v:.4g}" for v in values] if column else ["red", "blue"] * (rows // 2)
        )
    pd.DataFrame(table).to_parquet(folder / "explore.parquet", index=False)
    if pictures:
        save_pictures(folder, rows, pictures, side, channels, codes, generator)
    facts = facts_of(rows, classes, codes, sealed, generator)
    (folder / "explore.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def save_pictures(
    folder: Path,
    rows: int,
    pictures: int,
    side: int,
    channels: int,
    codes: np.ndarray,
    generator: np.random.Generator,
) -> None:
    """Smooth blobs, as pictures are, with a little noise."""
    shown = np.unique(np.linspace(0, rows - 1, pictures).astype(np.int64))
    y, x = np.mgrid[:side, :side] / side
    at = generator.uniform(0.3, 0.7, (len(shown), 2, 1, 1))
    wave = 0.5 + 0.5 * np.cos((codes[shown][:, None, None] + 2) * 6 * (x + y * at[:, 0]))
    blob = np.exp(-((x - at[:, 0]) ** 2 + (y - at[:, 1]) ** 2) * 12) * wave
    tint = generator.uniform(0.4, 1, (len(shown), channels, 1, 1))
    pixels = blob[:, None] * tint * 235 + generator.normal(0, 6, (len(shown), channels, side, side))
    save_file(
        {"rows": shown, "pixels": pixels.clip(0, 255).astype(np.uint8)},
        folder / "explore_pictures.safetensors",
    )


def facts_of(
    rows: int,
    classes: tuple[str, ...],
    codes: np.ndarray,
    sealed: np.ndarray,
    generator: np.random.Generator,
) -> dict[str, Any]:
    size = len(classes)
    open_rows = np.flatnonzero(~sealed)
    return {
        "name": "pets",
        "task": "classification" if size else "regression",
        "classes": list(classes),
        "rows": rows,
        "development": int((~sealed).sum()),
        "sealed": int(sealed.sum()),
        "target": "kind",
        "metric": "accuracy" if size else "r2",
        "seed": 7,
        "source": "pets.csv",
        "verdict": verdict(),
        "ruler": ruler("accuracy" if size else "r2"),
        "representations": [
            {"name": "raw", "columns": 784, "agreement": 0.903, "neighbours": 0.921, "note": ""},
            {"name": "PCA", "columns": 50, "agreement": 0.911, "neighbours": 0.93, "note": "whitened"},
        ],
        "probes": [
            {"name": "k nearest neighbours", "value": 0.921, "low": 0.91, "high": 0.932, "n": 480},
            {"name": "linear", "value": 0.903, "low": 0.89, "high": 0.914, "n": 480},
            {"name": "small MLP", "value": 0.931, "low": 0.92, "high": 0.941, "n": 480},
        ],
        "structure": {"p": 0.005, "agreement": 0.9, "by_chance": 1 / max(size, 1), "permutations": 199},
        "curve": curve(),
        "noise": {"share": 0.021 if size else None},
        "maps": maps(rows),
        "pairs": pairs(classes),
        "confusion": confusion(size, generator),
        "audit": audit(rows, classes, codes, open_rows, generator),
        "seconds": {"read": 0.4, "graph": 1.25, "maps": 6.5, "probes": 3.0, "total": 11.4},
        "versions": {"ayatori": "0.1.0", "torch": "2.15.0"},
    }


def verdict() -> dict[str, Any]:
    return {
        "word": "likely",
        "grade": "workable",
        "sentence": "Expect an accuracy of 93 to 96 %; chance is 36 %.",
        "reasons": [
            "Neighbours share their class far more often than by chance (90 % against 33 %, p = 0.005).",
            "The best probe, a small MLP, is right in 93.1 % of rows it never saw.",
            "These labels and features allow 95 to 98 %.",
        ],
        "next": "look at the 24 suspected labels below: a quarter of all mistakes are theirs.",
    }


def ruler(metric: str) -> dict[str, Any]:
    return {
        "metric": metric,
        "chance": 0.36 if metric == "accuracy" else 0.0,
        "probe": 0.931,
        "probe_name": "small MLP",
        "expected": [0.925, 0.942, 0.96],
        "ceiling": [0.951, 0.968, 0.981],
        "cover_hart": [0.955, 0.979],
        "target": 0.9,
        "reached": None,
    }


def curve() -> dict[str, Any]:
    rows = [30, 60, 120, 240, 480]
    return {
        "rows": rows,
        "value": [0.71, 0.8, 0.86, 0.905, 0.931],
        "low": [0.66, 0.77, 0.84, 0.89, 0.92],
        "high": [0.76, 0.83, 0.88, 0.92, 0.941],
        "forecast": {
            "rows": [480, 960, 1920, 4800],
            "value": [0.931, 0.944, 0.952, 0.958],
            "low": [0.92, 0.931, 0.935, 0.937],
            "high": [0.941, 0.957, 0.966, 0.975],
        },
        "needed": {"target": 0.95, "rows": 1800, "low": 900, "high": 6000},
        "sentence": "Ten times the rows would bring about 2.7 points.",
    }


def maps(rows: int) -> list[dict[str, Any]]:
    titles = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
    return [
        {
            "name": name,
            "title": title,
            "dimensions": dimensions,
            "of": "PCA",
            "rows": rows,
            "trustworthiness": 0.98 if dimensions == 3 else 0.961,
            "continuity": 0.974,
            "agreement": 0.71 if name == "pca" else 0.88,
            "agreement_full": 0.911,
        }
        for name, title in titles.items()
        for dimensions in (2, 3)
    ]


def pairs(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"a": a, "b": b, "rows": 30 - 2 * k, "share": 0.05 / (k + 1)}
        for k, (a, b) in enumerate(itertools.pairwise(classes))
    ][:12]


def confusion(size: int, generator: np.random.Generator) -> list[list[int]] | None:
    if not 1 < size <= 50:
        return None
    counts = generator.poisson(0.3 if size > 9 else 3, (size, size))
    np.fill_diagonal(counts, generator.integers(40, 60, size))
    return counts.tolist()  # type: ignore[no-any-return]


def audit(
    rows: int,
    classes: tuple[str, ...],
    codes: np.ndarray,
    open_rows: np.ndarray,
    generator: np.random.Generator,
) -> dict[str, Any]:
    some = generator.choice(open_rows, min(30, len(open_rows) // 2), replace=False).tolist()
    size = len(classes)
    duplicates = [
        {
            "a": a,
            "b": (a // 5) * 5 if k % 3 == 0 else b,
            "kind": "exact" if k % 2 else "near",
            "across": k % 3 == 0,
            "same_label": None if k % 3 == 0 else k % 4 != 1,
            "distance": 0.0 if k % 2 else 0.12,
        }
        for k, (a, b) in enumerate(zip(some[:12], some[12:24], strict=False))
    ]
    suspects = [
        {
            "row": row,
            "given": classes[codes[row]] if size else 12.5,
            "likely": classes[(codes[row] + 1) % size] if size else 83.25,
            "score": 0.99 - 0.02 * k,
        }
        for k, row in enumerate(some)
    ]
    return {
        "counts": {
            "duplicates": 8,
            "near": 6,
            "leaks": 4,
            "conflicts": 2,
            "suspects": len(suspects),
            "outliers": 9,
            "bound": 16,
        },
        "columns": [
            {
                "column": "number 3",
                "what": "constant",
                "figure": 1.0,
                "sentence": "The column 'number 3' holds one value only, so it can be left out.",
            }
        ]
        if not size
        else [],
        "classes": {
            "smallest": [classes[0], 10],
            "share": 0.01,
            "sentence": "The classes are about equal in size.",
        }
        if size
        else None,
        "shift": {
            "auc": 0.52,
            "p": 0.4,
            "sentence": "The sealed rows look like the others (AUC 0.52, p = 0.40).",
        },
        "sentences": [
            "8 rows are exact copies of others and 6 nearly so; they were bound together in the Plan.",
            "4 sealed rows have a twin among the others.",
        ],
        "duplicates": duplicates,
        "suspects": suspects,
        "outliers": [{"row": row, "distance": 9.1 - k / 10, "score": 0.9} for k, row in enumerate(some[:9])],
    }
