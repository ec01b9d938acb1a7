"""Stage 1j. Series of any length -> one array (n, channels, steps) of the same length."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ayatori.records import AyatoriError

_STEP = re.compile(
    r"(.*?)[\s_.:\-\[(]*(\d+)[\])]?", re.ASCII
)  # a column that numbers a step: acc_x_17, t5, 12
_DECIMAL = re.compile(r"\d+\.\d+", re.ASCII)
LEAST_BLOCK = 4  # columns that are called alike
MOST_STEPS = 2048  # longer series are averaged down, all by the same factor


def choose_steps(
    shapes: Sequence[tuple[int, ...]], channels: Sequence[str], most: int
) -> tuple[tuple[int, int], int, list[str]]:
    """(channels, steps) of all series, how many values are averaged into a step, and what is said of it."""
    if most and not 4 <= most <= 2**16:
        raise AyatoriError(f"`series_steps` must be between 4 and {2**16}, however it is {most}")
    lengths = [shape[1] for shape in shapes]
    longest, shortest = max(lengths), min(lengths)
    if longest < 2:
        raise AyatoriError("series must have two steps or more, however the longest has 1")
    stretch = -(-longest // (most or MOST_STEPS))
    notes = []
    if len(channels) > 1:
        notes.append(f"the channels are {', '.join(channels[:8])}{' ...' if len(channels) > 8 else ''}")
    if shortest < longest:
        notes.append(
            f"series have {shortest:,} to {longest:,} steps; behind the end of shorter ones is a gap"
        )
    if stretch > 1:
        way = f"; --series-steps {longest} takes them as they are" if longest <= 2**16 else ""
        notes.append(f"of {longest:,} steps, {stretch} are averaged into one{way}")
    return (len(channels), -(-longest // stretch)), stretch, notes


def blocks_of(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The channels that names of columns number the steps of, and their columns, one block for each.

    Of a block all columns are called alike but for a number, which orders them. What is in no block of full
    length is left out. Names that number nothing are the steps of one channel, as they stand.

    >>> blocks_of(["x_0", "y_0", "x_1", "y_1", "x_2", "y_2", "x_3", "y_3", "age"])
    (('x', 'y'), ['x_0', 'x_1', 'x_2', 'x_3', 'y_0', 'y_1', 'y_2', 'y_3'])
    >>> blocks_of(["t1", "t10", "t2", "t3"]), blocks_of(["0.0", "0.5", "1.0", "1.5"])[0]
    ((('t',), ['t1', 't2', 't3', 't10']), ('value',))
    """
    blocks: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = None if _DECIMAL.fullmatch(name) else _STEP.fullmatch(name)
        if match:
            blocks.setdefault(match[1], []).append((int(match[2]), name))
    longest = max(map(len, blocks.values()), default=0)
    full = {stem: sorted(block) for stem, block in blocks.items() if len(block) == longest}
    if longest < LEAST_BLOCK or 2 * longest * len(full) < len(names):
        return ("value",), list(names)
    return tuple(stem or "value" for stem in full), [name for block in full.values() for _, name in block]


def single(values: np.ndarray) -> np.ndarray:
    """Numbers as float32; AyatoriError where one is too large for that."""
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if np.isinf(found).any():
        raise AyatoriError(
            f"values of series must be below {np.finfo(np.float32).max:.1e}, however one is not"
        )
    return found


def packed(series: Sequence[np.ndarray] | np.ndarray, shape: tuple[int, int], stretch: int) -> np.ndarray:
    """Series (channels, steps) each -> (n, channels, steps) float32: averaged, cut or filled up with NaN."""
    whole = np.full((len(series), *shape), np.nan, np.float32)
    for row, one in zip(whole, series, strict=True):
        short = averaged(one, stretch)[:, : shape[1]]
        row[:, : short.shape[1]] = short
    return whole


def averaged(series: np.ndarray, stretch: int) -> np.ndarray:
    """The means of so many steps each, (channels, steps) -> (channels, fewer); what is missing is left out.

    >>> averaged(np.array([[1.0, 3.0, 5.0, np.nan, 9.0]]), 2).tolist()
    [[2.0, 5.0, 9.0]]
    """
    if stretch == 1:
        return series
    rest = -series.shape[1] % stretch
    cells = np.pad(series, ((0, 0), (0, rest)), constant_values=np.nan).reshape(len(series), -1, stretch)
    there = ~np.isnan(cells)
    count = there.sum(axis=2)
    return np.where(count > 0, np.where(there, cells, 0).sum(axis=2) / np.maximum(count, 1), np.nan)
