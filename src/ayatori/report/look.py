"""Stage 9f. What was found before training (explore.json, its table, its thumbnails) -> explore.html."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ayatori.records import AyatoriError
from ayatori.report import figures, look_figures, words
from ayatori.report.calibration import reliability
from ayatori.report.members import read_json
from ayatori.report.pack import atlas, cell_text, pack_table, packed
from ayatori.report.rows import files_of, sound_url

__all__ = ["environment", "look_facts", "look_part", "script_hash", "write_look"]

HERE = Path(__file__).parent
TABLES, MAP = ("tables.js",), ("map.js", "picked.js", "look.js")
SHOWN = 48  # of a gallery
PLAYED = 12  # of a gallery of recordings, which have players
PAIRS = 12  # of the most confused classes
SPLIT_WORDS = {True: "sealed", False: "to learn from"}


def write_look(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of what ``ayatori explore`` found to ``path`` (``folder``/explore.html).

    Raises AyatoriError with one sentence where ``folder`` holds no explore.json, or the disk refuses.
    """
    from ayatori.store import RunFolder  # late, as it needs torch and the facts do not

    folder = Path(folder)
    found = look_facts(folder)
    if found is None:
        raise AyatoriError(
            f"'{folder}' must hold an explore.json, however it has none; "
            f"make it by: ayatori explore DATA --out {folder}"
        )
    page = folder / "explore.html" if path is None else Path(path)
    text = environment().get_template("look.html.j2").render(look=found, **look_part(folder, found))
    RunFolder(page.parent).write_text(page.name, text)
    return page


def environment() -> Environment:
    """Where the pages' templates are, and the words and drawings they all use; everything is escaped."""
    pages = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals.update({name: getattr(words, name) for name in words.__all__})
    drawings = {name: getattr(figures, name) for name in figures.__all__}
    drawings |= {name: getattr(look_figures, name) for name in look_figures.__all__}
    pages.globals["draw"] = {**drawings, "reliability": reliability}
    pages.globals["script"] = script
    pages.globals["script_hash"] = script_hash
    return pages


@cache
def script(with_map: bool) -> str:
    """The scripts of a page, those of the map among them, as one text; it ends no <script> itself."""
    names = TABLES + (MAP if with_map else ())
    text = "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)
    return '"use strict";\n(() => {\n' + text + "\n})();\n"


def script_hash(with_map: bool) -> str:
    """What the page's policy lets run: this script and nothing else."""
    return base64.b64encode(hashlib.sha256(script(with_map).encode()).digest()).decode()


def look_facts(folder: str | Path, reached: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """All that the page says but for the map itself, as plain JSON values; None where nothing was explored.

    ``reached``: value, low, high (and name) of what a run reached, put beside the prediction.
    """
    folder = Path(folder)
    if not (folder / "explore.json").is_file():
        return None
    facts = read_json(folder / "explore.json")
    table = _table(folder)
    thumbs = _thumbs(folder)
    ruler = {**_RULER, **(facts.get("ruler") or {})}
    ruler["reached"] = reached or ruler["reached"]
    audit = facts.get("audit") or {}
    return {
        "name": facts.get("name") or "data",
        "time": datetime.fromtimestamp((folder / "explore.json").stat().st_mtime, UTC).isoformat(
            "T", "seconds"
        ),
        "task": facts.get("task", "classification"),
        "summary": _summary(facts),
        "verdict": _verdict(facts.get("verdict") or {}),
        "ruler": ruler,
        "beside": beside(ruler),
        "maps": [*(facts.get("maps") or []), *_learned(folder)],
        "drawn": len(table),
        "rows": facts.get("rows", len(table)),
        "sealed": facts.get("sealed", 0),
        "pictures": bool(thumbs),
        "pairs": (facts.get("pairs") or [])[:PAIRS],
        "confusion": facts.get("confusion"),
        "looks_like": ((facts.get("audit") or {}).get("noise") or {}).get("most") or [],
        "classes": facts.get("classes") or [],
        "galleries": _with_sounds(
            _galleries(audit, table, set() if thumbs is None else set(thumbs["rows"].tolist())), facts
        ),
        "words": (audit.get("words") or {}).get("classes") or [],
        "curve": facts.get("curve"),
        "audit": _audit(audit),
        "representations": [{**_WAY, **way} for way in facts.get("representations") or []],
        "notes": facts.get("notes") or [],
        "probes": facts.get("probes") or [],
        "structure": facts.get("structure"),
        "noise": (facts.get("noise") or {}).get("share"),
        "seconds": facts.get("seconds") or {},
        "versions": facts.get("versions") or {},
        "seed": facts.get("seed"),
        "source": facts.get("source") or "",
    }


_RULER: dict[str, Any] = dict.fromkeys(
    ("chance", "probe", "expected", "ceiling", "cover_hart", "target", "reached")
) | {"metric": "accuracy", "probe_name": ""}


_WAY = dict.fromkeys(("name", "columns", "agreement", "neighbours", "note", "used"))


def _verdict(given: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict with its headline.

    >>> _verdict({"word": "feasible", "sentence": "Expect 93 %."})["headline"]
    'Feasible: expect 93 %.'
    >>> _verdict({"word": "too few rows", "sentence": "20 rows are too few."})["headline"]
    '20 rows are too few.'
    """
    word, sentence = given.get("word") or "", given.get("sentence") or ""
    said = word.partition(" rows")[0].lower() in sentence.lower()
    headline = sentence if said else f"{word.capitalize()}: {sentence[:1].lower()}{sentence[1:]}"
    rest = {"grade": "", "reasons": [], "next": ""} | {key: value for key, value in given.items() if value}
    return {**rest, "word": word, "sentence": sentence, "headline": headline}


def look_part(folder: str | Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the part of the page needs beside ``found``: the map's data, the sheet of thumbnails."""
    folder = Path(folder)
    table, thumbs = _table(folder), _thumbs(folder)
    sheet = None if thumbs is None else atlas(thumbs["rows"], thumbs["pixels"])
    if not len(table):
        return {"points": "", "sheet": sheet, "place": _places(sheet)}
    header, arrays = pack_table(table, found["classes"])
    if not header["fit"]:
        return {"points": "", "sheet": sheet, "place": _places(sheet)}
    header["maps"] = _beliefs(found)
    header["titles"] = {m["name"]: m["title"] for m in found["maps"]} | {"learned": "after training"}
    header["name"] = found["name"]
    lists = found["galleries"]
    header["likely"] = {line["row"]: str(line["likely"]) for line in lists["suspects"]["rows"]}
    if sheet:
        header["sheet"] = {key: sheet[key] for key in ("across", "down", "side")}
        arrays["thumb"] = np.asarray(sheet["rows"], np.uint32)
    return {"points": packed(header, arrays), "sheet": sheet, "place": _places(sheet)}


def _places(sheet: Mapping[str, Any] | None) -> dict[int, str]:
    """Row -> CSS of its thumbnail's place in the sheet."""
    if not sheet:
        return {}
    across, down = sheet["across"], sheet["down"]
    return {
        row: f"{100 * (at % across) / (across - 1):.3f}% {100 * (at // across) / (down - 1):.3f}%"
        for at, row in enumerate(sheet["rows"])
    }


def _table(folder: Path) -> pd.DataFrame:
    """The drawn rows, with their places after training where a run has them; none where there is no table."""
    path, learned = folder / "explore.parquet", folder / "learned.parquet"
    if not path.is_file():
        return pd.DataFrame({"row": [], "id": [], "split": []})
    table = pd.read_parquet(path)
    return table.merge(pd.read_parquet(learned), on="row", how="left") if learned.is_file() else table


def _learned(folder: Path) -> list[dict[str, Any]]:
    """What is said of the map of the last hidden layer, where a run has drawn one."""
    path = folder / "learned.json"
    facts = read_json(path) if path.is_file() else {}
    return [facts] if "name" in facts else []


def _thumbs(folder: Path) -> dict[str, np.ndarray] | None:
    path = folder / "explore_pictures.safetensors"
    if not path.is_file():
        return None
    try:
        kept = load_file(path)
    except SafetensorError as error:
        raise AyatoriError(f"'{path}' must be a safetensors file, however: {error}") from None
    return kept if len(kept["rows"]) else None


def _summary(facts: Mapping[str, Any]) -> list[str]:
    parts = [words.plural(facts.get("rows", 0), "row")]
    if facts.get("sealed"):
        parts.append(f"{words.count(facts['sealed'])} of them sealed, their labels not read")
    if facts.get("classes"):
        parts.append(words.plural(len(facts["classes"]), "class", "classes"))
    if (facts.get("seconds") or {}).get("total"):
        parts.append(words.duration(facts["seconds"]["total"]))
    return parts


def beside(ruler: Mapping[str, Any]) -> str:
    """The prediction beside what was reached, or nothing.

    >>> beside({"metric": "r2", "expected": [0.91, 0.93, 0.95],
    ...         "reached": {"value": 0.934, "low": 0.93, "high": 0.94}})
    'Predicted 0.910 to 0.950, reached 0.934 (0.930 to 0.940): as predicted.'
    """
    expected, reached = ruler["expected"], ruler["reached"]
    if not expected or not reached:
        return ""
    low, high, value = expected[0], expected[-1], reached["value"]
    outcome = (
        "as predicted"
        if low <= value <= high
        else "better than predicted"
        if value > high
        else "less than predicted"
    )
    said = look_figures.figure
    metric = ruler["metric"]
    interval = f" ({said(metric, reached['low'], False)} to {said(metric, reached['high'], False)})"
    return (
        f"Predicted {said(metric, low, False)} to {said(metric, high)}, "
        f"reached {said(metric, value)}{interval if reached.get('low') is not None else ''}: {outcome}."
    )


def _beliefs(found: Mapping[str, Any]) -> dict[str, str]:
    """Map and its dimensions ("umap3") -> how far to believe it."""
    said = {f"{one['name']}{one['dimensions']}": _belief(one, found) for one in found["maps"]}
    for one in found["maps"]:  # measured once, as the flat one is a part of the other
        if one["name"] == "pca" and one["dimensions"] == 3 and "pca2" not in said:
            said["pca2"] = (
                f"{one['title']} of {one['of']}, {_drawn(one['rows'], found['rows'])}: "
                "the first two of three axes. How far to believe all three is said with 3-D."
            )
    return said


def _belief(one: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How far a map can be believed, in words."""
    share = words.percent
    parts = [f"{one['title']} of {one['of']}, {_drawn(one['rows'], found['rows'])}."]
    if one["name"] == "learned":
        parts.append("Rows keep their colour, and what is picked stays picked: so compare before and after.")
    near, full = one.get("agreement"), one.get("agreement_full")
    if near is not None and full is not None and found["task"] == "classification":
        parts.append(
            f"Of the nearest rows on this map, {share(near, 0)} share a row's class; "
            f"in the full space {share(full, 0)}."
        )
    elif near is not None and full is not None:
        parts.append(f"Neighbours agree in value to {near:.2f} on this map, to {full:.2f} in the full space.")
    trust, kept = one.get("trustworthiness"), one.get("continuity")
    if trust is not None and kept is not None:
        parts.append(
            f"Trustworthiness {trust:.2f} (what looks near is near), "
            f"continuity {kept:.2f} (what is near looks near); 1 is best."
        )
    if one["name"] != "pca":
        parts.append("How far apart clumps lie says nothing.")
    return " ".join(parts)


def _drawn(rows: int, of: int) -> str:
    if rows >= of:
        return f"all {words.plural(rows, 'row')} drawn"
    return f"{words.count(rows)} of {words.plural(of, 'row')} drawn"


def _audit(audit: Mapping[str, Any]) -> dict[str, Any]:
    sentences = list(audit.get("sentences") or [])
    for key in ("classes", "shift"):
        sentence = (audit.get(key) or {}).get("sentence")
        if sentence and sentence not in sentences:
            sentences.append(sentence)
    return {
        "sentences": [f"{sentence[:1].upper()}{sentence[1:]}" for sentence in sentences],
        "columns": audit.get("columns") or [],
        "step": audit.get("step") or "",
        "careful": audit.get("careful") or "",
        "counts": audit.get("counts") or {},
    }


def _galleries(audit: Mapping[str, Any], table: pd.DataFrame, pictured: set[int]) -> dict[str, Any]:
    """The worst of each list, with id, split, and picture or values of each row that is drawn."""
    lists = {
        "suspects": audit.get("suspects") or [],
        "leaks": [line for line in audit.get("duplicates") or [] if line.get("across")],
        "twins": [line for line in audit.get("duplicates") or [] if not line.get("across")],
        "outliers": audit.get("outliers") or [],
    }
    show = _shower(table, pictured, lists)
    counts = audit.get("counts") or {}
    totals = {
        "suspects": counts.get("suspects"),
        "leaks": counts.get("leaks"),
        "twins": None,
        "outliers": counts.get("outliers"),
    }
    found = {}
    drawn = set(table["row"].tolist())
    for name, lines in lists.items():
        keys = ("a", "b") if name in ("leaks", "twins") else ("row",)
        every = dict.fromkeys(int(line[key]) for line in lines for key in keys)
        rows = [{**line, "shown": [show(line[key]) for key in keys]} for line in lines[:SHOWN]]
        cells = any(one["cells"] for line in rows for one in line["shown"])
        found[name] = {
            "rows": rows,
            "all": [row for row in every if row in drawn],
            "total": max(totals[name] or 0, len(lines)),
            "pictures": any(one["picture"] for line in rows for one in line["shown"]),
            "columns": [str(c)[3:] for c in table if str(c).startswith("in_")] if cells else [],
        }
    return found


def _with_sounds(galleries: dict[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The first rows of each list with what was heard of them, where they are recordings."""
    if seconds := facts.get("sound_seconds"):
        for line in (line for gallery in galleries.values() for line in gallery["rows"][:PLAYED]):
            paths = files_of(facts["source"], [one["id"] for one in line["shown"]])
            for one, path in zip(line["shown"], paths, strict=True):
                one["sound"] = sound_url(path, seconds) if path else ""
    return galleries


def _shower(table: pd.DataFrame, pictured: set[int], lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Row number -> what is shown of it."""
    wanted = {
        line[key]
        for lines in lists.values()
        for line in lines[:SHOWN]
        for key in ("row", "a", "b")
        if key in line
    }
    some = table[table["row"].isin(wanted)]
    cells = [name for name in table if str(name).startswith("in_")]

    known = {
        int(line["row"]): {
            "id": str(line["id"]),
            "split": line["split"],
            "sound": "",
            "cells": [cell_text(line[name]) for name in cells],
        }
        for line in some.to_dict("records")
    }

    def show(row: int) -> dict[str, Any]:
        nothing = {"id": str(row), "split": "", "cells": [], "sound": ""}
        return {"row": row, "picture": row in pictured, "drawn": row in known, **known.get(row, nothing)}

    return show
