"""Stage 9i. What an augmentation does: a line of pictures for each class, and a warning -> the sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from ayatori.report.rows import data_url
from ayatori.sheets import line_of_pictures


def augment_facts(run: Path, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page says of the augmentation: how, a strip of pictures for each row, what was compared."""
    compared = dict(result.get("augment") or {})
    if not (run / "augment.json").is_file():
        nothing = {"strips": [], "how": "", "warning": "", "what": "rows"}
        return nothing | {"compared": _compared(compared)} if compared else None
    facts = json.loads((run / "augment.json").read_text(encoding="utf-8"))
    pictures = load_file(run / "augment.safetensors")["image"]
    what = facts.get("what", "pictures")
    return sheet_facts(facts["how"], facts["names"], pictures, facts["warning"], what) | {
        "compared": _compared(compared)
    }


def sheet_facts(how: Any, names: Any, pictures: Any, warning: str, what: str = "pictures") -> dict[str, Any]:
    """The sheet alone: ``pictures`` (k, 9, c, h, w) uint8, a row and its variants, called ``names``.

    ``what`` the rows are: pictures, series or rows.
    """
    said = (
        how if isinstance(how, str) else ", ".join(f"{name} = {value}" for name, value in dict(how).items())
    )
    strips = [
        {"name": name, "picture": data_url(line_of_pictures(line), 0)}
        for name, line in zip(names, pictures, strict=True)
    ]
    return {"how": said, "strips": strips, "warning": warning, "what": what, "compared": None}


def _compared(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean loss on stop rows of each augmentation, in how many folds it beat the first, and was kept."""
    if not facts:
        return None
    first = facts["losses"][0]
    lines = [
        {
            "name": name,
            "loss": sum(losses) / len(losses),
            "better": sum(own < other for own, other in zip(losses, first, strict=True)),
            "kept": facts["chosen"].count(name),
        }
        for name, losses in zip(facts["names"], facts["losses"], strict=True)
    ]
    return {"folds": len(first), "lines": lines}
