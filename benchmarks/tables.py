"""Every table of a folder that has a target in ``--targets``, from its CSV as it is: accuracy or R2, seconds.

``--targets`` is a JSON file: {"adult.csv": "income", "diamonds.csv": "price"}. Other options go to
``ayatori run``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from common import machine, run_command, say, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--targets", type=Path, required=True)
    options, rest = parser.parse_known_args()
    before = machine()
    facts = {}
    for name, target in json.loads(options.targets.read_text(encoding="utf-8")).items():
        with tempfile.TemporaryDirectory() as folder:
            result = run_command(
                str(options.folder / name), "--target", target, "--out", f"{folder}/run", *rest
            )
        score = "r2" if result["task"] == "regression" else "accuracy"
        facts[name] = {"score": score, **scores(result, score), "seconds": result["seconds"]}
    say({"options": rest, "tables": facts}, before)


if __name__ == "__main__":
    main()
