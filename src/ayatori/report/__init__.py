"""Stage 9. Run folder -> facts (one dict) -> one page that opens offline. Nothing else needs this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayatori.report.augment import sheet_facts
from ayatori.report.card import card
from ayatori.report.facts import facts
from ayatori.report.look import environment, look_part, write_look

__all__ = ["facts", "render", "write_look", "write_report", "write_sheet"]

NO_MAP: dict[str, Any] = {"points": "", "sheet": None, "place": {}}


def write_report(run: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a finished run to ``path`` (RUN/report.html), and its facts to RUN/report.json.

    A model card is filled from the same facts: RUN/model_card.md.

    Raises AyatoriError with one sentence where ``run`` is not a finished run, or the disk refuses.
    """
    from ayatori.store import RunFolder  # late, as it needs torch and the facts do not

    found = facts(run)
    page = Path(run) / "report.html" if path is None else Path(path)
    RunFolder(Path(run)).write_json("report.json", found)
    part = look_part(run, found["look"]) if found["look"] else NO_MAP
    RunFolder(page.parent).write_text(page.name, render(found, part))
    RunFolder(Path(run)).write_text("model_card.md", card(found))
    return page


def write_sheet(path: str | Path, name: str, how: Any, varied: Any) -> Path:
    """A page of its own with what the augmentation ``how`` does: see ``explore.varied.vary_some``."""
    from ayatori.store import RunFolder

    sheet = sheet_facts(how, varied.names, varied.pictures, varied.warning, varied.what)
    page = environment().get_template("augment_page.html.j2").render(name=name, augmented=sheet)
    path = Path(path)
    RunFolder(path.parent).write_text(path.name, page)
    return path


def render(found: dict[str, Any], part: dict[str, Any] = NO_MAP) -> str:
    """The page that says ``found``, with the map of ``part`` where there is one; everything is escaped."""
    return environment().get_template("page.html.j2").render(**found, **part)
