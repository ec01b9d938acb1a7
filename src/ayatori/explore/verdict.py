"""Stage 3f. What was measured -> the verdict: a word, a sentence, the reasons, the cheapest next step.

It never says "impossible": what quick models do not see, a deep network may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FEWEST, FEWEST_OF_CLASS = 100, 20  # rows, and rows a class on average, below which no number is given
GRADES = ((0.8, "clear"), (0.5, "workable"), (0.2, "weak"))
ASKED = 0.001  # the largest p of class structure; several probes and points are asked
NAMES = {"classification": "accuracy", "multilabel": "share of right labels", "regression": "R²"}


@dataclass(frozen=True)
class Evidence:
    """All that the verdict rests on; scores are accuracies (R2 of numbers), intervals hold with 90 %."""

    task: str
    rows: int
    classes: int
    chance: float
    probe: float
    probe_name: str
    p: float  # that the labels have nothing to do with the inputs
    expected: tuple[float, float, float] | None
    ceiling: tuple[float, float, float] | None
    target: float | None = None
    step: str = ""  # what to do before all else, in a sentence
    suspects: int = 0
    worst: tuple[str, str] | None = None  # the pair of classes that blurs most
    twice: str = ""  # what more rows would bring, in a sentence
    untried: tuple[str, ...] = ()  # representations that were not there


def verdict(seen: Evidence) -> dict[str, Any]:
    """The "verdict" of explore.json: word, grade, sentence, reasons, next.

    >>> ends = (0.9, 0.93, 0.95), (0.93, 0.95, 0.97)
    >>> clear = Evidence("classification", 1000, 2, 0.5, 0.93, "a", 0.001, *ends)
    >>> verdict(clear)["word"], verdict(clear)["sentence"]
    ('feasible', 'Expect an accuracy of 90 to 95 %; chance is 50 %.')
    """
    word = _word(seen)
    grade = ""
    if seen.expected:
        skill = (seen.expected[1] - seen.chance) / max(1 - seen.chance, 1e-9)
        grade = next((name for least, name in GRADES if skill >= least), "poor")
    return {
        "word": word,
        "grade": grade,
        "sentence": _sentence(word, seen),
        "reasons": _reasons(word, seen),
        "next": _next(word, seen),
    }


def _word(seen: Evidence) -> str:
    if seen.rows < FEWEST or seen.rows < FEWEST_OF_CLASS * seen.classes or not seen.expected:
        return "too few rows"
    if seen.p > ASKED:
        return "no class structure"
    low, middle, _ = seen.expected
    most = seen.ceiling[2] if seen.ceiling else 1.0
    if seen.target is not None:
        if low >= seen.target:
            return "feasible"
        if middle >= seen.target:
            return "likely"
        return "not with this data" if most < seen.target else "undecided"
    # nobody named a target: half of what chance leaves to be learned is taken for one
    span = 1 - seen.chance
    if (low - seen.chance) / span >= 0.5:
        return "feasible"
    if (middle - seen.chance) / span >= 0.5:
        return "likely"
    return "not with this data" if (most - seen.chance) / span < 0.2 else "undecided"


def _sentence(word: str, seen: Evidence) -> str:
    name = NAMES[seen.task]
    if word == "too few rows":
        what = f"{seen.rows:,} rows" + (f" of {seen.classes} classes" if seen.classes > 1 else "")
        return f"{what} are too few to say how well a network would do."
    if word == "no class structure":
        return "The labels look unrelated to these features: quick models do no better than chance."
    assert seen.expected is not None
    low, _, high = seen.expected
    expect = f"Expect {'an' if name[0] in 'aR' else 'a'} {name} of {_span(low, high, seen.task)}"
    if seen.target is None:
        return f"{expect}; chance is {_figure(seen.chance, seen.task)}."
    target = _figure(seen.target, seen.task)
    if word == "feasible":
        return f"{expect}: your target of {target} is within reach."
    if word == "likely":
        return f"{expect}: your target of {target} is more likely reached than not."
    assert seen.ceiling is not None or word == "undecided"
    if word == "undecided" or seen.ceiling is None:
        return f"{expect}: your target of {target} is not reached yet, and not out of reach."
    most = _span(seen.ceiling[0], seen.ceiling[2], seen.task)
    return f"The best that these labels and features seem to allow is {most}: {target} is beyond it."


def _reasons(word: str, seen: Evidence) -> list[str]:
    found = []
    if word in ("too few rows", "no class structure"):
        if word == "no class structure":
            found.append(
                f"The best quick model ({seen.probe_name}) gets {_figure(seen.probe, seen.task)}, chance "
                f"{_figure(seen.chance, seen.task)}; rows near each other have no more often the same label "
                f"than shuffled ones (p = {seen.p:.2g})."
            )
            found.append("That speaks of what quick models see; a pattern of many features at once may hide.")
        return found
    found.append(f"The best quick model ({seen.probe_name}) already gets {_figure(seen.probe, seen.task)}.")
    if seen.ceiling:
        found.append(
            "The best that any model could reach with these labels and features is about "
            f"{_span(seen.ceiling[0], seen.ceiling[2], seen.task)}."
        )
    if seen.worst:
        found.append(f"Most often mixed up: {seen.worst[0]} and {seen.worst[1]}.")
    if seen.target is None and word == "undecided":
        found.append(
            "Whether that is enough, only you can say: --target-accuracy judges by what you need. Without, "
            "half of the way from chance to perfect is asked for."
        )
    found += [f"{name} was not there to be tried, which widens the interval." for name in seen.untried]
    return found


def _next(word: str, seen: Evidence) -> str:
    if word == "too few rows":
        need = max(FEWEST, FEWEST_OF_CLASS * seen.classes)
        return f"Label more rows: {need:,} are the least to say a number."
    if word == "no class structure":
        return "Check that the labels belong to their rows (a join, a shuffle), then the preprocessing."
    if seen.step:
        return seen.step
    if seen.suspects:
        if seen.suspects == 1:
            return "Look at the label that looks wrong: if it is, nothing is cheaper than to mend it."
        many = f"{seen.suspects:,} labels that look wrong, worst first"
        return f"Look at the {many}: where one is, nothing is cheaper than to mend it."
    if word in ("feasible", "likely"):
        return "Train: ayatori run."
    return seen.twice or "Train: ayatori run, and compare what it reaches with the ceiling."


def _figure(value: float, task: str) -> str:
    return f"{value:.2f}" if task == "regression" else f"{100 * value:.3g} %"


def _span(low: float, high: float, task: str) -> str:
    """Two figures with as many digits as tell them apart.

    >>> _span(0.412, 0.57, "regression"), _span(0.9968, 1.0, "regression"), _span(0.991, 0.997, "multilabel")
    ('0.41 to 0.57', '0.997 to 1.000', '99.1 to 99.7 %')
    """
    if task == "regression":
        digits = next((digits for digits in (2, 3) if high - low >= 10.0**-digits or high < 0.985), 4)
        return f"{low:.{digits}f} to {high:.{digits}f}"
    digits = 0 if high - low >= 0.02 and high < 0.985 else 1
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"
