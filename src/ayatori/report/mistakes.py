"""Stage 9c. Predictions -> where it goes wrong: the confusions, each class, the worst rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ayatori.evaluate.intervals import wilson
from ayatori.report.calibration import calibration
from ayatori.report.lines import several
from ayatori.report.rows import near_rows, show_rows
from ayatori.report.words import where

WORST = 20
MATRIX = 30  # classes up to which all confusions are drawn
PAIRS = 15
LISTED = 500  # classes in the table of classes
VALUES = 4  # predicted values that are drawn
CELLS = 56
POINTS = 1500
BINS = 29
Truth = np.ndarray


def mistakes(
    run: Path,
    result: Mapping[str, Any],
    data: Mapping[str, Any],
    entry: Mapping[str, Any] | None,
    folds: bool,
) -> dict[str, Any]:
    """Confusions and worst rows of ``entry``, a line of the leaderboard.

    Rows of the test are never shown one by one, so that nobody tunes on them.
    """
    if entry is None:
        return {}
    table = read_predictions(run / "predictions.parquet", entry["name"], entry["split"])
    task, classes = result["task"], list(result["classes"])
    if task == "classification":
        truth = pd.Index(classes).get_indexer(table["true"].astype(str))
        values = _probabilities(table, classes)
        said = values.argmax(axis=1)
        if "said" in table:  # older runs always said the likeliest class
            said = pd.Index(classes).get_indexer(table["said"].astype(str))
        found = _confusions(truth, said, classes)
        # of the class that is likeliest: a rule may say another
        named = values.argmax(axis=1)
        found["calibration"] = calibration(values.max(axis=1), named == truth, labels=False)
        losses = -np.log(np.clip(values[np.arange(len(table)), truth], 1e-12, None))
        wrong = said != truth
    elif task == "multilabel":
        truth, values = label_table(table["true"], classes), _probabilities(table, classes)
        said = label_table(table["said"], classes) if "said" in table else values > 0.5
        found = {"labels": _labels(truth > 0, said > 0, classes)}
        found["calibration"] = calibration(values.ravel(), (truth > 0).ravel(), labels=True)
        losses = -np.log(np.clip(np.where(truth > 0, values, 1 - values), 1e-12, None)).mean(axis=1)
        wrong = ((said > 0) != (truth > 0)).any(axis=1)
    else:
        said = None
        truth, values, classes = value_table(table, data["schema"].get("target") or ())
        classes = [f"log {name}" for name in classes] if result.get("log") else classes
        drawn = [_cloud(truth[:, k], values[:, k]) for k in range(min(len(classes), VALUES))]
        found = {"targets": [{"name": name, **cloud} for name, cloud in zip(classes, drawn, strict=False)]}
        unit = np.maximum(truth.std(axis=0), 1e-12)
        losses, wrong = np.square((values - truth) / unit).mean(axis=1), np.ones(len(table), bool)
    found |= {"name": entry["name"], "split": entry["split"], "n": len(table), "wrong": int(wrong.sum())}
    found["where"] = where(entry["split"], len(table), folds, several(entry))
    if entry["split"] == "test":
        return found
    order = np.argsort(np.where(wrong, -losses, np.inf), kind="stable")[: min(WORST, int(wrong.sum()))]
    said = values if said is None else said
    lines = [_described(task, truth[at], values[at], classes, said[at]) for at in order]
    rows, ids = table["row"].to_numpy()[order], table["id"].astype(str).tolist()
    worst = show_rows(run, data, rows, [ids[at] for at in order], lines)
    near = near_rows(run, rows)
    for line in worst["rows"]:
        line["near"] = near.get(line["row"], [])
    where_near = (
        "by the words, as it weighs them" if data["schema"].get("texts") else "in its last hidden layer"
    )
    return found | {"worst": worst | {"near": where_near if near else ""}}


def read_predictions(path: Path, name: str, split: str) -> pd.DataFrame:
    """The lines of predictions.parquet that one model or ensemble says of one split."""
    # batch by batch: the rivals' lines are dropped before they are all in memory
    file = pq.ParquetFile(path, memory_map=True)
    parts = []
    for batch in file.iter_batches(batch_size=1 << 16):
        own = pc.and_(pc.equal(batch["name"], name), pc.equal(batch["split"], split))
        parts.append(batch.filter(own).to_pandas())
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _probabilities(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    return table[[f"p_{name}" for name in classes]].to_numpy(np.float64)


def label_table(true: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """(n, labels) of 0 and 1 from label names with spaces between, in the order of the labels.

    >>> label_table(pd.Series(["sea sky", "", "sky"]), ["sea", "sky"]).tolist()
    [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    """
    codes, words = pd.factorize(true.astype(str))
    known = np.zeros((len(words), len(classes)))
    for line, text in enumerate(words):
        known[line, _spelt(text, classes, 0) or []] = 1
    return known[codes]


def _spelt(text: str, classes: Sequence[str], first: int) -> list[int] | None:
    """Which labels, in order, make up ``text``; None where none do."""
    if not text:
        return []
    for label in range(first, len(classes)):
        if text == classes[label]:
            return [label]
        if text.startswith(f"{classes[label]} "):
            rest = _spelt(text[len(classes[label]) + 1 :], classes, label + 1)
            if rest is not None:
                return [label, *rest]
    return None


def value_table(table: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Truth (n, values), predictions (n, values), and what the values are called."""
    if "value" in table:
        truth, said = table[["true"]], table[["value"]]
        return truth.to_numpy(np.float64), said.to_numpy(np.float64), [*names, "value"][:1]
    found = [name.removeprefix("value_") for name in table.columns if name.startswith("value_")]
    truth = table[[f"true_{name}" for name in found]].to_numpy(np.float64)
    return truth, table[[f"value_{name}" for name in found]].to_numpy(np.float64), found


def _confusions(truth: Truth, said: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Counts (classes, classes) true by said, up to MATRIX classes; the worst pairs; each class."""
    size = len(classes)
    counts = np.bincount(truth * size + said, minlength=size * size).reshape(size, size)
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(at) // size, int(at) % size) for at in order]
    per_class = []
    for label, name in enumerate(classes[:LISTED]):
        hit, rows, calls = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
        other = int(off[label].argmax())
        per_class.append(
            {
                "name": name,
                "rows": rows,
                "recall": share(hit, rows),
                "precision": share(hit, calls),
                "taken_for": [classes[other], int(off[label, other])] if off[label, other] else None,
            }
        )
    return {
        "classes": list(classes),
        "matrix": counts.tolist() if size <= MATRIX else None,
        "pairs": [
            {"true": classes[i], "said": classes[j], "rows": int(off[i, j]), "of": int(counts[i].sum())}
            for i, j in pairs
            if off[i, j]
        ],
        "per_class": per_class,
    }


def _labels(truth: np.ndarray, said: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each label: in how many rows it is, how often it was found, how often it was rightly named."""
    return [
        {
            "name": name,
            "rows": int(truth[:, label].sum()),
            "recall": share(int((truth & said)[:, label].sum()), int(truth[:, label].sum())),
            "precision": share(int((truth & said)[:, label].sum()), int(said[:, label].sum())),
            "right": share(int((truth == said)[:, label].sum()), len(truth)),
        }
        for label, name in enumerate(names[:LISTED])
    ]


def share(hits: int, rows: int) -> dict[str, float] | None:
    """A share with Wilson's interval; None of no rows."""
    if not rows:
        return None
    low, high = wilson(hits / rows, rows)
    return {"value": hits / rows, "low": low, "high": high, "n": rows}


def _cloud(truth: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """Predicted against true, as points or counted in cells, and how the residuals spread."""
    both = np.concatenate([truth, said])
    low, high = np.quantile(both, [0.001, 0.999]) if len(truth) > POINTS else (both.min(), both.max())
    high = high if high > low else low + 1.0
    residual = truth - said
    edge = max(float(np.quantile(np.abs(residual), 0.995)), 1e-12)
    bins, _ = np.histogram(np.clip(residual, -edge, edge), BINS, (-edge, edge))
    shares = np.clip((np.stack([truth, said]) - low) / (high - low), 0, 1)
    if len(truth) <= POINTS:
        marks = [[round(float(x), 4), round(float(y), 4), 1] for x, y in shares.T]
    else:
        cell = np.minimum((shares * CELLS).astype(int), CELLS - 1)
        filled, counts = np.unique(cell[0] * CELLS + cell[1], return_counts=True)
        marks = [[int(c) // CELLS, int(c) % CELLS, int(k)] for c, k in zip(filled, counts, strict=True)]
    return {
        "low": float(low),
        "high": float(high),
        "cells": CELLS if len(truth) > POINTS else 0,
        "marks": marks,
        "outside": int(((both < low) | (both > high)).reshape(2, -1).any(axis=0).sum()),
        "residuals": bins.tolist(),
        "residual_edge": edge,
        "residual_mean": float(residual.mean()),
        "residual_quartiles": np.quantile(residual, [0.25, 0.5, 0.75]).tolist(),
    }


def _described(task: str, truth: Any, values: np.ndarray, names: Sequence[str], said: Any) -> dict[str, Any]:
    """One mistake in words: what it is, what it was taken for, how sure."""
    if task == "classification":
        return {
            "true": names[int(truth)],
            "said": names[int(said)],
            "sure": float(values[int(said)]),
            "given": float(values[int(truth)]),
        }
    if task == "multilabel":
        missed = [name for name, is_so, yes in zip(names, truth, said, strict=True) if is_so and not yes]
        added = [name for name, is_so, yes in zip(names, truth, said, strict=True) if not is_so and yes]
        return {"missed": missed, "added": added}
    return {
        "true": [float(value) for value in truth],
        "said": [float(value) for value in values],
        "off": [float(value) for value in values - truth],
    }
