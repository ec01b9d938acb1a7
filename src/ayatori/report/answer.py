"""Stage 9b. Leaderboard -> the answer: can it be learned, how well, is a network worth it, what is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ayatori.report.words import count, decimals_of, interval, number, percent, plural, said, where

Entry = Mapping[str, Any]
Part = tuple[str, bool]  # words, and whether they are strong
LITTLE = 1 / 3  # less than this share of what chance gets wrong is put right: "a little"


def answer(
    result: Mapping[str, Any],
    entry: Entry | None,
    rivals: Sequence[Entry],
    chance: Entry | None,
    folds: bool = True,
) -> dict[str, Any]:
    """The headline, and sentences whose parts say whether they are strong.

    ``entry`` is what was chosen, where it could be scored; ``rivals`` and ``chance`` (who looks at no input)
    were scored on the same rows.
    """
    metric = main_figure(result["task"], entry)
    if entry is None or not metric:
        return _unscored(result)
    level = _level(result["task"], entry, rivals, chance)
    sentences = [
        _how_well(result, entry, metric, chance, level, folds),
        _against(result["task"], metric, rivals, level),
        _delivered(result, entry),
    ]
    parts = [part for sentence in sentences for part in sentence]
    return {
        "level": level,
        "headline": _headline(result["task"], level, entry),
        "parts": parts,
        "text": "".join(text for text, _ in parts).strip(),
    }


def main_figure(task: str, entry: Entry | None) -> str:
    """The figure that a reader is told first."""
    wanted = ("mae", "rmse", "r2") if task == "regression" else ("accuracy",)
    scores = entry["scores"] if entry else {}
    return next((name for name in wanted if name in scores), "")


def _unscored(result: Mapping[str, Any]) -> dict[str, Any]:
    parts = [
        (f"Every row taught a network or told it when to stop, so nothing is left to judge it by. "
         f"Delivered: {result.get('delivered') or result['chosen']}. ", False),
        ("Seal some rows (--test 0.2) to know how well it does.", True),
    ]  # fmt: skip
    return {
        "level": "unknown",
        "headline": "Not known: no row was kept for scoring.",
        "parts": parts,
        "text": "".join(text for text, _ in parts),
    }


def _level(task: str, entry: Entry, rivals: Sequence[Entry], chance: Entry | None) -> str:
    """yes, little, ranks (better than chance in order only), other (a rival can), no, or unknown."""
    scores = entry["scores"]
    area = scores.get("roc_auc")
    ranks = bool(area and area["low"] > 0.5)
    if task == "regression":
        if "r2" not in scores:
            return "unknown"
        learned, share = scores["r2"]["low"] > 0, scores["r2"]["value"]
    elif chance and chance["paired"]:
        floor = chance["scores"]["accuracy"]["value"]
        learned = chance["paired"]["high"] < 0
        share = (scores["accuracy"]["value"] - floor) / max(1 - floor, 1e-9)
    elif area:  # no rival was asked for that looks at no input
        learned, share = ranks, 2 * area["value"] - 1
    else:
        return "unknown"
    if learned:
        return "yes" if share >= LITTLE else "little"
    if any(rival["paired"].get("low", 0) > 0 for rival in rivals):
        return "other"
    return "ranks" if ranks else "no"


def _headline(task: str, level: str, entry: Entry) -> str:
    if level == "unknown":
        return "Not known: there is nothing to compare it with."
    if level == "no":
        rows = max(score["n"] for score in entry["scores"].values())
        return f"No: no better than chance, as far as {plural(rows, 'row')} can tell."
    if level == "other":
        return "Not by this network: a simple rival does better."
    if level == "ranks":
        what = "labels" if task == "multilabel" else "class"
        return f"Only in part: it ranks the rows, but names the {what} no better than chance."
    begin = {"yes": "Yes", "little": "A little"}[level]
    scores = entry["scores"]
    if task == "regression":
        if "mae" in scores:
            return f"{begin}: expect to be off by about {_rough(scores['mae']['value'])} on average."
        return f"{begin}: it explains {percent(scores['r2']['value'], 0)} of the variance."
    share, n = scores["accuracy"]["value"], scores["accuracy"]["n"]
    what = "labels " if task == "multilabel" else ""
    if share == 1.0:
        return f"{begin}: all of {count(n)} {what}right."
    width = scores["accuracy"]["high"] - scores["accuracy"]["low"]
    base = 1000 if share > 0.985 and width < 0.01 else 100
    right = min(round(share * base), base - 1)
    return f"{begin}: expect about {count(right)} of {count(base)} {what}right."


def _rough(value: float) -> str:
    """Two digits that matter, three from 1000 on."""
    rounded = float(f"{value:.2g}") if abs(value) < 1000 else float(f"{value:.3g}")
    return count(rounded) if abs(rounded) >= 10 else f"{rounded:g}"


def _how_well(
    result: Mapping[str, Any], entry: Entry, metric: str, chance: Entry | None, level: str, folds: bool
) -> list[Part]:
    score, task, scores = entry["scores"][metric], result["task"], entry["scores"]
    name = f"the {entry['name']}" if entry["name"].startswith(("mean", "best")) else entry["name"]
    name += "," if ", " in name else ""
    value, tail = said(metric, score), f" ({interval(metric, score)})"
    if task == "regression":
        verb = " has an R² of " if metric == "r2" else " is off by "
        value = f"{value} on average" if metric == "mae" else value
        if "r2" in scores and metric != "r2":
            r2 = scores["r2"]
            tail += f" and explains {said('accuracy', r2)} of the variance ({interval('accuracy', r2)})"
    else:
        verb = " is right in "
        value = f"{value} of all labels" if task == "multilabel" else value
    if chance and metric in chance["scores"] and metric != "r2":
        blind = {
            "classification": "always naming the most frequent class is right in",
            "multilabel": "naming every label, or never, whichever is more frequent, is right in",
            "regression": "always saying the mean is off by",
        }[task]
        tail += f"; {blind} {said(metric, chance['scores'][metric])}"
    if level == "ranks":
        area = scores["roc_auc"]
        tail += f"; its ROC-AUC is {said('roc_auc', area)} ({interval('roc_auc', area)})"
    where_from = f"On {where(entry['split'], score['n'], folds)}, "
    return [(where_from, False), (name, True), (verb, False), (value, True), (f"{tail}. ", False)]


def _against(task: str, metric: str, rivals: Sequence[Entry], level: str) -> list[Part]:
    """The network against the strongest of the simple rivals, on the same rows."""
    compared = [rival for rival in rivals if rival["paired"] and metric in rival["scores"]]
    if level == "no":
        what = {"classification": "classes apart", "multilabel": "labels", "regression": "value"}[task]
        return [(f"Nothing here shows that these inputs tell the {what}. ", False)]
    if not compared:
        return []
    best = max(compared, key=lambda rival: rival["paired"]["difference"])
    gap = best["paired"]
    verb, more, less = ("is off by", "less", "more") if task == "regression" else ("gets", "more", "less")
    name, figure = best["name"].split(",")[0], said(metric, best["scores"][metric])
    begin = f"The strongest simple rival, {name}, {verb} {figure} on the same rows"
    unit, factor, steps = " points", 100.0, 1
    if task == "regression":
        unit, factor, steps = "", 1.0, decimals_of(best["scores"][metric]["value"])
    apart, low, high = (number(abs(gap[key]) * factor, steps) for key in ("difference", "low", "high"))
    if gap["low"] > 0:
        begin += f", {apart}{unit} {more} ({low} – {high}), so a network is "
        return [(begin, False), ("not worth it", True), (" here. ", False)]
    if gap["high"] < 0:
        begin += f", {apart}{unit} {less} ({high} – {low}), so a network is "
        return [(begin, False), ("worth it", True), (" here. ", False)]
    begin += f". The difference may be chance (from {low}{unit} {less} to {high} {more}): "
    return [(begin, False), ("nothing shows that a network is needed", True), (" here. ", False)]


def _delivered(result: Mapping[str, Any], entry: Entry) -> list[Part]:
    delivered = result.get("delivered") or result["chosen"]
    if entry["split"] == "test":
        return [(f"Handed over in this folder: {delivered}.", False)]
    if entry["name"] == delivered:
        return [(f"Handed over in this folder: {delivered}. No rows were sealed for a last test.", False)]
    return [
        (
            f"Handed over in this folder: the {delivered}. It has no score of its own, as every row taught "
            "most of them; the figures are those of one network. Seal rows (--test 0.2) to score it as well.",
            False,
        )
    ]
