"""Requests that wait -> their answers, by one thread. What waits together is predicted together."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayatori.model import Model
from ayatori.records import Dataset, Schema
from ayatori.serve.bodies import joined
from ayatori.serve.limits import RequestError

ROWS_TOGETHER = 256


@dataclass(frozen=True)
class Job:
    """A request that waits: how its rows are read, and where its answer (JSON) goes."""

    read: Callable[[], Dataset]
    done: Future[bytes]


def warm_up(model: Model) -> None:
    """Ask once, so that no request waits for what is made at the first."""
    schema = model.schema
    inputs: dict[str, np.ndarray] = {}
    if schema.image is not None:
        inputs["image"] = np.zeros((1, *schema.image), np.uint8)
    if schema.series is not None:
        inputs["series"] = np.zeros((1, *schema.series), np.float32)
    if schema.numbers:
        inputs["numbers"] = np.zeros((1, len(schema.numbers)))
    if schema.categories:
        inputs["categories"] = np.full((1, len(schema.categories)), -1, np.int32)
    if schema.texts:
        inputs["words"] = np.full((1, sum(schema.text_widths)), -1, np.int32)
    model.predict_values(Dataset(inputs, None, schema, np.array(["0"])))


def answer_waiting(model: Model, jobs: deque[Job]) -> None:
    """Answer the first of ``jobs``, and as many of the next as fit into one prediction."""
    read: list[tuple[Job, Dataset]] = []
    while jobs and sum(len(dataset) for _, dataset in read) < ROWS_TOGETHER:
        job = jobs.popleft()
        if not job.done.set_running_or_notify_cancel():
            continue
        try:
            read.append((job, job.read()))
        except Exception as error:
            job.done.set_exception(error)
    if read:
        _answer(model, read)


def _answer(model: Model, read: Sequence[tuple[Job, Dataset]]) -> None:
    datasets = [dataset for _, dataset in read]
    try:
        with np.errstate(all="ignore"):  # what is too large is refused below
            values = model.predict_values(joined(datasets))
        for (job, dataset), own in zip(read, _cut(values, datasets), strict=True):
            _settle(model, job, dataset, own)
    except Exception as error:
        if len(read) == 1:
            read[0][0].done.set_exception(error)
            return
        for pair in read:  # one of them may fail, the others shall not
            if not pair[0].done.done():
                _answer(model, [pair])


def _cut(values: np.ndarray, datasets: Sequence[Dataset]) -> list[np.ndarray]:
    ends = np.cumsum([len(dataset) for dataset in datasets])
    return np.split(values, ends[:-1])


def _settle(model: Model, job: Job, dataset: Dataset, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        sentence = "numbers must be about as large as those learned from, however the answer to row "
        job.done.set_exception(
            RequestError(422, f"{sentence}{bad[0]} (the first is 0) is no number; mend the row")
        )
        return
    # row by row, so that other threads have their turn
    rows = [json.dumps(row) for row in said(model, dataset.ids, values)]
    job.done.set_result(f'{{"model": {json.dumps(model.name)}, "rows": [{", ".join(rows)}]}}'.encode())


def said(model: Model, ids: np.ndarray, values: np.ndarray) -> Iterator[dict[str, Any]]:
    """What ``Model.predict_table`` says of rows with these ``values`` (n, outputs), an object a row."""
    schema = model.schema
    if schema.task == "regression":
        names = value_names(schema, values.shape[1])
        for name, row in zip(ids.tolist(), values.tolist(), strict=True):
            several = {"values": dict(zip(names, row, strict=True))}
            yield {"id": name, **(several if len(row) > 1 else {"value": row[0]})}
        return
    leans = model.leaning(values)
    for name, row, lean in zip(ids.tolist(), values.tolist(), leans, strict=True):
        probabilities = dict(zip(schema.classes, row, strict=True))
        if schema.task == "classification":
            label = {"label": schema.classes[int(lean.argmax())]}
            yield {"id": name, **label, "probabilities": probabilities}
        else:
            labels = [known for known, value in zip(schema.classes, lean, strict=True) if value > 0.5]
            yield {"id": name, "labels": labels, "probabilities": probabilities}


def value_names(schema: Schema, outputs: int) -> list[str]:
    """What the numbers of a regression are called."""
    if len(schema.target) == outputs:
        return list(schema.target)
    return [f"value {at}" for at in range(outputs)]
