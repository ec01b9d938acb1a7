"""A test that is worse than held-out rows by more than chance is told of."""

from __future__ import annotations

from typing import Any

import pytest

from ayatori.report.answer import falls_off


def entry(split: str, metric: str, low: float, high: float) -> dict[str, Any]:
    name = "mean of 5 folds" if split == "test" else "one network, 5 folds"
    return {
        "name": name,
        "split": split,
        "scores": {metric: {"value": (low + high) / 2, "low": low, "high": high, "n": 100}},
    }


@pytest.mark.parametrize(
    ("metric", "test", "held_out", "told"),
    [
        ("accuracy", (0.60, 0.70), (0.90, 0.95), "is right in"),
        ("accuracy", (0.85, 0.93), (0.90, 0.95), ""),
        ("accuracy", (0.97, 0.99), (0.90, 0.95), ""),
        ("mae", (5.0, 6.0), (2.0, 3.0), "is off by"),
        ("mae", (2.5, 6.0), (2.0, 3.0), ""),
        ("mae", (0.5, 1.0), (2.0, 3.0), ""),
        ("r2", (0.1, 0.2), (0.8, 0.9), "has an R² of"),
    ],
)
def test_what_is_worse_beyond_both_intervals_is_told(metric, test, held_out, told: str) -> None:
    task = "classification" if metric == "accuracy" else "regression"
    found = falls_off(task, metric, entry("test", metric, *test), entry("out_of_fold", metric, *held_out))
    assert (told in found) if told else (found == "")


def test_without_a_test_or_without_held_out_rows_nothing_is_told() -> None:
    low, high = entry("out_of_fold", "accuracy", 0.1, 0.2), entry("out_of_fold", "accuracy", 0.8, 0.9)
    assert falls_off("classification", "accuracy", low, high) == ""
    assert falls_off("classification", "accuracy", entry("test", "accuracy", 0.1, 0.2), None) == ""
    assert falls_off("classification", "accuracy", None, high) == ""
    assert falls_off("regression", "r2", entry("test", "r2", 0.1, 0.2), high) == ""
