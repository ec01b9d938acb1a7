"""Stage 9a. Figures and names as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = [
    "TITLES",
    "chance",
    "count",
    "day",
    "difference",
    "duration",
    "interval",
    "moment",
    "number",
    "percent",
    "plural",
    "said",
    "short",
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
PERCENT = frozenset({"accuracy", "balanced_accuracy", "exact_match"})


def count(value: float) -> str:
    """A whole number with thin spaces between thousands.

    >>> count(1797).replace(THIN, " ")
    '1 797'
    """
    return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)


def number(value: float, decimals: int | None = None) -> str:
    """Four digits that matter, or as many decimals as asked.

    >>> number(0.98512), number(-0.00001234), number(12.3456, 1)
    ('0.9851', '−1.234e-05', '12.3')
    >>> number(12345.6).replace(THIN, " ")
    '12 346'
    """
    if decimals is None:
        if value != 0 and not 1e-4 <= abs(value) < 1e9:
            return f"{value:.4g}".replace("-", MINUS, 1) if value < 0 else f"{value:.4g}"
        decimals = decimals_of(value)
    text = f"{value:,.{decimals}f}".replace(",", THIN)
    if text == "1.0000" and value < 1:
        return "> 0.9999"  # a figure that ends at 1 does not reach it by rounding
    return text.replace("-", MINUS)


def decimals_of(value: float) -> int:
    """How many decimals show four digits of ``value``, at most five.

    >>> decimals_of(281.4), decimals_of(0.0123), decimals_of(0.0)
    (1, 5, 2)
    """
    if value == 0:
        return 2
    return min(max(3 - math.floor(math.log10(abs(value))), 0), 5)


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
    return number(score["value"])


def interval(metric: str, score: Mapping[str, Any]) -> str:
    """``97.3 – 98.7``, with as many decimals as the figure has.

    >>> interval("accuracy", {"value": 0.981, "low": 0.973, "high": 0.987})
    '97.3 – 98.7'
    """
    low, high = score["low"], score["high"]
    if metric in PERCENT:
        steps = _steps(score)
        return f"{low * 100:.{steps}f} – {high * 100:.{steps}f}"
    steps = decimals_of(score["value"])
    return f"{number(low, steps)} – {number(high, steps)}"


def spread(metric: str, score: Mapping[str, Any]) -> str:
    """The standard deviation over folds, or nothing."""
    value = score.get("spread")
    if value is None:
        return ""
    if metric in PERCENT:
        return f"{value * 100:.{_steps(score)}f}"
    return number(value, decimals_of(score["value"]))


def _steps(score: Mapping[str, Any]) -> int:
    """Decimals of a percentage: two where the interval is too narrow for one."""
    return 2 if score["high"] - score["low"] < 0.004 else 1


def difference(paired: Mapping[str, Any], task: str) -> str:
    """A paired difference with its interval: in points for shares, in units for values."""
    factor, steps = (100, 1) if task != "regression" else (1, decimals_of(paired["difference"]))
    value, low, high = (paired[key] * factor for key in ("difference", "low", "high"))
    sign = "+" if value > 0 else ""
    return f"{sign}{number(value, steps)} ({number(low, steps)} – {number(high, steps)})"


def chance(p: float) -> str:
    """A p value.

    >>> chance(0.0004), chance(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(0.04), duration(41.2), duration(754), duration(9000)
    ('0.0 s', '41 s', '13 min', '2.5 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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


def where(split: str, rows: int, folds: bool) -> str:
    """What rows a figure is about, in a sentence's part.

    >>> where("out_of_fold", 20, True)
    '20 held-out rows, each judged by a network that never saw it'
    """
    if split == "test":
        return f"{plural(rows, 'row')} that {'was' if rows == 1 else 'were'} sealed until the end"
    seen = "each judged by a network that never saw it" if folds else "which the network never saw"
    return f"{plural(rows, 'held-out row')}, {seen}"


def short(text: str, most: int = 24) -> str:
    """At most ``most`` characters.

    >>> short("a long name of a class", 8)
    'a long …'
    """
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"
