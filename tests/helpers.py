"""Small data, small networks, and the plain loop that every mode is compared with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ayatori import cli, load
from ayatori.augment import augment
from ayatori.nets import build, measure
from ayatori.nets.dropout import Dropout
from ayatori.nets.words import begin_texts
from ayatori.plan import make_plan
from ayatori.recipe import EngineRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import STOP, Dataset, Member, Plan
from ayatori.train import settle
from ayatori.train.learner import schedule
from ayatori.train.stream import batches, make_stream, own_order, seed_of, take

ENGINES = {
    "turns": EngineRecipe(mode="turns", threads=1, dtype="float32"),
    "turns on threads": EngineRecipe(mode="turns", threads=2, dtype="float32"),
    "stacked": EngineRecipe(mode="stacked", threads=1, dtype="float32"),
    "stacks on threads": EngineRecipe(mode="stacked", threads=2, dtype="float32"),
}


def mlp(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(int(np.prod(shape)), 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, outputs)
    )


def normed(shape: tuple[int, ...], outputs: int) -> nn.Module:
    # a bias before the normalisation would only ever follow rounding errors
    layers = (nn.Linear(shape[0], 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))
    return nn.Sequential(*layers)


def table(n: int = 240, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    target = random.integers(0, 3, n)
    return load(random.normal(size=(n, 4)) + 1.5 * np.eye(4)[target], y=target.astype(str))


def pictures(n: int = 240, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    target = random.integers(0, 3, n)
    pixels = random.integers(0, 120, size=(n, 1, 6, 6)) + 40 * target[:, None, None, None]
    return load(pixels.astype(np.uint8), y=target.astype(str))


def texts(n: int = 240, seed: int = 0) -> Dataset:
    """Sentences of words by chance, with a word of their class in most; beside a number that says nothing."""
    random = np.random.default_rng(seed)
    target = random.integers(0, 3, n)
    words = random.choice([f"word{number}" for number in range(60)], size=(n, 8))
    telling = np.where(random.random(n) < 0.8, target, random.integers(0, 3, n))
    lines = [f"{' '.join(own)} kind{kind}" for own, kind in zip(words, telling, strict=True)]
    frame = pd.DataFrame({"text": lines, "size": random.normal(size=n)})
    return load(frame, y=target.astype(str))


def settled(
    dataset: Dataset, net=mlp, engine: str = "turns", folds: int = 3, **settings
) -> tuple[Plan, Recipe]:
    values = {
        "epochs": 4,
        "batch_size": 40,
        "learning_rate": 0.01,
        "augment": "none",
        "patience": 99,
    } | settings
    recipe = Recipe(
        net=NetRecipe(name=net),
        plan=PlanRecipe(folds=folds),
        train=TrainRecipe(**values),
        engine=ENGINES[engine],
        seed=5,
    )
    plan = make_plan(dataset, recipe.plan, recipe.seed)
    return plan, settle(recipe, dataset, plan)


def bootstrapped(plan: Plan, seed: int = 0) -> Plan:
    """Some rows train twice or three times."""
    roles, random = plan.roles.copy(), np.random.default_rng(seed)
    roles[roles == 1] = random.integers(1, 4, int((roles == 1).sum()))
    return dataclasses.replace(plan, roles=roles)


def entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, target, reduction="none")


def plain_loop(
    dataset: Dataset,
    plan: Plan,
    recipe: Recipe,
    index: int,
    loss=entropy,
    target: np.ndarray | None = None,
    soft: np.ndarray | None = None,
    offset: np.ndarray | None = None,
) -> dict[str, torch.Tensor]:
    """One network, one order of rows, plain PyTorch; the best weights by the stop rows.

    ``target``: as ``loss`` sees it; ``soft``: learned instead; ``offset``: added to the outputs.
    """
    settings, column, stream = (
        recipe.train,
        plan.columns[index],
        make_stream(dataset, plan, recipe),
    )
    own, stop = plan.train_rows(index), plan.rows(index, STOP)
    repeated = np.repeat(own, plan.counts(index)[own])
    inputs = {name: values[repeated] for name, values in dataset.inputs.items()}
    wanted = torch.from_numpy(dataset.labels if target is None else target)
    taught = wanted if soft is None else torch.from_numpy(soft)
    start = torch.from_numpy(np.zeros((len(dataset), 1), np.float32) if offset is None else offset)
    sizes = measure(inputs, dataset.schema)
    network = build(recipe.net, dataset, sizes, column.seed, step=offset is not None)
    network.fit(inputs, dataset.labels[repeated] if dataset.task == "regression" else None)
    if offset is None and "words" in inputs:
        begin_texts(network, inputs["words"], dataset.labels[repeated])
    chance = torch.Generator()
    for part in network.modules():
        if hasattr(part, "generators"):
            part.generators = (chance,)
    counts = torch.from_numpy(plan.counts(index)).float()
    weight = (counts > 0).float() if stream.shared is None else counts / counts[counts > 0].mean()
    rate = column.learning_rate or settings.learning_rate
    decay = settings.weight_decay if column.weight_decay < 0 else column.weight_decay
    groups = [
        {"params": [network.get_parameter(name)], "weight_decay": decay * factors[1], "factor": factors[0]}
        for name, factors in network.rates().items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, settings.beta2))
    best_loss, best = np.inf, network.state_dict()
    for epoch in range(settings.epochs):
        network.train()
        if stream.shared is None:
            orders = list(own_order(repeated, stream, column.seed, epoch))
        else:
            orders = list(batches(stream.shared, stream.steps, recipe.seed, epoch))
        for number, rows in enumerate(orders):
            progress = (epoch * stream.steps + number + 0.5) / (settings.epochs * stream.steps)
            key = (recipe.seed, epoch, number)
            batch = take(dataset.inputs, rows, torch.device("cpu"))
            batch = augment(settings.augment)(batch, torch.Generator().manual_seed(seed_of(*key)))
            mine = np.isin(rows, own)
            batch = {name: value[torch.from_numpy(mine)] for name, value in batch.items()}
            chance.manual_seed(seed_of(*key, column.seed))
            for part in network.modules():
                if isinstance(part, Dropout):
                    part.span = (int(mine.sum()), len(rows))
            losses = loss(network(batch) + start[rows[mine]], taught[rows[mine]])
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule(progress, settings.warmup) * group["factor"]
            optimizer.zero_grad()
            (losses * weight[rows[mine]]).mean().backward()
            if settings.clip:
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimizer.step()
        network.eval()
        with torch.no_grad():
            logits = network(take(dataset.inputs, stop, torch.device("cpu")))
            stop_loss = loss(logits + start[stop], wanted[stop]).mean().item()
        if stop_loss < best_loss - settings.min_delta:
            best_loss, best = stop_loss, {name: value.clone() for name, value in network.state_dict().items()}
    return {name: value for name, value in best.items() if name != "temperature"}


def assert_close(member: Member, expected: dict[str, torch.Tensor]) -> None:
    """To 1e-5 after 50 steps; what is no weight (a scaler's statistics) is the same."""
    found = member.network.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """``ayatori`` with these words, in this process: its exit code."""
    monkeypatch.setattr("sys.argv", ["ayatori", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
