"""How the guide is built: ``sphinx-build docs docs/_build``. Nothing is fetched, and nothing is written here.

Marks in the pages are filled in at build time, so that what they list cannot go stale:
``<!-- commands -->`` from ``ayatori ... --help``, ``<!-- recipes -->`` and ``<!-- changes -->`` from the
records that hold the settings.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rich.console import Console
from sphinx.application import Sphinx

import ayatori
from ayatori.augment.changes import PRESETS, Changes
from ayatori.cli import app as cli
from ayatori.recipe import Recipe

project = html_title = "Ayatori"
author = copyright = "The Ayatori authors"
version = release = ayatori.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "README.ja.md"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # kinds and shapes stand in the docstrings
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
smartquotes = False  # "" is a value here

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_show_sourcelink = False
html_copy_source = False

WIDE = 600  # columns of a terminal in which no line of --help is broken
PANEL = re.compile(r"^╭─ (.+?) ─+╮$")
LINE = re.compile(r"^│ (?:\* )? *(\S.*?)(?: {2,}(.*?))? *│$")
SETTING = re.compile(r"^    (\w+): .+? = (.+?)(?:  # (.*))?$")


def commands() -> str:
    """Every command, its arguments and its options."""
    return "\n".join(_command(name) for name in cli if not name.startswith("-"))


def _command(name: str) -> str:
    shown = io.StringIO()
    cli.help_print([name], console=Console(file=shown, width=WIDE))
    lines = [line.strip() for line in shown.getvalue().splitlines() if line.strip()]
    usage = lines[0].removeprefix("Usage: ")
    parts = [f"## ayatori {name}", _plain(lines[1]), f"```text\n{usage}\n```"]
    for line in lines[2:]:
        if (panel := PANEL.match(line)) and panel[1] not in ("Arguments", "Parameters"):
            parts.append(f"### {panel[1]}, `ayatori {name}`")
        elif entry := LINE.match(line):
            parts.append(f"`{entry[1]}`\n: {_plain(entry[2] or '')}")
    return "\n\n".join(parts) + "\n"


def recipes() -> str:
    """Every setting of a recipe, part by part."""
    kinds: dict[str, Any] = get_type_hints(Recipe)
    parts = [
        f"### {kind.__name__}: `[{name}]`\n\n{_about(kind)}\n"
        for name, kind in kinds.items()
        if hasattr(kind, "__dataclass_fields__")
    ]
    return "\n".join(parts)


def changes() -> str:
    """Every setting of an augmentation, and those of the presets."""
    names = ", ".join(f"`{name}`" for name in PRESETS)
    return f"{_about(Changes)}\n\nPresets: {names}.\n"


def _about(kind: Any) -> str:
    """The docstring of a record, and a table of its fields."""
    said = re.sub(r"`+", "`", inspect.getdoc(kind) or "")
    hints = get_type_hints(kind)
    choices = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
    lines = [
        f"| `{name}` | `{default}` | {_cell(what, choices.get(name, ()))} |"
        for name, default, what in _settings(kind)
    ]
    return "\n".join([said, "", "| setting | default | what it is |", "|---|---|---|", *lines])


def _settings(kind: type) -> Iterator[tuple[str, str, str]]:
    """(name, default, comment) of each field, as its source has them; a comment may stand above its field."""
    above = ""
    for line in inspect.getsource(kind).splitlines():
        if setting := SETTING.match(line):
            yield setting[1], setting[2], setting[3] or above
        above = line.strip().removeprefix("# ") if line.startswith("    # ") else ""


def _plain(text: str) -> str:
    """Text that means nothing to Markdown."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", text).replace("--", r"\-\-")


def _cell(what: str, choices: tuple[str, ...]) -> str:
    """What a setting is, and the values that it may have."""
    return "; ".join(part for part in (_plain(what), ", ".join(f"`{one}`" for one in choices)) if part) or "–"


MARKS = {"commands": commands, "recipes": recipes, "changes": changes}


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    for mark, text in MARKS.items():
        if f"<!-- {mark} -->" in source[0]:
            source[0] = source[0].replace(f"<!-- {mark} -->", text())


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill_in)
