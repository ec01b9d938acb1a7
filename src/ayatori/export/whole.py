"""A model -> one torch module: raw values in, probabilities or values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ayatori.ensemble.say import TINY
from ayatori.model import Model
from ayatori.nets import has_beside, reads
from ayatori.nets.beside import of_columns
from ayatori.nets.series import SeriesFront
from ayatori.nets.table_front import TableFront
from ayatori.records import LARGEST_LOG, AyatoriError, Group, Schema, Task, Vote

TOLD = ("mean", "geometric", "sum")  # ways to vote that a graph can hold


class Whole(nn.Module):
    """All that a model does with rows that have been read.

    **Shape** ``forward``: the tensors that ``names`` lists, in order: ``numbers`` (n, p) float64, NaN is
    missing; ``categories`` (n, q) int64 codes into the schema's words, missing or unknown = -1; ``image``
    (n, c, h, w) uint8 -> what ``Model.predict_values`` says (n, outputs) float32; with classes also the
    number of the one that is said (n,) int64, with several labels which are named (n, labels) bool.

    Raises AyatoriError where the model votes in a way that no graph holds: by majority, by a median, or by an
    estimator of scikit-learn.
    """

    rule: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        schema = model.schema
        self.task: Task = schema.task
        self.log = schema.log
        self.names = names_of(schema)
        self.networks = nn.ModuleList(model.networks)
        self.answers = [network.answer for network in model.networks]
        self.nets = [network.spec.name for network in model.networks]
        passed = model.passed
        self.front: nn.Module = nn.Identity() if passed is None else passed.source.front
        self.parts = nn.ModuleList([] if passed is None else passed.source.parts)
        self.cut = -1 if passed is None or passed.cut is None else passed.cut
        self.embeds = passed is not None and (passed.cut != 0 or passed.heads)
        self.beside = has_beside(schema)
        self.columns: Columns | None = None
        if passed is not None and not passed.source.facts["image"] and model.schema.series is None:
            self.columns = Columns(passed.source.facts["schema"], schema)
        self.vote = model.vote or Vote((Group(tuple(range(len(model.networks)))),))
        _check_vote(self.vote, bool(model.rivals))
        rule = np.zeros(0) if model.rule is None else np.asarray(model.rule)
        self.register_buffer("rule", torch.tensor(rule, dtype=torch.float32))
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = self._embedded(dict(zip(self.names, tensors, strict=True)))
        said = [
            answer(network({name: inputs[name] for name in reads(net, inputs, self.beside)}).float())
            for answer, network, net in zip(self.answers, self.networks, self.nets, strict=True)
        ]
        groups = [_say(said, group, self.task) for group in self.vote.groups]
        last = self.vote.last
        if last is None:
            values = torch.stack(groups).mean(0)
        else:
            terms = [w * _evidence(g, self.task) for w, g in zip(last.weights, groups, strict=True)]
            values = _squashed(torch.stack(terms).sum(0) + torch.tensor(last.bias), self.task)
        if self.log:
            values = values.clamp(-LARGEST_LOG, LARGEST_LOG).exp()
        if self.task == "regression":
            return (values,)
        if self.task == "classification":
            leans = values @ self.rule.T if len(self.rule) else values
            return values, leans.argmax(1)
        yes = values * self.rule if len(self.rule) else values
        return values, yes / (yes + 1 - values).clamp_min(1e-30) > 0.5

    def _embedded(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the networks see: the rows, or what the frozen parts say of them."""
        if self.columns is not None:
            inputs = self.columns(inputs)
        if not self.embeds:
            return inputs
        found = dict(inputs) if self.cut == 0 else of_columns(inputs) if self.beside else {}
        x = self.front(inputs)
        for number, part in enumerate(self.parts):
            if number == self.cut and number > 0:
                # as they are kept, see embed
                found["activations"] = x.float().clamp(-6e4, 6e4).half()
            x = part(x)
        return found | {"features": x.float()}


class Columns(nn.Module):
    """Columns of a table as a source reads them, found by their names (see ``inputs_for``)."""

    places: Tensor

    def __init__(self, theirs: Mapping[str, Any], schema: Schema) -> None:
        super().__init__()
        mine, words = list(schema.numbers), list(schema.categories)
        # what is not there is the column behind the last, which is missing everywhere
        places = [mine.index(name) if name in mine else len(mine) for name in theirs["numbers"]]
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64))
        self.tables = [
            (
                words.index(name) if name in words else len(words),
                [
                    -1,
                    *(
                        {w: n for n, w in enumerate(known)}.get(w, -1)
                        for w in schema.categories.get(name, ())
                    ),
                ],
            )
            for name, known in theirs["categories"].items()
        ]

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = next(iter(inputs.values()))
        found = {}
        if len(self.places):
            gap = rows.new_full((rows.shape[0], 1), torch.nan, dtype=torch.float64)
            numbers = [inputs["numbers"]] if "numbers" in inputs else []
            found["numbers"] = torch.cat([*numbers, gap], 1)[:, self.places]
        if self.tables:
            gap = rows.new_full((rows.shape[0], 1), -1, dtype=torch.int64)
            codes = torch.cat([*([inputs["categories"]] if "categories" in inputs else []), gap], 1)
            found["categories"] = torch.stack(
                [torch.tensor(table)[codes[:, place] + 1] for place, table in self.tables], 1
            )
        return found


def names_of(schema: Schema) -> tuple[str, ...]:
    """The raw inputs of a model, in the order of an exported file."""
    files = {"image": schema.image, "series": schema.series}
    columns = {"numbers": schema.numbers, "categories": schema.categories, "words": schema.texts}
    return tuple(name for name, there in {**files, **columns}.items() if there)


def sample_inputs(whole: Whole, schema: Schema, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows made up to compare with: numbers where the networks expect them, gaps, every category, noise."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    if schema.image is not None:
        found["image"] = rng.integers(0, 256, (rows, *schema.image), np.uint8)
    if schema.series is not None:
        scales = next(part for part in whole.modules() if isinstance(part, SeriesFront))
        mean, std = scales.mean.double().cpu().numpy(), scales.std.double().cpu().numpy()
        series = mean[:, None] + std[:, None] * rng.normal(size=(rows, *schema.series))
        # gaps only where the networks know of them
        share = 0.05 if scales.gaps else 0.0
        found["series"] = np.where(rng.random(series.shape) < share, np.nan, series).astype(np.float32)
    if schema.numbers:
        centre, spread = np.zeros(len(schema.numbers)), np.ones(len(schema.numbers))
        front = next((m for m in whole.modules() if isinstance(m, TableFront)), None)
        if front is not None and front.numbers == len(centre):
            scale = front.scale.double().cpu().numpy()
            centre = front.centre.double().sum(0).cpu().numpy()
            spread = 1 / np.where(scale > 0, scale, 1)
        numbers = centre + spread * rng.normal(size=(rows, len(centre)))
        found["numbers"] = np.where(rng.random(numbers.shape) < 0.05, np.nan, numbers)
    if schema.categories:
        codes = [rng.integers(-1, len(words), rows) for words in schema.categories.values()]
        found["categories"] = np.stack(codes, 1).astype(np.int64)
    if schema.texts:
        starts = np.cumsum([0, *(len(known) for known in schema.texts.values())])
        places = [
            np.where(rng.random((rows, width)) < 0.2, -1, rng.integers(start, end, (rows, width)))
            for start, end, width in zip(starts[:-1], starts[1:], schema.text_widths, strict=True)
        ]
        found["words"] = np.concatenate(places, axis=1).astype(np.int64)
    return found


def described(model: Model) -> dict[str, Any]:
    """What one must know to use an exported model, as plain JSON values: inputs, outputs, classes."""
    schema = model.schema
    facts: dict[str, Any] = {"name": model.name, "task": schema.task, "networks": len(model.networks)}
    if schema.image is not None:
        channels, height, width = schema.image
        facts["image"] = {
            "channels": channels,
            "height": height,
            "width": width,
            "values": "uint8 from 0 to 255, RGB or grey",
            "resample": schema.resample,
            "crop": schema.crop,
        }
        if schema.slices:
            facts["image"] |= {"values": "uint8, the slices of a scan are its channels"}
        if schema.kind == "scans":
            facts["image"]["values"] = "uint8, what ayatori.see(file, shape, window, mm) gives"
            facts["image"] |= {"window": schema.scan_window, "mm": schema.scan_mm}
        if schema.kind == "recordings":
            facts["image"]["values"] = "uint8, what ayatori.hear(file, side, seconds, hertz) gives"
            facts["image"] |= {"seconds": schema.sound_seconds, "hertz": schema.sound_hertz}
    if schema.series is not None:
        channels, steps = schema.series
        facts["series"] = {
            "channels": list(schema.channels),
            "steps": steps,
            "values": "float32, NaN = missing, also behind the end of shorter series",
            "averaged": schema.stretch,
        }
    if schema.numbers:
        facts["numbers"] = list(schema.numbers)
    if schema.dates:
        facts["dates"] = {
            "columns": list(schema.dates),
            "parts": "days since 2000-01-01 UTC; month 1 to 12; weekday, Monday is 0; hour",
        }
    if schema.categories:
        facts["categories"] = {name: list(words) for name, words in schema.categories.items()}
    if schema.texts:
        facts["words"] = {
            "columns": {name: list(known) for name, known in schema.texts.items()},
            "widths": list(schema.text_widths),
            "places": "of each column the places of its terms, each once, in their order, -1 behind the "
            "last; those of a second column are numbered on; terms are made by ayatori.data.words.terms",
        }
    if schema.task == "regression":
        facts["values"] = list(schema.target)
    else:
        facts["classes"] = list(schema.classes)
    return facts


def _check_vote(vote: Vote, rivals: bool) -> None:
    ways = {group.how for group in vote.groups} - set(TOLD)
    if rivals or ways or (vote.last is not None and vote.last.model is not None):
        what = f"by {sorted(ways)[0]}" if ways else "with models of scikit-learn"
        raise AyatoriError(
            f"an exported model must be one network or a mean, however this one votes {what}; export the "
            "network that --distill taught (RUN/distilled), or choose another ensemble"
        )


def _say(said: Sequence[Tensor], group: Group, task: Task) -> Tensor:
    """See ``ayatori.ensemble.say``."""
    weights = np.asarray(group.weights or np.ones(len(group.voices)), np.float64)
    if group.how != "sum":
        weights = weights / weights.sum()
    voices = [_evidence(said[v], task) if group.how == "geometric" else said[v] for v in group.voices]
    total = torch.stack([float(w) * voice for w, voice in zip(weights, voices, strict=True)]).sum(0)
    if group.how == "sum" and group.start:
        total = total + torch.tensor(group.start)
    return (
        total if group.how == "mean" or (group.how == "sum" and not group.start) else _squashed(total, task)
    )


def _evidence(said: Tensor, task: Task) -> Tensor:
    if task == "regression":
        return said
    clipped = said.clamp(TINY, 1 - TINY if task == "multilabel" else 1.0)
    return clipped.log() - (-clipped).log1p() if task == "multilabel" else clipped.log()


def _squashed(logits: Tensor, task: Task) -> Tensor:
    if task == "regression":
        return logits
    return logits.sigmoid() if task == "multilabel" else logits.softmax(1)
