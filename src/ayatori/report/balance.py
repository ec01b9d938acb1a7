"""Stage 9h. Predictions of balanced networks and of plain ones -> what balance gave and took."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.report.lines import own_network
from ayatori.report.mistakes import label_table, read_predictions, share, value_table

LISTED = 40  # classes, the rarest ones
FIFTHS = 5
SHOWN = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"),
    "multilabel": ("accuracy", "exact_match", "macro_f1", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
}


def balance_facts(run: Path, result: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page says of balance; None where nothing was balanced, or not trained without it too."""
    with_ = own_network(result["leaderboard"])
    without = with_ and next(
        (
            entry
            for entry in result["leaderboard"]
            if entry["name"] == f"not balanced, {with_['name'].removeprefix('one network, ')}"
            and entry["split"] == with_["split"]
        ),
        None,
    )
    if not with_ or not without:
        return None
    both = [
        read_predictions(run / "predictions.parquet", entry["name"], entry["split"])
        for entry in (with_, without)
    ]
    task = result["task"]
    lines = _fifths(both) if task == "regression" else _classes(both, list(result["classes"]), task)
    return {
        "way": recipe["balance"]["name"],
        "rows": len(both[0]),
        "lines": lines[:LISTED],
        "more": max(len(lines) - LISTED, 0),
        "scores": [
            {"metric": name, "with": with_["scores"].get(name), "without": without["scores"].get(name)}
            for name in SHOWN[task]
            if name in with_["scores"]
        ],
    }


def _classes(both: Sequence[pd.DataFrame], classes: Sequence[str], task: str) -> list[dict[str, Any]]:
    """Recall and precision of each class or label, rarest first: [with, without]."""
    tables = []
    for table in both:
        if task == "multilabel":
            named = (label_table(table[name], classes) > 0 for name in ("true", "said"))
            tables.append(tuple(named))
        else:
            truth, said = (
                pd.Index(classes).get_indexer(table[name].astype(str)) for name in ("true", "said")
            )
            kinds = np.arange(len(classes))
            tables.append((truth[:, None] == kinds, said[:, None] == kinds))
    lines = []
    for place, name in enumerate(classes):
        own = [(truth[:, place], said[:, place]) for truth, said in tables]
        rows = int(own[0][0].sum())
        lines.append(
            {
                "name": name,
                "rows": rows,
                "recall": [share(int((t & s).sum()), int(t.sum())) for t, s in own],
                "precision": [share(int((t & s).sum()), int(s.sum())) for t, s in own],
            }
        )
    return sorted(lines, key=lambda line: line["rows"])


def _fifths(both: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Mean absolute error in each fifth of the first target: [with, without]."""
    found = [value_table(table, ()) for table in both]
    truth = found[0][0][:, 0]
    edges = np.quantile(truth, np.linspace(0, 1, FIFTHS + 1))
    lines = []
    for low, high in itertools.pairwise(edges):
        rows = (truth >= low) & ((truth <= high) if high == edges[-1] else (truth < high))
        errors = [
            float(np.abs(said[rows, 0] - truth[rows]).mean()) if rows.any() else None for _, said, _ in found
        ]
        lines.append({"low": float(low), "high": float(high), "rows": int(rows.sum()), "error": errors})
    return lines
