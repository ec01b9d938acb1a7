"""Stage 9h. Plan, members -> what is drawn of each: who saw which rows, how it learned; of many, a few."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ayatori.records import SCORE, SEALED, STOP, UNUSED, AyatoriError

STRIPS = 80
MEMBERS = 10  # of which curves are drawn
LINES = 30  # of the Plan that are drawn
FEW = 3  # of a kind that stands beside the folds
POINTS = 160  # of a curve
KINDS = {
    "fold": "Folds, one network each",
    "net": "Other networks on the same folds",
    "bag": "Bags: training rows drawn with replacement",
    "round": "Rounds of boosting: each after the mistakes of those before",
    "pair": "Pairs, for the stack: each has seen neither of two folds",
    "student": "The student: taught by what the ensemble says of held-out rows",
}
NAMES = {
    "fold": "folds",
    "net": "other networks",
    "bag": "bags",
    "round": "rounds",
    "pair": "pairs",
    "student": "student",
}
Column = Mapping[str, Any]


def read_members(run: Path) -> list[dict[str, Any]]:
    """Every member.json of a run, with its folder, its label and its kind."""
    folders = sorted(path for path in (run / "members").iterdir() if (path / "member.json").is_file())
    found = [read_json(folder / "member.json") for folder in folders]
    for folder, member, label in zip(folders, found, labels(found), strict=True):
        member |= {"folder": f"members/{folder.name}", "label": label}
        member["kind"] = kind_of(member, found[0]["net"])
    return found


def read_json(path: Path) -> Any:
    """What a file of a run holds; AyatoriError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AyatoriError(f"'{path}' must be readable JSON, however: {error}") from None


def kind_of(column: Column, own: str) -> str:
    """A member's kind; ``net``: a fold of another network than the run's own."""
    kind = str(column.get("kind", "fold"))
    return "net" if kind == "fold" and column["net"] != own else kind


def labels(columns: Sequence[Column]) -> list[str]:
    """What each member is called.

    >>> labels([{"fold": 0, "repeat": 0, "net": "mlp", "kind": "fold"},
    ...         {"fold": 0, "repeat": 0, "net": "mlp", "kind": "bag", "bag": 3},
    ...         {"fold": 0, "repeat": 0, "net": "linear", "kind": "pair", "other": 1}])
    ['fold 1', 'fold 1 · bag 3', 'linear, without 1 and 2']
    """
    own = columns[0]["net"] if columns else ""
    repeats = len({column["repeat"] for column in columns}) > 1
    return [_label(column, own, repeats) for column in columns]


def _label(column: Column, own: str, repeats: bool) -> str:
    kind = column.get("kind", "fold")
    if kind == "student":
        return "student"
    if kind == "pair":
        label = f"without {column['fold'] + 1} and {column['other'] + 1}"
        label = f"{column['repeat'] + 1} · {label}" if repeats else label
    else:
        label = fold_label(column["fold"], column["repeat"], repeats)
    if kind in ("bag", "round"):
        part = f"{kind} {column[kind]}"
        label = f"{label} · {part}" if column["fold"] >= 0 else part
    return label if column["net"] == own else f"{column['net']}, {label}"


def fold_label(fold: int, repeat: int, repeats: bool) -> str:
    """``fold 1``, or of several repeats ``2 · fold 1``."""
    label = f"fold {fold + 1}" if fold >= 0 else "network"
    return f"{repeat + 1} · {label}" if repeats else label


def plan_strips(path: Path) -> dict[str, Any]:
    """Strips of rows against members; each shows the row in its middle, rows sorted by what they are."""
    table = pd.read_parquet(path)
    roles = table.to_numpy(np.uint8)
    columns = table.attrs["columns"]
    rows, members = roles.shape
    called = labels(columns)
    groups = _grouped(columns)
    folds = roles[:, groups[0][1]]  # the folds are counted, all are drawn
    sums = {kind: mask.sum(axis=0) for kind, mask in _kinds(folds).items()}
    drawn = _kinds(roles)
    strips = min(STRIPS, rows)
    # in time: rows that only teach come first, and those that stop a fold are the last before it
    scored = np.where(drawn["score"].any(axis=1), _first(drawn["score"]), -1)
    order = np.lexsort((-_first(drawn["stop"]), scored, drawn["sealed"].any(axis=1)))
    middle = order[((np.arange(strips) + 0.5) * rows / strips).astype(int)]
    letters = np.full((strips, members), ".", dtype="<U1")
    for kind, letter in (("train", "t"), ("stop", "s"), ("score", "c"), ("sealed", "x")):
        letters[drawn[kind][middle]] = letter
    letters[(roles[middle] > 1) & (roles[middle] < STOP)] = "T"
    room = LINES - sum(min(len(own), FEW) for _, own in groups[1:])
    lines = []
    for place, (kind, own) in enumerate(groups):
        shown = own[: FEW if place else room]
        lines.append(
            {
                "kind": kind,
                "title": _title(kind, columns[own[0]]) if len(groups) > 1 else "",
                "more": len(own) - len(shown),
                "lines": [{"label": called[m], "strips": "".join(letters[:, m])} for m in shown],
            }
        )
    return {
        "strategy": table.attrs["strategy"],
        "rows": rows,
        "members": members,
        "groups": lines,
        "rows_a_strip": rows / strips,
        "counts": {kind: [int(s.min()), int(s.max())] for kind, s in sums.items() if s.max() > 0},
        "again": bool((drawn["train"] & (roles > 1)).any()),
    }


def _title(kind: str, column: Column) -> str:
    return "The run's own network" if kind == "fold" and column["fold"] < 0 else KINDS[kind]


def _kinds(roles: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "train": (roles > UNUSED) & (roles < STOP),
        "stop": roles == STOP,
        "score": roles == SCORE,
        "sealed": roles == SEALED,
    }


def _grouped(columns: Sequence[Column]) -> list[tuple[str, list[int]]]:
    """The members of each kind, a fold's own beside each other."""
    own = columns[0]["net"]
    kinds = [kind_of(column, own) for column in columns]

    def place(member: int) -> tuple[Any, ...]:
        column = columns[member]
        return column["net"] != own, column["net"], column["repeat"], column["fold"], member

    found = [(k, sorted((m for m, kind in enumerate(kinds) if kind == k), key=place)) for k in KINDS]
    return [(kind, members) for kind, members in found if members]


def _first(mask: np.ndarray) -> np.ndarray:
    """(n,): the first member for which ``mask`` (n, m) holds, m where there is none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])


PENALTY = "penalty "


def curves(run: Path, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the folds' own networks learned, and in a line each how the others did."""
    own = [member for member in members if member["kind"] == "fold"]
    others = [
        _summed(kind, [member for member in members if member["kind"] == kind])
        for kind in KINDS
        if kind != "fold"
    ]
    return {
        "members": [_curve(run, member) for member in own[:MEMBERS]],
        "more": len(own) - len(own[:MEMBERS]),
        "others": [line for line in others if line],
    }


def _curve(run: Path, member: Mapping[str, Any]) -> dict[str, Any]:
    history = pd.read_parquet(run / member["folder"] / "history.parquet")
    best = member["best_epoch"]
    some = np.linspace(0, len(history) - 1, min(POINTS, len(history))).astype(int)
    thin = history.iloc[np.union1d(some, np.flatnonzero(history["epoch"] == best))]
    kept = history.loc[history["epoch"] == best, "stop_loss"]
    notes = [f"epoch {line.epoch}: {line.note}" for line in history.itertuples() if line.note]
    exact = bool(len(history)) and history["note"].str.startswith(PENALTY).all()
    return {
        # a head that was solved for has a line for each penalty in place of epochs
        "penalty": history["note"].iloc[best - 1].removeprefix(PENALTY) if exact else "",
        "label": member["label"],
        "epochs": len(history),
        "best_epoch": best,
        "best_loss": float(kept.iloc[0]) if len(kept) else None,
        "reason": member["reason"],
        "seconds": member["seconds"],
        "epoch": thin["epoch"].tolist(),
        "train": _finite(thin["train_loss"]),
        "stop": _finite(thin["stop_loss"]),
        "notes": [] if exact else notes[:3],
    }


def _summed(kind: str, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not members:
        return {}
    kept = [member["best_epoch"] for member in members]
    return {
        "name": NAMES[kind],
        "members": len(members),
        "epochs": [int(np.min(kept)), float(np.median(kept)), int(np.max(kept))],
        "seconds": float(sum(member["seconds"] for member in members)),
    }


def _finite(values: pd.Series) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]
