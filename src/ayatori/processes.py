"""Other processes to submit work to: spawned, deaf to Ctrl-C, and never alive for longer than this one."""

from __future__ import annotations

import contextlib
import copyreg
import io
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from ayatori.errors import AyatoriError


@contextlib.contextmanager
def processes(count: int, folder: str | None, see_main: bool) -> Iterator[Executor]:
    """So many processes; all have ended when the block is left, by whatever way.

    ``folder``, if any, is removed should this process be killed. ``see_main``: they import the user's script
    too.

    Raises
    ------
    AyatoriError
        Where one of them was killed, or could not begin.
    """
    context = _Spawn()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(folder,))
    try:
        with _main(see_main), uninterrupted():
            # each call starts a process; the pool watches over those that are there at the next call
            for _ in range(count):
                pool.submit(os.getpid)
        yield pool
    except BrokenExecutor:
        pool.shutdown()
        raise AyatoriError(_sentence(context.children)) from None
    finally:
        for child in context.children:
            if child.is_alive():
                child.kill()  # also who is done: torch takes a second to leave
        pool.shutdown(cancel_futures=True)


class _Spawn(SpawnContext):
    """Knows what it has started. A fork would copy the locks of torch's threads, but not the threads."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        child = SpawnProcess(*args, **kwargs)
        self.children.append(child)
        return child


def _sentence(children: list[SpawnProcess]) -> str:
    # the pool ends the others by SIGTERM
    codes = sorted((child.exitcode or 0 for child in children), key=lambda code: code in (0, -signal.SIGTERM))
    how = f"signal {-codes[0]}" if codes[0] < 0 else f"exit code {codes[0]}"
    advice = "use fewer workers, or go on with a run folder by: ayatori resume RUN"
    if codes[0] == -9:
        advice = f"memory may have run out: {advice}"
    if codes[0] == 1:
        advice = "guard what a script does by `if __name__ == '__main__':`, or use one worker"
    return (
        f"all {len(children)} workers must live until the training is done, however one has ended ({how}); "
        + advice
    )


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and processes that are started in it never see one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _main(seen: bool) -> Iterator[None]:
    """A new process imports the user's script again, which would train once more, unless it is hidden."""
    main = sys.modules["__main__"]
    try:
        if not seen:
            sys.modules["__main__"] = types.ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(folder: str | None) -> None:
    """The first thing that a new process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()


def _end_with_parent(folder: str | None) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def dumped(value: Any) -> bytes:
    """``value`` for another process of ours, by name and by copy, see ``loaded``."""
    buffer = io.BytesIO()
    pickler = ForkingPickler(buffer)
    # those of torch would move the tensors of a user's module into shared memory
    pickler.dispatch_table = copyreg.dispatch_table
    pickler.dump(value)
    return buffer.getvalue()


def loaded(sent: bytes) -> Any:
    """What this or its parent process has ``dumped``; nothing else may be given."""
    return ForkingPickler.loads(sent)


def needs_main(sent: bytes) -> bool:
    """Whether something of it is defined in the user's script."""
    return b"__main__" in sent


def why_not_sent(value: Any) -> str:
    """Why no other process can be given ``value``, found by trying; "" if it can."""
    if multiprocessing.current_process().daemon:
        return "this process may not start others"
    try:
        sent = dumped(value)
        loaded(sent)
    except Exception as error:  # whatever an object of the user's raises
        return str(error).split("\n")[0][:160] or type(error).__name__
    if needs_main(sent) and not Path(getattr(sys.modules["__main__"], "__file__", None) or "").is_file():
        return "it is not defined in a file that another process could import"
    return ""
