"""Who does the members' steps: one after another, or several members at a time on a thread each.

Members are independent, so several threads with one core each are faster than one member on all cores;
and a thread never waits for another at the end of every small operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import torch

from ayatori.train.learner import Learner


class InTurn(Executor):
    """Does what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextlib.contextmanager
def turns(learners: list[Learner], device: torch.device) -> Iterator[Executor]:
    """An executor for the members' steps: as many threads as torch may use, each with one core.

    In turn where there is one member, one core or an accelerator, or where a network draws from torch's
    global generator, which threads cannot share without losing "same seed, same bytes".
    """
    threads = min(torch.get_num_threads(), len(learners))
    if threads < 2 or device.type != "cpu" or any(learner.draws_globally for learner in learners):
        yield InTurn()
        return
    allowed = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, "ayatori", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(allowed)
