"""Stage 9i. Leaderboard, diversity, boosting -> whether ensembles helped, at what cost, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from ayatori.evaluate.metrics import MAIN
from ayatori.report.lines import (
    Entry,
    Line,
    best_single,
    brief,
    chosen_line,
    held_out_line,
    line_of,
    networks,
    own_network,
    rows_scored,
)
from ayatori.report.members import fold_label, read_json
from ayatori.report.words import TITLES, chance, duration, fold, number, plural, rounded, said

VOICES = 12  # of an ensemble that are drawn
CHAINS = 10  # of boosting that are drawn
ORDER = ("one", "mean", "ensemble", "out of bag", "taught")
TITLE = {
    "bagging": "bags",
    "boosting": "boosted networks",
    "stacking": "stack",
    "greedy": "greedy choice",
    "weighted": "weighted by loss",
    "majority": "majority vote",
}
Part = tuple[str, bool]  # words, and whether they are strong


def ensemble_facts(
    run: Path, result: Mapping[str, Any], recipe: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All that the page says of ensembles; empty where there is nothing but the plain mean."""
    entries, metric = result["leaderboard"], MAIN[result["task"]]
    own = [entry for split in ("out_of_fold", "test") for entry in networks(entries, split)]
    if not any(line_of(entry["name"]).kind in ("ensemble", "taught") for entry in own):
        return {}
    told = result.get("ensembles") or {}
    differ = told.get("diversity") or {}
    voices = [voice["name"] for voice in differ.get("stacking", {}).get("members", ())]
    lines = _lines(own, result, metric, members, len(voices))
    parts = _answer(lines, entries, result, metric)
    return {
        "parts": parts,
        "text": "".join(text for text, _ in parts).strip(),
        "metric": metric,
        "title": TITLES[metric],
        "lines": lines,
        "single": _name(best_single(entries, "out_of_fold")),
        "choices": _choices(lines, members),
        "rows": {split: rows_scored(networks(entries, split)) for split in ("out_of_fold", "test")},
        "diversity": _diversity(differ),
        "boosting": _boosting(told.get("boosting") or (), boosted_by(recipe, result["task"])),
        "notes": list(told.get("notes") or ()),
        "stack": _stack(run, voices),
        "student": _student(run, lines, entries, result, metric),
    }


def _name(entry: Entry | None) -> str:
    return str(entry["name"]) if entry else ""


def _lines(
    entries: Sequence[Entry],
    result: Mapping[str, Any],
    metric: str,
    members: Sequence[Mapping[str, Any]],
    voices: int,
) -> list[dict[str, Any]]:
    """One line for each network and ensemble: held-out rows beside the test, and what it costs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    red, folds = line_of(result["chosen"]), [member for member in members if member["kind"] == "fold"]
    heard = sum(member["repeat"] == folds[0]["repeat"] for member in folds)  # networks of a line out of fold
    own = own_network(entries)
    one = _seconds(own, heard, {}) if own else {}
    for entry in entries:
        line = line_of(entry["name"])
        key = (line.kind, line.family)
        if key not in found:
            seconds = _seconds(entry, heard, one)
            times = {what: seconds[what] / one[what] for what in one if one[what] and seconds[what]}
            found[key] = {
                "title": line.title,
                "kind": line.kind,
                "family": line.family,
                "chosen": key == (red.kind, red.family),
                "out_of_fold": None,
                "test": None,
                "paired": {},
                "seconds": seconds,
                "times": times,
                "models": _models(line, times, len(folds), voices),
            }
        if found[key][entry["split"]] is None:  # of several repeats, the best
            found[key][entry["split"]] = entry["scores"].get(metric)
            if entry["split"] == "out_of_fold":
                found[key]["paired"] = entry["paired"]

    def place(line: Mapping[str, Any]) -> tuple[int, float]:
        score = line["out_of_fold"] or line["test"]
        return ORDER.index(line["kind"]), score["value"] if score else np.inf

    return sorted(found.values(), key=place)


def _seconds(entry: Entry, heard: int, one: Mapping[str, float]) -> dict[str, float]:
    """What a line costs; out of fold, that of one network is the cost of one for each fold."""
    line, seconds = line_of(entry["name"]), dict(entry["seconds"])
    if line.kind == "one" and entry["split"] == "out_of_fold":
        return {what: value / heard for what, value in seconds.items()}
    if line.kind == "taught":
        return seconds | {"predict": seconds["predict"] or one.get("predict", 0.0)}
    return seconds


def _models(line: Line, times: Mapping[str, float], folds: int, voices: int) -> int | None:
    """How many models answer a new row: of networks alone, as many as its time is that of one."""
    if line.kind in ("one", "taught"):
        return 1
    if line.kind == "out of bag":
        return None
    if line.family == "stack":
        return voices * folds or None
    return round(times["predict"]) if "predict" in times else None


def _answer(
    lines: Sequence[dict[str, Any]], entries: Sequence[Entry], result: Mapping[str, Any], metric: str
) -> list[Part]:
    """Whether the best ensemble beats the best single network, whether the test agrees, and what it cost."""
    single = best_single(entries, "out_of_fold")
    crowd = [e for e in networks(entries, "out_of_fold") if line_of(e["name"]).kind in ("mean", "ensemble")]
    if single is None or not crowd:
        return _test_alone(lines, metric)
    best, task = crowd[0], result["task"]
    own, other = (entry["scores"][metric]["value"] for entry in (best, single))
    word = _verdict(best["paired"], own < other)
    rows = plural(single["scores"][metric]["n"], "held-out row")
    figure = said(metric, best["scores"][metric])
    beaten = f"{said(metric, single['scores'][metric])} of {brief(single['name'])}"
    who = brief(best["name"])
    if own < other:
        does = "do" if who.endswith("s") else "does"
        text = f"On the {rows} {who} {does} best: {TITLES[metric]} {figure} against {beaten}"
    else:
        text = f"On the {rows} no ensemble has a lower {TITLES[metric]} than {brief(single['name'])}: "
        text += f"the nearest, {who}, has {figure} against {beaten}"
    gap = _gap(best["paired"], task, other)
    parts = [(f"{word}. ", True), (f"{text}{gap}. ", False)]
    parts += _test(lines, entries, best, single, own < other, metric)
    return [*parts, (_cost(who, _line(lines, best)), False)]


def _verdict(paired: Mapping[str, float], lower: bool) -> str:
    if not lower:
        return "No"
    if paired.get("high", 0) < 0:
        return "Undecided"  # a better loss, but fewer rows right
    return "Yes" if max(paired.get("low", 0), paired.get("loss_low", 0)) > 0 else "Perhaps"


def _gap(paired: Mapping[str, float], task: str, like: float) -> str:
    """``, lower by 0.016 (0.008 – 0.024), and accuracy higher by 0.1 points (−0.5 – 0.7; p = 0.75)``."""
    if not paired:
        return ""
    text = ""
    if "loss" in paired:
        low, high = (number(paired[key], 0.5) for key in ("loss_low", "loss_high"))
        text = f", lower by {number(paired['loss'], 0.5)} ({low} – {high}),"
    ends = [paired[key] for key in ("difference", "low", "high")]
    if ends[0] <= 0:
        ends = [-ends[0], -ends[2], -ends[1]]
    if task == "regression":
        size, low, high = (number(value, like) for value in ends)
    else:
        size, low, high = (rounded(value * 100, 1) for value in ends)
    what = {"classification": "accuracy", "multilabel": "labels told right"}.get(
        task, "a mean absolute error"
    )
    higher = (paired["difference"] > 0) != (task == "regression")
    side = f"{'higher' if higher else 'lower'} by {size}{'' if task == 'regression' else ' points'}"
    side = "the same" if ends[0] == 0 else side
    may = "" if paired["low"] > 0 or paired["high"] < 0 else ", which may be chance"
    return f"{text} and {what} {side} ({low} – {high}; {chance(paired['p'])}){may}"


def _test(
    lines: Sequence[dict[str, Any]],
    entries: Sequence[Entry],
    best: Entry,
    single: Entry,
    better: bool,
    metric: str,
) -> list[Part]:
    """What the sealed rows say of the same two."""
    own, other = (_line(lines, entry) for entry in (best, single))
    if not own["test"] or not other["test"]:
        return []
    same = (own["test"]["value"] < other["test"]["value"]) == better
    key = own["kind"], own["family"]
    named = ((line_of(entry["name"]), entry) for entry in networks(entries, "test"))
    twin = next((entry for line, entry in named if (line.kind, line.family) == key), None)
    if twin and _apart(twin["paired"]):
        word = f"The test {'agrees' if same else 'does not agree'}"
    else:
        word = f"The test leans {'the same' if same else 'the other'} way, within chance"
    values = [said(metric, line["test"]) for line in (own, other)]
    text = f": {values[0]} against {values[1]} on {plural(own['test']['n'], 'sealed row')}"
    mean = next((line for line in lines if line["kind"] == "mean" and line["test"] and line is not own), None)
    if mean:
        text += f"; the plain {mean['title']}, which needs no more training, has {said(metric, mean['test'])}"
    return [(word, True), (f"{text}. ", False)]


def _apart(paired: Mapping[str, float]) -> bool:
    """Whether a difference is more than chance."""
    sides = [(paired.get(f"{kind}low", 0), paired.get(f"{kind}high", 0)) for kind in ("loss_", "")]
    return any(low > 0 or high < 0 for low, high in sides)


def _line(lines: Sequence[dict[str, Any]], entry: Entry) -> dict[str, Any]:
    line = line_of(entry["name"])
    return next(one for one in lines if (one["kind"], one["family"]) == (line.kind, line.family))


def _test_alone(lines: Sequence[Mapping[str, Any]], metric: str) -> list[Part]:
    """The plain mean, which only sealed rows can judge."""
    mean, one = (next((line for line in lines if line["kind"] == kind), None) for kind in ("mean", "one"))
    if not (mean and one and mean["test"] and one["test"]):
        return []
    helped = mean["test"]["value"] < one["test"]["value"]
    text = f"On {plural(mean['test']['n'], 'sealed row')} the {mean['title']} has a {TITLES[metric]} of "
    text += f"{said(metric, mean['test'])}, {one['title']} of {said(metric, one['test'])}. "
    return [("It seems so. " if helped else "No. ", True), (text, False)]


def _cost(who: str, line: Mapping[str, Any]) -> str:
    """What it took, and what it takes, beside one network."""
    train, times = duration(line["seconds"]["train"]), line["times"]
    text = f"{who[0].upper()}{who[1:]} took {train} of training"
    if "train" in times:
        text += f", {fold(times['train'])} times that of one network"
    if line["models"]:
        text += f"; {plural(line['models'], 'model')} answer a new row"
        if "predict" in times:
            text += f", in {fold(times['predict'])} times the time of one"
    return f"{text}."


def _choices(lines: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What was chosen on which rows, so that no figure flatters itself."""
    titles = {line["title"] for line in lines}
    pairs = any(member["kind"] == "pair" for member in members)
    judge = (
        "that learned from networks that had seen neither this fold nor the rows they spoke of"
        if pairs
        else "that learned from earlier folds"
    )
    found = [
        ["one network", "a row is answered by one that never saw it, by an ensemble's line with several"],
        [
            "what is handed over",
            "the line with the lowest held-out loss. Of several, the best is a little lucky, which the test "
            "shows; the test chose nothing",
        ],
    ]
    if "stack" in titles:
        text = f"each fold is judged by a last model of its own, {judge}; "
        found.append(["the stack", f"{text}the one handed over learned from all held-out rows"])
    if titles & {"weighted by loss", "greedy choice"}:
        found.append(["weights and greedy choice", "on the rows that the networks of a fold stopped by"])
    if "boosted networks" in titles:
        found.append(["how many rounds are kept", "by the lowest loss on the rows that a fold stopped by"])
    if any(line["kind"] == "out of bag" for line in lines):
        text = "each row is answered by the bags, of all folds, that had not drawn it"
        found.append(["out of bag", f"{text}; this judges bagging and is not handed over"])
    return found


def _diversity(differ: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the voices of each ensemble differ; those with the same voices are told once."""
    found: list[dict[str, Any]] = []
    for name, one in differ.items():
        if not one.get("n") or len(one["members"]) < 2:
            continue
        title = TITLE.get(name, name)
        twin = next((other for other in found if other["all"] == one["correlation"]), None)
        if twin:
            twin["title"] += f", {title}"
            continue
        found.append(
            {
                "title": title,
                "all": one["correlation"],
                "n": one["n"],
                "voices": len(one["members"]),
                "members": one["members"][:VOICES],
                "disagreement": [row[:VOICES] for row in one["disagreement"][:VOICES]],
                "correlation": [row[:VOICES] for row in one["correlation"][:VOICES]],
                "disagreement_mean": one["disagreement_mean"],
                "correlation_mean": one["correlation_mean"],
                "loss_of_members": one["loss_of_members"],
                "loss": one["together"]["loss"],
            }
        )
    for one in found:
        del one["all"]
    return found


def _boosting(chains: Sequence[Mapping[str, Any]], way: str) -> dict[str, Any]:
    """Round by round what each fold's chain did; empty where there was no boosting."""
    if not chains:
        return {}
    repeats = len({chain["repeat"] for chain in chains}) > 1
    called = [fold_label(chain["fold"], chain["repeat"], repeats) for chain in chains]
    return {
        "gradient": way == "gradient",
        "rounds": max(len(chain["stop_losses"]) for chain in chains),
        "more": max(len(chains) - CHAINS, 0),
        "chains": [
            {
                "label": label,
                "kept": chain["kept"],
                "errors": chain["training_errors"],
                "losses": chain["stop_losses"],
                "reason": chain["reason"],
            }
            for chain, label in zip(chains[:CHAINS], called, strict=False)
        ],
    }


def boosted_by(recipe: Mapping[str, Any], task: str) -> str:
    """The way of boosting of a run, as ``train.boost`` picks it."""
    way = str(recipe.get("ensemble", {}).get("boost", "auto"))
    auto = {"classification": "samme", "regression": "r2", "multilabel": "gradient"}
    return auto[task] if way == "auto" else way


def _stack(run: Path, voices: Sequence[str]) -> list[list[Any]]:
    """What the last model of a stack listens to, where the stack is delivered: voice, weight."""
    path = run / "model" / "model.json"
    last = ((read_json(path).get("vote") if path.is_file() else None) or {}).get("last") or {}
    weights = last.get("weights") or []
    return [[name, weight] for name, weight in zip(voices, weights, strict=False)]


def _student(
    run: Path,
    lines: Sequence[dict[str, Any]],
    entries: Sequence[Entry],
    result: Mapping[str, Any],
    metric: str,
) -> dict[str, Any]:
    """The one network that learned what the chosen says: its test, and what it saves."""
    if not (run / "distilled" / "model.json").is_file():
        return {}
    teacher, scored = (of(entries, result["chosen"]) for of in (held_out_line, chosen_line))
    whole = _line(lines, scored) if scored else {}
    who = brief(teacher["name"]) if teacher else "the ensemble"
    text = f"One network learned what {who} said of held-out rows. "
    own = next((e for e in networks(entries, "test") if line_of(e["name"]).kind == "taught"), None)
    if own and scored:
        both = {name: (own["scores"].get(name), scored["scores"].get(name)) for name in (metric, "accuracy")}
        parts = [
            f"its {TITLES[name]} is {said(name, mine)} against {said(name, theirs)}"
            for name, (mine, theirs) in both.items()
            if mine and theirs
        ]
        text += f"On {plural(own['scores'][metric]['n'], 'sealed row')} {', '.join(parts)}. "
    if (whole.get("models") or 1) > 1:
        text += f"It predicts at the cost of one network instead of {plural(whole['models'], 'model')}"
        if whole["times"].get("predict"):
            text += f", {fold(whole['times']['predict'])} times cheaper"
        text += "."
    return {"text": text.strip(), "folder": quote(f"{run.name}/distilled")}
