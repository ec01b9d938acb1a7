"""Advice on a source before training: what is near enough is used, what has learned nothing of use is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ayatori import load
from ayatori.advise import Advice, Probe, _advice, advise, difference
from ayatori.embed import Frozen
from ayatori.nets.source import Source
from ayatori.plan import make_plan
from ayatori.recipe import PlanRecipe, Recipe
from ayatori.records import Dataset, Plan


class Pixels(nn.Module):
    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["image"].float() / 127.5 - 1


class Even(nn.Module):
    """Knows a secret of the pictures: how many of two hidden halves are bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(1)
        first, second = rows[:, :32] > 0, rows[:, 32:] > 0
        same = (first == second).float().mean(1, keepdim=True)
        return torch.cat([same, same.square(), rows[:, :2]], 1)


def source(parts: tuple[nn.Module, ...], width: int) -> Source:
    facts = {"name": "small", "kind": "timm", "architecture": "small", "digest": "1", "image": [1, 8, 8]}
    for part in parts:
        part.eval().requires_grad_(False)
    return Source({**facts, "crop": 0.0, "resample": "bilinear"}, Pixels().eval(), parts, width, True)


def knowing() -> Source:
    return source((nn.Identity(), nn.Identity(), Even()), 4)


def knowing_nothing() -> Source:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh())
    return source((nn.Identity(), nn.Identity(), layer), 3)


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network with fresh weights is another that knows nothing."""
    monkeypatch.setattr("ayatori.advise.source_of", lambda facts: knowing_nothing())


def secret(n: int = 240, seed: int = 0) -> Dataset:
    """Whether two halves are alike: no single pixel tells it, and no linear model can."""
    chance = np.random.default_rng(seed)
    first = chance.integers(0, 2, (n, 32))
    target = chance.integers(0, 2, n)
    second = np.where((chance.random((n, 32)) < 0.8) == target[:, None].astype(bool), first, 1 - first)
    pixels = np.concatenate([first, second], 1).reshape(n, 1, 8, 8) * 200
    return load(pixels.astype(np.uint8), y=target.astype(str))


def plain(n: int = 240) -> Dataset:
    """What a linear model sees at once."""
    chance = np.random.default_rng(0)
    target = chance.integers(0, 2, n)
    pixels = chance.integers(0, 100, (n, 1, 8, 8)) + 60 * target[:, None, None, None]
    return load(pixels.astype(np.uint8), y=target.astype(str))


def asked(dataset: Dataset, source: Source, seed: int = 0) -> Advice:
    frozen = Frozen(source)
    schema = dataclasses.replace(dataset.schema, source=frozen.facts())
    dataset = dataclasses.replace(dataset, schema=schema)
    return advise(dataset, plan_of(dataset), frozen, Recipe(seed=seed))


def plan_of(dataset: Dataset) -> Plan:
    return make_plan(dataset, PlanRecipe(folds=3))


@pytest.mark.usefixtures("_fresh")
def test_a_source_that_sees_what_nothing_else_sees_is_used_frozen() -> None:
    found = asked(secret(), knowing())
    assert found.word == "use it frozen"
    assert found.figures["gain"]["low"] > 0
    assert "accuracy" in found.sentence
    kinds = {probe["kind"] for probe in found.figures["probes"]}
    assert kinds == {"last", "earlier", "fresh", "raw", "scratch"}


@pytest.mark.usefixtures("_fresh")
def test_a_source_that_knows_in_its_middle_and_forgets_at_its_end_is_trained_in_its_last_part() -> None:
    forgets = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh())
    with torch.no_grad():
        forgets[1].weight[:, :2] = 0.0  # what the two halves have in common
    found = asked(secret(), source((nn.Identity(), Even(), forgets), 3))
    assert found.word == "train the last part"
    assert "by its part 2" in found.sentence


@pytest.mark.parametrize("better", [0.02, 0.5])
def test_a_source_is_judged_by_its_end_unless_an_earlier_part_is_better_beyond_chance(better: float) -> None:
    chance = np.random.default_rng(0)
    rows = secret(60)

    def probe(name: str, kind: Any, loss: float, depth: float = 1.0) -> Probe:
        return Probe(name, kind, loss + chance.normal(0, 0.1, 60), 0.9, depth)

    probes = [
        probe("its part 4", "earlier", 1.0 - better, 0.8),
        probe("its features", "last", 1.0),
        probe("trees on the inputs", "raw", 2.0),
    ]
    found = _advice(probes, rows, 0, 60)
    said = ("train the last part", "by its part 4") if better > 0.1 else ("use it frozen", "by its features")
    assert found.word == said[0]
    assert said[1] in found.sentence


@pytest.mark.parametrize(("frozen", "word"), [(1.0, "train all of it"), (0.5, "use it frozen")])
def test_a_network_of_ours_is_trained_as_a_whole_where_its_end_does_not_help(
    frozen: float, word: str
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 60))
    probes = [
        Probe("its features", "last", frozen + noise[0], 0.9),
        Probe("a short training from scratch", "scratch", 0.9 + noise[1], 0.9),
        Probe("a short training of all of it", "whole", 0.4 + noise[2], 0.9),
    ]
    assert _advice(probes, secret(60), 0, 60).word == word
    worse = [*probes[:2], dataclasses.replace(probes[2], losses=0.9 + noise[2])]
    assert _advice(worse, secret(60), 0, 60).word == ("use it frozen" if frozen < 0.9 else "undecided")


@pytest.mark.usefixtures("_fresh")
def test_a_source_that_has_lost_what_the_pixels_say_is_not_used() -> None:
    found = asked(plain(), knowing_nothing())
    assert found.word == "do not use it"


@pytest.mark.usefixtures("_fresh")
def test_labels_of_chance_make_no_source_worth_it() -> None:
    for seed in range(3):
        dataset = secret(seed=seed)
        labels = np.random.default_rng(seed).permutation(dataset.labels)
        found = asked(dataclasses.replace(dataset, target=labels), knowing(), seed)
        assert found.word in ("do not use it", "undecided")


@pytest.mark.usefixtures("_fresh")
def test_labels_of_sealed_rows_are_not_read_and_the_same_seed_says_the_same() -> None:
    dataset = secret()
    plan = plan_of(dataset)
    labels = dataset.labels.copy()
    labels[plan.sealed] = 1 - labels[plan.sealed]
    frozen = Frozen(knowing())
    schema = dataclasses.replace(dataset.schema, source=frozen.facts())
    told = [
        advise(dataclasses.replace(dataset, schema=schema, target=target), plan, frozen, Recipe())
        for target in (dataset.labels, labels)
    ]
    assert told[0] == told[1]


def test_too_few_rows_leave_it_undecided() -> None:
    assert asked(secret(20), knowing()).word == "undecided"


def test_the_interval_of_a_difference_holds_its_mean_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        a = chance.normal(1.0, 1.0, 100)
        found = difference(a, np.zeros(100), 0)
        held += found["low"] <= 1.0 <= found["high"]
    assert 0.9 <= held / 200 <= 0.99


@pytest.mark.usefixtures("_fresh")
def test_a_class_that_is_too_rare_to_judge_by_is_left_out() -> None:
    dataset = secret(120)
    target = np.array(["no", "yes"])[dataset.labels].astype("U4")
    target[:3] = "a"  # comes first among the classes
    rare = load(dataset.inputs["image"], y=target)
    frozen = Frozen(knowing())
    schema = dataclasses.replace(rare.schema, source=frozen.facts())
    plan = make_plan(rare, PlanRecipe(folds=2))
    found = advise(dataclasses.replace(rare, schema=schema), plan, frozen, Recipe())
    assert found.word == "use it frozen"


def test_rows_of_one_group_are_drawn_together() -> None:
    """Ten copies of each row say no more than the row."""
    gap = np.random.default_rng(0).normal(0.3, 1, 60)
    alone = difference(gap, np.zeros(60), 0)
    copied = np.repeat(gap, 10)
    grouped = difference(copied, np.zeros(600), 0, np.repeat(np.arange(60), 10))
    careless = difference(copied, np.zeros(600), 0)
    assert grouped == pytest.approx(alone)
    assert careless["high"] - careless["low"] < 0.5 * (grouped["high"] - grouped["low"])
