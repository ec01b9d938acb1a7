"""Stage 1e. Paths of files -> their parts, and the groups that a part or a pattern tells."""

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


def groups_of(paths: Sequence[str], how: str) -> np.ndarray:
    """The group of each path (n,): ``how`` numbers parts from 1, with commas, or is a pattern to be found.

    A pattern's first bracket names the group, or all that it finds.

    >>> groups_of(["cat/tom_1.png", "cat/mia_1.png"], "2").tolist()
    ['tom', 'mia']
    >>> groups_of(["cat/p1x1.png", "cat/p1x2.png"], "(p[0-9])x").tolist()
    ['p1', 'p1']
    """
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", how):
        places = [int(place) - 1 for place in how.split(",")]
        return np.array([_joined(path, places, how) for path in paths])
    try:
        pattern = re.compile(how)
    except re.error as error:
        raise AyatoriError(
            f"`groups` of a folder must number parts of the paths, such as 2, or be a pattern, however "
            f"{how!r} is none: {error}"
        ) from None
    return np.array([_found(path, pattern) for path in paths])


def _joined(path: str, places: Sequence[int], how: str) -> str:
    parts = parts_of(path)
    if not 0 <= min(places) <= max(places) < len(parts):
        raise AyatoriError(
            f"every path must have the parts that `groups` numbers from 1, however groups={how} and "
            f"'{path}' has {len(parts)}: {', '.join(parts)}"
        )
    return " ".join(parts[place] for place in places)


def _found(path: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path)
    said = match and (match[1] if pattern.groups else match[0])
    if not said:
        raise AyatoriError(
            f"the pattern `groups` must be found in every path, however '{pattern.pattern}' is not in "
            f"'{path}'"
        )
    return said
