"""Names of classes, columns, words, ids and files do no harm in the terminal, in a CSV, in Markdown."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from names import NAMES, evil_table

from ayatori.errors import plain

AYATORI = [sys.executable, "-m", "ayatori"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess]]:
    folder = tmp_path_factory.mktemp("names") / "evil <b>names"
    folder.mkdir()
    data = evil_table(folder)
    told = []

    def ayatori(*words: str) -> None:
        told.append(subprocess.run([*AYATORI, *words], cwd=folder, capture_output=True, text=True))

    settings = (
        "--target",
        "</title>",
        "--ids",
        "id</td>",
        "--preset",
        "quick",
        "--folds",
        "2",
        "--epochs",
        "3",
    )
    ayatori("run", str(data), *settings, "--out", "a\u202erun")
    ayatori("predict", "a\u202erun", str(data), "-o", "out.csv")
    ayatori("runs", ".")
    ayatori("compare", "a\u202erun", "a\u202erun", "-o", "c.html")
    ayatori("run", "a\u001b[31m.csv")
    ayatori("run", str(data), "--target", "\u202ex")
    return folder, told


@pytest.mark.slow
def test_nothing_that_moves_a_cursor_or_turns_text_round_reaches_the_terminal(
    ran: tuple[Path, list[subprocess.CompletedProcess]],
) -> None:
    codes = [done.returncode for done in ran[1]]
    assert codes == [0, 0, 0, 0, 2, 2], [done.stderr for done in ran[1]]
    for done in ran[1]:
        assert not re.search(
            "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e]", done.stdout + done.stderr
        )
        assert "Traceback" not in done.stderr
    assert "a\\x1b[31m.csv" in ran[1][4].stderr


def test_a_csv_of_predictions_holds_the_names_as_they_are(
    ran: tuple[Path, list[subprocess.CompletedProcess]],
) -> None:
    with open(ran[0] / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {2 + len(NAMES)}
    assert {f"p_{name}" for name in NAMES} == set(rows[0][2:])
    assert {row[1] for row in rows[1:]} <= set(NAMES)
    assert len(pd.read_csv(ran[0] / "out.csv")) == 240


def test_a_model_card_of_such_names_is_text(ran: tuple[Path, list[subprocess.CompletedProcess]]) -> None:
    card = (ran[0] / "a\u202erun" / "model_card.md").read_text(encoding="utf-8")
    assert "<script" not in card
    assert "&lt;script&gt;" in card
    classes = card.partition("### Class by class")[2].partition("##")[0].strip().splitlines()
    assert len(classes) == 2 + len(NAMES)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in classes} == {5}  # no name ends a cell
    facts = json.loads((ran[0] / "a\u202erun" / "report.json").read_text(encoding="utf-8"))
    assert set(NAMES) == {name for name, _ in facts["data"]["classes"]}


def test_plain_text_stays_what_it_is_in_every_language() -> None:
    for text in ("naïve", "日本語", "עברית", "العربية", "🐈‍⬛", "a\tb\nc"):
        assert plain(text) == text
