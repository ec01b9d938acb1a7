"""Who does the members' steps: one stack after another, or several at a time on a thread each.

Stacks are independent, so several threads with one core each are faster than one stack on all cores;
and a thread never waits for another at the end of every small operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import torch


class InTurn(Executor):
    """Does what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextlib.contextmanager
def crew(threads: int, one_core: bool = False) -> Iterator[Executor]:
    """An executor for the steps: so many threads with one core each, or the caller's own on all cores, or
    on one core."""
    if threads < 2 and not one_core:
        yield InTurn()
        return
    allowed = torch.get_num_threads()
    try:
        # the caller too, who reads and varies batches meanwhile: it would wait for cores that are busy
        torch.set_num_threads(1)
        if threads < 2:
            yield InTurn()
            return
        with ThreadPoolExecutor(threads, "ayatori", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(allowed)
