"""Stage 9h. Parts of what was explored -> drawings (SVG): the ruler, the learning curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ayatori.report.figures import axis_line, ticks
from ayatori.report.words import PERCENT, count, number, percent, rounded

__all__ = ["figure", "learning", "ruler", "ruler_axis", "ruler_lines", "ruler_scale"]


def figure(metric: str, value: float, unit: bool = True) -> str:
    """A figure of the ruler.

    >>> figure("accuracy", 0.934, False), figure("r2", 0.5)
    ('93.4', '0.500')
    """
    if metric in PERCENT:
        return percent(value) if unit else rounded(value * 100, 1)
    return rounded(value, 3) if abs(value) < 10 else number(value)


def span(metric: str, values: Sequence[float]) -> str:
    """``93.4 – 95.0``."""
    return f"{figure(metric, values[0], False)} – {figure(metric, values[-1], False)}"


def ruler_lines(ruler: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What lies on the ruler, from the least to the most that can be hoped for.

    >>> lines = ruler_lines({"metric": "accuracy", "chance": 0.1, "probe": 0.8, "probe_name": "linear",
    ...     "expected": [0.85, 0.87, 0.9], "ceiling": None, "target": None, "reached": None})
    >>> [(line["name"], line["said"]) for line in lines]
    [('chance', '10.0'), ('best probe', '80.0'), ('a network, expected', '87.0')]
    """
    metric, lines = ruler["metric"], []

    def put(kind: str, name: str, small: str, low: float, value: float | None, high: float) -> None:
        text = span(metric, [low, high]) if value is None else figure(metric, value, False)
        more = span(metric, [low, high]) if value is not None and high > low else ""
        lines.append(
            {"kind": kind, "name": name, "small": small, "low": low, "value": value, "high": high}
            | {"said": text, "interval": more}
        )

    if ruler["chance"] is not None:
        put(
            "chance",
            "chance" if metric in PERCENT else "the mean alone",
            "",
            ruler["chance"],
            ruler["chance"],
            ruler["chance"],
        )
    if ruler["probe"] is not None:
        put(
            "probe",
            "best probe",
            ruler.get("probe_name") or "",
            ruler["probe"],
            ruler["probe"],
            ruler["probe"],
        )
    if ruler["expected"]:
        low, point, high = ruler["expected"]
        put("expected", "a network, expected", "", low, point, high)
    if ruler["ceiling"]:
        low, _, high = ruler["ceiling"]
        put("ceiling", "ceiling", "best possible here", low, None, high)
    if ruler["target"] is not None:
        put("target", "target", "", ruler["target"], ruler["target"], ruler["target"])
    reached = ruler["reached"]
    if reached:
        value = reached["value"]
        low, high = (reached.get(key) for key in ("low", "high"))
        put(
            "reached",
            "reached",
            (reached.get("name") or "").partition(",")[0],
            value if low is None else low,
            value,
            value if high is None else high,
        )
    return lines


def ruler_scale(ruler: Mapping[str, Any]) -> dict[str, Any]:
    """The axis: from nothing to all of it; below nothing for an R² that is worse than the mean."""
    lines = ruler_lines(ruler)
    low = min([0.0, *(max(line["low"], -1.0) for line in lines)])
    return {"low": low, "high": 1.0, "ticks": ticks(low, 1.0, 6)}


def _x(value: float, axis: Mapping[str, Any]) -> float:
    share = (value - axis["low"]) / (axis["high"] - axis["low"])
    return 2 + 96 * min(max(share, 0.0), 1.0)


def ruler(line: Mapping[str, Any], axis: Mapping[str, Any], target: float | None) -> Markup:
    """One line of the ruler on the grid of its axis; the target goes through all of them."""
    parts = [
        Markup('<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="-6" y2="34"/>').format(_x(tick, axis))
        for tick in axis["ticks"]
    ]
    if target is not None:
        parts.append(
            Markup('<line class="goal" x1="{0:.2f}%" x2="{0:.2f}%" y1="-6" y2="34"/>').format(
                _x(target, axis)
            )
        )
    low, high, kind = _x(line["low"], axis), _x(line["high"], axis), line["kind"]
    if high > low and kind in ("expected", "ceiling"):
        parts.append(
            Markup('<rect class="span {}" x="{:.2f}%" width="{:.2f}%" y="8" height="12" rx="3"/>').format(
                kind, low, high - low
            )
        )
    elif high > low:
        parts.append(
            Markup('<line class="ci {2}" x1="{0:.2f}%" x2="{1:.2f}%" y1="14" y2="14"/>').format(
                low, high, kind
            )
        )
    if line["value"] is not None:
        at = _x(line["value"], axis)
        if kind == "target":
            parts.append(
                Markup('<path class="flag" d="M-5 5h10l-5 7z" transform="translate(0 1)"/>').format()
            )
            parts[-1] = Markup('<svg x="{:.2f}%" overflow="visible">{}</svg>').format(at, parts[-1])
        elif kind == "expected":
            parts.append(
                Markup('<line class="point" x1="{0:.2f}%" x2="{0:.2f}%" y1="6" y2="22"/>').format(at)
            )
        else:
            parts.append(Markup('<circle class="dot {}" cx="{:.2f}%" cy="14" r="5"/>').format(kind, at))
    return Markup('<svg class="strip" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def ruler_axis(metric: str, axis: Mapping[str, Any]) -> Markup:
    """The numbers under the ruler."""
    return axis_line(metric, axis)


WIDTH, TOP, BOTTOM = 100.0, 12.0, 202.0


def learning(curve: Mapping[str, Any], metric: str) -> Markup:
    """Score by rows to learn from, with its band; dashed, the forecast; red, the rows that a target needs."""
    ahead = curve.get("forecast") or {"rows": [], "value": [], "low": [], "high": []}
    needed = curve.get("needed") or {}
    rows = [*curve["rows"], *ahead["rows"]]
    values = [
        v for part in (curve, ahead) for key in ("low", "value", "high") for v in part[key] if v is not None
    ]
    if needed.get("target") is not None:
        values.append(needed["target"])
    left, right = math.log(min(rows)), math.log(max([*rows, min(rows) * 1.01]))
    low, high = min(values), max(values)
    low, high = low - (high - low) * 0.06 - 1e-9, high + (high - low) * 0.06 + 1e-9

    def x(size: float) -> float:
        return 1 + 94 * min(max((math.log(max(size, 1)) - left) / (right - left), 0.0), 1.0)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    bands = [_band(part, x, y, kind) for part, kind in ((curve, "known"), (ahead, "ahead")) if part["rows"]]
    lines = [_line(part, x, y, kind) for part, kind in ((curve, "known"), (ahead, "ahead")) if part["rows"]]
    marks = [_grid(y(tick), figure(metric, tick, False)) for tick in ticks(low, high, 4)]
    marks += [
        Markup('<circle class="dot net" cx="{:.2f}%" cy="{:.1f}" r="4"/>').format(x(n), y(v))
        for n, v in zip(curve["rows"], curve["value"], strict=True)
        if v is not None
    ]
    marks += _needed(needed, x, y)
    marks += _sizes(rows, x)
    return Markup(
        '<svg class="learning" role="img" aria-label="{}">'
        '<svg viewBox="0 0 100 230" preserveAspectRatio="none" width="100%" height="230">{}</svg>{}'
        '<line class="axis" x1="0" x2="100%" y1="{}" y2="{}"/></svg>'
    ).format(
        _told(curve, metric),
        Markup("").join([*bands, *lines]),
        Markup("").join(marks),
        BOTTOM + 4,
        BOTTOM + 4,
    )


def _told(curve: Mapping[str, Any], metric: str) -> str:
    known = zip(curve["rows"], curve["value"], strict=True)
    return "Score by rows: " + ", ".join(
        f"{count(n)}: {figure(metric, v)}" for n, v in known if v is not None
    )


def _grid(y: float, text: str) -> Markup:
    return Markup(
        '<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>'
        '<text class="tick halo" x="100%" y="{1:.1f}" text-anchor="end">{2}</text>'
    ).format(y, y - 3, text)


def _known(part: Mapping[str, Any], *keys: str) -> list[tuple[float, ...]]:
    lines = zip(*(part[key] for key in ("rows", *keys)), strict=True)
    return [line for line in lines if None not in line]


def _band(part: Mapping[str, Any], x: Any, y: Any, kind: str) -> Markup:
    there = _known(part, "low", "high")
    upper = [f"{x(n):.2f},{y(high):.1f}" for n, _, high in there]
    lower = [f"{x(n):.2f},{y(low):.1f}" for n, low, _ in reversed(there)]
    return Markup('<polygon class="band {}" points="{}"/>').format(kind, " ".join(upper + lower))


def _line(part: Mapping[str, Any], x: Any, y: Any, kind: str) -> Markup:
    points = " ".join(f"{x(n):.2f},{y(v):.1f}" for n, v in _known(part, "value"))
    return Markup('<polyline class="gain {}" points="{}"/>').format(kind, points)


def _needed(needed: Mapping[str, Any], x: Any, y: Any) -> list[Markup]:
    """The target's height, and where the curve meets it."""
    if needed.get("target") is None:
        return []
    height = y(needed["target"])
    marks = [Markup('<line class="goal" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(height)]
    if needed.get("rows"):
        low, high = needed.get("low") or needed["rows"], needed.get("high") or needed["rows"]
        marks.append(
            Markup('<line class="ci reached" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
                x(low), x(high), height, height
            )
        )
        marks.append(
            Markup('<circle class="dot reached" cx="{:.2f}%" cy="{:.1f}" r="5"/>').format(
                x(needed["rows"]), height
            )
        )
    return marks


def _sizes(rows: Sequence[float], x: Any) -> list[Markup]:
    """Numbers of rows under the axis, none on top of another."""
    marks, last = [], -100.0
    for size in sorted(set(rows)):
        at = x(size)
        if at - last >= 11:
            anchor = "start" if at < 5 else "end" if at > 92 else "middle"
            marks.append(
                Markup('<text class="tick" x="{:.2f}%" y="222" text-anchor="{}">{}</text>').format(
                    at, anchor, count(size)
                )
            )
            last = at
    return marks
