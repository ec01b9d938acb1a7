"""Networks, rows -> probabilities or values, without gradients."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ayatori.nets.network import Network
from ayatori.records import STOP, Dataset, Member, Plan, Predictions
from ayatori.train.stream import take, to_device

PREDICT_ROWS = 1024  # rows of one forward pass


def outputs_of(network: Network, dataset: Dataset, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """(logits, target as the loss sees it) of ``rows`` by a network in evaluation mode."""
    device = network.shift.device
    logits, target = [], []
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            logits.append(network(take(dataset.inputs, part, device)).float())
            target.append(network.standardise(to_device(dataset.labels[part], device)))
    return torch.cat(logits), torch.cat(target)


def predict_rows(network: Network, inputs: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(rows, outputs) float32: probabilities or values of one network in evaluation mode."""
    device = network.shift.device
    parts = [np.zeros((0, network.spec.outputs), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rows), PREDICT_ROWS):
            batch = take(inputs, rows[start : start + PREDICT_ROWS], device)
            parts.append(network.predict(batch).cpu().numpy())
    return np.concatenate(parts)


def predict(members: list[Member], dataset: Dataset, plan: Plan) -> Predictions:
    """What every member says of the rows that neither taught nor stopped it."""
    start = time.monotonic()
    unseen = ~((plan.roles.T > 0) & (plan.roles.T <= STOP))
    outputs = members[0].network.spec.outputs
    values = np.full((len(members), len(dataset), outputs), np.nan, np.float32)
    for member in members:
        rows = np.flatnonzero(unseen[member.index])
        values[member.index, rows] = predict_rows(member.network, dataset.inputs, rows)
    trained = sum(member.seconds for member in members)
    return Predictions(values, unseen, seconds=time.monotonic() - start, seconds_train=trained)
