"""Stage 9e. Parts of the facts -> drawings (SVG). Positions are percentages, so text never shrinks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ayatori.evaluate.metrics import LOWER
from ayatori.report.words import PERCENT, rounded

__all__ = [
    "axis_line",
    "chain",
    "chain_scales",
    "cloud",
    "curve",
    "curve_scale",
    "dot",
    "plan_line",
    "residuals",
    "scale",
]

MANY = 12  # scores: of more, those far behind are not on the axis
ROLES = {"t": "train", "T": "train2", "s": "stop", "c": "score", "x": "sealed"}


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers inside ``low`` to ``high``.

    >>> ticks(0.913, 0.994)
    [0.92, 0.94, 0.96, 0.98]
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [round(first * step + step * k, 12) for k in range(int((high - first * step) / step + 1e-9) + 1)]
    return values or [low]


def scale(board: Mapping[str, Any]) -> dict[str, Any]:
    """The axis that all boards share: from, to, round numbers. Who looks at no input may fall off it."""
    metric = board["metric"]
    entries = [entry for one in board["boards"] for entry in one["entries"] if metric in entry["scores"]]
    scores = [entry["scores"][metric] for entry in entries if not entry["blind"]]
    if not scores:
        scores = [entry["scores"][metric] for entry in entries]
    scores = _near(scores, metric in LOWER)
    low, high = min(s["low"] for s in scores), max(s["high"] for s in scores)
    blind = [entry["scores"][metric] for entry in entries if entry["blind"]]
    width = high - low
    for score in blind:  # drawn in place where it does not crush the others
        if score["low"] > low - width and score["high"] < high + width:
            low, high = min(low, score["low"]), max(high, score["high"])
    pad = max((high - low) * 0.06, 1e-9)
    if metric in PERCENT or metric == "r2":
        high_end = min(high + pad, 1.0)
        low_end = max(low - pad, 0.0) if metric in PERCENT else low - pad
    else:
        low_end, high_end = max(low - pad, 0.0), high + pad
    if high_end - low_end < 1e-9:
        low_end, high_end = low_end - 0.5, high_end + 0.5
    marks = ticks(low_end, high_end, 5)
    return {
        "low": low_end,
        "high": high_end,
        "ticks": marks if len(marks) > 2 else ticks(low_end, high_end, 8),
    }


def _near(scores: Sequence[Mapping[str, Any]], lower: bool) -> list[Mapping[str, Any]]:
    """Of many scores those that are not far behind the better half, so that these can be told apart."""
    if len(scores) < MANY:
        return list(scores)
    half = sorted(scores, key=lambda s: s["value"] * (1 if lower else -1))[: len(scores) // 2]
    low, high = min(s["low"] for s in half), max(s["high"] for s in half)
    room = 2.5 * (high - low)
    return [s for s in scores if (s["high"] < high + room if lower else s["low"] > low - room)]


def _x(value: float, axis: Mapping[str, Any]) -> float:
    """Percent along the axis, with room at both ends."""
    share = (value - axis["low"]) / (axis["high"] - axis["low"])
    return 2 + 96 * min(max(share, 0.0), 1.0)


def dot(entry: Mapping[str, Any], metric: str, axis: Mapping[str, Any]) -> Markup:
    """One line of the leaderboard: interval and dot, on the grid of the axis."""
    grid = _join(
        Markup('<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="-6" y2="34"/>').format(_x(tick, axis))
        for tick in axis["ticks"]
    )
    score = entry["scores"].get(metric)
    mark = Markup("")
    if score and axis["low"] - 1e-9 <= score["value"] <= axis["high"] + 1e-9:
        kind = "chosen" if entry["chosen"] else "net" if entry["network"] else "rival"
        mark = Markup(
            '<line class="ci {3}" x1="{0:.2f}%" x2="{1:.2f}%" y1="14" y2="14"/>'
            '<circle class="dot {3}" cx="{2:.2f}%" cy="14" r="5"/>'
        ).format(_x(score["low"], axis), _x(score["high"], axis), _x(score["value"], axis), kind)
    elif score:  # beyond the axis: an arrow
        left = score["value"] < axis["low"]
        mark = Markup('<text class="tick" x="{}%" y="18" text-anchor="{}">{}</text>').format(
            0 if left else 100, "start" if left else "end", "◀ off the scale" if left else "off the scale ▶"
        )
    return Markup('<svg class="strip" aria-hidden="true">{}{}</svg>').format(grid, mark)


def axis_line(metric: str, axis: Mapping[str, Any]) -> Markup:
    """The numbers under the leaderboard."""
    factor = 100 if metric in PERCENT else 1
    values = [tick * factor for tick in axis["ticks"]]
    step = min(np.diff(values), default=1.0)
    decimals = 0 if step >= 1 else min(max(-math.floor(math.log10(step)), 0) + (f"{step:g}"[-2:] == "25"), 4)
    words = _join(
        Markup('<text class="tick" x="{:.2f}%" y="14" text-anchor="middle">{}</text>').format(
            _x(tick, axis), rounded(value, decimals)
        )
        for tick, value in zip(axis["ticks"], values, strict=True)
    )
    return Markup('<svg class="strip foot" aria-hidden="true">{}</svg>').format(words)


def plan_line(strips: str) -> Markup:
    """One network's line of the Plan: a cell for each strip of rows."""
    paths = []
    for letter, kind in ROLES.items():
        starts = [at for at, role in enumerate(strips) if role == letter]
        if starts:
            line = "".join(f"M{at} 0h.86v1h-.86z" for at in starts)
            paths.append(Markup('<path class="{}" d="{}"/>').format(kind, line))
    return Markup(
        '<svg class="line" viewBox="0 0 {} 1" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(len(strips), _join(paths))


TOP, BOTTOM = 22.0, 112.0  # pixels between which losses are drawn


def curve_scale(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The axis of losses that all curves share; logarithmic where they span more than a factor of 8."""
    losses = [v for m in members for v in (*m["train"], *m["stop"]) if v is not None]
    if not losses:
        return {"low": 0.0, "high": 1.0, "log": False, "ticks": [0.0, 1.0]}
    low, high = min(losses), max(losses)
    high = high if high > low else low + 1.0
    if not (low > 0 and high / low > 8):
        return {"low": low, "high": high, "log": False, "ticks": ticks(low, high, 3)}
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    low = max(factor * 10.0**power for power in powers for factor in (1, 2, 5) if factor * 10.0**power <= low)
    marks: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [f * 10.0**power for power in powers for f in factors if low <= f * 10.0**power <= high]
        if len(marks) <= 4:
            break
    return {"low": low, "high": high, "log": True, "ticks": marks[:: max(1, len(marks) // 4)]}


def curve(member: Mapping[str, Any], axis: Mapping[str, Any]) -> Markup:
    """Losses of one network by epoch, and the epoch whose weights were kept."""
    last = max(member["epochs"], 2)

    def x(epoch: float) -> float:
        return 1 + 96 * (epoch - 1) / (last - 1)

    def y(loss: float) -> float:
        of = math.log if axis["log"] else float
        share = (of(loss) - of(axis["low"])) / (of(axis["high"]) - of(axis["low"]))
        return BOTTOM - 3 - (BOTTOM - TOP - 3) * min(max(share, 0.0), 1.0)

    grid = _join(
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>'
            '<text class="tick halo" x="100%" y="{1:.1f}" text-anchor="end">{2}</text>'
        ).format(y(tick), y(tick) - 3, f"{tick:.4g}")
        for tick in axis["ticks"]
    )
    lines = _join(
        Markup('<polyline class="loss {}" points="{}"/>').format(kind, points)
        for kind in ("train", "stop")
        for points in _unbroken([x(e) for e in member["epoch"]], member[kind], y)
    )
    best = Markup("")
    if member["best_loss"] is not None:
        best = Markup(
            '<line class="best" x1="{0:.2f}%" x2="{0:.2f}%" y1="{1}" y2="{2}"/>'
            '<circle class="best" cx="{0:.2f}%" cy="{3:.1f}" r="4"/>'
        ).format(x(member["best_epoch"]), TOP, BOTTOM, y(member["best_loss"]))
    label = f"Losses of {member['label']} over {member['epochs']} epochs; kept: epoch {member['best_epoch']}"
    return Markup(
        '<svg class="curve" role="img" aria-label="{0}">'
        '<svg viewBox="0 0 100 130" preserveAspectRatio="none" width="100%" height="130">{1}</svg>{2}'
        '<line class="axis" x1="0" x2="100%" y1="{3}" y2="{3}"/>{4}<text class="lab" x="0" y="11">{5}</text>'
        '<text class="tick" x="0" y="126">1</text>'
        '<text class="tick" x="100%" y="126" text-anchor="end">{6}</text></svg>'
    ).format(label, lines, grid, BOTTOM, best, member["label"], member["epochs"])


def chain_scales(boosting: Mapping[str, Any]) -> dict[str, Any]:
    """The axes that all chains of boosting share: rounds, losses on stop rows, errors in training."""
    found: dict[str, Any] = {"rounds": boosting["rounds"]}
    for what in ("losses", "errors"):
        values = [value for one in boosting["chains"] for value in one[what] if value is not None]
        low, high = min(values, default=0.0), max(values, default=1.0)
        found[what] = (low, high if high > low else low + 1.0)
    return found


def chain(one: Mapping[str, Any], scales: Mapping[str, Any]) -> Markup:
    """A fold's rounds of boosting: loss on the stop rows above, error in training below, the round kept."""
    last = max(scales["rounds"], 2)

    def x(place: int) -> float:
        return 3 + 72 * place / (last - 1)  # the numbers of the axes stand at the right

    drawn, words = [], []
    for what, kind, top, bottom in (("losses", "stops", 24.0, 72.0), ("errors", "error", 86.0, 116.0)):
        low, high = scales[what]
        ys = [
            None if value is None else bottom - (bottom - top) * (value - low) / (high - low)
            for value in one[what]
        ]
        places = [x(place) for place in range(len(ys))]
        for points in _unbroken(places, ys, float):
            drawn.append(Markup('<polyline class="{}" points="{}"/>').format(kind, points))
        for value, at in ((high, top), (low, bottom)):
            words.append(
                Markup(
                    '<line class="grid" x1="0" x2="78%" y1="{0}" y2="{0}"/>'
                    '<text class="tick" x="80%" y="{1}">{2}</text>'
                ).format(at, at + 4, f"{value:.2g}")
            )
        if what == "losses" and ys and ys[one["kept"] - 1] is not None:
            words.append(
                Markup('<circle class="best" cx="{:.2f}%" cy="{:.1f}" r="4"/>').format(
                    places[one["kept"] - 1], ys[one["kept"] - 1]
                )
            )
    label = f"Boosting of {one['label']}: {len(one['losses'])} rounds, the first {one['kept']} kept"
    return Markup(
        '<svg class="curve" role="img" aria-label="{0}">'
        '<svg viewBox="0 0 100 140" preserveAspectRatio="none" width="100%" height="140">{1}</svg>{2}'
        '<text class="lab" x="0" y="11">{3}</text><text class="tick" x="0" y="134">1</text>'
        '<text class="tick" x="78%" y="134" text-anchor="end">{4}</text></svg>'
    ).format(label, _join(drawn), _join(words), one["label"], last)


def _unbroken(xs: Sequence[float], losses: Sequence[float | None], y: Callable[[float], float]) -> list[str]:
    """Points of a line, cut where a loss was not finite."""
    parts: list[list[str]] = [[]]
    for x, loss in zip(xs, losses, strict=True):
        if loss is None:
            parts.append([])
        else:
            parts[-1].append(f"{x:.2f},{y(loss):.1f}")
    return [" ".join(part) for part in parts if part]


def _tick(value: float) -> str:
    return rounded(value, 0) if value == int(value) else f"{value:g}".replace("-", "\u2212", 1)


def cloud(value: Mapping[str, Any]) -> Markup:
    """Predicted (up) against true (right); the line is where they agree."""
    cells = value["cells"]
    if cells:
        most = math.log1p(max(k for _, _, k in value["marks"]))
        size = 300 / cells
        marks = _join(
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{:.2f}" opacity="{:.2f}"/>').format(
                50 + i * size, 10 + 300 - (j + 1) * size, size, size, 0.12 + 0.88 * math.log1p(k) / most
            )
            for i, j, k in value["marks"]
        )
    else:
        marks = _join(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.4" opacity=".5"/>').format(
                50 + 300 * x, 310 - 300 * y
            )
            for x, y, _ in value["marks"]
        )
    low, high = value["low"], value["high"]
    words = []
    for tick in ticks(low, high, 4):
        at = 300 * (tick - low) / (high - low)
        text = _tick(tick)
        words.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="10" y2="310"/>'
                '<line class="grid" x1="50" x2="350" y1="{1:.1f}" y2="{1:.1f}"/>'
                '<text class="tick" x="{0:.1f}" y="326" text-anchor="middle">{2}</text>'
                '<text class="tick" x="44" y="{3:.1f}" text-anchor="end">{2}</text>'
            ).format(50 + at, 310 - at, text, 314 - at)
        )
    return Markup(
        '<svg class="cloud" viewBox="0 0 360 350" role="img" aria-label="Predicted against true {0}">{1}'
        '<g class="marks">{2}</g><line class="even" x1="50" y1="310" x2="350" y2="10"/>'
        '<text class="lab" x="350" y="345" text-anchor="end">true {0}</text>'
        '<text class="lab" x="56" y="24">predicted</text></svg>'
    ).format(value["name"], _join(words), marks)


def residuals(value: Mapping[str, Any]) -> Markup:
    """How the residuals (true minus predicted) spread."""
    bins, edge = value["residuals"], value["residual_edge"]
    most, width = max(bins), 330 / len(bins)
    bars = _join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            15 + k * width, 310 - 285 * bin / most, width - 1.5, 285 * bin / most
        )
        for k, bin in enumerate(bins)
    )
    words = _join(
        Markup('<text class="tick" x="{:.1f}" y="326" text-anchor="middle">{}</text>').format(
            180 + 165 * tick / edge, _tick(tick)
        )
        for tick in ticks(-edge, edge, 4)
    )
    return Markup(
        '<svg class="cloud" viewBox="0 0 360 350" role="img" aria-label="Residuals of {0}">'
        '<g class="marks">{1}</g><line class="axis" x1="15" x2="345" y1="310" y2="310"/>'
        '<line class="even" x1="180" x2="180" y1="10" y2="310"/>{2}'
        '<text class="lab" x="345" y="345" text-anchor="end">true minus predicted</text></svg>'
    ).format(value["name"], bars, words)


def _join(parts: Any) -> Markup:
    return Markup("").join(parts)
