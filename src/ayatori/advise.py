"""Stage 3c. Is the source close enough? What a pretrained network is worth here, before training.

A linear head is judged out of fold on what the frozen network says of some rows, early and late in it; and
beside it, on the same rows and folds, what needs no source: the same network with fresh weights, the inputs
as they are, and a short training from scratch. A CNN of ours also learns on as a whole, for as short a time.
The labels of sealed rows are not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.embed import Frozen, in_blocks
from ayatori.ensemble.losses import row_losses
from ayatori.evaluate import fit_baselines, score
from ayatori.explore.probes import probe_plan, sample_rows, take_rows
from ayatori.nets import WHOLE
from ayatori.nets.beside import files_alone
from ayatori.nets.dropout import global_chance, seed_globally
from ayatori.nets.seen import fitting
from ayatori.nets.source import Source, inputs_for, learns_as_cnn, source_of
from ayatori.plan import strata
from ayatori.recipe import EvaluateRecipe, NetRecipe, Recipe, TrainRecipe
from ayatori.records import SCORE, Dataset, Plan
from ayatori.train import predict, settle, train
from ayatori.train.engine import look
from ayatori.train.stream import take

PICTURES, ROWS = 150, 1500  # rows that are looked at, of pictures and of tables
DEPTHS = (0.3, 0.55, 0.8)  # of the parts, where the network is also listened to
SIDE = 32  # pixels, of pictures that a short training from scratch sees
RESAMPLES = 2000
MANY = 3000  # development rows, from which on a few of them say little of training from scratch
SHOWN = {"classification": "accuracy", "multilabel": "accuracy", "regression": "r2"}
Word = Literal["use it frozen", "train the last part", "train all of it", "do not use it", "undecided"]
Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Probe:
    """What one way says of rows it did not learn from. ``losses`` (n,) log losses or squared errors."""

    name: str
    kind: Literal["last", "earlier", "whole", "fresh", "raw", "scratch"]
    losses: np.ndarray
    score: float  # accuracy, or R2
    depth: float = 1.0  # share of the network's parts


@dataclass(frozen=True)
class Advice:
    """``word``: what to do; ``sentence``: why, in figures; ``figures``: plain JSON, a line for each probe."""

    word: Word
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def advise(dataset: Dataset, plan: Plan, frozen: Frozen, recipe: Recipe, say: Say | None = None) -> Advice:
    """Judge the source of ``frozen`` by some development rows of ``dataset``, whose inputs are as read.

    Means of losses are compared on the same rows; the interval of their difference is a bootstrap over rows,
    or over groups of rows where there are such.
    A frozen run stands on the end of the source, so the source is judged by that; by an earlier part only
    where that is better beyond chance, and then the advice is to train the parts behind it. Where neither
    helps beyond chance, a CNN of ours that learned on as a whole may. What does without the source is the
    best of several, and the choice is a little kind to it.
    """
    tell = say or (lambda text, share: None)
    rows = _rows(files_alone(dataset), plan, recipe.seed)
    if rows is None:
        return Advice("undecided", "there are too few rows to say whether the source is close enough")
    # what comes later in time is not needed to see how close the source is
    folds = probe_plan(dataclasses.replace(rows, order=None), recipe.seed)
    probes = []
    for probe in _probes(rows, folds, frozen.source, recipe):
        probes.append(probe)
        tell(probe.name, min(1.0, len(probes) / (10 if learns_as_cnn(frozen.source) else 9)))
    return _advice(probes, rows, recipe.seed, int((~plan.sealed).sum()))


def _rows(dataset: Dataset, plan: Plan, seed: int) -> Dataset | None:
    """Development rows to judge by, classes in proportion; None where they are too few."""
    open_ = np.flatnonzero(~plan.sealed)
    if dataset.task == "classification":
        counts = np.bincount(dataset.labels[open_], minlength=len(dataset.classes))
        open_ = open_[counts[dataset.labels[open_]] >= 4]
    kinds = strata(take_rows(dataclasses.replace(dataset, inputs={}), open_))
    whole: np.ndarray = np.zeros(len(dataset), np.int64)
    whole[open_] = kinds
    most = PICTURES if "image" in dataset.inputs else ROWS
    some = sample_rows(whole, open_, most, seed)
    rows = take_rows(dataset, some)
    if rows.task == "classification":
        counts = np.bincount(rows.labels, minlength=len(rows.classes))
        rows = take_rows(rows, np.flatnonzero(counts[rows.labels] >= 3))
        # classes that are left out would be asked for in every fold
        left, codes = np.unique(rows.labels, return_inverse=True)
        schema = dataclasses.replace(rows.schema, classes=tuple(rows.classes[code] for code in left))
        rows = dataclasses.replace(rows, target=codes.astype(np.int64), schema=schema)
    if rows.groups is not None and len(np.unique(rows.groups)) < 4:
        return None
    kinds_left = len(np.unique(rows.labels, axis=0)) if len(rows) else 0
    return rows if len(rows) >= 20 and kinds_left > 1 else None


def _probes(rows: Dataset, folds: Plan, source: Source, recipe: Recipe) -> Iterator[Probe]:
    """With the source, then without it."""
    raw = inputs_for(source, rows.inputs, rows.schema)
    said = listen(source, raw)
    last = max(said)
    for depth, features in said.items():
        name = "its features" if depth == last else f"its part {round(depth * len(source.parts))}"
        yield _head(name, "last" if depth == last else "earlier", features, rows, folds, recipe, depth)
    fresh = listen(_fresh(source, raw, recipe.seed), raw)
    best = max(said) if len(said) == 1 else sorted(said)[-2]
    for depth in {last, best}:
        where = "" if depth == last else " (earlier)"
        yield _head(f"fresh weights{where}", "fresh", fresh[depth], rows, folds, recipe, depth)
    for rival in fit_baselines(rows, folds, EvaluateRecipe(("linear", "trees")))[0]:
        yield _judged(f"{rival.name} on the inputs", "raw", rival.values, rows, folds)
    yield _from_scratch(rows, folds, recipe)
    if learns_as_cnn(source):
        yield _as_whole(rows, folds, source, recipe)


def listen(source: Source, raw: Mapping[str, np.ndarray]) -> dict[float, np.ndarray]:
    """(n, width) float32: averages of what the parts say, at some depths (shares of all), and the end.

    On the device where the source is; the pass over all rows may have moved it.
    """
    count = len(source.parts)
    devices = (value.device for part in source.parts for value in part.parameters())
    device = next(devices, torch.device("cpu"))
    wanted = {max(1, round(depth * count)) for depth in DEPTHS} - {count} if source.cuttable else set()

    def ask(rows: np.ndarray) -> dict[float, Tensor]:
        x: Any = source.front(take(raw, rows, device))
        said = {}
        for number, part in enumerate(source.parts, 1):
            x = part(x)
            if number in wanted or number == count:
                said[number / count] = _pooled(x, bool(source.facts.get("slices"))).cpu()
        return said

    rows, slices = len(next(iter(raw.values()))), source.facts.get("slices") or 1
    found = [said for _, said in in_blocks(ask, rows, device, look(device).bf16, slices)]
    return {depth: torch.cat([said[depth] for said in found]).numpy() for depth in found[0]}


def _pooled(x: Tensor, over_slices: bool = False) -> Tensor:
    """(b, ...) -> (b, c): the mean over places, or over the tokens of a transformer, and over slices."""
    if x.ndim == 5:
        # of a scan (b, 1 or c, d, h, w), or slices as pictures (b, slices, c, h, w)
        return x.float().mean((2, 3, 4)) if not over_slices else x.float().mean((1, 3, 4))
    if x.ndim == 4:
        return x.float().mean((2, 3))
    return x.float().mean(1) if x.ndim == 3 else x.float()


def _fresh(source: Source, raw: Mapping[str, np.ndarray], seed: int) -> Source:
    """The same network that has learned nothing; statistics of its norms are those of some rows."""
    with global_chance(), torch.no_grad():
        seed_globally(seed)
        fresh = source_of(source.facts)
        fresh.front.load_state_dict(source.front.state_dict())
        norms = [
            part
            for whole in fresh.parts
            for part in whole.modules()
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        ]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        some = np.linspace(0, len(next(iter(raw.values()))) - 1, 32).astype(int)
        x: Any = fresh.front(take(raw, some, torch.device("cpu")))
        for part in fresh.parts:
            x = part(x)
        for norm in norms:
            norm.eval()
    return fresh


def _head(
    name: str,
    kind: Literal["last", "earlier", "fresh"],
    features: np.ndarray,
    rows: Dataset,
    folds: Plan,
    recipe: Recipe,
    depth: float = 1.0,
) -> Probe:
    """A linear head on ``features`` (n, d), as a run would train it."""
    values = np.nan_to_num(np.asarray(features, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    schema = dataclasses.replace(rows.schema, source={"facts": {}, "cut": None})
    seen = dataclasses.replace(rows, inputs={"features": values}, schema=schema)
    settled = settle(Recipe(net=NetRecipe("linear"), seed=recipe.seed), seen, folds)
    found = predict(train(seen, folds, settled), seen, folds)
    return _judged(name, kind, found.values, rows, folds, depth)


def _from_scratch(rows: Dataset, folds: Plan, recipe: Recipe) -> Probe:
    """A short training of the network that would be taken without a source."""
    inputs = dict(rows.inputs)
    if "image" in inputs:
        image = torch.from_numpy(np.ascontiguousarray(inputs["image"]))
        size = (min(SIDE, image.shape[2]), min(SIDE, image.shape[3]))
        channels = min(SIDE, image.shape[1])
        inputs["image"] = fitting(image, channels, size, "bilinear").round().to(torch.uint8).numpy()
    schema = dataclasses.replace(rows.schema, source=None)
    if "image" in inputs:
        schema = dataclasses.replace(schema, image=inputs["image"].shape[1:])
    plain = dataclasses.replace(rows, inputs=inputs, schema=schema)
    said = _short_training(plain, folds, "auto", recipe)
    return _judged("a short training from scratch", "scratch", said, rows, folds)


def _as_whole(rows: Dataset, folds: Plan, source: Source, recipe: Recipe) -> Probe:
    """A short training of all of it, as that from scratch."""
    schema = dataclasses.replace(rows.schema, source=Frozen(source, 0, heads=False).facts())
    said = _short_training(dataclasses.replace(rows, schema=schema), folds, WHOLE, recipe)
    return _judged("a short training of all of it", "whole", said, rows, folds)


def _short_training(rows: Dataset, folds: Plan, net: str, recipe: Recipe) -> np.ndarray:
    train_as = TrainRecipe(device=recipe.train.device)
    short = Recipe(preset="quick", seed=recipe.seed, net=NetRecipe(net), train=train_as)
    return predict(train(rows, folds, settle(short, rows, folds)), rows, folds).values


def _judged(
    name: str, kind: Any, values: np.ndarray, rows: Dataset, folds: Plan, depth: float = 1.0
) -> Probe:
    """What members (m, n, c) say of the rows they are scored on."""
    own: np.ndarray = np.full(values.shape[1:], np.nan, np.float32)
    for member in range(folds.members):
        judged = folds.rows(member, SCORE)
        own[judged] = values[member, judged]
    losses = row_losses(own, rows.labels, rows.task)
    main = score(rows.labels, own, rows.task)[SHOWN[rows.task]]
    return Probe(name, kind, losses, main.value, depth)


def _advice(probes: list[Probe], rows: Dataset, seed: int, whole: int) -> Advice:
    """The end of the source, or what is plainly better in it, beside the best without it."""
    using = [probe for probe in probes if probe.kind in ("last", "earlier")]
    without = [probe for probe in probes if probe.kind in ("fresh", "raw", "scratch")]
    last = next(probe for probe in probes if probe.kind == "last")
    best, other = (min(some, key=lambda probe: probe.losses.mean()) for some in (using, without))
    if difference(last.losses, best.losses, seed, rows.groups)["low"] <= 0:
        best = last
    gain = difference(other.losses, best.losses, seed, rows.groups)
    for probe in probes:
        if probe.kind == "whole" and gain["low"] <= 0 and probe.losses.mean() < best.losses.mean():
            best, gain = probe, difference(other.losses, probe.losses, seed, rows.groups)
    word: Word
    if gain["low"] > 0:
        word = "use it frozen" if best is last else "train the last part"
        if best.depth < 0.5 or best.kind == "whole":
            word = "train all of it"
    elif gain["value"] <= 0 or gain["high"] < 0:
        word = "do not use it"
    else:
        word = "undecided"
    name = SHOWN[rows.task]
    figures = {
        "rows": len(rows),
        "metric": name,
        "gain": gain,
        "probes": [
            {"name": one.name, "kind": one.kind, "loss": float(one.losses.mean()), "score": one.score}
            for one in probes
        ],
    }
    sentence = _sentence(word, best, other, gain, name, len(rows))
    if word in ("use it frozen", "train the last part", "train all of it") and whole > MANY:
        sentence += f"; a network from scratch has {whole:,} rows to learn from, and gains most by them"
    return Advice(word, sentence, figures)


def _sentence(word: Word, best: Probe, other: Probe, gain: Mapping[str, float], name: str, rows: int) -> str:
    score = f"{name} {best.score:.3f} by {best.name}, {other.score:.3f} without it ({other.name})"
    ends = sorted(abs(gain[key]) for key in ("low", "high"))
    if gain["low"] > 0 or gain["high"] < 0:
        loss = f"a loss {abs(gain['value']):.3f} {'lower' if gain['value'] > 0 else 'higher'}"
        return f"{word}: on {rows} rows out of fold {score}; {loss} ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"{word}: on {rows} rows out of fold {score}; the losses do not differ beyond chance"


def difference(a: np.ndarray, b: np.ndarray, seed: int, groups: np.ndarray | None = None) -> dict[str, float]:
    """Mean of a - b over rows with its 95 % interval, by a bootstrap over rows, or over their groups."""
    gap = a - b
    chance = np.random.default_rng([seed, 41])
    codes = np.arange(len(gap)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(codes, weights=gap), np.bincount(codes)
    drawn = chance.integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(gap.mean()), "low": float(low), "high": float(high)}
