"""Stage 9b. Leaderboard -> the answer: can it be learned, how well, is a network worth it, what is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ayatori.records import LARGEST_LOG
from ayatori.report.lines import brief, line_of, several, spoken
from ayatori.report.words import count, interval, number, percent, plural, rounded, said, where

Entry = Mapping[str, Any]
Part = tuple[str, bool]  # words, and whether they are strong
OPEN = 0.5  # an interval that is wider says little of how many are right
FALLEN = (
    "Hold together what belongs together (--groups), so that held-out rows are as new as the test; or learn "
    "from rows like those of the test."
)
LITTLE = 1 / 3  # less than this share of what chance gets wrong is put right: "a little"


def answer(
    result: Mapping[str, Any],
    entry: Entry | None,
    rivals: Sequence[Entry],
    chance: Entry | None,
    earlier: Sequence[Entry] = (),
    folds: bool = True,
    source: str = "",
    grouped: bool = False,
    careful: str = "",
    beside: str = "",
    known: int = 0,
) -> dict[str, Any]:
    """The headline, and sentences whose parts say whether they are strong.

    ``entry`` is what was chosen, where it could be scored; ``rivals`` and ``chance`` (who looks at no input)
    were scored on the same rows; ``earlier`` are the rivals out of fold, asked where the test cannot tell.
    ``source``: "" or, where rivals look at what a pretrained network says, "frozen", or "whole" if all of
    that network learned on. ``grouped``: rows come in groups, which the intervals count. ``careful``: what
    else the figures may come from. ``beside``: a sentence on what files and columns beside them tell apart.
    ``known``: so many of the rows that judge are copies of rows that were learned from.
    """
    metric = main_figure(result["task"], entry)
    if entry is None or not metric:
        return _unscored(result)
    level, judged = _level(result, entry, rivals, chance, grouped), entry["scores"][metric]["n"]
    if known > judged / 2 and level in ("yes", "little", "ranks"):
        level = "known"
    against = _against(result["task"], metric, rivals, earlier, level, entry["name"])
    sentences = [
        _how_well(result, entry, metric, chance, level, folds),
        _on_source(against, source) if source else against,
        [(beside, False)] if beside else [],
        _delivered(result, entry),
    ]
    parts = [part for sentence in sentences for part in sentence]
    copies = (
        f"{count(known)} of the {plural(judged, 'row')} that judge are copies of rows that were learned from"
    )
    careful = "; and ".join(filter(None, (copies if known else "", careful)))
    parts += [(" Careful: ", True), (f"{careful}.", False)] if careful else []
    return {
        "level": level,
        "headline": _headline(result, level, entry),
        "parts": parts,
        "text": "".join(text for text, _ in parts).strip(),
    }


def halves(task: str, kind: str, apart: Mapping[str, float]) -> str:
    """A sentence on what files and the columns beside them tell, each beside the other of another row."""
    if not apart:
        return ""
    both, files, columns = (percent(apart[name]) for name in ("both", "files", "columns"))
    verb = "explains" if task == "regression" else "is right in"
    tail = " of the variance" if task == "regression" else " of all labels" if task == "multilabel" else ""
    return (
        f"On held-out rows one network {verb} {both}{tail}; with the columns of other rows {files}, with the "
        f"{kind} of other rows {columns}. "
    )


def falls_off(task: str, metric: str, entry: Entry | None, held_out: Entry | None) -> str:
    """Words on a test that is worse than held-out rows by more than chance; "" where it is not."""
    if entry is None or held_out is None or entry["split"] != "test" or metric not in held_out["scores"]:
        return ""
    here, there = entry["scores"][metric], held_out["scores"][metric]
    worse = here["low"] > there["high"] if metric in ("mae", "rmse") else here["high"] < there["low"]
    verb = {"regression": "is off by" if metric != "r2" else "has an R² of"}.get(task, "is right in")
    return worse * (
        f"on held-out rows of what it learned from, {brief(held_out['name'])} {verb} {said(metric, there)} "
        f"({interval(metric, there)}), far from the test: either its rows are of another kind, or rows that "
        "belong together lie on both sides of the folds (--groups)"
    )


def next_step(
    level: str,
    rivals: Sequence[Entry],
    metric: str,
    preset: str,
    looked: str,
    stacks: bool,
    before: str = "",
) -> str:
    """What to do next, the most promising first.

    ``looked``: the cheapest step that the look before training found; ``before``: what it found that the
    figures themselves hang on. ``stacks``: a stack was tried.
    """
    best = _strongest(rivals, metric) if metric else None
    better = best is not None and best["paired"]["low"] > 0
    if level == "known":
        return "Take copies out of one side, or hold together what belongs together: --groups."
    if level == "unknown":
        return "Seal some rows (--test 0.2), so that something is left to judge by."
    if before:
        return before
    if level == "no":
        return looked or "Work on the data before the network: ayatori explore shows what is in them."
    if better and best is not None:
        return f"Use {_kind(best)} here{'' if stacks else ', or let both speak: --ensemble stacking'}."
    if preset == "quick":
        return "This was quick: --preset good trains longer."
    return looked or "Predict new rows by: ayatori predict."


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


def _level(
    result: Mapping[str, Any],
    entry: Entry,
    rivals: Sequence[Entry],
    chance: Entry | None,
    grouped: bool,
) -> str:
    """yes, little, ranks (better than chance in order only), other (a rival can), no, or unknown.

    Where most rows that judge are copies, what would be yes, little or ranks becomes "known".
    """
    task, scores = result["task"], entry["scores"]
    area = scores.get("roc_auc")
    ranks = bool(area and area["low"] > 0.5)
    if task == "regression":
        if "r2" not in scores:
            return "unknown"
        learned, share = scores["r2"]["low"] > 0, scores["r2"]["value"]
    elif chance and chance["paired"]:
        floor = chance["scores"]["accuracy"]["value"]
        learned = chance["paired"]["high"] < 0
        if grouped and task == "classification" and "balanced_accuracy" in scores:
            # of a few groups of one class each, always one name gets all right, or none: not what varies here
            even = scores["balanced_accuracy"]["low"] > 1 / len(result["classes"])
            learned |= even and chance["paired"]["difference"] < 0
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


def _headline(result: Mapping[str, Any], level: str, entry: Entry) -> str:
    task = result["task"]
    if level == "unknown":
        return "Not known: there is nothing to compare it with."
    if level == "known":
        return "Not known: most rows that judge are copies of rows that were learned from."
    if level == "no":
        rows = max(score["n"] for score in entry["scores"].values())
        return f"No: no better than chance, as far as {plural(rows, 'row')} can tell."
    if level == "other":
        return "Not by this network: a simple rival does better."
    if level == "ranks":
        what = "labels" if task == "multilabel" else "class"
        rows = max(score["n"] for score in entry["scores"].values())
        shown = f"{plural(rows, 'row')} do not show that it names the {what} better than chance"
        return f"Only in part: it ranks the rows; {shown}."
    begin = {"yes": "Yes", "little": "A little"}[level]
    scores = entry["scores"]
    if task == "regression":
        if "mae" in scores and result.get("log"):
            factor = math.exp(min(scores["mae"]["value"], LARGEST_LOG))
            return f"{begin}: expect to be off by a factor of about {_rough(factor)}."
        if "mae" in scores:
            return f"{begin}: expect to be off by about {_rough(scores['mae']['value'])} on average."
        return f"{begin}: it explains {percent(scores['r2']['value'], 0)} of the variance."
    share, n = scores["accuracy"]["value"], scores["accuracy"]["n"]
    what = "labels " if task == "multilabel" else ""
    width = scores["accuracy"]["high"] - scores["accuracy"]["low"]
    if width > OPEN:
        low, high = (int(100 * scores["accuracy"][end]) for end in ("low", "high"))
        return f"{begin}, but how well is open: {low} to {high} of 100 {what}right."
    if share == 1.0:
        return f"{begin}: all of {count(n)} {what}right."
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
    name, many = spoken(entry["name"])
    name += "," if ", " in name else ""
    be = "are" if many else "is"
    value, tail = said(metric, score), f" ({interval(metric, score)})"
    if task == "regression":
        verb = f" {'have' if many else 'has'} an R² of " if metric == "r2" else f" {be} off by "
        value = f"{value} on average" if metric == "mae" else value
        value += " in logarithms" if metric == "mae" and result.get("log") else ""
        if "r2" in scores and metric != "r2":
            r2 = scores["r2"]
            tail += f" and explain{'' if many else 's'} {said('accuracy', r2)} of the variance"
            tail += f" ({interval('accuracy', r2)})"
    else:
        verb = f" {be} right in "
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
    where_from = f"On {where(entry['split'], score['n'], folds, several(entry))}, "
    return [(where_from, False), (name, True), (verb, False), (value, True), (f"{tail}. ", False)]


def _against(
    task: str,
    metric: str,
    rivals: Sequence[Entry],
    earlier: Sequence[Entry],
    level: str,
    chosen: str,
) -> list[Part]:
    """What was chosen against the strongest of the simple rivals, on the same rows."""
    if level == "no":
        what = {"classification": "classes apart", "multilabel": "labels", "regression": "value"}[task]
        return [(f"Nothing here shows that these inputs tell the {what}. ", False)]
    best = _strongest(rivals, metric)
    if best is None:
        return []
    verb = "is off by" if task == "regression" else "gets"
    kind = _kind(best)
    if best.get("drawn"):
        kind += f" (taught by {plural(best['drawn'], 'row')} of a fold)"
    begin = f"The strongest simple rival, {kind}, {verb} {said(metric, best['scores'][metric])} "
    begin += "on the same rows"
    other = best.get("against", chosen)  # whom the rival was compared with
    than = "" if other == chosen else brief(other)
    if _apart(best):
        return _worth(f"{begin}, {_gap(best, metric, task)}{f' than {than}' if than else ''}, ", best)
    first, last = (_side(best["paired"][key], metric, best, task) for key in ("low", "high"))
    begin += f". That difference{f' to {than}' if than else ''} may be chance (from {first} to {last})"
    known = _strongest(earlier, metric) if best["split"] == "test" else None
    # only in the network's favour: what is handed over is seldom worse than one network
    if known is not None and known["paired"]["high"] < 0:
        rows = plural(known["paired"]["n"], "held-out row")
        against = f"; on the {rows}, the strongest, {_kind(known)}, "
        against += "is off by " if task == "regression" else "gets "
        than = brief(known.get("against") or "one network")
        return _worth(f"{begin}{against}{_gap(known, metric, task)} than {than}, ", known)
    return [(f"{begin}: ", False), ("these rows do not show that a network is needed", True), (". ", False)]


def _strongest(rivals: Sequence[Entry], metric: str) -> Entry | None:
    """The rival that the network has most to fear from."""
    compared = [rival for rival in rivals if rival["paired"] and metric in rival["scores"]]
    return max(compared, key=lambda rival: rival["paired"]["difference"], default=None)


def _kind(rival: Entry) -> str:
    return str(rival["name"]).split(",")[0]


def _apart(rival: Entry) -> bool:
    """Whether the difference is more than chance."""
    return bool(rival["paired"]["low"] > 0 or rival["paired"]["high"] < 0)


def _worth(begin: str, rival: Entry) -> list[Part]:
    verdict = "worth it" if rival["paired"]["high"] < 0 else "not worth it"
    return [(f"{begin}so a network is ", False), (verdict, True), (" here. ", False)]


def _on_source(parts: list[Part], source: str) -> list[Part]:
    """Rivals look at a network's features too: the question is whose head, or whether it had to learn on."""
    words = {"that a network is needed": "that our head is better", "so a network is ": "so our head is "}
    if source == "whole":
        words = dict(zip(words, ("that it had to learn on", "so learning on is "), strict=True))
    for old, new in words.items():
        parts = [(text.replace(old, new), strong) for text, strong in parts]
    return parts


def _gap(rival: Entry, metric: str, task: str) -> str:
    """``2.5 points less (1.0 – 4.1)``."""
    paired = rival["paired"]
    ends = sorted(abs(paired[key]) for key in ("low", "high"))
    between = " – ".join(_size(end, metric, rival, task) for end in ends)
    return f"{_side(paired['difference'], metric, rival, task)} ({between})"


def _side(difference: float, metric: str, rival: Entry, task: str) -> str:
    """A rival's difference, positive where it is better, in words."""
    more = (difference > 0) != (task == "regression")  # a better rival gets more right, or is off by less
    unit = "" if task == "regression" else " points"
    return f"{_size(abs(difference), metric, rival, task)}{unit} {'more' if more else 'less'}"


def _size(size: float, metric: str, rival: Entry, task: str) -> str:
    if task == "regression":
        return number(size, rival["scores"][metric]["value"])
    return rounded(size * 100, 1)


def _delivered(result: Mapping[str, Any], entry: Entry) -> list[Part]:
    delivered = result.get("delivered") or result["chosen"]
    if entry["split"] == "test":
        return [(f"Handed over in this folder: {delivered}.", False)]
    if entry["name"] == delivered:
        return [(f"Handed over in this folder: {delivered}. No rows were sealed for a last test.", False)]
    own = line_of(entry["name"])
    whose = brief(entry["name"]) + (" of one fold" if own.kind == "ensemble" else "")
    text = f"Handed over in this folder: {spoken(delivered)[0]}. It has no score of its own; "
    text += f"the figures are those of {whose}."
    if not result["rows"]["test"]:
        text += " Seal rows (--test 0.2) to score it as well."
    return [(text, False)]
