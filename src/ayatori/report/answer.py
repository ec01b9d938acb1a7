"""Stage 9b. Leaderboard -> the answer: can it be learned, how well, is a network worth it, what is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ayatori.report.words import count, interval, number, percent, plural, said

Entry = Mapping[str, Any]
Part = tuple[str, bool]  # words, and whether they are strong
LITTLE = 0.2  # less than this share of what chance gets wrong is put right: "a little"


def answer(
    result: Mapping[str, Any], entry: Entry | None, rivals: Sequence[Entry], chance: Entry | None
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
        _how_well(result, entry, metric, chance),
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
    """yes, little, ranks (better than chance in order only), other (a rival can), or no."""
    learned = beats_chance(task, entry, chance)
    if not learned:
        if any(rival["paired"].get("low", 0) > 0 for rival in rivals):
            return "other"
        area = entry["scores"].get("roc_auc")
        return "ranks" if area and area["low"] > 0.5 else "no"
    if task == "regression":
        share = entry["scores"]["r2"]["value"] if "r2" in entry["scores"] else 1.0
    else:
        floor = chance["scores"]["accuracy"]["value"] if chance else 0.0
        share = (entry["scores"]["accuracy"]["value"] - floor) / max(1 - floor, 1e-9)
    return "yes" if share >= LITTLE else "little"


def beats_chance(task: str, entry: Entry, chance: Entry | None) -> bool:
    """Whether the interval of the comparison with the rival that looks at no input leaves chance out."""
    if task == "regression":
        return "r2" in entry["scores"] and entry["scores"]["r2"]["low"] > 0
    if chance and chance["paired"]:
        return chance["paired"]["high"] < 0
    area = entry["scores"].get("roc_auc")
    return bool(area and area["low"] > 0.5)


def _headline(task: str, level: str, entry: Entry) -> str:
    if level == "no":
        return "No: no better than chance."
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


def _how_well(result: Mapping[str, Any], entry: Entry, metric: str, chance: Entry | None) -> list[Part]:
    score, task = entry["scores"][metric], result["task"]
    rows = plural(score["n"], "row")
    seen = (
        "that were sealed until the end"
        if entry["split"] == "test"
        else ("each judged by a network that never saw it")
    )
    value, tail = said(metric, score), f" ({interval(metric, score)})"
    if task == "regression":
        verb = " has an R² of " if metric == "r2" else " is off by "
        value = f"{value} on average" if metric == "mae" else value
        if "r2" in entry["scores"] and metric != "r2":
            r2 = entry["scores"]["r2"]
            tail += f" and explains {percent(r2['value'])} of the variance ({interval('accuracy', r2)})"
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
    where = f"On {rows}, {seen}, " if entry["split"] != "test" else f"On {rows} {seen}, "
    return [(where, False), (entry["name"], True), (verb, False), (value, True), (f"{tail}. ", False)]


def _against(task: str, metric: str, rivals: Sequence[Entry], level: str) -> list[Part]:
    """The network against the strongest of the simple rivals, on the same rows."""
    compared = [rival for rival in rivals if rival["paired"] and metric in rival["scores"]]
    if not compared or level == "no":
        return []
    best = max(compared, key=lambda rival: rival["paired"]["difference"])
    gap = best["paired"]
    verb, more, less = ("is off by", "less", "more") if task == "regression" else ("gets", "more", "less")
    name, figure = best["name"].split(",")[0], said(metric, best["scores"][metric])
    begin = f"The strongest simple rival, {name}, {verb} {figure} on the same rows"
    unit = "" if task == "regression" else " points"
    apart, low, high = (_size(gap[key], task) for key in ("difference", "low", "high"))
    if gap["low"] > 0:
        begin += f", {apart}{unit} {more} ({low} – {high}), so a network is "
        return [(begin, False), ("not worth it", True), (" here. ", False)]
    if gap["high"] < 0:
        begin += f", {apart}{unit} {less} ({high} – {low}), so a network is "
        return [(begin, False), ("worth it", True), (" here. ", False)]
    begin += f". The difference may be chance (from {low}{unit} {less} to {high} {more}): "
    return [(begin, False), ("nothing shows that a network is needed", True), (" here. ", False)]


def _size(difference: float, task: str) -> str:
    """How large a difference is: points of a share, or units of the value."""
    return number(abs(difference)) if task == "regression" else f"{abs(difference) * 100:.1f}"


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
