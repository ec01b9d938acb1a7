"""Stage 1k. Texts -> the words that they hold, as numbers; by a vocabulary that the development rows decide.

A text is the set of its terms: words, pairs of neighbouring words, and signs. What is written without spaces
(Chinese, Japanese, Thai and the like) gives its characters and pairs of these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ayatori.data.columns import RawColumn, text_of
from ayatori.records import Schema

FEWEST, MOST = 3, 50_000  # rows that a term must be in, and terms of a column at most
LONGEST = 1000  # terms of a text that are kept: its first ones, ...
CELLS = 50_000_000  # ... and fewer where rows are so many that all together are more
DRAWN = 50_000  # texts that decide the vocabulary, of more
SOME = 2000  # texts that tell what a column holds
TOLD = 256  # texts between two words on how far one is
SHOWN = 160  # letters of a text
LEAST_WORDS = 2.5  # in the mean, of a text
_NARROW = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PART = re.compile(rf"[{_NARROW}]+|[^\W_{_NARROW}]+(?:['’][^\W_{_NARROW}]+)*|[^\w\s]")
_WITHOUT_SPACES = re.compile(rf"[{_NARROW}]")


def terms(text: str) -> Iterator[str]:
    """The terms of a text, in order; some come again.

    >>> list(terms("Don't  PANIC, people!"))
    ["don't", 'panic', "don't panic", ',', 'people', '!']
    >>> list(terms("日本語"))
    ['日', '日本', '本', '本語', '語']
    """
    before = ""
    for part in _PART.findall(unicodedata.normalize("NFKC", text).lower()):
        if _WITHOUT_SPACES.match(part):
            for at, sign in enumerate(part):
                yield sign
                if at + 1 < len(part):
                    yield part[at : at + 2]
            before = ""
            continue
        yield part
        if not part[0].isalnum():
            before = ""
            continue
        if before:
            yield f"{before} {part}"
        before = part


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Texts:
    """A column of texts as terms. **Shape** ``places`` (n, width) int32 into ``known``, -1 behind."""

    name: str
    known: tuple[str, ...]
    places: np.ndarray
    begins: np.ndarray  # (n,) str, to be shown
    note: str


def read_texts(column: RawColumn, sure: bool = False, progress: Progress | None = None) -> Texts | None:
    """The terms of a column whose words are texts: of several words each, some of which come again and again.

    None where they are not. ``sure``: they need not be so long. ``progress(done, total)`` is told texts.
    """
    some = column.words[:: max(1, len(column.words) // SOME)]
    lengths = [len(text.split()) + len(_WITHOUT_SPACES.findall(text)) / 2 for text in some]
    if not some or (np.mean(lengths) < LEAST_WORDS and not sure):
        return None
    rows = np.bincount(column.values[column.values >= 0], minlength=len(column.words))
    drawn = np.arange(len(column.words))
    if len(drawn) > DRAWN:  # all pairs of words that a million texts hold would fill the memory
        drawn = np.sort(np.random.default_rng(37).choice(drawn, DRAWN, replace=False))
    every: dict[str, int] = {}
    found = []
    for done, at in enumerate(drawn.tolist()):
        found.append(_numbered(column.words[at], every))
        if progress is not None and done % TOLD == 0:
            progress(done, len(column.words))
    counts = np.zeros(len(every), np.int64)
    for own, times in zip(found, rows[drawn].tolist(), strict=True):
        counts[own] += times
    # the commonest first; none that all or hardly any rows hold
    kept = np.flatnonzero((counts >= FEWEST) & (counts < rows[drawn].sum()))
    if not len(kept):
        return None
    names = list(every)
    order = sorted(kept.tolist(), key=lambda at: (-counts[at], names[at]))[:MOST]
    known = tuple(names[at] for at in order)
    if len(drawn) < len(column.words):
        found = _places(column.words, known, progress)
    else:
        place = np.full(len(every), -1, np.int32)
        place[order] = np.arange(len(order))
        found = [(new := place[own])[new >= 0][:LONGEST] for own in found]
    width = int(np.quantile([len(own) for own in found], 0.99, method="higher"))
    width = max(1, min(width, CELLS // len(column.values)))
    note = f"column '{column.name}' is read as texts, by {len(known):,} words, pairs of words and signs"
    begins = _beginnings(column.words, column.values)
    return Texts(column.name, known, _lines(found, column.values, width), begins, note)


def _numbered(text: str, every: dict[str, int]) -> np.ndarray:
    """The distinct terms of a text, in order; a new one takes the next number of ``every``."""
    distinct = dict.fromkeys(terms(text))
    return np.fromiter((every.setdefault(term, len(every)) for term in distinct), np.int64, len(distinct))


def _places(texts: Sequence[str], known: Sequence[str], progress: Progress | None = None) -> list[np.ndarray]:
    """Of each text the places of its terms in a vocabulary, each once, in their order."""
    place = {term: at for at, term in enumerate(known)}
    found = []
    for done, text in enumerate(texts):
        own = [place[term] for term in dict.fromkeys(terms(text)) if term in place]
        found.append(np.array(own, np.int32)[:LONGEST])
        if progress is not None and done % TOLD == 0:
            progress(done, len(texts))
    return found


def _lines(found: Sequence[np.ndarray], codes: np.ndarray, width: int) -> np.ndarray:
    """Terms of the texts that ``codes`` (n,) name -> (n, width), -1 behind the last one."""
    table = np.full((len(found) + 1, width), -1, np.int32)
    for line, own in zip(table, found, strict=False):
        line[: len(own)] = own[:width]
    return table[codes]


def beginnings(columns: Sequence[Texts]) -> np.ndarray | None:
    """How the texts of each row begin (n, columns), to be shown."""
    return np.stack([one.begins for one in columns], axis=1) if columns else None


def joined(columns: Sequence[Texts]) -> np.ndarray:
    """Columns of texts side by side (n, widths), numbered on from one to the next."""
    starts = np.cumsum([0, *(len(one.known) for one in columns)])
    lines = [
        np.where(one.places < 0, -1, one.places + start) for one, start in zip(columns, starts, strict=False)
    ]
    return np.concatenate(lines, axis=1, dtype=np.int32)


def _beginnings(texts: Sequence[str], codes: np.ndarray) -> np.ndarray:
    """(n,) object: the first letters of the texts that ``codes`` name, on one line."""
    shown = [" ".join(text[: 2 * SHOWN].split()) for text in texts]
    shown = [text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…" for text in shown]
    return np.array([*shown, ""], dtype=object)[codes]


def words_like(columns: Iterable[RawColumn], schema: Schema) -> list[Texts]:
    """Columns of texts (n,) each, by the terms that a schema knows."""
    found = []
    for column, width in zip(columns, schema.text_widths, strict=True):
        texts, codes = column.words, column.values
        if column.kind != "text":  # only empty, or only numbers
            distinct, codes = np.unique(column.values, return_inverse=True)
            texts = tuple("" if value != value else text_of(value) for value in distinct)
        known = schema.texts[column.name]
        places = _lines(_places(texts, known), codes, width)
        found.append(Texts(column.name, known, places, _beginnings(texts, codes), ""))
    return found
