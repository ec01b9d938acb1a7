"""Stage 1e. Paths of files -> their parts, and what a part or a pattern tells: a group, a label, a time."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ayatori.data.paths import is_media
from ayatori.records import AyatoriError


def parts_of(path: str) -> list[str]:
    """The words of a path without its ending; all that is neither letter nor digit cuts.

    >>> parts_of("seven/7_jackson-32.wav")
    ['seven', '7', 'jackson', '32']
    """
    stem = path.rpartition(".")[0] if is_media(path) else path
    return [part for part in re.split(r"[\W_]+", stem) if part]


def told_by(paths: Sequence[str], how: str, setting: str) -> np.ndarray:
    """What each path tells (n,): ``how`` numbers its parts from 1, with commas, or is a pattern to be found.

    Of a pattern the first bracket counts, or all that it finds. ``setting``: "groups", "target"
    or "time", for sentences.

    >>> told_by(["cat/tom_1.png", "cat/mia_1.png"], "2", "groups").tolist()
    ['tom', 'mia']
    >>> told_by(["cat/p1x1.png", "cat/p1x2.png"], "(p[0-9])x", "groups").tolist()
    ['p1', 'p1']
    """
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", how):
        places = [int(place) - 1 for place in how.split(",")]
        return np.array([_joined(path, places, how, setting) for path in paths])
    try:
        pattern = re.compile(how)
    except re.error as error:
        raise AyatoriError(
            f"`{setting}` of a folder must number parts of the paths, such as 2, or be a pattern, however "
            f"{how!r} is none: {error}"
        ) from None
    return np.array([_found(path, pattern, setting) for path in paths])


def _joined(path: str, places: Sequence[int], how: str, setting: str) -> str:
    parts = parts_of(path)
    if not 0 <= min(places) <= max(places) < len(parts):
        raise AyatoriError(
            f"every path must have the parts that `{setting}` numbers from 1, however {setting}={how} and "
            f"'{path}' has {len(parts)}: {', '.join(parts)}"
        )
    return " ".join(parts[place] for place in places)


def _found(path: str, pattern: re.Pattern[str], setting: str) -> str:
    match = pattern.search(path)
    said = match and (match[1] if pattern.groups else match[0])
    if not said:
        raise AyatoriError(
            f"the pattern `{setting}` must be found in every path, however {setting}={pattern.pattern!r} is "
            f"not in '{path}'"
        )
    return said
