"""Networks, rows -> probabilities or values, without gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ayatori.nets.network import Network
from ayatori.records import STOP, Dataset, Member, Plan, Predictions
from ayatori.train.stream import take

PREDICT_ROWS = 1024  # rows of one forward pass


def logits_of(
    logits: Callable[[Mapping[str, Tensor]], Tensor],
    inputs: Mapping[str, np.ndarray],
    rows: Sequence[np.ndarray],
    device: torch.device,
) -> list[Tensor]:
    """What each of k networks says of its own ``rows``, (rows, outputs) for each, in one call a block.

    ``logits``: inputs (k, b, ...) -> (k, b, outputs), in evaluation mode.
    """
    longest = max(len(own) for own in rows)
    # who has fewer rows repeats some; they are cut off again
    padded = np.stack([np.resize(own, longest) if len(own) else np.zeros(longest, np.int64) for own in rows])
    block = max(1, PREDICT_ROWS // len(rows))
    with torch.inference_mode():
        parts = [
            logits(take(inputs, padded[:, start : start + block], device))
            for start in range(0, longest, block)
        ]
    whole = torch.cat(parts, 1)
    return [own[: len(mine)] for own, mine in zip(whole, rows, strict=True)]


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
