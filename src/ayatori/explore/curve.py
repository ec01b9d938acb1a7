"""Stage 3d. Scores at several sizes -> the learning curve with its band, and how many rows a target needs.

error(n) = a + b n^-c, the power law with a floor that fits measured curves best (Viering & Loog, "The shape
of learning curves", 2023; a is what more rows of the same kind cannot mend). The band comes from scores
drawn anew within their sampling error; c is drawn too, as a few sizes cannot tell it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import nnls

DRAWS = 200
EXPONENTS = (0.3, 0.45, 0.6, 0.8, 1.0)
FARTHEST = 10.0  # times the rows at hand: nobody can see beyond
BAND = (0.1, 0.9)  # quantiles


def learning_curve(
    rows: np.ndarray, errors: np.ndarray, judged: int, target: float | None = None, seed: int = 0
) -> dict[str, Any] | None:
    """The "curve" of explore.json; None where there are fewer than 3 sizes.

    ``rows`` (s,): learned from; ``errors`` (s,): shares of 1 (for numbers 1 - R2), of ``judged`` rows;
    ``target``: the wanted score (1 - error).

    >>> rows = np.array([100, 200, 400, 800])
    >>> found = learning_curve(rows, 0.05 + 2 / rows, 5000)
    >>> found["forecast"]["rows"][-1], round(found["forecast"]["value"][-1], 2)
    (8000, 0.95)
    """
    if len(rows) < 3:
        return None
    ahead = np.unique(np.geomspace(rows[-1], FARTHEST * rows[-1], 13).round().astype(int))
    spread = np.sqrt(np.clip(errors * (1 - np.minimum(errors, 0.99)), 1e-4, None) / judged)
    draws = _draws(rows, errors, spread, np.concatenate([rows, ahead]), seed)
    low, middle, high = np.quantile(1 - draws, [BAND[0], 0.5, BAND[1]], axis=0)
    now, later = slice(0, len(rows)), slice(len(rows), None)
    found: dict[str, Any] = {
        "rows": rows.tolist(),
        "value": (1 - errors).tolist(),
        "low": (1 - errors - 1.645 * spread).tolist(),
        "high": (1 - errors + 1.645 * spread).tolist(),
        "forecast": {
            "rows": ahead.tolist(),
            "value": middle[later].tolist(),
            "low": low[later].tolist(),
            "high": high[later].tolist(),
        },
        "needed": None,
        "sentence": _sentence(rows, middle, now, later),
    }
    if target is not None and 1 - errors[-1] < target:
        found["needed"], found["sentence"] = _needed(1 - draws[:, later], ahead, target)
    return found


def _draws(rows: np.ndarray, errors: np.ndarray, spread: np.ndarray, at: np.ndarray, seed: int) -> np.ndarray:
    """(draws, len(at)): the errors of curves that fit the scores within their sampling error."""
    chance = np.random.default_rng([seed, 41])
    found = []
    for number in range(DRAWS):
        drawn = np.clip(errors + spread * chance.normal(size=len(errors)), 0.0, None)
        exponent = EXPONENTS[number % len(EXPONENTS)]
        design = np.stack([np.ones(len(rows)), (rows / rows[-1]) ** -exponent], axis=1)
        (floor, slope), _ = nnls(design / spread[:, None], drawn / spread)
        found.append(floor + slope * (at / rows[-1]) ** -exponent)
    return np.array(found)


def _sentence(rows: np.ndarray, middle: np.ndarray, now: slice, later: slice) -> str:
    """What twice as many rows would bring."""
    last = middle[now][-1]
    steps = np.geomspace(1.0, FARTHEST, len(middle[later]))
    double = float(np.interp(2.0, steps, middle[later]))
    gain = 100 * (double - last)
    if gain < 0.3:
        return "More rows of the same kind would hardly help."
    return f"Twice as many rows would bring about {gain:.1f} points more."


def _needed(scores: np.ndarray, ahead: np.ndarray, target: float) -> tuple[dict[str, Any] | None, str]:
    """Rows until the target: the middle and the band of the draws that reach it within sight."""
    reached = scores >= target
    there = reached.any(axis=1)
    at = np.where(there, ahead[reached.argmax(axis=1)], np.inf)
    low, middle, high = np.quantile(at, [BAND[0], 0.5, BAND[1]], method="nearest")
    most = f"{ahead[-1]:,}"
    if not np.isfinite(middle):
        share = there.mean()
        return None, (
            f"{most} rows would probably not be enough for {target:g}"
            + (" either: more of the same data will not reach it." if share < 0.1 else ".")
        )
    end = int(high) if np.isfinite(high) else None
    upper = f"{end:,}" if end else f"more than {most}"
    return (
        {"target": target, "rows": int(middle), "low": int(low), "high": end},
        f"About {int(middle):,} rows to learn from would reach {target:g} ({int(low):,} to {upper}).",
    )
