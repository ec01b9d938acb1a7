"""Trained networks -> what they made of the rows: a map of their last hidden layer, and who is near there.

Both explain, and neither scores: the map holds rows that its network never saw, and what stands beside a
mistake are rows that the very network which made it has learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ayatori.explore.believe import how_far
from ayatori.explore.bounds import main_score
from ayatori.explore.maps import principal
from ayatori.explore.neighbours import find_neighbours
from ayatori.explore.thumbs import thumbs_of
from ayatori.explore.tsne import tsne
from ayatori.nets import Network, reads
from ayatori.nets.beside import has_beside, of_columns, of_files, voices_of
from ayatori.nets.words import Said
from ayatori.outputs import worst_rows
from ayatori.records import SCORE, SEALED, Blend, Dataset, Member, Plan
from ayatori.train.predict import predict_rows
from ayatori.train.stream import take

DRAWN, LEAST = 2_000, 10  # rows of the map, at most and at least
AMONG, NEAREST = 2_000, 3  # training rows among which the nearest are looked for, and how many are told
BLOCK, SIDE = 256, 64  # rows of one pass; pixels of a small picture
PERPLEXITY = 15.0


@dataclass(frozen=True)
class Learned:
    """What a run folder keeps: ``map`` and ``near`` as tables, what is said of the map, small pictures."""

    map: pd.DataFrame  # row, learned_x, learned_y
    facts: Mapping[str, Any]
    near: pd.DataFrame  # row (a mistake), rank, near (a row), id, label, distance
    pictures: Mapping[str, np.ndarray]  # row (k,), pixels (k, c, s, s) uint8


def explain(
    dataset: Dataset,
    plan: Plan,
    members: Sequence[Member],
    blends: Sequence[Blend],
    chosen: str,
    drawn: np.ndarray,
    raw: Mapping[str, np.ndarray],
    seed: int,
) -> Learned:
    """The map of rows that are ``drawn`` before training too, and the neighbours of the worst mistakes.

    ``dataset``: the rows as the networks see them; ``raw``: their inputs as they were read.
    """
    table, facts = _map(dataset, plan, members[0], drawn, seed)
    halves = apart(dataset, plan, members, seed)
    facts |= {"apart": halves} if halves else {}
    near = _nearest(dataset, plan, members, blends, chosen)
    pictures = {}
    if raw.keys() & {"image", "series"} and len(near):
        rows = np.unique(near["near"].to_numpy())
        pixels = thumbs_of(raw, rows, SIDE)
        pictures = {} if pixels is None else {"row": rows, "pixels": pixels}
    return Learned(table, facts, near, pictures)


def apart(dataset: Dataset, plan: Plan, members: Sequence[Member], seed: int) -> dict[str, float]:
    """How well the folds' own networks tell held-out rows that have the columns of others, or the files.

    {} where no columns stand beside files; else the main scores "both", "files" (beside foreign columns) and
    "columns" (beside foreign files), on the same rows.
    """
    if not has_beside(dataset.schema):
        return {}
    chance = np.random.default_rng([seed, 19])
    truth: dict[str, list[np.ndarray]] = {"both": [], "files": [], "columns": []}
    said: dict[str, list[np.ndarray]] = {"both": [], "mixed": []}
    for member in members:
        rows = chance.permutation(plan.rows(member.index, SCORE))
        if member.column.kind != "fold" or member.column.net != members[0].column.net or len(rows) < LEAST:
            continue
        others = np.roll(rows, 1)
        mixed = dict(dataset.inputs)
        for name, values in of_columns(dataset.inputs).items():
            mixed[name] = values.copy()
            mixed[name][rows] = values[others]
        said["both"].append(predict_rows(member.network, dataset.inputs, rows))
        said["mixed"].append(predict_rows(member.network, mixed, rows))
        for name, which in (("both", rows), ("files", rows), ("columns", others)):
            truth[name].append(dataset.labels[which])
    if not said["both"]:
        return {}
    return {
        name: main_score(
            np.concatenate(said["both" if name == "both" else "mixed"]), np.concatenate(labels), dataset.task
        )
        for name, labels in truth.items()
    }


def hidden(network: Network, inputs: Mapping[str, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, str]:
    """What a network's last layer is given, (rows, d) float32, and what that is called.

    Of one without hidden layers, what it says; of texts, the words as it weighs them.
    """
    if "words" in inputs and not of_files(inputs):
        return _heard(network, inputs, rows), "the words, as weighed by"
    voices = voices_of(network)
    layers = [[part for part in voice.modules() if isinstance(part, nn.Linear)] for voice in voices]
    lasts = [own[-1] for own in layers if own]
    alone = len(voices) == 1
    shallow = alone and (lasts == [network.body] or len(list(network.body.parameters())) <= 2)
    inner = len(lasts) == len(voices) and not shallow
    caught: list[Tensor] = []
    hooks = [
        last.register_forward_pre_hook(lambda _, given: caught.append(given[0])) for last in lasts if inner
    ]
    seen = {name: inputs[name] for name in reads(network.spec.name, inputs, "beside" in network.spec.sizes)}
    parts: list[list[np.ndarray]] = []
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), BLOCK):
                caught.clear()
                said = network(take(seen, rows[start : start + BLOCK], network.shift.device))
                parts.append([one.float().flatten(1).cpu().numpy() for one in (caught if inner else [said])])
    finally:
        for hook in hooks:
            hook.remove()
    found = [np.nan_to_num(np.concatenate(own)) for own in zip(*parts, strict=True)]
    if not alone:  # files and columns count the same
        found = [own / np.float32(max(np.sqrt(own.var(axis=0).sum()), 1e-6)) for own in found]
    return np.concatenate(found, axis=1), f"the {'last hidden layer' if inner else 'output'} of"


def _heard(network: Network, inputs: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    texts = next(part for part in network.body.modules() if isinstance(part, Said))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), BLOCK):
            words = take({"words": inputs["words"]}, rows[start : start + BLOCK], network.shift.device)
            parts.append(texts.heard(network.front.words(words["words"])).cpu().numpy())  # type: ignore[operator]
    found = np.concatenate(parts)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    # rows without a word that says anything are like each other, and as far from the rest as strangers are
    return np.concatenate([found / np.maximum(length, 1e-9), length < 1e-9], axis=1, dtype=np.float32)


def _map(
    dataset: Dataset, plan: Plan, member: Member, drawn: np.ndarray, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """t-SNE of those of the ``drawn`` rows that ``member`` never saw."""
    unseen = np.isin(plan.roles[:, member.index], (SCORE, SEALED))
    rows = drawn[unseen[drawn]]
    if len(rows) > DRAWN:
        rows = np.sort(np.random.default_rng([seed, 13]).choice(rows, DRAWN, replace=False))
    if len(rows) < LEAST:
        return pd.DataFrame({"row": [], "learned_x": [], "learned_y": []}), {}
    values, what = hidden(member.network, dataset.inputs, rows)
    graph = find_neighbours(values, min(int(3 * PERPLEXITY), len(rows) - 1))
    perplexity = min(PERPLEXITY, max(graph.indices.shape[1] / 3, 1.0))
    points = tsne(graph, principal(values, 2, seed)[:, :2], perplexity)
    known = ~plan.sealed[rows]
    labels = dataset.labels[rows]
    labels = labels if labels.ndim == 1 else labels[:, 0]
    (trust,) = how_far(values, [points], np.where(known, labels, 0), known, seed)
    who = "the network" if member.column.fold < 0 else f"the network of fold {member.column.fold + 1}"
    facts = {
        "name": "learned",
        "title": "t-SNE",
        "dimensions": 2,
        "of": f"{what} {who}, rows that it never saw",
        "rows": len(rows),
        **asdict(trust),
    }
    return pd.DataFrame({"row": rows, "learned_x": points[:, 0], "learned_y": points[:, 1]}), facts


def _nearest(
    dataset: Dataset, plan: Plan, members: Sequence[Member], blends: Sequence[Blend], chosen: str
) -> pd.DataFrame:
    """For each of the worst held-out rows, the nearest rows that the network which judged it learned from."""
    names = ["row", "rank", "near", "id", "label", "distance"]
    blend, worst = worst_rows(dataset, blends, chosen)
    if blend is None or blend.split != "out_of_fold":
        return pd.DataFrame(columns=names)
    own = [m for m in members if m.column.kind == "fold" and m.column.net == members[0].column.net]
    lines: list[tuple[Any, ...]] = []
    left = set(worst.tolist())
    for member in own:
        mine = np.array(sorted(left & set(plan.rows(member.index, SCORE).tolist())), np.int64)
        taught = plan.train_rows(member.index)
        if not len(mine) or len(taught) <= NEAREST:
            continue
        left -= set(mine.tolist())
        taught = taught[np.unique(np.linspace(0, len(taught) - 1, AMONG).astype(int))]
        values, _ = hidden(member.network, dataset.inputs, np.concatenate([taught, mine]))
        graph = find_neighbours(
            values, NEAREST, np.arange(len(taught), len(values)), among=np.arange(len(taught))
        )
        for row, places, far in zip(mine, graph.indices, graph.distances, strict=True):
            for rank, (place, distance) in enumerate(zip(places, far, strict=True)):
                near = int(taught[place])
                label = label_of(dataset, near)
                lines.append((int(row), rank, near, str(dataset.ids[near]), label, float(distance)))
    return pd.DataFrame(lines, columns=names)


def label_of(dataset: Dataset, row: int) -> str:
    """What a row is labelled, as text."""
    label = dataset.labels[row]
    if dataset.task == "classification":
        return dataset.classes[int(label)]
    if dataset.task == "multilabel":
        return " ".join(name for name, yes in zip(dataset.classes, label, strict=True) if yes > 0)
    return ", ".join(f"{value:.4g}" for value in np.atleast_1d(label))
