"""The command ``ayatori``, and ``python -m ayatori``: it is gone as soon as it is done."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Any

from ayatori.cli import main


def command() -> None:
    """``main``, and out at once: with torch there, Python takes more than half a second to leave."""
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    if "torch" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    command()
