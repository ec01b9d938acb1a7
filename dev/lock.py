"""pyproject.toml -> requirements/lock.txt (package, its weights) and requirements/test.txt (all else).

``python dev/lock.py`` keeps every version that the lock already names; to raise one, delete its line first.
One set of versions must install on every Python that we support; what only Linux needs carries a marker.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
FILES = {
    "lock.txt": "# What Ayatori needs, in exact versions. Written by dev/lock.py.",
    "test.txt": "# What tests, checks and the other extras need on top. Written by dev/lock.py.\n-r lock.txt",
}


def resolve(python: str, requirements: list[str], constraints: list[str]) -> dict[str, dict]:
    """Name -> metadata of everything that pip would install on Linux for ``python``, from wheels alone."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, fixed, report = (Path(folder, name) for name in ("wanted.txt", "fixed.txt", "report.json"))
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        fixed.write_text("\n".join(constraints), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", f"--python-version={python}", f"--target={folder}/target"]
        command += [f"--requirement={wanted}", f"--constraint={fixed}", f"--report={report}"]
        subprocess.run(command, check=True)
        found = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {canonicalize_name(item["name"]): item for item in found}


def reached(names: list[str], found: dict[str, dict], system: str) -> set[str]:
    """What ``names`` need, directly or not, where ``platform_system`` is ``system``."""
    platform = {"platform_system": system, "sys_platform": system.lower(), "python_version": PYTHONS[0]}
    todo, seen = [Requirement(name) for name in names], set()
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if (name, *sorted(one.extras)) in seen or name not in found:
            continue
        seen.add((name, *sorted(one.extras)))
        for text in found[name].get("requires_dist", []):
            need = Requirement(text)
            choices = [{**platform, "extra": extra} for extra in ("", *one.extras)]
            if need.marker is None or any(need.marker.evaluate(choice) for choice in choices):
                todo.append(need)
    return {name for name, *_ in seen}


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = dict(project["project"]["optional-dependencies"])
    build = project["build-system"]["requires"]
    runtime = project["project"]["dependencies"] + extras.pop("pretrained") + build
    groups = (*extras.values(), *project["dependency-groups"].values())
    tests = [need for group in groups for need in group]
    folder = ROOT / "requirements"
    kept = [line for path in folder.glob("*.txt") for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [line for line in kept if "==" in line]
    found = resolve(PYTHONS[0], runtime + tests, kept)
    pins = {name: f"{name}=={found[name]['version']}" for name in sorted(found)}
    for python in PYTHONS[1:]:
        resolve(python, list(pins.values()), [])  # pip refuses when one of them has no wheel there
    needed, everywhere = reached(runtime, found, "Linux"), reached(runtime + tests, found, "Darwin")
    for name in pins:
        pins[name] += "" if name in everywhere else ' ; platform_system == "Linux"'
    for file, members in (("lock.txt", needed), ("test.txt", set(pins) - needed)):
        lines = [FILES[file], *(pin for name, pin in pins.items() if name in members)]
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
