"""The guide is true: each chapter's blocks run from an empty folder, and its pages build offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CHAPTERS = sorted((DOCS / "guide").glob("*.md"), key=lambda chapter: int(chapter.stem.partition("-")[0]))
LARGEST = 120 * 1024  # bytes of a picture
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def run_block(kind: str, text: str, folder: Path) -> None:
    """As a reader would: Python in a fresh interpreter, the shell with our commands on its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-"] if kind == "python" else ["bash", "-euo", "pipefail", "-s"]
    cache = {"AYATORI_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command,
        input=text,
        cwd=folder,
        env={**os.environ, **cache, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"this block fails:\n{text}\n{done.stdout}{done.stderr}"
    assert "Warning" not in done.stderr, f"this block warns:\n{text}\n{done.stderr}"


def test_the_guide_has_thirteen_chapters_and_the_contents_name_them_all() -> None:
    named = re.findall(r"^guide/(\S+)$", text_of(DOCS / "index.md"), flags=re.MULTILINE)
    assert named == [chapter.stem for chapter in CHAPTERS]
    assert len(named) == 13


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_every_block_of_a_chapter_runs_from_an_empty_folder(chapter: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall(text_of(chapter))
    assert {kind for kind, _ in blocks} == {"python", "sh"}
    for kind, text in blocks:
        run_block(kind, text, tmp_path)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_a_chapter_has_one_picture_with_words_for_those_who_do_not_see_it(chapter: Path) -> None:
    ((words, place),) = PICTURE.findall(text_of(chapter))
    picture = chapter.parent / place
    assert len(words) > 30
    assert picture.stat().st_size <= LARGEST
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
        assert opened.width >= 1000  # crisp on a fine screen


def test_the_pages_build_without_a_warning_and_without_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "1", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "pages")],
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in tmp_path.joinpath("pages").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=[\"'](https?:[^\"']+)", text_of(page)
        )
        assert not loaded, f"{page.name} asks the network for {loaded}"
    listed = text_of(tmp_path / "pages" / "reference" / "commands.html")
    assert "--ensemble" in re.sub(r"<[^>]+>", "", listed)


def test_every_command_and_option_that_the_guide_names_exists() -> None:
    pages = [*CHAPTERS, DOCS / "index.md", *(DOCS / "reference").glob("*.md")]
    written = "\n".join(text_of(page) for page in pages)
    commands = set(re.findall(r"\bayatori ([a-z]+)\b(?!-)", "\n".join(re.findall(r"`+[^`]+`+", written))))
    code = (
        "from ayatori.cli import app\n"
        f"for name in {sorted(commands)!r}:\n"
        "    for argument in app[name].assemble_argument_collection():\n"
        "        print(*argument.names)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", written))
    assert options - set(shown.stdout.split()) <= {"--help"}


def test_the_japanese_readme_has_the_blocks_of_the_english_one() -> None:
    english = text_of(ROOT / "README.md").partition("\n## The run folder\n")[0]
    japanese = text_of(DOCS / "README.ja.md")
    assert BLOCK.findall(japanese) == BLOCK.findall(english)
    assert "](../README.md)" in japanese


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", text_of(DOCS / "README.ja.md")))))
def test_every_link_of_the_japanese_readme_leads_to_a_file(link: str) -> None:
    assert (DOCS / link).exists()
