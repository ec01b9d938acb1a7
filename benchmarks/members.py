"""Seconds of 1, 5, 20 and 50 members of each task, beside what the machine could do at best.

The ideal is the same floating-point work, forward and backward, at the speed of a large float32 matrix
product on all cores, measured in the same call. The share is the ideal time by the time that training took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import rivals
import torch
from common import CORES, machine, say, take_turns
from fashion_folds import read_pictures
from torch.utils.flop_counter import FlopCounterMode

from ayatori.plan import make_plan
from ayatori.recipe import PlanRecipe
from ayatori.records import Plan
from ayatori.train import settle, train

PRODUCT = "product"
NETWORKS = {
    "letter": (rivals.wide_mlp, 256, 0.003, "MLP 256-256"),
    "satellite": (rivals.narrow_mlp, 128, 0.003, "MLP 64-64"),
    "fashion": (rivals.small_cnn, 128, 0.002, "CNN 32-64"),
}
TARGETS = {"letter": "lettr", "satellite": "classes"}
COLOURS = {"letter": "#0072b2", "satellite": "#d55e00", "fashion": "#009e73"}
WIDTH, HEIGHT, EDGE = 720, 440, 60  # of the chart, in pixels


def read(name: str, options: argparse.Namespace) -> rivals.Task:
    """The task with as many columns as the largest number of members asks for."""
    path = getattr(options, name)
    if name == "fashion":
        dataset, _ = read_pictures(path, options.rows or 12_000)
    else:
        dataset, _ = rivals.read_table(path, TARGETS[name], options.rows)
    repeats = math.ceil(max(options.members) / 5)
    plan = make_plan(dataset, PlanRecipe(folds=5, repeats=repeats, test=0.0))
    network, batch, rate, _ = NETWORKS[name]
    vary = options.augment if name == "fashion" else "none"
    return rivals.Task(dataset, plan, network, options.epochs, batch, rate, augment=vary)


def measure(name: str, members: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of training, and the floating-point operations of all members' steps together."""
    task = read(name, options)
    plan = Plan(task.plan.roles[:, :members], task.plan.columns[:members], task.plan.strategy)
    task = dataclasses.replace(task, plan=plan)
    few = task.small()
    train(few.dataset, few.plan, settle(rivals.settings(few), few.dataset, few.plan))
    start = time.perf_counter()
    train(task.dataset, plan, settle(rivals.settings(task), task.dataset, plan))
    seconds = time.perf_counter() - start
    rows = sum(int(plan.counts(member).sum()) for member in range(members)) * task.epochs
    return {"seconds": seconds, "operations": rows * operations(task) / task.batch_size}


def operations(task: rivals.Task) -> int:
    """Floating-point operations of one step: forward and backward of one batch."""
    network = task.build(0)
    x = torch.from_numpy(task.x[: task.batch_size].astype(np.float32))
    y = torch.from_numpy(task.dataset.labels[: task.batch_size])
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(network(x), y).backward()
    return counter.get_total_flops() * task.batch_size // len(x)


def product(side: int = 2048, repeats: int = 20) -> dict[str, float]:
    """Operations a second of the fastest of ``repeats`` products of two large float32 matrices."""
    a, b, best = torch.randn(side, side), torch.randn(side, side), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return {"operations_a_second": 2 * side**3 / best}


def chart(tasks: dict[str, Any]) -> str:
    """Time against members, both axes logarithmic, as an SVG: lines measured, dashes ideal."""
    points = {name: list(facts["members"].items()) for name, facts in tasks.items()}
    times = [each[key] for lines in points.values() for _, each in lines for key in ("seconds", "ideal")]
    numbers = sorted({int(members) for lines in points.values() for members, _ in lines})
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    span = max(math.log(numbers[-1] / numbers[0]), 1e-9)

    def place(members: float, seconds: float) -> tuple[float, float]:
        right = EDGE + (WIDTH - 3 * EDGE) * math.log(members / numbers[0]) / span
        return right, HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (math.log10(seconds) - low) / max(high - low, 1)

    def text(at: tuple[float, float], words: str, more: str = "") -> str:
        return f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" {more}>{words}</text>'

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    parts += [text((EDGE, EDGE / 2), "seconds of training (dashed: at the speed of a large matrix product)")]
    for power in range(low, high + 1):
        x, y = place(numbers[0], 10.0**power)
        parts += [f'<path d="M{x},{y:.1f}H{WIDTH - 2 * EDGE}" stroke="#ddd"/>']
        parts += [text((EDGE - 8, y + 4), f"{10.0**power:g} s", 'text-anchor="end"')]
    for members in numbers:
        x, y = place(members, 10.0**low)
        parts += [text((x, y + 20), str(members), 'text-anchor="middle"')]
    parts += [text((WIDTH / 2 - EDGE, HEIGHT - EDGE / 4), "members", 'text-anchor="middle"')]
    for name, lines in points.items():
        for key, dash in (("seconds", "none"), ("ideal", "5 4")):
            spots = [place(int(members), each[key]) for members, each in lines]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            style = f'fill="none" stroke="{COLOURS[name]}" stroke-width="2" stroke-dasharray="{dash}"'
            parts.append(f'<polyline points="{line}" {style}/>')
    ends = {name: place(int(lines[-1][0]), lines[-1][1]["seconds"]) for name, lines in points.items()}
    free = 0.0  # names of lines that end close together stand below one another
    for name, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        free = max(y + 4, free + 16)
        parts += [text((x + 6, free), NETWORKS[name][3], f'fill="{COLOURS[name]}"')]
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="13"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def summary(found: dict[str, list[dict[str, float]]], speed: float) -> dict[str, Any]:
    """Per task and number of members: median seconds, ideal seconds, share of the limit."""
    tasks: dict[str, Any] = {}
    for side, turns in found.items():
        name, _, members = side.partition(":")
        seconds, ideal = statistics.median(each["seconds"] for each in turns), turns[0]["operations"] / speed
        facts = tasks.setdefault(name, {"network": NETWORKS[name][3], "members": {}})
        facts["members"][members] = {"seconds": seconds, "ideal": ideal, "share": ideal / seconds}
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letter", type=Path, help="letter.csv")
    parser.add_argument("--satellite", type=Path, help="satellite.csv")
    parser.add_argument("--fashion", type=Path, help="where the idx.gz files are")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, help="only the first of them")
    parser.add_argument("--augment", default="moved", choices=rivals.WAYS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--chart", type=Path, help="an SVG file")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, _, members = options.side.partition(":")
        print(json.dumps(product() if name == PRODUCT else measure(name, int(members), options)))
        return
    before = machine()
    sides = [f"{name}:{number}" for name in NETWORKS if getattr(options, name) for number in options.members]
    found = take_turns([PRODUCT, *sides], options.rounds, options.threads)
    speed = statistics.median(each["operations_a_second"] for each in found.pop(PRODUCT))
    tasks = summary(found, speed)
    if options.chart:
        options.chart.write_text(chart(tasks), encoding="utf-8")
    facts = {"product_gflops": speed / 1e9, "tasks": tasks, "epochs": options.epochs}
    say({**facts, "rounds": options.rounds, "threads": options.threads}, before)


if __name__ == "__main__":
    main()
