"""Every way to run members together, on a grid of networks: milliseconds of a step, and the rule's choice.

The limits in ``ayatori/train/engine.py`` were fitted to this; the rule is right where its choice takes at
most 10 % longer than the fastest.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
from common import machine, say
from torch import Tensor, nn

from ayatori import load
from ayatori.nets import build, find_traits, measure
from ayatori.plan import make_plan
from ayatori.recipe import EngineRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import Dataset
from ayatori.train import settle
from ayatori.train.engine import cannot_stack, look
from ayatori.train.tune import seconds_of_step


class Shape(NamedTuple):
    """A network and its data. ``inputs``: columns of a table, or the side of grey pictures."""

    net: Any
    inputs: int
    outputs: int
    batch: int
    members: int
    pictures: bool = False


def mlp(*widths: int) -> Any:
    def make(shape: tuple[int, ...], outputs: int) -> nn.Module:
        sizes = [int(np.prod(shape)), *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))

    return make


class Recurrent(nn.Module):
    """Columns as a series: what torch cannot stack."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.cell = nn.GRU(1, 16, batch_first=True)
        self.last = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x.unsqueeze(-1))[0][:, -1])


SHAPES = {
    "mlp 16-64-64-10, batch 32, 5 members": Shape(mlp(64, 64), 16, 10, 32, 5),
    "mlp 36-64-64-6, batch 128, 5 members": Shape(mlp(64, 64), 36, 6, 128, 5),
    "mlp 36-64-64-6, batch 128, 50 members": Shape(mlp(64, 64), 36, 6, 128, 50),
    "mlp 32-128-128-128-5, batch 64, 10 members": Shape(mlp(128, 128, 128), 32, 5, 64, 10),
    "mlp 16-128-128-26, batch 256, 5 members": Shape(mlp(128, 128), 16, 26, 256, 5),
    "mlp 16-256-256-26, batch 256, 5 members": Shape(mlp(256, 256), 16, 26, 256, 5),
    "mlp 16-256-256-26, batch 256, 20 members": Shape(mlp(256, 256), 16, 26, 256, 20),
    "mlp 54-512-512-7, batch 256, 5 members": Shape(mlp(512, 512), 54, 7, 256, 5),
    "linear 100-10, batch 256, 20 members": Shape("linear", 100, 10, 256, 20),
    "own table network, 16 columns, batch 256, 5 members": Shape("mlp", 16, 26, 256, 5),
    "own table network, 8 columns, batch 32, 5 members": Shape("mlp", 8, 2, 32, 5),
    "own cnn, 28 x 28, batch 64, 5 members": Shape("cnn", 28, 10, 64, 5, pictures=True),
    "mlp 64-128-10 on pictures, batch 64, 5 members": Shape(mlp(128), 8, 10, 64, 5, pictures=True),
    "gru of 16 units, batch 64, 5 members": Shape(Recurrent, 12, 3, 64, 5),
}


def data(shape: Shape, rows: int) -> Dataset:
    random = np.random.default_rng(0)
    target = random.integers(0, shape.outputs, rows)
    if shape.pictures:
        size = (rows, 1, shape.inputs, shape.inputs)
        return load(random.integers(0, 256, size).astype(np.uint8), y=target)
    return load(random.normal(size=(rows, shape.inputs)), y=target)


def measured(shape: Shape, rows: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each way (the least of ``rounds``), and which one the rule takes."""
    dataset = data(shape, max(rows, 3 * shape.batch))
    folds = min(shape.members, 5)
    recipe = Recipe(
        net=NetRecipe(name=shape.net),
        plan=PlanRecipe(test=0.0, folds=folds, repeats=shape.members // folds),
        train=TrainRecipe(batch_size=shape.batch, epochs=1, learning_rate=1e-3, augment="none", device="cpu"),
    )
    plan = make_plan(dataset, recipe.plan)
    recipe = settle(recipe, dataset, plan)
    own = plan.train_rows(0)
    inputs = {name: values[own] for name, values in dataset.inputs.items()}
    network = build(recipe.net, dataset, measure(inputs, dataset.schema), 0)
    network.fit(inputs, dataset.labels[own])
    traits = find_traits(network, inputs)
    modes = ("turns",) if cannot_stack(traits, plan.members, shape.pictures) else ("turns", "stacked")
    threads = sorted({1, recipe.engine.threads, torch.get_num_threads()})
    dtypes = ("float32", "bfloat16") if look(torch.device("cpu")).bf16 else ("float32",)
    ways = {
        _way(engine): engine
        for mode in modes
        for number in (threads if not traits.draws_globally else [1])
        for dtype in dtypes
        for engine in [dataclasses.replace(recipe.engine, mode=mode, threads=number, dtype=dtype)]
    }
    least = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, engine in ways.items():
            seconds = seconds_of_step(dataset, plan, dataclasses.replace(recipe, engine=engine), traits)
            least[name] = min(least[name], 1e3 * seconds)
    rule = _way(recipe.engine)
    return {
        "million_operations_of_a_step": 3 * shape.batch * traits.flops / 1e6,
        "milliseconds": least,
        "rule": rule,
        "why": recipe.engine.why,
        "rule_over_best": least[rule] / min(least.values()),
    }


def _way(engine: EngineRecipe) -> str:
    return f"{engine.mode}, {engine.threads} at a time, {engine.dtype}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="shapes whose name holds this")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    before = machine()
    shapes = {
        name: measured(shape, options.rows, options.rounds)
        for name, shape in SHAPES.items()
        if options.only in name
    }
    right = sum(facts["rule_over_best"] <= 1.1 for facts in shapes.values())
    say({"shapes": shapes, "right": f"{right} of {len(shapes)}"}, before)


if __name__ == "__main__":
    main()
