"""Stage 1. Anything that holds labelled rows -> Dataset."""

from ayatori.data.blocks import read_blocks
from ayatori.data.source import load, load_like

__all__ = ["load", "load_like", "read_blocks"]
