"""Stage 9. Run folder -> facts (one dict) -> one page that opens offline. Nothing else needs this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ayatori.report import figures, words
from ayatori.report.facts import facts

__all__ = ["facts", "render", "write_report"]


def write_report(run: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a finished run to ``path`` (RUN/report.html), and its facts to RUN/report.json.

    Raises AyatoriError with one sentence where ``run`` is not a finished run, or the disk refuses.
    """
    from ayatori.store import RunFolder  # late, as it needs torch and the facts do not

    found = facts(run)
    page = Path(run) / "report.html" if path is None else Path(path)
    RunFolder(Path(run)).write_json("report.json", found)
    RunFolder(page.parent).write_text(page.name, render(found))
    return page


def render(found: dict[str, Any]) -> str:
    """The page that says ``found``; everything in it is escaped."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers = {name: getattr(words, name) for name in words.__all__}
    drawings = {name: getattr(figures, name) for name in figures.__all__}
    return pages.get_template("page.html.j2").render(**found, **helpers, draw=drawings)
