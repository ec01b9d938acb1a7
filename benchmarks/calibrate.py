"""The numbers in ``ayatori/explore/calibration.json``, fitted to data whose truth is known.

Quantile regressions of log((wanted + 0.005) / (error + 0.005)) on what the probes did, then widened or
narrowed until 90 % of what was left out is inside (Romano, Patterson & Candes, "Conformalized quantile
regression", 2019). Left out in turn: a tenth of the made data, or one real data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import QuantileRegressor
from sklearn.preprocessing import StandardScaler

from ayatori.explore.bounds import Bounds, find_bounds
from ayatori.explore.explore import NEIGHBOURS
from ayatori.explore.features import representations
from ayatori.explore.neighbours import find_neighbours
from ayatori.explore.probes import fit_probes, probe_plan
from ayatori.records import Dataset

Line = dict[str, Any]  # "features", "wanted" (an error, or 1 - R2), "group", "noise" (added to both sides)
SIDES = {"low": 0.05, "middle": 0.5, "high": 0.95}
LEVEL, FLOOR = 0.9, 0.005
PENALTY = {"ceiling": 0.003, "expected": 0.02}  # on the weights of standardised features


def bounds_of(dataset: Dataset) -> Bounds:
    """What ``explore`` finds of a dataset with nothing sealed, without audit and maps."""
    rows = np.arange(len(dataset))
    ways = representations(dataset, rows)
    graphs = [find_neighbours(way.values, NEIGHBOURS) for way in ways]
    points = ways[-1].values if "image" in dataset.inputs else None
    probes, _ = fit_probes(dataset, probe_plan(dataset, 0), 0, points)(None)
    return find_bounds(dataset, graphs, probes, dataset.labels, len(dataset) * 4 // 5, None, 0)


def fitted(kind: str, lines: Sequence[Line]) -> dict[str, Any]:
    """What calibration.json holds of one ``kind``, "ceiling" or "expected"."""
    found = _fit(kind, lines)
    off = []
    groups = np.array([line["group"] for line in lines])
    for group in np.unique(groups):
        part = _fit(kind, [line for line in lines if line["group"] != group])
        for line in lines:
            if line["group"] == group:
                low, _, high = said(part, line["features"])
                noise = line.get("noise", 0.0)
                off.append(max(low - _ratio(line, noise), _ratio(line, -noise) - high))
    shift = float(np.quantile(off, LEVEL, method="higher"))
    found["low"]["constant"] -= shift
    found["high"]["constant"] += shift
    return found


def said(lines: dict[str, Any], features: dict[str, float]) -> tuple[float, float, float]:
    """Low, middle and high of the log ratio, sorted."""
    low, middle, high = (
        lines[side]["constant"] + sum(w * features[name] for name, w in lines[side]["weights"].items())
        for side in SIDES
    )
    return min(low, middle), middle, max(high, middle)


def _ratio(line: Line, noise: float = 0.0) -> float:
    wanted = max(line["wanted"] + noise + FLOOR, FLOOR / 10)
    return float(np.log(wanted / (line["features"]["error"] + FLOOR)))


def _fit(kind: str, lines: Sequence[Line]) -> dict[str, Any]:
    names = list(lines[0]["features"])
    table = np.array([[line["features"][name] for name in names] for line in lines])
    wanted = np.array([_ratio(line) for line in lines])
    scaler = StandardScaler().fit(table)
    found: dict[str, Any] = {}
    for side, quantile in SIDES.items():
        model = QuantileRegressor(quantile=quantile, alpha=PENALTY[kind], solver="highs")
        model.fit(scaler.transform(table), wanted)
        weights = model.coef_ / scaler.scale_
        found[side] = {
            "constant": float(model.intercept_ - weights @ scaler.mean_),
            "weights": {name: float(w) for name, w in zip(names, weights, strict=True) if w},
        }
    return found
