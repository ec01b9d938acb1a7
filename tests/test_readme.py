"""The README is true: its blocks run, in their order, in one folder, as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
INSTALLS = ("make", "pip install")  # a block that starts so installs; .ci/run does that


def folder_of_pets(folder: Path) -> None:
    """Two kinds of pictures, 30 each, that differ in brightness: what the README calls pets/."""
    generator = np.random.default_rng(0)
    for level, name in ((70, "cat"), (170, "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = generator.normal(level, 40, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_the_readme_has_an_example_in_the_shell_and_one_in_python() -> None:
    assert {kind for kind, text in BLOCKS if not text.startswith(INSTALLS)} == {"python", "sh"}
    assert re.search(r"^ayatori run ", "\n".join(text for kind, text in BLOCKS if kind == "sh"), re.MULTILINE)


@pytest.mark.slow
def test_every_block_of_the_readme_runs(tmp_path: Path) -> None:
    folder_of_pets(tmp_path / "pets")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = {"python": [sys.executable, "-"], "sh": ["bash", "-euo", "pipefail", "-s"]}
    for kind, text in BLOCKS:
        if text.startswith(INSTALLS):
            continue
        done = subprocess.run(
            commands[kind],
            input=text,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"this block of the README fails:\n{text}\n{done.stdout}{done.stderr}"
        assert "Warning" not in done.stderr, f"this block of the README warns:\n{text}\n{done.stderr}"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_of_the_readme_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_command_and_option_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"\bayatori ([a-z]+)\b", README))
    for command in named:
        code = (
            f"import sys; sys.argv = ['ayatori', {command!r}, '--help']; from ayatori.cli import main; main()"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert shown.returncode == 0, f"`ayatori {command}` is in the README, however: {shown.stderr}"
        uses = re.findall(rf"\bayatori {command}\b([^`\n]*)", README)
        options = {option for use in uses for option in re.findall(r"(?<=\s)--[a-z-]+", use)}
        assert options <= {"--help", *re.findall(r"--[a-z-]+", shown.stdout)}
