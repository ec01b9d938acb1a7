"""Stage 3. Dataset, Plan -> the map, the numbers, the verdict, before anything is trained."""

from ayatori.explore.explore import explore

__all__ = ["explore"]
