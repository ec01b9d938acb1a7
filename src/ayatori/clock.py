"""Seconds of each step of a run or a look."""

from __future__ import annotations

import time


class Clock:
    """``lap(step)`` writes the seconds since the last one into ``laps``; "total": since the start."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.laps[step] = now - self._last
        self.laps["total"] = now - self._start
        self._last = now
