"""The guide's pictures, and what its commands say: a chapter's blocks are run in an empty folder, a part of a
page is photographed, and the texts below the blocks become what was printed.

``python docs/pictures.py`` makes all of them anew (minutes), ``python docs/pictures.py 3 7`` those of two.
A headless Chromium is needed, as for the tests of the pages.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from base64 import b64decode
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from look_browser import Browser  # noqa: E402

WIDTH, FINE = 760, 2  # pixels of the page, and of the picture for each of them
MARGIN = 14
COLOURS = (256, 128, 64, 32, 16)  # of the palette: as many as fit
LARGEST = 118_000  # bytes
LONG, LINE = 100, 88  # characters: a line of a text that is longer is broken to this
# chapter -> the page, its first element, its last
SHOTS = {
    "1-network": ("runs/moons/report.html", "#board", "[aria-labelledby=board] .dots:last-of-type"),
    "2-look": ("runs/digits-explored/explore.html", "#look-section h2", "#look-legend"),
    "3-validation": ("runs/sensors/report.html", "#curves", "[aria-labelledby=curves] .curves"),
    "4-cross-validation": ("runs/grouped/report.html", "#plan", "[aria-labelledby=plan] .legend"),
    "5-ensembles": ("runs/together/report.html", "#ensembles", "[aria-labelledby=ensembles] .gains"),
    "6-pretraining": ("runs/photos/report.html", "#source", "[aria-labelledby=source] table"),
    "7-augmentation-imbalance": ("strong.html", "#augment", ".strips"),
    "8-practice": ("runs/first/report.html", "#wrong", "[aria-labelledby=wrong] details"),
    "9-page": ("runs/wines/report.html", "h1", "[aria-labelledby=look] .ruler"),
    "10-recordings": ("runs/nests/report.html", "#worst", "[aria-labelledby=worst] figure"),
    "11-series": ("runs/machines/report.html", "#worst", "[aria-labelledby=worst] figure"),
    "12-scans": ("runs/heads/report.html", "#worst", "[aria-labelledby=worst] figure"),
    "13-texts": ("forwarded/explore.html", "#look-words", "[aria-labelledby=look-words] table"),
}
BOX = """(() => {
  const [a, b] = [%r, %r].map(s => document.querySelector(s).getBoundingClientRect());
  return [Math.min(a.top, b.top) + scrollY, Math.max(a.bottom, b.bottom) + scrollY];
})()"""


def run_blocks(text: str, folder: Path) -> str:
    """What a reader of a chapter types; the chapter with what was printed below it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "AYATORI_CACHE": str(folder / "cache")}
    commands = {"python": [sys.executable, "-"], "sh": ["bash", "-euo", "pipefail", "-s"]}
    parts = re.split(r"^(```(?:python|sh|text)\n.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    said = ""
    for place, part in enumerate(parts):
        kind, _, block = part.strip("`").partition("\n")
        if part.startswith("```text"):
            parts[place] = f"```text\n{excerpt(block, said)}```"
        elif part.startswith("```"):
            done = subprocess.run(
                commands[kind],
                input=block,
                text=True,
                cwd=folder,
                env=env,
                check=True,
                stdout=subprocess.PIPE,
            )
            said = done.stdout
    return "".join(parts)


def excerpt(shown: str, said: str) -> str:
    """``shown``, each paragraph as ``said`` has it: from a line like its first to one like its last."""
    lines: list[str] = []
    for line in said.splitlines():
        below = " " * 10 if re.match(r"[a-z]+ {2,}| {10}", line) else ""  # what a stage says goes on below it
        long = len(line) > LONG
        lines += textwrap.wrap(line, LINE, subsequent_indent=below) if long else [line.rstrip()]
    alike, place, paragraphs = [without_figures(line) for line in lines], 0, []
    for paragraph in shown.rstrip("\n").split("\n\n"):
        own = paragraph.removesuffix("\n...").splitlines()
        first, last = without_figures(own[0]), without_figures(own[-1])
        start = next((n for n in range(place, len(lines)) if alike[n] == first), len(lines))
        ends = [n for n in range(start, len(lines)) if alike[n] == last]
        if not ends:
            return shown
        place = min(ends, key=lambda end: abs(end + 1 - start - len(own))) + 1
        paragraphs.append("\n".join(lines[start:place]) + "\n..." * paragraph.endswith("\n..."))
    return "\n\n".join(paragraphs) + "\n"


def without_figures(line: str) -> str:
    return re.sub(r"[\d.,]+", "0", " ".join(line.split()))


def photograph(browser: Browser, page: Path, first: str, last: str) -> Image.Image:
    """The part of a page from one element to another, in its light colours."""
    browser.open(page, width=WIDTH, height=1200)
    tall = browser.run("document.documentElement.scrollHeight")  # or the page would move for its picture
    metrics = {"width": WIDTH, "height": tall, "deviceScaleFactor": FINE, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **metrics)
    time.sleep(1)  # a map draws itself anew
    top, bottom = browser.run(BOX % (first, last))
    clip = {"x": 0, "y": top - MARGIN, "width": WIDTH, "height": bottom - top + 2 * MARGIN, "scale": 1}
    shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    return Image.open(io.BytesIO(b64decode(shot["data"]))).convert("RGB")


def small(picture: Image.Image) -> bytes:
    """The picture as a PNG with as many colours as its size allows."""
    for colours in COLOURS:
        held = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
        if held.tell() <= LARGEST:
            break
    return held.getvalue()


def main(wanted: list[str]) -> None:
    for chapter, (page, first, last) in SHOTS.items():
        if wanted and chapter.partition("-")[0] not in wanted:
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            folder = Path(place)
            text = DOCS / "guide" / f"{chapter}.md"
            text.write_text(run_blocks(text.read_text(encoding="utf-8"), folder), encoding="utf-8")
            with Browser(folder / "profile") as browser:
                data = small(photograph(browser, folder / page, first, last))
        (DOCS / "pictures" / f"{chapter}.png").write_bytes(data)
        sys.stdout.write(f"{chapter}: {len(data) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
