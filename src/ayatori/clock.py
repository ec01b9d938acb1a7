"""What a run or a look costs: seconds of each step, memory, and energy where the machine tells."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

RAPL = Path(
    "/sys/class/powercap"
)  # Linux: joules of each processor since it was started, where one may read them


class Clock:
    """``lap(step)`` writes the seconds since the last one into ``laps``; "total": since the start."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._counters = _counters()
        self.laps: dict[str, float] = {}

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.laps[step] = now - self._last
        self.laps["total"] = now - self._start
        self._last = now

    def cost(self) -> dict[str, Any]:
        """``memory``: bytes that this process, and the largest that it began, have held at most.

        ``energy``: joules of all processors of the machine since the start, with whatever else ran on them;
        None where it cannot be read.
        """
        spent = [_since(before, after) for before, after in zip(self._counters, _counters(), strict=False)]
        return {"memory": peak_memory(), "energy": sum(spent) if spent else None}


def peak_memory() -> int | None:
    """Bytes that this process and the largest of those it began held at most; None where nobody counts."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    used = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(sum(used)) * unit


def _counters() -> list[tuple[int, int]]:
    """Microjoules of each processor, and where its counter begins anew."""
    found = []
    for folder in sorted(RAPL.glob("intel-rapl:[0-9]")):
        try:
            read = [int((folder / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")]
        except (OSError, ValueError):  # most machines let nobody but root read them
            return []
        found.append((read[0], read[1]))
    return found


def _since(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Joules between two readings of a counter that begins anew.

    >>> _since((900, 1000), (300, 1000)), _since((100, 1000), (300, 1000))
    (0.0004, 0.0002)
    """
    spent = after[0] - before[0]
    return (spent if spent >= 0 else spent + after[1]) / 1e6
