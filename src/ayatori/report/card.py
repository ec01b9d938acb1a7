"""Stage 9k. Facts of a run -> a model card in Markdown, after Mitchell et al. (FAT* 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ayatori.report.look import environment

LISTED = 20  # classes that are named
PAIRS = 3  # confusions that are warned of


def card(found: Mapping[str, Any]) -> str:
    """The model card of ``found`` (see ``facts``); names from the data are text in it, and nothing else."""
    mistakes, look = found["mistakes"] or {}, found["look"] or {}
    classes = [name for name, _ in found["data"]["classes"] or ()]
    columns = [line["scores"] for line in found["scores"]["lines"] if line["metric"] == "ece"]
    own = {
        **found,
        "classes": classes[:LISTED],
        "more": max(len(classes) - LISTED, 0) + (found["data"]["hidden"] or 0),
        "per_class": (mistakes.get("per_class") or [])[:LISTED],
        "pairs": (mistakes.get("pairs") or [])[:PAIRS],
        "audit": (look.get("audit") or {}).get("sentences") or [],
        "calibration": next((score for score in columns[0] if score), None) if columns else None,
    }
    pages = environment().overlay(autoescape=False, finalize=_plain)
    pages.filters["plural"] = pages.globals["plural"]
    return re.sub(r"\n{3,}", "\n\n", pages.get_template("card.md.j2").render(**own)).strip() + "\n"


def _plain(value: Any) -> Any:
    """What a template prints, with nothing in it that Markdown or HTML would take for more than text.

    >>> _plain("<b>a|b</b>")
    '&lt;b&gt;a\\\\|b&lt;/b&gt;'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", " ".join(text.split()) if "\n" in text else text)
