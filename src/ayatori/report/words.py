"""Stage 9a. Figures and names as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = [
    "TITLES",
    "apart",
    "chance",
    "count",
    "day",
    "duration",
    "energy",
    "fold",
    "gap",
    "interval",
    "moment",
    "number",
    "percent",
    "plural",
    "rounded",
    "said",
    "short",
    "signed",
    "size",
    "spread",
    "title",
    "where",
]

THIN = "\u202f"  # narrow no-break space: parts thousands, stands before %
MINUS = "\u2212"
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "exact_match": "all labels right",
    "log_loss": "log loss",
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "calibration error",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
}
UNITS = frozenset({"rmse", "mae"})  # in units of the target
PERCENT = frozenset({"accuracy", "balanced_accuracy", "exact_match"})


def count(value: float) -> str:
    """A whole number with thin spaces between thousands.

    >>> count(1797).replace(THIN, " ")
    '1 797'
    """
    return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)


def number(value: float, like: float | None = None) -> str:
    """Four digits that matter, or as many decimals as ``like`` has then.

    >>> number(0.98512), number(-0.00001234), number(1.23456, like=281.3)
    ('0.9851', '−1.234e-05', '1.2')
    >>> number(12345.6).replace(THIN, " ")
    '12 346'
    """
    like = value if like is None else like
    if like != 0 and not 1e-4 <= abs(like) < 1e9:
        text = f"{value:.4g}"
        return text.replace("-", MINUS, 1) if value < 0 else text
    return rounded(value, decimals_of(like))


def rounded(value: float, decimals: int) -> str:
    """A number with so many decimals.

    >>> rounded(-1.26, 1)
    '−1.3'
    """
    return f"{value:,.{decimals}f}".replace(",", THIN).replace("-", MINUS)


def decimals_of(value: float) -> int:
    """How many decimals show four digits of ``value``; no more than four from 0.01 on.

    >>> decimals_of(281.4), decimals_of(0.0123), decimals_of(0.00123), decimals_of(0.0)
    (1, 4, 6, 2)
    """
    if value == 0:
        return 2
    decimals = max(3 - math.floor(math.log10(abs(value))), 0)
    return min(decimals, 4) if abs(value) >= 0.01 else decimals


def percent(value: float, decimals: int = 1) -> str:
    """A share in percent.

    >>> percent(0.98512).replace(THIN, " ")
    '98.5 %'
    """
    return f"{value * 100:.{decimals}f}{THIN}%".replace("-", MINUS)


def said(metric: str, score: Mapping[str, Any]) -> str:
    """The value of a figure."""
    if metric in PERCENT:
        return percent(score["value"], _steps(score))
    text = number(score["value"], _like(metric, score))
    # a figure that ends at 1 does not reach it by rounding
    return "> 0.9999" if text == "1.0000" and score["value"] < 1 else text


def interval(metric: str, score: Mapping[str, Any]) -> str:
    """``97.3 – 98.7``, with as many decimals as the figure has.

    >>> interval("accuracy", {"value": 0.981, "low": 0.973, "high": 0.987})
    '97.3 – 98.7'
    """
    low, high = score["low"], score["high"]
    if metric in PERCENT:
        steps = _steps(score)
        return f"{rounded(low * 100, steps)} – {rounded(high * 100, steps)}"
    like = _like(metric, score)
    return f"{number(low, like)} – {number(high, like)}"


def spread(metric: str, score: Mapping[str, Any]) -> str:
    """The standard deviation over folds, or nothing."""
    value = score.get("spread")
    if value is None:
        return ""
    if metric in PERCENT:
        return f"{value * 100:.{_steps(score)}f}"
    return number(value, _like(metric, score))


def _steps(score: Mapping[str, Any]) -> int:
    """Decimals of a percentage: two where the interval is too narrow for one."""
    return 2 if score["high"] - score["low"] < 0.004 else 1


def _like(metric: str, score: Mapping[str, Any]) -> float:
    """What the digits of a figure go by: its value, where it has units or is above 1."""
    value = float(score["value"])
    return value if metric in UNITS or abs(value) > 1 else 0.5


def gap(paired: Mapping[str, Any], task: str, like: float) -> tuple[str, str]:
    """A paired difference, and its interval: points for shares, units with as many decimals as ``like``.

    >>> gap({"difference": 0.012, "low": -0.004, "high": 0.028}, "classification", 1)
    ('+1.2', '−0.4 – 2.8')
    """
    keys = ("difference", "low", "high")
    if task == "regression":
        value, low, high = (number(paired[key], like) for key in keys)
    else:
        value, low, high = (rounded(paired[key] * 100, 1) for key in keys)
    return f"{'+' if paired['difference'] > 0 else ''}{value}", f"{low} – {high}"


def chance(p: float) -> str:
    """A p value.

    >>> chance(0.0004), chance(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def signed(value: float) -> str:
    """A small difference of losses.

    >>> signed(0.01234), signed(-0.002)
    ('+0.0123', '−0.0020')
    """
    return f"{'+' if value > 0 else ''}{number(value, 0.5)}"


def fold(times: float) -> str:
    """How many times as much.

    >>> fold(2.44), fold(5.0), fold(27.6)
    ('2.4', '5', '28')
    """
    return rounded(times, 1 if times < 9.5 else 0).removesuffix(".0")


def apart(value: float | None, task: str, unit: bool = True) -> str:
    """How far two voices are apart: a percentage of rows or labels, or in standard deviations.

    >>> apart(0.0213, "classification", unit=False), apart(0.3, "regression")
    ('2.1', '0.30')
    """
    if value is None:
        return "–"
    if task == "regression":
        return rounded(value, 2)
    return percent(value) if unit else rounded(value * 100, 1)


def duration(seconds: float) -> str:
    """Milliseconds, seconds, minutes or hours.

    >>> duration(0.04), duration(41.2), duration(754), duration(9000)
    ('40 ms', '41 s', '13 min', '2.5 h')
    """
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(amount: float) -> str:
    """Bytes as they are read.

    >>> size(512), size(1_300_000_000)
    ('1 kB', '1.3 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if amount >= unit:
            return f"{amount / unit:.1f} {name}"
    return f"{max(amount / 1e3, 1):.0f} kB"


def energy(joules: float) -> str:
    """Watt-hours, or joules where they are few.

    >>> energy(400), energy(7200)
    ('400 J', '2.0 Wh')
    """
    return f"{joules:.0f} J" if joules < 1800 else f"{joules / 3600:.1f} Wh"


def plural(size: int, one: str, many: str = "") -> str:
    """``1 row``, ``2 rows``.

    >>> plural(1, "class", "classes"), plural(2, "class", "classes")
    ('1 class', '2 classes')
    """
    return f"{count(size)} {one if size == 1 else many or one + 's'}"


def day(time: str) -> str:
    """A time in ISO format as a day.

    >>> day("2026-11-23T18:02:21+00:00")
    '23 Nov 2026'
    """
    moment = datetime.fromisoformat(time)
    return f"{moment.day} {moment:%b %Y}"


def moment(time: str) -> str:
    """A time in ISO format as a day and a minute.

    >>> moment("2026-11-23T18:02:21+00:00")
    '23 Nov 2026 at 18:02 UTC'
    """
    return f"{day(time)} at {datetime.fromisoformat(time):%H:%M} UTC"


def title(split: str, folds: bool) -> str:
    """What rows a figure is about, in two words."""
    return "sealed test" if split == "test" else "held-out folds" if folds else "held-out rows"


def where(split: str, rows: int, folds: bool, several: bool = False) -> str:
    """What rows a figure is about, in a sentence's part; ``several``: more than one network answers a row.

    >>> where("out_of_fold", 20, True)
    '20 held-out rows, each judged by a network that never saw it'
    """
    if split == "test":
        return f"{plural(rows, 'row')} that {'was' if rows == 1 else 'were'} sealed until the end"
    if not folds:
        return f"{plural(rows, 'held-out row')}, which the network{'s' if several else ''} never saw"
    who = "networks" if several else "a network"
    return f"{plural(rows, 'held-out row')}, each judged by {who} that never saw it"


def short(text: str, most: int = 24) -> str:
    """At most ``most`` characters.

    >>> short("a long name of a class", 8)
    'a long …'
    """
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"
