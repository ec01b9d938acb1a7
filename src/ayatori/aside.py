"""A second process for simple models, which begins before torch is here and imports none.

Quick models and maps of few rows are thousands of small steps of Python; in two threads each waits for the
other's. In two processes they do not, and the second one imports scikit-learn while this one imports torch.
Only a command begins it: a script or a notebook is never imported again behind its back.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from typing import ParamSpec, TypeVar

from ayatori.processes import processes

Given = ParamSpec("Given")
Said = TypeVar("Said")

_begun: list[tuple[Executor, contextlib.ExitStack]] = []


@contextlib.contextmanager
def second_process() -> Iterator[None]:
    """Begin it now; it ends with the block, or before it by ``end_second_process``."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):  # where none can begin, all is done here
            executor = stack.enter_context(processes(1, None, see_main=False))
            _begun.append((executor, stack))
            executor.submit(importlib.import_module, "ayatori.evaluate")
        try:
            yield
        finally:
            _begun.clear()


def aside(function: Callable[Given, Said], *given: Given.args, **named: Given.kwargs) -> Callable[[], Said]:
    """Begin ``function`` in the second process; what is returned waits for its answer.

    Where there is no such process, or it has ended or not begun with this one, the answer is computed here
    when it is asked for.
    """

    def here() -> Said:
        return function(*given, **named)

    if not _begun:
        return here
    try:
        future = _begun[-1][0].submit(function, *given, **named)
    except BrokenExecutor:
        return here

    def answer() -> Said:
        if future.cancel():
            return here()
        try:
            return future.result()
        except Exception:  # it ended, or could not be sent this; what else went wrong, goes wrong here too
            return here()

    return answer


def end_second_process() -> None:
    """End it, as nothing more will be asked: it holds memory."""
    while _begun:
        _begun.pop()[1].close()
