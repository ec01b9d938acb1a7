"""Stage 9. Run folder -> facts: one dict of plain JSON values, all that the page says. No torch."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ayatori.evaluate.baselines import NAMES
from ayatori.evaluate.metrics import LOWER, MAIN, METHODS
from ayatori.records import AyatoriError
from ayatori.report.answer import FALLEN, answer, falls_off, halves, main_figure, next_step
from ayatori.report.augment import augment_facts
from ayatori.report.balance import balance_facts
from ayatori.report.ensembles import ensemble_facts
from ayatori.report.lines import (
    chosen_line,
    held_out_line,
    line_of,
    own_network,
    rows_scored,
    several,
)
from ayatori.report.look import look_facts
from ayatori.report.members import curves, plan_strips, read_json, read_members
from ayatori.report.mistakes import mistakes
from ayatori.report.words import TITLES, count, duration, plural, title, where

CLASSES = 30  # whose counts are drawn; of more, the most and the least frequent
ENDS = 10
STAGES = {
    "read": "reading the data",
    "plan": "copies, groups and the Plan",
    "settle": "settling all settings",
    "embed": "the pretrained network, once",
    "explore": "the look before training",
    "advise": "is the source close enough",
    "augment": "comparing augmentations",
    "train": "training",
    "predict": "predicting",
    "rivals": "the simple rivals",
    "score": "scores and intervals",
    "explain": "what was learned",
}
SHOWN = {
    "classification": ("accuracy", "log_loss", "roc_auc"),
    "multilabel": ("accuracy", "exact_match", "macro_f1", "log_loss"),
    "regression": ("mae", "rmse", "r2"),
}


def facts(run: str | Path) -> dict[str, Any]:
    """Everything that the page of a finished run says.

    Raises AyatoriError where ``run`` is no run folder, or is not finished.
    """
    run = Path(run)
    if not (run / "result.json").is_file():
        what = "a run folder" if not (run / "recipe.toml").is_file() else "a finished run"
        hint = "" if what == "a run folder" else f"; go on with it by: ayatori resume {shlex.quote(str(run))}"
        raise AyatoriError(f"'{run}' must be {what}, however it has no result.json{hint}")
    result, data = read_json(run / "result.json"), read_json(run / "data.json")
    recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    members = read_members(run)
    entries = result["leaderboard"]
    scored = chosen_line(entries, result["chosen"])
    held_out = held_out_line(entries, result["chosen"])
    rivals, floor = _rivals(entries, scored, result["task"])
    earlier, _ = _rivals(entries, held_out, result["task"])
    folds = sum(member["kind"] == "fold" for member in members) > 1
    look = look_facts(run, _reached(result["task"], own_network(entries)))
    source = _source(data, recipe, result)
    learns = "" if source is None else "whole" if source["finetune"] == "whole" else "frozen"
    found = (look or {}).get("audit", {})
    grouped = bool(recipe["data"]["groups"])
    beside, known = _beside(run, data, result), data.get("known_rows", 0)
    metric = main_figure(result["task"], scored)
    fallen = falls_off(result["task"], metric, scored, held_out)
    careful = "; and ".join(filter(None, (fallen, found.get("careful"))))
    said = answer(result, scored, rivals, floor, earlier, folds, learns, grouped, careful, beside, known)
    said["next"] = next_step(
        said["level"],
        rivals,
        metric,
        recipe.get("preset", ""),
        (look or {}).get("verdict", {}).get("next", ""),
        "stacking" in recipe.get("ensemble", {}).get("kinds", ()),
        found.get("step") or (FALLEN if fallen else ""),
    )
    return {
        "name": Path(data["source"]).stem or data["kind"],
        "time": _time(run, result),
        "task": result["task"],
        "summary": _summary(result, data, recipe, members),
        "source": source,
        "look": look,
        "answer": said,
        "delivered": result.get("delivered") or result["chosen"],
        "leaderboard": _leaderboard(entries, result, metric, folds, held_out),
        "plan": plan_strips(run / "plan.parquet"),
        "curves": curves(run, members),
        "ensembles": ensemble_facts(run, result, recipe, members),
        "augmented": augment_facts(run, result),
        "balanced": balance_facts(run, result, recipe),
        "titles": TITLES,
        "scores": _scores(held_out, scored, folds),
        "mistakes": mistakes(run, result, data, held_out or scored, folds),
        "data": _data(data, result),
        "cost": _cost(result, members),
        "again": _again(run, result, data, recipe),
    }


def _source(
    data: Mapping[str, Any], recipe: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The pretrained network that the run stands on, and what was said of it before training."""
    source = data["schema"].get("source")
    if not source:
        return None
    advice = result.get("advice") or {}
    probes = [
        {**probe, "with": probe["kind"] in ("last", "earlier", "whole")} for probe in advice.get("probes", ())
    ]
    return {
        "name": Path(recipe["pretrained"]["name"]).name,
        "kind": source["facts"]["kind"],
        "digest": source["facts"]["digest"],
        "finetune": "whole" if recipe["net"]["name"] == "cnn" else recipe["pretrained"]["finetune"],
        "advice": advice.get("sentence", ""),
        "rows": advice.get("rows", 0),
        "metric": advice.get("metric", ""),
        "probes": sorted(probes, key=lambda probe: probe["loss"]),
    }


def _reached(task: str, held_out: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What one network came to on rows that it never saw: what was predicted before training."""
    score = (held_out or {}).get("scores", {}).get("r2" if task == "regression" else "accuracy")
    if not held_out or not score:
        return None
    return {key: score[key] for key in ("value", "low", "high")} | {"name": held_out["name"]}


def _time(run: Path, result: Mapping[str, Any]) -> str:
    openings = result.get("openings") or []
    if openings:
        return str(openings[-1]["time"])
    return datetime.fromtimestamp((run / "result.json").stat().st_mtime, UTC).isoformat(timespec="seconds")


def _beside(run: Path, data: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What files and the columns beside them tell apart, in a sentence; "" where no columns stand beside."""
    path = run / "learned.json"
    apart = read_json(path).get("apart", {}) if path.is_file() else {}
    return halves(result["task"], data["kind"], apart)


def _rivals(
    entries: Sequence[Mapping[str, Any]], scored: Mapping[str, Any] | None, task: str
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any] | None]:
    """The rivals on the rows of ``scored``: those that look at the inputs, and the one that does not."""
    same = [e for e in entries if scored and not e["network"] and e["split"] == scored["split"]]
    blind = [e for e in same if is_blind(e["name"], task)]
    return [e for e in same if e not in blind], blind[0] if blind else None


def is_blind(name: str, task: str) -> bool:
    """Whether this is the rival that looks at no input (majority class, mean)."""
    return name.startswith(f"{dict(NAMES['majority'])[task]},")  # type: ignore[index]


def _summary(
    result: Mapping[str, Any], data: Mapping[str, Any], recipe: Mapping[str, Any], members: Sequence[Any]
) -> list[str]:
    """What it was, in a few words each."""
    schema = data["schema"]
    parts = [plural(data["rows"], "row")]
    if schema.get("image"):
        channels, height, width = schema["image"]
        if schema["kind"] == "recordings":
            parts.append(f"recordings, seen as pictures of {height} × {width}")
        elif schema.get("slices"):
            parts.append(f"scans {channels} × {height} × {width}")
        else:
            parts.append(f"pictures {height} × {width}, {'grey' if channels == 1 else 'colour'}")
    if schema.get("series"):
        channels, steps = schema["series"]
        parts.append(f"series of {plural(channels, 'channel')} and {plural(steps, 'step')}")
    columns = [
        plural(len(schema.get(kind) or ()), one, many)
        for kind, one, many in (
            ("numbers", "number", ""),
            ("categories", "category", "categories"),
            ("texts", "text", ""),
        )
        if schema.get(kind)
    ]
    parts += [" and ".join(columns)] if columns else []
    if result["task"] == "classification":
        parts.append(plural(len(result["classes"]), "class", "classes"))
    elif result["task"] == "multilabel":
        parts.append(plural(len(result["classes"]), "label"))
    else:
        what = ", ".join(schema.get("target") or ["a value"])
        parts.append(f"predicting {'the logarithm of ' if result.get('log') else ''}{what}")
    nets = list(dict.fromkeys(member["net"] for member in members)) or [recipe["net"]["name"]]
    parts.append(f"{plural(len(members), 'network')} ({', '.join(nets)})")
    return [*parts, duration(result["seconds"].get("total", 0.0))]


def _leaderboard(
    entries: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    metric: str,
    folds: bool,
    held_out: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Both boards, sealed test first; ``metric`` is drawn, ``held_out`` is the line that was chosen by."""
    task = result["task"]
    boards: list[dict[str, Any]] = []
    for split in ("test", "out_of_fold"):
        own = [entry for entry in entries if entry["split"] == split and entry["scores"]]
        # out of fold: what was chosen by; on the test: what was chosen
        red = {"out_of_fold": held_out["name"] if held_out else "", "test": result["chosen"]}
        lines = [
            {
                "name": entry["name"],
                "network": entry["network"],
                "chosen": entry["name"] == red[split],
                "blind": not entry["network"] and is_blind(entry["name"], task),
                "scores": entry["scores"],
                "seconds": entry["seconds"],
                "paired": entry["paired"],
            }
            for entry in own
        ]
        if metric:  # best first by the figure that is drawn
            low = metric in LOWER
            lines.sort(key=lambda e: e["scores"].get(metric, {}).get("value", 0) * (1 if low else -1))
        if lines:
            n = rows_scored(lines)
            crowd = any(several(line) for line in lines)
            board = {"split": split, "title": title(split, folds), "where": where(split, n, folds, crowd)}
            boards.append({**board, "n": n, "against": _against(own), "entries": lines})
    drawn = [line for board in boards for line in board["entries"]]
    return {
        "metric": metric,
        "title": TITLES.get(metric, metric),
        "lower": metric in LOWER,
        "criterion": TITLES[MAIN[task]],
        "columns": [[name, TITLES[name]] for name in SHOWN[task]],
        "boards": boards,
        "ensembles": any(line_of(line["name"]).kind == "ensemble" for line in drawn if line["network"]),
        "kinds": sorted({kind_of(line) for line in drawn}),
    }


def _against(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Whom the lines of a board are compared with: networks and ensembles, then rivals."""
    found = []
    for network, who in ((True, "a network or an ensemble"), (False, "a simple rival")):
        compared = [entry for entry in entries if entry["network"] == network and entry["paired"]]
        unknown = "the best single network" if network else "the best network or ensemble"
        if compared:
            found.append([who, compared[0].get("against") or unknown])
    return found


def kind_of(line: Mapping[str, Any]) -> str:
    """How a line of the leaderboard is drawn: chosen, net or rival."""
    return "chosen" if line["chosen"] else "net" if line["network"] else "rival"


def _scores(
    held_out: Mapping[str, Any] | None, scored: Mapping[str, Any] | None, folds: bool
) -> dict[str, Any]:
    """The chosen network: out of fold and on the test, with how each figure and interval comes about."""
    columns = [entry for entry in (scored, held_out) if entry]
    if len(columns) == 2 and columns[0] is columns[1]:
        columns = columns[:1]
    names = [name for name in TITLES if any(name in entry["scores"] for entry in columns)]
    return {
        "columns": [
            {"name": e["name"], "split": e["split"], "title": title(e["split"], folds), "spread": _spreads(e)}
            for e in columns
        ],
        "lines": [
            {
                "metric": name,
                "title": TITLES[name],
                "lower": name in LOWER,
                "scores": [entry["scores"].get(name) for entry in columns],
            }
            for name in names
        ],
        "methods": [[TITLES[name], METHODS[name]] for name in names]
        + [[name, METHODS[name]] for name in ("paired", "spread", "groups") if name in METHODS],
    }


def _spreads(entry: Mapping[str, Any]) -> bool:
    return any(score.get("spread") is not None for score in entry["scores"].values())


def _data(data: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    counts = data.get("class_counts")
    classes = []
    more = 0
    if counts:
        pairs = sorted(zip(data["classes"], counts, strict=True), key=lambda pair: -pair[1])
        if len(pairs) > CLASSES:
            more = len(pairs) - 2 * ENDS
            pairs = [*pairs[:ENDS], *pairs[-ENDS:]]
        else:
            pairs = list(zip(data["classes"], counts, strict=True))
        classes = [[name, number] for name, number in pairs]
    return {
        "notes": [*data["notes"], *result.get("notes", [])],
        "classes": classes,
        "hidden": more,
        "largest": max((number for _, number in classes), default=0),
        "smallest": min(counts) if counts else 0,
        "columns": _columns(data["schema"]),
        "development": result["rows"]["development"],
        "test": result["rows"]["test"],
    }


def _columns(schema: Mapping[str, Any]) -> list[list[Any]]:
    """What each column was read as: kind, names."""
    kinds = (("numbers", "numbers"), ("dates", "dates"), ("ignored", "left out"))
    found = [[title, list(schema[kind])] for kind, title in kinds if schema.get(kind)]
    if schema.get("categories"):
        words = [f"{name} ({count(len(values))})" for name, values in schema["categories"].items()]
        found.insert(1 if schema.get("numbers") else 0, ["categories", words])
    if schema.get("texts"):
        texts = [f"{name} ({count(len(known))} words)" for name, known in schema["texts"].items()]
        found.insert(0, ["texts", texts])
    return found if schema["kind"] == "table" else []


def _again(
    run: Path, result: Mapping[str, Any], data: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    source = data.get("given") or data["source"]
    if source and (Path(source).is_absolute() or Path(source).exists()):
        command = f"ayatori run {shlex.quote(source)} --recipe recipe.toml"
    else:
        command = "from ayatori.recipe import read_recipe\nayatori.run(X, read_recipe('recipe.toml'), y=y)"
    return {
        "command": command,
        "seed": result["seed"],
        "versions": result["versions"],
        "fingerprint": data["fingerprint"],
        "openings": result.get("openings") or [],
        "preset": recipe.get("preset", ""),
        "settings": _settings(recipe),
    }


def _cost(result: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Time of each stage; memory in bytes and energy in joules where they are known."""
    seconds = result["seconds"]
    stages = [[STAGES.get(name, name), value] for name, value in seconds.items() if name != "total"]
    longest = max((value for _, value in stages), default=0.0)
    return {
        "stages": [[name, value, value / longest] for name, value in stages if longest and value >= 0.05],
        "total": seconds.get("total", 0.0),
        "networks": len(members),
        "memory": None,
        "energy": None,
        **{key: value for key, value in result.get("cost", {}).items() if value},
    }


def _settings(recipe: Mapping[str, Any]) -> list[list[str]]:
    """The settings that say most."""
    names = (
        ("net", "name"),
        ("train", "epochs"),
        ("train", "batch_size"),
        ("train", "learning_rate"),
        ("train", "weight_decay"),
        ("train", "patience"),
        ("train", "augment"),
        ("loss", "name"),
        ("loss", "label_smoothing"),
        ("plan", "strategy"),
        ("plan", "folds"),
        ("plan", "test"),
    )
    known = [(stage, name) for stage, name in names if name in recipe.get(stage, {})]
    return [[f"{stage}.{name}", str(recipe[stage][name])] for stage, name in known]
