"""Stage 7. Predictions of many members, Plan -> one prediction a row. No torch."""

from ayatori.ensemble.vote import blends

__all__ = ["blends"]
