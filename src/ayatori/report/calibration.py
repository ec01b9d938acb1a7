"""Stage 9l. Probabilities, truth -> whether they mean what they say: shares by confidence, drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from ayatori.evaluate.intervals import wilson
from ayatori.report.words import count, percent, rounded

__all__ = ["calibration", "reliability"]

BINS = 10
FEW = 5  # rows of a bin below which it is drawn pale


def calibration(said: np.ndarray, right: np.ndarray, labels: bool) -> dict[str, Any]:
    """What was said (n,) from 0 to 1, and whether it came true (n,), in ten bins of equal width.

    ``labels``: probabilities of single labels, where 0.1 is as good a thing to say as 0.9; otherwise those of
    the class that was named. Intervals are Wilson's, of each bin alone.
    """
    place = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(place).tolist():
        own = place == number
        n, share = int(own.sum()), float(right[own].mean())
        low, high = wilson(share, n)
        bins.append(
            {"said": float(said[own].mean()), "true": share, "low": float(low), "high": float(high), "n": n}
        )
    sure = [one for one in bins if one["n"] >= FEW]
    return {"bins": bins, "n": len(said), "labels": labels, "sentence": _sentence(sure or bins, labels)}


def _sentence(bins: list[dict[str, Any]], labels: bool) -> str:
    """Where it says most, how that compares with what came true."""
    largest = max(bins, key=lambda one: one["n"])
    off = [one for one in bins if not one["low"] <= one["said"] <= one["high"]]
    text = (
        f"Where it said {percent(largest['said'], 0)} on average ({count(largest['n'])} times), "
        f"{'that was so' if labels else 'it was right'} in {percent(largest['true'], 0)}."
    )
    if not off:
        return f"{text} In no bin do the two differ by more than chance."
    worst = max(off, key=lambda one: abs(one["said"] - one["true"]) * math.sqrt(one["n"]))
    word = "too sure" if worst["said"] > worst["true"] else "too modest"
    ends = f"{rounded(100 * worst['low'], 0)} – {rounded(100 * worst['high'], 0)}"
    where, there = percent(worst["said"], 0), percent(worst["true"], 0)
    return f"{text} It is {word} about {where}: there the share is {there} ({ends})."


TICK = """<line class="grid" x1="{0}" x2="{0}" y1="10" y2="310"/>
<line class="grid" x1="50" x2="350" y1="{1}" y2="{1}"/>
<text class="tick" x="{0}" y="376" text-anchor="middle">{2}</text>
<text class="tick" x="44" y="{3}" text-anchor="end">{2}</text>"""
MARK = """<g opacity="{opacity}">
<line class="ci net" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{end:.1f}"/>
<circle class="dot net" cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>
<rect class="often" x="{left:.1f}" y="{up:.1f}" width="12" height="{height:.1f}"/>"""
WHOLE = """<svg class="cloud" viewBox="0 0 360 400" role="img" aria-label="{label}">{grid}
<line class="even" x1="50" y1="310" x2="350" y2="10"/>{marks}
<text class="lab" x="350" y="395" text-anchor="end">said, percent</text>
<text class="lab" x="56" y="24">came true, percent</text></svg>"""


def reliability(found: Mapping[str, Any]) -> Markup:
    """What was said (right) against the share that came true (up), with intervals; below, how often."""
    most = max(one["n"] for one in found["bins"])
    grid = [
        Markup(TICK).format(50 + 3 * tick, 310 - 3 * tick, tick, 314 - 3 * tick) for tick in range(0, 101, 20)
    ]
    marks = [
        Markup(MARK).format(
            opacity=1 if one["n"] >= FEW else 0.4,
            x=50 + 300 * one["said"],
            y=310 - 300 * one["true"],
            top=310 - 300 * one["high"],
            end=310 - 300 * one["low"],
            left=44 + 300 * one["said"],
            up=362 - 40 * one["n"] / most,
            height=40 * one["n"] / most,
        )
        for one in found["bins"]
    ]
    told = "; ".join(f"{percent(one['said'], 0)}: {percent(one['true'], 0)}" for one in found["bins"])
    return Markup(WHOLE).format(
        label=f"Share that came true against what was said: {told}",
        grid=Markup("").join(grid),
        marks=Markup("").join(marks),
    )
