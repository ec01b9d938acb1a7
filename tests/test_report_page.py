"""The report in a real browser: wide and narrow, light and dark, all that can be pressed, names that bite."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_core_python
import numpy as np
import pandas as pd
import pytest
from look_browser import CHROMIUM, Browser
from names import evil_table

import ayatori
from ayatori.recipe import from_flat
from ayatori.report import write_look, write_report
from ayatori.report.runs import write_comparison

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
# pairs of texts that lie on one another
OVERLAPS = """
[...document.querySelectorAll('h1,h2,h3,p,li,td,th,summary,figcaption,dt,dd,button,legend,.name,.value')]
  .filter((e) => e.offsetParent && !e.closest('#look-box, .keys, svg, [hidden]') && e.textContent.trim())
  .map((e) => [e, e.getBoundingClientRect()])
  .flatMap(([a, r], at, all) => all.slice(at + 1, at + 40)
    .filter(([b, s]) => !a.contains(b) && !b.contains(a) && a.closest('.wide') === b.closest('.wide')
      && Math.min(r.right, s.right) - Math.max(r.left, s.left) > 2
      && Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 3)
    .map(([b]) => a.textContent.trim().slice(0, 40) + ' | ' + b.textContent.trim().slice(0, 40)))
"""
# texts that are wider than their own place
CUT = """
[...document.querySelectorAll('h1, h2, h3, p, li, td, summary, figcaption')]
  .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 2
    && (e.matches('td') || !e.closest('.wide')))
  .map((e) => e.textContent.trim().slice(0, 60))
"""


def make(kind: str, folder: Path) -> Path:
    """A finished run of one kind, and its page."""
    rng = np.random.default_rng(0)
    quick: dict[str, Any] = {"epochs": 3, "folds": 2, "preset": "quick", "baselines": ("majority", "linear")}
    out = folder / kind.replace(" ", "-")
    if kind == "names":
        data = ayatori.load(evil_table(folder), recipe=ayatori.DataRecipe(target="</title>", ids="id</td>"))
        ayatori.run(
            data, from_flat({**quick, "ensemble": ("bagging", "stacking"), "folds": 3, "bags": 2}), out=out
        )
    elif kind == "pictures":
        y = rng.integers(0, 26, 400)
        x = rng.integers(0, 120, (400, 1, 8, 8))
        x[np.arange(400), 0, y % 8, y // 8 * 2] += 120
        recipe = from_flat({**quick, "augment": "light", "balance": "weight"})
        ayatori.run(x.astype(np.uint8), recipe, out=out, y=np.array([f"letter {k}" for k in y]))
    else:
        x = rng.normal(size=(300, 4))
        ayatori.run(x, from_flat(quick), out=out, y=x[:, 0] * 1e5 + rng.normal(size=300))
    write_report(out)
    return out


KINDS = ("names", "pictures", "numbers")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("runs")
    known: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in known:
            known[kind] = make(kind, folder)
        return known[kind]

    return run


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def open_all(browser: Browser) -> None:
    browser.run("for (const e of document.querySelectorAll('details')) e.open = true")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_overlaps_is_cut_asks_or_complains(
    browser: Browser, runs: Any, kind: str, width: int, dark: bool
) -> None:
    browser.open(runs(kind) / "report.html", width, 900, dark)
    open_all(browser)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(OVERLAPS) == []
    assert browser.run(CUT) == []
    assert browser.asked() == []
    assert browser.complaints() == []
    assert browser.run("typeof window.broken") == "undefined"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", [*KINDS, "explored", "compared"])
def test_axe_finds_nothing_serious(
    browser: Browser, runs: Any, tmp_path: Path, kind: str, dark: bool
) -> None:
    if kind == "explored":
        page = write_look(runs("names"), tmp_path / "explore.html")
    elif kind == "compared":
        page = write_comparison([runs("numbers"), runs("numbers")], tmp_path / "c.html")
    else:
        page = runs(kind) / "report.html"
    browser.open(page, 1280, 900, dark)
    open_all(browser)
    browser.run(AXE + "; 0")
    found = browser.run("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]][:5], one["nodes"][0]["failureSummary"])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_every_table_saves_what_it_shows_as_csv(browser: Browser, runs: Any) -> None:
    browser.open(runs("names") / "report.html")
    open_all(browser)
    facts = json.loads((runs("names") / "report.json").read_text(encoding="utf-8"))
    tables = browser.run(
        "[...document.querySelectorAll('.wide')].filter((e) => e.querySelector('table'))"
        ".map((e) => [e.getAttribute('aria-label'), tables.csvOf(e.querySelector('table'))])"
    )
    assert len(tables) == browser.run("document.querySelectorAll('button.csv').length") > 4
    kept = {label: list(csv.reader(io.StringIO(text))) for label, text in tables}
    matrix = kept["Confusion matrix"]
    assert [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]] == facts["mistakes"]["matrix"]
    for text in matrix[0]:  # a spreadsheet must not take a name for a formula
        assert not text.startswith(("=", "+", "-", "@"))
    assert "'=cmd" in " ".join(matrix[0])


@pytest.mark.slow
def test_what_is_picked_stays_picked_on_the_map_after_training(browser: Browser, runs: Any) -> None:
    browser.open(runs("pictures") / "report.html")
    learned = pd.read_parquet(runs("pictures") / "learned.parquet")["row"].tolist()
    assert browser.run("ayatori.view.space") != "learned2"
    browser.run("ayatori.pick([...Array(ayatori.data.n).keys()].slice(0, 50)); 0")
    before = browser.run("ayatori.picked()")
    browser.run("document.querySelector('input[name=look-map][value=learned]').click()")
    browser.wait_for("ayatori.view.space === 'learned2'")
    browser.run("ayatori.drawNow()")
    assert browser.run("ayatori.picked()") == before
    drawn = [row for row in before if browser.run(f"Boolean(ayatori.at({row}))")]
    assert set(drawn) == set(before) & set(learned)
    assert "it never saw" in browser.run("document.getElementById('look-belief').textContent")


def test_everything_can_be_reached_and_pressed_by_keyboard(browser: Browser, runs: Any) -> None:
    browser.open(runs("pictures") / "report.html")
    nameless = browser.run(
        "[...document.querySelectorAll('button, input, summary, [tabindex], a[href]')].filter((e) =>"
        " e.tabIndex < 0 || !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
        ".map((e) => e.outerHTML.slice(0, 120))"
    )
    assert nameless == []
    before, after = browser.run(
        "[...document.querySelectorAll('details')].reduce(([before, after], e) => {"
        " before.push(e.open); e.querySelector('summary').click(); after.push(e.open);"
        " return [before, after]; }, [[], []])"
    )
    assert before
    assert after == [not was for was in before]


def test_a_comparison_is_a_page_like_the_others(browser: Browser, runs: Any, tmp_path: Path) -> None:
    page = write_comparison([runs("numbers"), runs("numbers")], tmp_path / "c.html")
    for width in (1280, 390):
        browser.open(page, width, 900)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.run(OVERLAPS) == []
        assert browser.asked() == browser.complaints() == []


@pytest.mark.slow
def test_the_page_of_ten_thousand_rows_is_small_and_is_drawn(browser: Browser, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, 12))
    y = np.array([f"class {k}" for k in (x[:, :3] > 0) @ np.array([1, 2, 4])])
    settings = {"epochs": 1, "folds": 2, "net": "linear", "baselines": ("majority",)}
    ayatori.run(x, from_flat(settings), out=tmp_path / "run", y=y)
    page = write_report(tmp_path / "run")
    assert page.stat().st_size <= 6_000_000
    browser.open(page)
    browser.run("ayatori.drawNow()")
    assert browser.run("ayatori.shown()") == browser.run("ayatori.data.n") == 10_000
    assert browser.asked() == browser.complaints() == []
