"""Stage 1. Anything that holds labelled rows -> Dataset."""

from ayatori.data.source import load, load_like

__all__ = ["load", "load_like"]
