"""What goes wrong, in one sentence. Imports nothing heavy, so that --help answers at once."""

from __future__ import annotations

import re

# what moves a cursor, changes colours or turns text round: controls, and Unicode's marks of direction
UNRULY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """Text for a terminal: what would do something there rather than be read is written out.

    >>> plain("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return UNRULY.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class AyatoriError(ValueError):
    """Something the user can mend: one sentence that says what must hold, what was found, what to do."""


class SchemaError(AyatoriError):
    """New rows do not look like the rows a model was trained on."""
