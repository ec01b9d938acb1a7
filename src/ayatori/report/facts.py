"""Stage 9. Run folder -> facts: one dict of plain JSON values, all that the page says. No torch."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.evaluate.baselines import NAMES
from ayatori.evaluate.metrics import LOWER, MAIN, METHODS
from ayatori.records import SCORE, SEALED, STOP, UNUSED, AyatoriError
from ayatori.report.answer import answer, main_figure
from ayatori.report.look import look_facts
from ayatori.report.mistakes import mistakes
from ayatori.report.words import TITLES, count, duration, plural, title, where

STRIPS = 80
MEMBERS = 10  # of which curves are drawn
LINES = 30  # of the Plan that are drawn
POINTS = 160  # of a curve
CLASSES = 30  # whose counts are drawn; of more, the most and the least frequent
ENDS = 10
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
        hint = "" if what == "a run folder" else f"; go on with it by: ayatori resume {run}"
        raise AyatoriError(f"'{run}' must be {what}, however it has no result.json{hint}")
    result, data = _json(run / "result.json"), _json(run / "data.json")
    recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    members = _members(run)
    entries = result["leaderboard"]
    scored = _chosen(entries, result["chosen"])
    held_out = next((e for e in entries if e["network"] and e["split"] == "out_of_fold"), None)
    rivals, floor = _rivals(entries, scored, result["task"])
    earlier, _ = _rivals(entries, held_out, result["task"])
    folds = len(members) > 1
    return {
        "name": Path(data["source"]).stem or data["kind"],
        "time": _time(run, result),
        "task": result["task"],
        "summary": _summary(result, data, recipe, members),
        "look": look_facts(run, _reached(result["task"], held_out)),
        "answer": answer(result, scored, rivals, floor, earlier, folds),
        "leaderboard": _leaderboard(entries, result, main_figure(result["task"], scored), folds),
        "plan": plan_strips(run / "plan.parquet"),
        "curves": _curves(run, members),
        "scores": _scores(held_out, scored, folds),
        "mistakes": mistakes(run, result, data, held_out or scored, folds),
        "data": _data(data, result),
        "again": _again(run, result, data, recipe),
    }


def _reached(task: str, held_out: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What one network came to on rows that it never saw: what was predicted before training."""
    score = (held_out or {}).get("scores", {}).get("r2" if task == "regression" else "accuracy")
    if not held_out or not score:
        return None
    return {key: score[key] for key in ("value", "low", "high")} | {"name": held_out["name"]}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AyatoriError(f"'{path}' must be readable JSON, however: {error}") from None


def _time(run: Path, result: Mapping[str, Any]) -> str:
    openings = result.get("openings") or []
    if openings:
        return str(openings[-1]["time"])
    return datetime.fromtimestamp((run / "result.json").stat().st_mtime, UTC).isoformat(timespec="seconds")


def _chosen(entries: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    found = [entry for entry in entries if entry["name"] == name and entry["scores"]]
    return next((entry for entry in found if entry["split"] == "test"), found[0] if found else None)


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


def _members(run: Path) -> list[dict[str, Any]]:
    folders = sorted(path for path in (run / "members").iterdir() if (path / "member.json").is_file())
    found = [_json(folder / "member.json") for folder in folders]
    repeats = len({member["repeat"] for member in found})
    bags = len({member["bag"] for member in found})
    for folder, member in zip(folders, found, strict=True):
        member["folder"] = f"members/{folder.name}"
        member["label"] = _label(member, repeats, bags)
    return found


def _label(column: Mapping[str, Any], repeats: int, bags: int) -> str:
    fold = f"fold {column['fold'] + 1}" if column["fold"] >= 0 else "network"
    if repeats > 1:
        fold = f"{column['repeat'] + 1} · {fold}"
    return f"{fold} · bag {column['bag'] + 1}" if bags > 1 else fold


def _summary(
    result: Mapping[str, Any], data: Mapping[str, Any], recipe: Mapping[str, Any], members: Sequence[Any]
) -> list[str]:
    """What it was, in a few words each."""
    schema = data["schema"]
    parts = [plural(data["rows"], "row")]
    if schema.get("image"):
        channels, height, width = schema["image"]
        parts.append(f"pictures {height} × {width}, {'grey' if channels == 1 else 'colour'}")
    columns = [
        plural(len(schema.get(kind) or ()), one, many)
        for kind, one, many in (("numbers", "number", ""), ("categories", "category", "categories"))
        if schema.get(kind)
    ]
    parts += [" and ".join(columns)] if columns else []
    if result["task"] == "classification":
        parts.append(plural(len(result["classes"]), "class", "classes"))
    elif result["task"] == "multilabel":
        parts.append(plural(len(result["classes"]), "label"))
    else:
        parts.append(f"predicting {', '.join(schema.get('target') or ['a value'])}")
    net = members[0]["net"] if members else recipe["net"]["name"]
    parts.append(f"{plural(len(members), 'network')} ({net})")
    return [*parts, duration(result["seconds"].get("total", 0.0))]


def _leaderboard(
    entries: Sequence[Mapping[str, Any]], result: Mapping[str, Any], metric: str, folds: bool
) -> dict[str, Any]:
    """Both boards, sealed test first; ``metric`` is the one that is drawn."""
    task = result["task"]
    boards: list[dict[str, Any]] = []
    for split in ("test", "out_of_fold"):
        own = [entry for entry in entries if entry["split"] == split and entry["scores"]]
        best = next((entry["name"] for entry in own if entry["network"]), "")
        # out of fold: what was chosen by; on the test: what was chosen
        red = {"out_of_fold": best, "test": result["chosen"]}
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
            n = max((score["n"] for line in lines for score in line["scores"].values()), default=0)
            board = {"split": split, "title": title(split, folds), "where": where(split, n, folds)}
            boards.append({**board, "n": n, "best": best, "entries": lines})
    return {
        "metric": metric,
        "title": TITLES.get(metric, metric),
        "lower": metric in LOWER,
        "criterion": TITLES[MAIN[task]],
        "columns": [[name, TITLES[name]] for name in SHOWN[task]],
        "boards": boards,
        "kinds": sorted({kind_of(line) for board in boards for line in board["entries"]}),
    }


def kind_of(line: Mapping[str, Any]) -> str:
    """How a line of the leaderboard is drawn: chosen, net or rival."""
    return "chosen" if line["chosen"] else "net" if line["network"] else "rival"


def plan_strips(path: Path) -> dict[str, Any]:
    """Strips of rows against members; each shows the row in its middle, rows sorted by what they are."""
    table = pd.read_parquet(path)
    roles = table.to_numpy(np.uint8)
    columns = table.attrs["columns"]
    rows, members = roles.shape
    repeats = len({column["repeat"] for column in columns})
    bags = len({column["bag"] for column in columns})
    kinds = {
        "train": (roles > UNUSED) & (roles < STOP),
        "stop": roles == STOP,
        "score": roles == SCORE,
        "sealed": roles == SEALED,
    }
    sums = {kind: mask.sum(axis=0) for kind, mask in kinds.items()}
    strips = min(STRIPS, rows)
    order = np.lexsort((_first(kinds["stop"]), _first(kinds["score"]), kinds["sealed"].any(axis=1)))
    middle = order[((np.arange(strips) + 0.5) * rows / strips).astype(int)]
    letters = np.full((strips, members), ".", dtype="<U1")
    for kind, letter in (("train", "t"), ("stop", "s"), ("score", "c"), ("sealed", "x")):
        letters[kinds[kind][middle]] = letter
    letters[(roles[middle] > 1) & (roles[middle] < STOP)] = "T"
    drawn = range(min(members, LINES))
    return {
        "strategy": table.attrs["strategy"],
        "rows": rows,
        "members": members,
        "lines": [
            {"label": _label(columns[m], repeats, bags), "strips": "".join(letters[:, m])} for m in drawn
        ],
        "rows_a_strip": rows / strips,
        "counts": {kind: [int(s.min()), int(s.max())] for kind, s in sums.items() if s.max() > 0},
        "again": bool((kinds["train"] & (roles > 1)).any()),
    }


def _first(mask: np.ndarray) -> np.ndarray:
    """(n,): the first member for which ``mask`` (n, m) holds, m where there is none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])


def _curves(run: Path, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    drawn = []
    for member in members[:MEMBERS]:
        history = pd.read_parquet(run / member["folder"] / "history.parquet")
        best = member["best_epoch"]
        some = np.linspace(0, len(history) - 1, min(POINTS, len(history))).astype(int)
        thin = history.iloc[np.union1d(some, np.flatnonzero(history["epoch"] == best))]
        kept = history.loc[history["epoch"] == best, "stop_loss"]
        drawn.append(
            {
                "label": member["label"],
                "epochs": len(history),
                "best_epoch": best,
                "best_loss": float(kept.iloc[0]) if len(kept) else None,
                "reason": member["reason"],
                "seconds": member["seconds"],
                "epoch": thin["epoch"].tolist(),
                "train": _finite(thin["train_loss"]),
                "stop": _finite(thin["stop_loss"]),
                "notes": [f"epoch {line.epoch}: {line.note}" for line in history.itertuples() if line.note][
                    :3
                ],
            }
        )
    return {"members": drawn, "more": len(members) - len(drawn)}


def _finite(values: pd.Series) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


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
    return found if schema["kind"] == "table" else []


def _again(
    run: Path, result: Mapping[str, Any], data: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    source = data["source"]
    if source and (Path(source).is_absolute() or Path(source).exists()):
        command = f"ayatori run {shlex.quote(source)} --recipe recipe.toml"
    else:
        command = "from ayatori.recipe import read_recipe\nayatori.run(X, read_recipe('recipe.toml'), y=y)"
    stages = [[name, value] for name, value in result["seconds"].items() if name != "total"]
    return {
        "command": command,
        "seed": result["seed"],
        "versions": result["versions"],
        "fingerprint": data["fingerprint"],
        "openings": result.get("openings") or [],
        "stages": stages,
        "total": result["seconds"].get("total", 0.0),
        "preset": recipe.get("preset", ""),
        "settings": _settings(recipe),
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
