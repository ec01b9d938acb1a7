"""How much pictures and rows may change: one flat record, its presets, and its way from a name or a file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayatori.recipe import nearest
from ayatori.records import AyatoriError


@dataclass(frozen=True)
class Changes:
    """What may happen to a row while networks learn; each row draws its own, and zeros change nothing.

    Moves are shared by picture, mask and key points. Colours are the picture's alone, in random order.
    """

    # moves of pictures
    flip: float = 0.0  # chance to be mirrored left to right
    upside_down: float = 0.0  # chance to be mirrored top to bottom
    shift: float = 0.0  # most, as a share of each side
    turn: float = 0.0  # most degrees, either way
    zoom: float = 0.0  # 0.1: up to a tenth larger or smaller
    stretch: float = 0.0  # 0.1: one side up to a tenth longer, against the other
    shear: float = 0.0  # most degrees, either way
    crop: float = 1.0  # least share of the area that a random crop keeps
    perspective: float = 0.0  # most that one edge shrinks against the opposite one, as a share
    erase: float = 0.0  # chance that a box of one colour covers a part
    erase_least: float = 0.02  # share of the area that the box covers
    erase_most: float = 0.2
    stripes: float = 0.0  # widest black stripe, one upright and one across, as a share of each side
    # colours of pictures
    brightness: float = 0.0  # 0.2: between 0.8 and 1.2 times
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # most, as a share of the circle of colours
    grey: float = 0.0  # chance
    posterise: float = 0.0  # chance to have 2 to 5 bits a channel left
    blur: float = 0.0  # chance of a Gaussian of up to a fortieth of the side
    noise: float = 0.0  # chance of grain of up to a tenth of the range
    # choice among all of these
    choices: int = 0  # each picture gets so many of them, drawn anew; 0 = all
    # pairs of rows, with shares of both labels: alpha of the Beta distribution
    mixup: float = 0.0
    cutmix: float = 0.0
    # tables
    jitter: float = 0.0  # of numbers, in standard deviations
    hide: float = 0.0  # chance of each value to be missing
    swap: float = 0.0  # chance of each value to be another row's


# "digits" and "sound" have no flips: a mirrored 2 is no 2
PRESETS: dict[str, Changes] = {
    "none": Changes(),
    "light": Changes(shift=1 / 12, jitter=0.03),
    "digits": Changes(shift=1 / 12, turn=10, zoom=0.1, jitter=0.03),
    # a while and a band of pitches are silent (SpecAugment, Park et al. 2019, arXiv 1904.08779)
    "sound": Changes(shift=1 / 12, stripes=0.15, jitter=0.03),
    "standard": Changes(
        flip=0.5,
        shift=1 / 12,
        turn=10,
        zoom=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        jitter=0.1,
        swap=0.05,
    ),
    "strong": Changes(
        flip=0.5,
        shift=1 / 12,
        turn=15,
        zoom=0.2,
        stretch=0.2,
        shear=10,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.05,
        grey=0.1,
        blur=0.1,
        erase=0.5,
        jitter=0.1,
        hide=0.05,
        swap=0.1,
        mixup=0.2,
    ),
    "random": Changes(
        flip=0.5,
        shift=1 / 8,
        turn=30,
        zoom=0.3,
        stretch=0.3,
        shear=17,
        brightness=0.6,
        contrast=0.6,
        saturation=0.6,
        hue=0.1,
        grey=0.2,
        posterise=0.5,
        blur=0.5,
        noise=0.5,
        erase=0.5,
        choices=2,
        swap=0.1,
    ),
}

CHANCES = ("flip", "upside_down", "erase", "grey", "posterise", "blur", "noise", "hide", "swap")
LARGEST = {
    "shift": 0.5,
    "stripes": 0.9,
    "turn": 180.0,
    "shear": 60.0,
    "hue": 0.5,
    "zoom": 4.0,
    "stretch": 4.0,
    "perspective": 0.9,
}


def changes_of(how: str | Mapping[str, Any]) -> Changes:
    """The changes of a preset's name, or of a mapping; ``base`` in it names a preset to start from.

    >>> changes_of({"base": "digits", "turn": 5}).turn
    5
    """
    if isinstance(how, str):
        if how not in PRESETS:
            hint = nearest(how, list(PRESETS))
            raise AyatoriError(
                f"augment must be auto, {', '.join(PRESETS)}, a TOML file or package:factory, however: "
                f"{how!r}{hint}"
            )
        return PRESETS[how]
    values = dict(how)
    base = changes_of(values.pop("base")) if "base" in values else Changes()
    known = {field.name: field.default for field in dataclasses.fields(Changes)}
    for name, value in values.items():
        if name not in known:
            raise AyatoriError(f"augment: unknown setting '{name}'{nearest(name, list(known))}")
        _check(name, value, isinstance(known[name], int))
    found = dataclasses.replace(base, **values)
    if found.erase_least > found.erase_most:
        raise AyatoriError(
            f"augment: `erase_least` must be at most `erase_most`, however: {found.erase_least} and "
            f"{found.erase_most}"
        )
    return found


def _check(name: str, value: Any, whole: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        kind = "a whole number" if whole else "a number"
        raise AyatoriError(f"augment: '{name}' must be {kind}, however: {value!r}")
    most = 1.0 if name in (*CHANCES, "crop", "erase_least", "erase_most") else LARGEST.get(name, 100.0)
    least = 0.01 if name == "crop" else 0.0
    if not least <= value <= most:
        raise AyatoriError(f"augment: '{name}' must be from {least:g} to {most:g}, however: {value!r}")


def read_changes(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, checked."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AyatoriError(
            f"augment must be a file that can be read, however '{path}': {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AyatoriError(f"augment must be valid TOML, however '{path}': {error}") from None
    changes_of(values)
    return values
