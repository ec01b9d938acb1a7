"""Stage 9g. A name on the leaderboard -> what it is: one network, a mean, an ensemble; how it is said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Entry = Mapping[str, Any]
PLURAL = re.compile(r"\d+ bags|boosted networks|networks weighted by loss")


@dataclass(frozen=True)
class Line:
    """What a line of networks is. ``family``: the network beside the run's own, or the ensemble; "" = the
    run's own network. A family's lines on held-out rows and on the test belong together."""

    kind: Literal["one", "mean", "taught", "out of bag", "ensemble"]
    family: str
    title: str


def line_of(name: str) -> Line:
    """What a network's or an ensemble's line of the leaderboard is.

    >>> line_of("one network, 5 folds"), line_of("one of 5 linear networks").title
    (Line(kind='one', family='', title='one network'), 'one linear network')
    >>> line_of("linear network, mean of 5 folds").kind, line_of("stack, 5 folds").title
    ('mean', 'stack')
    """
    head, _, tail = name.partition(", ")
    alone = re.fullmatch(r"one of \d+ (?:(.+) )?networks", name)
    if name == "one network, taught":
        return Line("taught", "taught", name)
    if head == "not balanced":
        return Line("mean" if tail.startswith("mean of") else "one", head, name)
    if head == "one network":
        return Line("one", "", head)
    if alone:
        return Line("one", alone[1] or "", f"one {alone[1]} network" if alone[1] else "one network")
    if head.startswith(("mean of", "best of")):
        return Line("mean", "", name)
    if head == "out of bag":
        return Line("out of bag", head, name)
    if head.endswith(" network"):
        net = head.removesuffix(" network")
        return Line("mean", net, name) if "mean of" in tail else Line("one", net, f"one {head}")
    return Line("ensemble", head, head)


def several(entry: Entry) -> bool:
    """Whether more than one network answers a held-out row."""
    return bool(entry["network"]) and line_of(entry["name"]).kind not in ("one", "taught")


def spoken(name: str) -> tuple[str, bool]:
    """A line in a sentence, and whether it is more than one.

    >>> spoken("3 bags, mean of 5 folds"), spoken("one network, 5 folds")
    (('the 3 bags, mean of 5 folds', True), ('one network, 5 folds', False))
    """
    if line_of(name).kind in ("one", "taught"):
        return name, False
    if line_of(name).kind == "out of bag":
        return "the bags that had not drawn the row", True
    name = name.replace("weighted by loss", "networks weighted by loss", 1)
    return f"the {name}", bool(PLURAL.match(name))


def brief(name: str) -> str:
    """The same without the folds: ``the stack``, ``one network``."""
    line = line_of(name)
    return spoken(line.title)[0]


def chosen_line(entries: Sequence[Entry], name: str) -> Entry | None:
    """What was chosen, on the test where it is scored there."""
    found = [entry for entry in entries if entry["name"] == name and entry["scores"]]
    return next((entry for entry in found if entry["split"] == "test"), found[0] if found else None)


def held_out_line(entries: Sequence[Entry], name: str) -> Entry | None:
    """The held-out line that ``name`` was chosen by: the best of its family."""
    family = line_of(name).family
    own = networks(entries, "out_of_fold")
    return next((entry for entry in own if line_of(entry["name"]).family == family), own[0] if own else None)


def networks(entries: Sequence[Entry], split: str) -> list[Entry]:
    """Networks and ensembles on one split, best first."""
    return [entry for entry in entries if entry["network"] and entry["split"] == split and entry["scores"]]


def rows_scored(entries: Sequence[Entry]) -> int:
    """The rows of one split that its lines are scored on; out of bag there may be more."""
    same = [entry for entry in entries if line_of(entry["name"]).kind != "out of bag"] or entries
    return max((score["n"] for entry in same for score in entry["scores"].values()), default=0)


def own_network(entries: Sequence[Entry]) -> Entry | None:
    """The run's own network on held-out rows, one network a row."""
    own = (entry for entry in networks(entries, "out_of_fold"))
    return next((e for e in own if line_of(e["name"]).kind == "one" and not line_of(e["name"]).family), None)


def best_single(entries: Sequence[Entry], split: str) -> Entry | None:
    """Whom ensembles are compared with on one split: the single network with nobody to be compared with."""
    alone = [e for e in networks(entries, split) if line_of(e["name"]).kind in ("one", "taught")]
    return next((entry for entry in alone if not entry["paired"]), alone[0] if alone else None)
