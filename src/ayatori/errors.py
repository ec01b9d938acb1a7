"""What goes wrong, in one sentence. Imports nothing, so that --help answers at once."""

from __future__ import annotations


class AyatoriError(ValueError):
    """Something the user can mend: one sentence that says what must hold, what was found, what to do."""


class SchemaError(AyatoriError):
    """New rows do not look like the rows a model was trained on."""
