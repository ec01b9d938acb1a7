"""Stage 9b. Leaderboard -> the answer, in three sentences: can it be learned, is a network worth it, what is delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ayatori.report.words import count, difference, interval, number, percent, plural, said

Entry = Mapping[str, Any]
LITTLE = 0.2  # less than this share of what chance gets wrong is put right: "a little"


def answer(
    result: Mapping[str, Any], entry: Entry | None, rivals: Sequence[Entry], chance: Entry | None
) -> dict[str, Any]:
    """The headline, and sentences whose parts say whether they are strong.

    ``entry`` is what was chosen, where it could be scored; ``rivals`` and ``chance`` (who looks at no input) were
    scored on the same rows.
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
    parts = [part for sentence in sentences if sentence for part in (*sentence, (" ", False))]
    return {
        "level": level,
        "headline": _headline(result["task"], level, entry),
        "parts": parts,
        "text": "".join(text for text, _ in parts).strip(),
    }


def main_figure(task: str, entry: Entry | None) -> str:
    """The figure that a reader is told first."""
    wanted = {"classification": ("accuracy",), "multilabel": ("accuracy",), "regression": ("mae", "rmse", "r2")}
    scores = entry["scores"] if entry else {}
    return next((name for name in wanted[task] if name in scores), "")


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
        return "Only in part: it ranks the rows, but names the class no better than chance."
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
    base = 100 if share < 0.985 else 1000
    right = min(round(share * base), base - 1)
    return f"{begin}: expect about {count(right)} of {count(base)} {what}right."


def _rough(value: float) -> str:
    """Two digits that matter, three from 1000 on."""
    rounded = float(f"{value:.2g}") if abs(value) < 1000 else float(f"{value:.3g}")
    return count(rounded) if abs(rounded) >= 10 else f"{rounded:g}"


def _how_well(result: Mapping[str, Any], entry: Entry, metric: str, chance: Entry | None) -> list[tuple[str, bool]]:
    score = entry["scores"][metric]
    rows = plural(score["n"], "row")
    if entry["split"] == "test":
        where = f"On {rows} that were sealed until the end, "
    else:
        where = f"On {rows}, each judged by a network that had never seen it, "
    value, between = said(metric, score), interval(metric, score)
    floor = ""
    if result["task"] == "regression":
        r2 = entry["scores"].get("r2")
        verb = " is off by " if metric != "r2" else " has an R² of "
        if metric != "r2" and r2:
            floor = f" and explains {percent(r2['value'])} of the variance ({interval('accuracy', r2)})"
        if chance and metric in chance["scores"] and metric != "r2":
            floor += f"; always saying the mean is off by {said(metric, chance['scores'][metric])}"
        value = f"{value} on average" if metric == "mae" else value
    else:
        verb = " is right in "
        value = f"{value} of all labels" if result["task"] == "multilabel" else value
        if chance:
            what = "naming each label or not by its share" if result["task"] == "multilabel" else (
                "always naming the most frequent class"
            )  # fmt: skip
            floor = f"; {what} is right in {said(metric, chance['scores'][metric])}"
    return [(where, False), (entry["name"], True), (verb, False), (value, True), (f" ({between}){floor}.", False)]


def _against(task: str, metric: str, rivals: Sequence[Entry], level: str) -> list[tuple[str, bool]]:
    """The network against the strongest of the simple rivals, on the same rows."""
    compared = [rival for rival in rivals if rival["paired"] and metric in rival["scores"]]
    if not compared or level == "no":
        return []
    best = max(compared, key=lambda rival: rival["paired"]["difference"])
    paired, name = best["paired"], best["name"].split(",")[0]
    points = "" if task == "regression" else " points"
    apart = abs(paired["difference"]) * (100 if points else 1)
    gap = f"{number(apart, 1) if points else number(apart)}{points}"
    between = difference(paired, task).partition("(")[2].rstrip(")")
    begin = f"The strongest simple rival, {name}, gets {said(metric, best['scores'][metric])} on the same rows: "
    if task == "regression":
        begin = begin.replace(" gets ", " is off by ")
    if paired["low"] > 0:
        return [(f"{begin}{gap} better ({between}), so a network is ", False), ("not worth it", True), (" here.", False)]
    if paired["high"] < 0:
        flipped = {key: -paired[key] for key in ("difference", "low", "high")}
        flipped["low"], flipped["high"] = flipped["high"], flipped["low"]
        between = difference(flipped, task).partition("(")[2].rstrip(")")
        return [(f"{begin}{gap} worse ({between}), so a network is ", False), ("worth it", True), (" here.", False)]
    return [
        (f"{begin}the difference ({between}) may be chance, so nothing here shows that a network is ", False),
        ("needed", True),
        (".", False),
    ]


def _delivered(result: Mapping[str, Any], entry: Entry) -> list[tuple[str, bool]]:
    delivered = result.get("delivered") or result["chosen"]
    if entry["split"] == "test" and entry["name"] == delivered:
        return [(f"That is the model in this folder: {delivered}.", False)]
    return [
        (
            f"The model in this folder is the {delivered}; every row taught some of them, so it has no score of its "
            "own, and the figure is that of one network. To score what is delivered, seal rows with --test 0.2.",
            False,
        )
    ]
