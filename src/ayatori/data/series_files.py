"""Stage 1j. Listed files, a series in each -> one array of series; broken ones are left out and named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayatori.data.measured import UnmeasuredError, is_clock, read_file
from ayatori.data.pictures import broken_notes
from ayatori.data.steps import choose_steps, packed
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Schema

Progress = Callable[[int, int], None]
Read = dict[int, tuple[np.ndarray, tuple[str, ...]]]  # series and channels, by the position of the file


@dataclass(frozen=True)
class SeriesStore:
    """``series`` (n, channels, steps) of the files at ``kept`` (n,); ``schema``: in what way."""

    series: np.ndarray
    kept: np.ndarray
    notes: tuple[str, ...]
    schema: dict[str, Any]


def read_series_files(
    files: Sequence[str],
    names: Sequence[str] | np.ndarray,
    recipe: DataRecipe,
    decide_on: int,
    like: Schema | None = None,
    progress: Progress | None = None,
) -> SeriesStore:
    """Read ``files``, lines of them being steps and columns channels, as the first ``decide_on`` ask for.

    ``like``: as series that were read before. Raises AyatoriError where none can be read.
    """
    found, broken = _read_all(files, like.channels if like else (), progress)
    notes = broken_notes(broken, names, recipe.strict or len(broken) == len(files), "series file")
    kept = np.array([at for at in range(len(files)) if at not in broken], np.int64)
    if like is not None and like.series is not None:
        return SeriesStore(_packed_like(found, kept, like), kept, tuple(notes), {})
    own = [at for at in kept.tolist() if at < decide_on]
    if not own:
        raise AyatoriError("every series to learn from is broken; mend the files")
    channels = found[own[0]][1]
    counting = _clocks([found[at][0] for at in own], channels)
    if len(counting) == len(channels):
        raise AyatoriError(
            f"series must hold measurements, however column '{channels[0]}' only tells the time"
        )
    if counting:
        left = [at for at in range(len(channels)) if at not in counting]
        notes += [f"column '{channels[at]}' is left out: it tells the time of a step" for at in counting]
        channels = tuple(channels[at] for at in left)
        found = {at: (series[left], channels) for at, (series, _) in found.items()}
    shapes = [found[at][0].shape for at in own]
    shape, stretch, said = choose_steps(shapes, channels, recipe.series_steps)
    series = packed([found[at][0] for at in kept.tolist()], shape, stretch)
    schema = {"series": shape, "channels": channels, "stretch": stretch}
    return SeriesStore(series, kept, (*said, *notes), schema)


def decode_series(files: Sequence[str], like: Schema) -> tuple[np.ndarray, dict[int, str]]:
    """So many files as memory holds: series (files, channels, steps), NaN where broken, and why those are."""
    found, broken = _read_all(files, like.channels, None)
    nothing = np.full((len(like.channels), 1), np.nan, np.float32), like.channels
    whole = {at: found.get(at, nothing) for at in range(len(files))}
    return _packed_like(whole, np.arange(len(files)), like), broken


def _packed_like(found: Read, kept: np.ndarray, like: Schema) -> np.ndarray:
    assert like.series is not None
    return packed([found[at][0] for at in kept.tolist()], like.series, like.stretch)


def _read_all(
    files: Sequence[str], channels: tuple[str, ...], progress: Progress | None
) -> tuple[Read, dict[int, str]]:
    """The series of each file by its position, channels in the order of the first; why others are broken."""

    def read(file: str) -> tuple[np.ndarray, tuple[str, ...]] | str:
        try:
            return read_file(file)
        except UnmeasuredError as error:
            return str(error)

    found: Read = {}
    broken: dict[int, str] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for at, said in enumerate(pool.map(read, files)):
            if isinstance(said, str):
                broken[at] = said
            else:
                channels = channels or said[1]
                missing = [name for name in channels if name not in said[1]]
                if missing:
                    broken[at] = f"it has no column '{missing[0]}'"
                else:
                    found[at] = said[0][[said[1].index(name) for name in channels]], channels
            if progress:
                progress(at + 1, len(files))
    return found, broken


def _clocks(series: Sequence[np.ndarray], channels: Sequence[str]) -> list[int]:
    """Channels that say when a step was, and no more."""
    count = np.concatenate([np.arange(one.shape[1]) for one in series])
    return [
        place
        for place, name in enumerate(channels)
        if is_clock(name, np.concatenate([one[place] for one in series]), count)
    ]
