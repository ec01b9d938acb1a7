"""One network trained by Ayatori against a plain PyTorch loop with the same network, batches and steps.

Both run in this one process, in pairs that take turns at going first; the ratio of each pair is taken,
then the median. Both end with the same loss on the stop rows, or nearly: dropout draws other numbers.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from common import machine, say
from torch.nn import functional as F

from ayatori import load
from ayatori.nets import build, measure
from ayatori.plan import make_plan
from ayatori.recipe import EngineRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import STOP, Dataset, Plan
from ayatori.train import settle, train
from ayatori.train.learner import schedule
from ayatori.train.stream import make_stream, own_order


def table(rows: int) -> Dataset:
    """``rows`` x 16 numbers, 10 classes."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rows, 16))
    return load(values, y=(values @ generator.normal(size=(16, 10))).argmax(1))


def pictures(rows: int) -> Dataset:
    """``rows`` grey pictures of 28 x 28 pixels, 10 classes that differ in brightness."""
    generator = np.random.default_rng(0)
    classes = np.arange(rows) % 10
    pixels = generator.normal(classes[:, None, None, None] * 12 + 60, 40, size=(rows, 1, 28, 28))
    return load(pixels.clip(0, 255).astype(np.uint8), y=classes)


def plain_loop(dataset: Dataset, plan: Plan, recipe: Recipe) -> float:
    """What one writes by hand: AdamW, warm-up and cosine, clipping, the best weights by the stop rows."""
    settings, column, stream = recipe.train, plan.columns[0], make_stream(dataset, plan, recipe)
    train_rows, stop_rows = plan.train_rows(0), plan.rows(0, STOP)
    own = {name: values[train_rows] for name, values in dataset.inputs.items()}
    network = build(recipe.net, dataset, measure(own, dataset.schema), column.seed)
    network.fit(own, dataset.labels[train_rows])
    x = {name: torch.from_numpy(values) for name, values in dataset.inputs.items()}
    y = torch.from_numpy(dataset.labels)
    by_rates: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, factors in network.rates().items():
        by_rates.setdefault(factors, []).append(network.get_parameter(name))
    groups = [
        {"params": each, "lr": settings.learning_rate * rate, "weight_decay": settings.weight_decay * decay}
        for (rate, decay), each in by_rates.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, settings.beta2), fused=True)
    whole = settings.epochs * stream.steps
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: schedule((n + 0.5) / whole, settings.warmup)
    )
    if "image" in x:
        network.to(memory_format=torch.channels_last)
        x["image"] = x["image"].contiguous(memory_format=torch.channels_last)
    best_loss, best = float("inf"), network.state_dict()
    for epoch in range(settings.epochs):
        network.train()
        total = 0.0
        for rows in own_order(train_rows, stream, column.seed, epoch):
            index = torch.from_numpy(rows)
            logits = network({name: values[index] for name, values in x.items()})
            loss = F.cross_entropy(logits, y[index], label_smoothing=recipe.loss.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimizer.step()
            rates.step()
            total += loss.item()
        network.eval()
        with torch.no_grad():
            losses = []
            for start in range(0, len(stop_rows), 1024):
                index = torch.from_numpy(stop_rows[start : start + 1024])
                logits = network({name: values[index] for name, values in x.items()})
                losses.append(F.cross_entropy(logits, y[index], reduction="none"))
            stop_loss = torch.cat(losses).mean().item()
        if stop_loss < best_loss:
            best_loss, best = stop_loss, copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    return best_loss


def by_ayatori(dataset: Dataset, plan: Plan, recipe: Recipe) -> float:
    return min(line.stop_loss for line in train(dataset, plan, recipe)[0].history)


def compare(dataset: Dataset, epochs: int, pairs: int) -> dict:
    """Seconds of both, the ratio of each pair, and the median ratio."""
    training = TrainRecipe(epochs=epochs, patience=epochs + 1, augment="none", device="cpu")
    # the plain loop knows no bfloat16
    engine = EngineRecipe(dtype="float32")
    recipe = Recipe(plan=PlanRecipe(strategy="holdout"), train=training, engine=engine)
    plan = make_plan(dataset, recipe.plan, recipe.seed)
    recipe = settle(recipe, dataset, plan)
    ways: dict[str, Callable[[Dataset, Plan, Recipe], float]] = {"ayatori": by_ayatori, "plain": plain_loop}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = {name: way(dataset, plan, recipe) for name, way in ways.items()}  # and a first, unmeasured turn
    for pair in range(pairs):
        for name in list(ways) if pair % 2 else list(ways)[::-1]:
            start = time.perf_counter()
            ways[name](dataset, plan, recipe)
            seconds[name].append(time.perf_counter() - start)
    ratios = [ours / plain for ours, plain in zip(seconds["ayatori"], seconds["plain"], strict=True)]
    return {
        "rows": len(plan.train_rows(0)),
        "batch_size": recipe.train.batch_size,
        "epochs": epochs,
        "ratio": {"median": statistics.median(ratios), "all": ratios},
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "best_stop_loss": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("table", "pictures", "both"), default="both")
    parser.add_argument("--rows", type=int, help="20000 of a table, 3000 pictures")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = machine()
    makers = {"table": (table, 20_000), "pictures": (pictures, 3_000)}
    facts = {
        kind: compare(make(options.rows or usual), options.epochs, options.pairs)
        for kind, (make, usual) in makers.items()
        if options.kind in (kind, "both")
    }
    say({**facts, "threads": options.threads}, before)


if __name__ == "__main__":
    main()
