"""Data whose names hold all that a page, a CSV or a terminal may take amiss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

EVIL = "<script>window.broken=1</script><img src=x onerror=window.broken=1>"
RTL = "\u202e\u05de\u05d9\u05de\u05d9\u05df \u0627\u0644\u0639\u0631\u0628"  # turned round, Hebrew, Arabic
NAMES = (
    EVIL,
    "'\"`=1+1,;|",
    RTL,
    "\U0001f408\u200d\u2b1b \u732b \u306d\u3053",
    "=cmd|' /C calc'!A0",
    "a\u001b[31mred",
)


def evil_table(folder: Path, n: int = 240) -> Path:
    """Names of classes, columns, words and ids with all that a page, a CSV or a terminal may take amiss."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, len(NAMES), n)
    columns = {
        f"{EVIL} one": rng.normal(size=n) + code,
        'x,"y"\n z': rng.normal(size=n) - code,
        RTL[1:]: rng.choice(["<b>", "&amp;", "\u202e", "\U0001f40d"], n),
        "id</td>": [f"{EVIL}{row}" for row in range(n)],
        "</title>": np.array(NAMES, dtype=object)[code],
    }
    path = folder / "na<me> 'of' \"data\".csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path
