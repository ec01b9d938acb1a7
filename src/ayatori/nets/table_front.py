"""Stage 4. Raw columns of a table -> numbers near zero, flags and small category codes.

All that is known here was seen in a member's own training rows: centres, scales, which columns have
gaps, which categories exist. Numbers are centred on their median and divided by their interquartile
range, then clipped smoothly (RealMLP: Holzmüller, Grinsztajn, Steinwart, NeurIPS 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.nets.words import Terms, WordFront
from ayatori.records import Schema

ONE_HOT = 9  # a column with up to so many codes becomes flags, a longer one is embedded
LARGEST = 1e4  # scaled numbers beyond this are all the same to the smooth clip


class Features(NamedTuple):
    """What a table's body eats: b rows, p numbers, f flags of -1, 0 and 1, e embedded columns."""

    numbers: Tensor  # (b, p) float32, about -3 .. 3
    flags: Tensor  # (b, f) float32
    codes: Tensor  # (b, e) int64, row numbers of one embedding table that holds all columns
    terms: Terms | None = None  # of texts


def measure_table(inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, Any]:
    """Sizes of a network for a table, from a member's own training rows alone. Plain JSON values.

    ``numbers``: how many columns of numbers. ``missing``: those with enough gaps, which get a flag.
    ``vocabulary``: how many global codes each category column can have. ``known``: how many of
    them (a missing value counts as one) are common enough here to be told apart; a name that one or
    two rows bear would only be learnt by heart.

    >>> schema = Schema(kind="table", task="regression", classes=(), categories={"colour": ("blue", "red")})
    >>> colours = np.array([[1], [1], [0]], dtype=np.int32)
    >>> measure_table({"numbers": np.array([[1.0], [np.nan], [np.nan]]), "categories": colours}, schema)
    {'numbers': 1, 'missing': [0], 'vocabulary': [2], 'known': [1]}
    """
    numbers, categories = _columns(inputs)
    words = {
        "terms": [len(known) for known in schema.texts.values()],
        "text_widths": list(schema.text_widths),
    }
    return {
        "numbers": numbers.shape[1],
        "missing": np.flatnonzero(np.isnan(numbers).sum(axis=0) >= _common(len(numbers))).tolist(),
        "vocabulary": [len(names) for names in schema.categories.values()],
        "known": [len(_known(column)) for column in categories.T],
        **(words if schema.texts else {}),
    }


class TableFront(nn.Module):
    """Scales numbers, flags gaps and gives categories the codes that this member knows.

    **Shape** ``forward``: ``numbers`` (b, p) float64 (or float32, where a device has no float64), missing =
    NaN; ``categories`` (b, q) integers, missing = -1 -> :class:`Features`.

    A local code is the place of a global code among the sorted codes that ``fit`` saw, from 1 on; 0 is
    "unknown or rare": it has no flag, and an embedding that starts at 0. So the order and the size of the
    global vocabulary change nothing.

    Where ``sizes`` has "features", some columns are hidden (see ``hide``): whatever stands there is a number
    0 without a gap, or an unknown category.
    """

    centre: Tensor
    scale: Tensor
    lookup: Tensor
    start: Tensor
    gaps: Tensor
    owner: Tensor
    plus: Tensor
    minus: Tensor
    embedded_columns: Tensor
    embedding_start: Tensor
    one: Tensor
    hidden: Tensor

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        known = sizes["known"]
        flagged = [column for column, count in enumerate(known) if count < ONE_HOT]
        embedded = [column for column, count in enumerate(known) if count >= ONE_HOT]
        rows = [-(-(known[column] + 1) // 8) * 8 for column in embedded]  # folds differ by a rare category
        owner, plus, minus = _flags([(column, known[column]) for column in flagged])
        lengths = [size + 1 for size in sizes["vocabulary"]]
        self.vocabulary = list(sizes["vocabulary"])
        self.missing = list(sizes["missing"])
        self.embedding_rows = sum(rows)
        self.embedded = len(embedded)
        self.numbers = int(sizes["numbers"])
        flags = len(self.missing) + len(owner)
        self.idle = int(self.numbers + flags == 0)  # a flag that is always 0: layers need an input
        self.flags = flags + self.idle
        # float64 is kept as a sum of two float32, because some devices have no float64
        self.register_buffer("centre", torch.zeros(2, self.numbers))
        self.register_buffer("scale", torch.zeros(self.numbers))
        self.register_buffer("lookup", torch.zeros(sum(lengths), dtype=torch.int64))
        self.register_buffer("start", torch.tensor(_starts(lengths), dtype=torch.int64))
        for name, values in {
            "gaps": self.missing,
            "owner": owner,
            "plus": plus,
            "minus": minus,
            "embedded_columns": embedded,
            "embedding_start": _starts(rows),
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.register_buffer("one", torch.ones(()), persistent=False)
        self.hides = "features" in sizes
        if self.hides:
            # of all numbers, then of all categories, then of all texts
            columns = self.numbers + len(known) + len(sizes.get("terms", ()))
            self.register_buffer("hidden", torch.zeros(columns, dtype=torch.bool))
        self.words = WordFront(sizes) if "terms" in sizes else None

    def hide(self, share: float, seed: int) -> None:
        """Hide all columns but a ``share`` of them, one at least, drawn with ``seed``; before ``fit``."""
        columns = len(self.hidden)
        seen = np.random.default_rng([seed, 11]).permutation(columns)[: max(1, round(share * columns))]
        self.hidden.fill_(True)
        self.hidden[torch.from_numpy(seen)] = False

    def fit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers from a member's own training rows (raw, row first)."""
        numbers, categories = _columns(inputs)
        texts = 0 if self.words is None else len(self.words.widths)
        columns = self.numbers + len(self.vocabulary) + texts
        hidden = self.hidden.tolist() if self.hides else [False] * columns
        # a scale of 0 makes a 0 of everything
        shown = [values if not hidden[column] else values[:0] for column, values in enumerate(numbers.T)]
        found = np.array([_centre_and_scale(values) for values in shown]).reshape(-1, 2)
        centre, scale = torch.from_numpy(found).unbind(1)
        high = centre.float()
        self.centre.copy_(torch.stack([high, (centre - high.double()).float()]))
        self.scale.copy_(scale)
        self.lookup.zero_()
        for column, (start, values) in enumerate(zip(self.start.tolist(), categories.T, strict=True)):
            if hidden[self.numbers + column]:
                continue
            codes = torch.from_numpy(_known(values).astype(np.int64))
            self.lookup[start + 1 + codes] = torch.arange(1, len(codes) + 1)
        if self.words is not None:
            self.words.fit(inputs["words"], hidden[columns - texts :])

    def forward(self, inputs: Mapping[str, Tensor]) -> Features:
        raw = inputs["numbers"] if self.numbers else self.scale.new_zeros(_rows(inputs), 0)
        high, low = self.centre.to(raw.dtype)
        # once it is near zero, the rest of a number's digits does not matter
        near = raw - (high + low) if raw.dtype == torch.float64 else (raw - high) - low
        scaled = near.float() * self.scale
        numbers = scaled.nan_to_num(0.0, LARGEST, -LARGEST).clamp(-LARGEST, LARGEST)
        numbers = numbers * torch.rsqrt(torch.addcmul(self.one, numbers, numbers, value=1 / 9))
        flags = [self._gaps(raw)] if self.missing else []
        flags += [self.scale.new_zeros(raw.shape[0], self.idle)]
        codes = raw.new_zeros(raw.shape[0], 0, dtype=torch.int64)
        if self.vocabulary:
            codes = self.lookup[inputs["categories"].long() + 1 + self.start]
            mine = codes[:, self.owner]
            flags.append((mine == self.plus).float() - (mine == self.minus).float())
            codes = codes[:, self.embedded_columns] + self.embedding_start
        terms = None if self.words is None else self.words(inputs["words"])
        return Features(numbers, torch.cat(flags, -1), codes, terms)

    def _gaps(self, raw: Tensor) -> Tensor:
        gaps = raw[:, self.gaps].isnan()
        return (gaps & ~self.hidden[self.gaps] if self.hides else gaps).float()


def _columns(inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = _rows(inputs)
    return inputs.get("numbers", np.zeros((rows, 0))), inputs.get("categories", np.zeros((rows, 0), np.int32))


def _rows(inputs: Mapping[str, Any]) -> int:
    rows: int = next(iter(inputs.values())).shape[0]  # len() would become a constant in an exported graph
    return rows


def _known(codes: np.ndarray) -> np.ndarray:
    """Sorted global codes that are common enough to learn from, -1 (missing) among them."""
    found, counts = np.unique(codes, return_counts=True)
    return found[counts >= _common(len(codes))]


def _common(rows: int) -> int:
    """How many of ``rows`` own rows a category, or the gaps of a column, must have to be told apart."""
    return max(2, min(5, rows // 40))


def _centre_and_scale(values: np.ndarray) -> tuple[float, float]:
    """Median and 1 / interquartile range; 2 / range where half of the values are equal; 0 where all are.

    Of those ``values`` that are not missing.
    """
    values = np.sort(values)  # NaN last
    values = values[: len(values) - np.isnan(values).sum()]
    if not len(values):
        return 0.0, 0.0
    # by sorting: np.quantile, which looks for few places, takes three times as long
    places = np.multiply([0.25, 0.5, 0.75], len(values) - 1)
    low, centre, high = np.interp(places, np.arange(len(values)), values)
    spread = high - low
    if spread == 0:
        spread = (values.max() - values.min()) / 2
    largest = float(np.finfo(np.float32).max)
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.where(spread > 0, 1 / np.float64(spread), 0.0)
    return float(np.clip(centre, -largest, largest)), float(np.clip(scale, 0, largest))


def _flags(columns: list[tuple[int, int]]) -> tuple[list[int], list[int], list[int]]:
    """Which column each flag reads, the code that turns it to 1 and the one that turns it to -1.

    Two codes share one flag, more have one each.
    """
    flags = [
        (column, code, 2 if count == 2 else -1)
        for column, count in columns
        for code in range(1, 2 if count == 2 else count + 1)
    ]
    owner, plus, minus = (list(part) for part in zip(*flags, strict=True)) if flags else ([], [], [])
    return owner, plus, minus


def _starts(lengths: list[int]) -> list[int]:
    return [sum(lengths[:place]) for place in range(len(lengths))]
