"""Stage 3j. Words, labels -> which words tell the target, and whether one alone gives it away.

Log odds ratios of standing in a row, over their standard errors (Haldane, 1956; as Monroe, Colaresi & Quinn,
"Fightin' words", 2008, compare speakers); of numbers, t of the difference of means.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ayatori.records import Dataset

MOST_CLASSES, MOST_TERMS = 12, 10  # that are listed
MOST_ROWS, MOST_SIDES = 20_000, 40  # rows that are counted, and classes, the largest
CLEAR = 4.0  # standard errors from which on a term is listed
HELD, STRAY = 0.9, 0.01  # shares of a class and of all others that hold a word which gives the class away
FEWEST, NAMED = 20, 3  # rows of a class, for that; such words that are named


def telling(dataset: Dataset, open_: np.ndarray) -> dict[str, Any] | None:
    """Words that tell the target, in the ``open_`` (m,) rows alone; None where there are no texts.

    "classes": of each class (or label, or end of the numbers) its "name" and "terms", each a "term" and the
    shares "own" and "others" of rows that hold it. "alarm", "sentence" and "step": of words that alone tell a
    class.
    """
    if "words" not in dataset.inputs or not len(open_):
        return None
    several = len(dataset.schema.texts) > 1
    names = [
        f"{term} ({column})" if several else term
        for column, known in dataset.schema.texts.items()
        for term in known
    ]
    if len(open_) > MOST_ROWS:
        open_ = np.sort(np.random.default_rng(29).choice(open_, MOST_ROWS, replace=False))
    words = dataset.inputs["words"][open_]
    rows = _counts(words, np.ones(len(open_)), len(names))
    found: list[dict[str, Any]] = []
    alarms: list[tuple[str, int, tuple[np.ndarray, np.ndarray]]] = []
    for name, share in _sides(dataset, open_):
        own = _counts(words, share, len(names))
        total, others = share.sum(), len(share) - share.sum()
        a, b = own + 0.5, total - own + 0.5
        c, d = rows - own + 0.5, others - (rows - own) + 0.5
        score = np.log(a * d / (b * c)) / np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
        shares = own / max(total, 1e-9), (rows - own) / max(others, 1e-9)
        terms = [
            {"term": names[at], "own": float(shares[0][at]), "others": float(shares[1][at])}
            for at in _apart(names, np.argsort(-score, kind="stable"))
            if score[at] > CLEAR
        ]
        if terms and len(found) < MOST_CLASSES:
            found.append({"name": name, "terms": terms})
        given = (shares[0] >= HELD) & (shares[1] <= STRAY) & (total >= FEWEST) & (others >= FEWEST)
        if dataset.task != "regression" and given.any():
            alarms.append((name, int(np.argmax(np.where(given, score, -np.inf))), shares))
    return {"classes": found, "alarm": bool(alarms), **_said(names, alarms)}


def _said(names: list[str], alarms: list[tuple[str, int, tuple[np.ndarray, np.ndarray]]]) -> dict[str, str]:
    """Sentence and next step about words (places in ``names``) that give classes away."""
    if not alarms:
        return {"sentence": "", "step": ""}
    where = [
        f"'{names[at]}' stands in {own[at]:.1%} of the rows of '{name}' and in {others[at]:.1%} of others"
        for name, at, (own, others) in alarms[:NAMED]
    ]
    words = ", ".join(f"'{names[at]}'" for _, at, _ in alarms[:NAMED])
    return {
        "sentence": f"{'; '.join(where)}: a network may learn that alone, and be wrong of texts without it",
        "step": f"See whether new texts will have {words}: that alone tells a class, and the scores say "
        "nothing of texts without it.",
    }


def _sides(dataset: Dataset, open_: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Names, and how much each open row (m,) is of them: 0 or 1."""
    labels = dataset.labels[open_]
    if dataset.task == "classification":
        order = np.argsort(-np.bincount(labels, minlength=len(dataset.classes)), kind="stable")[:MOST_SIDES]
        return [(dataset.classes[code], (labels == code).astype(float)) for code in order.tolist()]
    if dataset.task == "multilabel":
        order = np.argsort(-labels.sum(axis=0), kind="stable")[:MOST_SIDES]
        return [(dataset.classes[code], labels[:, code].astype(float)) for code in order.tolist()]
    values = labels.reshape(len(labels), -1)[:, 0]
    middle = np.median(values)
    return [
        ("above the median", (values > middle).astype(float)),
        ("below the median", (values < middle).astype(float)),
    ]


def _counts(words: np.ndarray, weights: np.ndarray, terms: int) -> np.ndarray:
    each = np.repeat(weights, words.shape[1])
    return np.bincount(words.ravel() + 1, each, terms + 1)[1:]


def _apart(names: list[str], order: np.ndarray) -> list[int]:
    """The first terms in ``order`` of which none is a part of one before it, or holds it."""
    kept: list[int] = []
    parts: set[str] = set()
    for at in order[: 10 * MOST_TERMS].tolist():
        own = names[at].split(" ")
        if not parts.intersection(own):
            kept.append(at)
            parts.update(own)
        if len(kept) == MOST_TERMS:
            break
    return kept
