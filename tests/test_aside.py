"""A second process for quick models: the same answers, sooner, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayatori import explore
from ayatori.aside import aside, end_second_process, second_process
from ayatori.recipe import DataRecipe, Recipe


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def second() -> int:
    """The second process, once it has begun: until then answers are computed here."""
    end = time.monotonic() + 60.0
    while (pid := aside(os.getpid)()) == os.getpid() and time.monotonic() < end:
        time.sleep(0.05)
    assert pid != os.getpid()
    return pid


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def test_the_second_process_answers_and_tells_its_errors() -> None:
    with second_process():
        second()
        wrong = aside(int, "three")
        with pytest.raises(ValueError, match="three"):
            wrong()


def test_without_a_second_process_the_answer_is_computed_when_it_is_asked_for() -> None:
    said: list[int] = []
    answer = aside(said.append, 3)
    assert said == []
    answer()
    assert said == [3]
    assert aside(os.getpid)() == os.getpid()


def test_what_cannot_be_sent_is_done_here() -> None:
    with second_process():
        second()
        assert aside(lambda: os.getpid())() == os.getpid()


def test_what_the_second_process_has_not_begun_is_done_here() -> None:
    with second_process():
        pid = second()
        busy = aside(time.sleep, 2.0)
        answers = [aside(os.getpid) for _ in range(9)]
        assert answers[-1]() == os.getpid()
        busy()
        assert answers[0]() == pid


@needs_proc
def test_a_second_process_that_was_killed_costs_time_and_no_answer() -> None:
    with second_process():
        pid = second()
        begun = aside(time.sleep, 0.5)
        os.kill(pid, signal.SIGKILL)
        begun()
        assert aside(os.getpid)() == os.getpid()


@needs_proc
def test_it_ends_when_asked_to_and_with_its_block() -> None:
    with second_process():
        first = second()
        end_second_process()
        assert gone(first)
        assert aside(os.getpid)() == os.getpid()
    with second_process():
        last = second()
    assert gone(last)


@needs_proc
def test_it_does_not_outlive_a_command_that_is_killed() -> None:
    code = """
import os, time
from ayatori.aside import aside, second_process
with second_process():
    while (pid := aside(os.getpid)()) == os.getpid():
        time.sleep(0.1)
    print(pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    assert gone(pid)


def test_where_no_process_can_begin_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object, **named: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("ayatori.processes.ProcessPoolExecutor", refused)
    with second_process():
        assert aside(os.getpid)() == os.getpid()


def test_a_look_by_the_command_says_what_a_look_in_one_process_says(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 60)
    table = pd.DataFrame(chance.normal(size=(180, 4)) + (y == "a")[:, None]).add_prefix("x").assign(y=y)
    table.to_csv(tmp_path / "t.csv", index=False)
    command = ["explore", str(tmp_path / "t.csv"), "--target", "y", "--out", str(tmp_path / "out"), "--quiet"]
    subprocess.run([sys.executable, "-m", "ayatori", *command], check=True, capture_output=True, timeout=300)
    said = json.loads((tmp_path / "out" / "explore.json").read_text(encoding="utf-8"))
    alone = explore(str(tmp_path / "t.csv"), recipe=Recipe(data=DataRecipe(target="y"))).facts
    there = json.loads(json.dumps(alone))
    for facts in (said, there):
        facts.pop("seconds")
    assert said == there
