"""Networks, rows -> probabilities or values, without gradients."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayatori.augment import views
from ayatori.nets import Network, convolves, find_traits, reads
from ayatori.nets.joined import Joined
from ayatori.records import STOP, Dataset, Member, Plan, Predictions
from ayatori.train.memory import is_out_of_memory
from ayatori.train.stream import take

PREDICT_ROWS = 1024  # rows of one forward pass
# on a CPU: so many pixels, or numbers that frozen parts say, a pass, and at least so many rows, so that what
# a layer gives stays in the caches (up to four times as fast, see dev/LOG.md)
PIXELS, LEAST_PICTURES = 2**17, 16
TABLE_ROWS, TABLE_BYTES = 2**14, 2**23  # at most, of a table: a call costs more than few rows do
EVEN = 32  # rows of a table are asked for in multiples of it
LEAST_BLOCK = 128  # rows of each network in a call of many
View = Callable[[dict[str, Tensor]], dict[str, Tensor]]
MOST_TOGETHER = 64  # networks of one call
TOGETHER_BELOW = 1e6  # operations of a row, forward: larger networks answer one by one


def logits_of(
    logits: Callable[[Mapping[str, Tensor]], Tensor],
    inputs: Mapping[str, np.ndarray],
    rows: Sequence[np.ndarray],
    device: torch.device,
    view: View | None = None,
) -> list[Tensor]:
    """What each of k networks says of its own ``rows``, (rows, outputs) for each, in one call a block.

    ``logits``: inputs (k, b, ...) -> (k, b, outputs), in evaluation mode. ``view``: how a batch is looked at.
    """
    longest = max(len(own) for own in rows)
    if "image" not in inputs:
        # the last rows of an odd number go another way through a product, and come out a trace different
        longest = -(-longest // EVEN) * EVEN
    # who has fewer rows repeats some; they are cut off again
    padded = np.stack([np.resize(own, longest) if len(own) else np.zeros(longest, np.int64) for own in rows])
    block, start, parts = _rows_of_a_pass(inputs, device, len(rows)), 0, []
    while start < longest:
        try:
            with torch.inference_mode():
                seen = take(inputs, padded[:, start : start + block], device)
                parts.append(logits(seen if view is None else _viewed(seen, view)))
            start += block
        except (RuntimeError, MemoryError) as error:
            if block == 1 or not is_out_of_memory(error):
                raise
            block //= 2
    whole = torch.cat(parts, 1)
    return [own[: len(mine)] for own, mine in zip(whole, rows, strict=True)]


def _rows_of_a_pass(inputs: Mapping[str, np.ndarray], device: torch.device, networks: int) -> int:
    """Rows of each network in one pass: a power of two, so that a table that is read in blocks is cut at the
    same rows."""
    most, least = PREDICT_ROWS, LEAST_BLOCK
    sizes = {"image": 2, "series": 2, "activations": 1}  # from which axis on
    size = next((inputs[name].shape[axis:] for name, axis in sizes.items() if name in inputs), ())
    if size:
        if device.type == "cpu":
            most, least = min(most, PIXELS // int(np.prod(size))), LEAST_PICTURES
    else:
        row = sum(values[:1].nbytes for values in inputs.values())
        most = min(TABLE_ROWS, max(most, TABLE_BYTES // max(1, row)))
    return max(least, 2 ** (most // networks).bit_length() // 2)


def _viewed(inputs: dict[str, Tensor], view: View) -> dict[str, Tensor]:
    """Inputs (k, b, ...) as ``view`` shows rows one after another."""
    shape = next(iter(inputs.values())).shape[:2]
    flat = view({name: values.flatten(0, 1) for name, values in inputs.items()})
    return {name: values.unflatten(0, shape) for name, values in flat.items()}


def predict_rows(network: Network, inputs: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(rows, outputs) float32: probabilities or values of one network."""
    return Together([network], inputs).predict(inputs, [rows])[0]


class Together:
    """Networks that answer in as few calls as can be: small ones of one shape as one.

    ``inputs``: some rows, raw, to try them on. ``views``: ways to look at pictures; answers are averaged.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        inputs: Mapping[str, np.ndarray],
        views: Sequence[View] = (),
    ) -> None:
        self.networks = tuple(networks)
        self.views = tuple(views) if len(views) > 1 else (None,)
        alike: dict[str, list[int]] = {}
        for number, network in enumerate(networks):
            alike.setdefault(repr(network.spec), []).append(number)
        groups: list[list[int]] = []
        for numbers in alike.values():
            size = MOST_TOGETHER if len(numbers) > 1 and _is_small(networks[numbers[0]], inputs) else 1
            groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        self._groups = [(group, Joined([networks[number] for number in group])) for group in groups]

    def predict(self, inputs: Mapping[str, np.ndarray], rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What each network says of its own ``rows``: (rows, outputs) float32."""
        found = [np.zeros((0, one.spec.outputs), np.float32) for one in self.networks]
        for group, joined in self._groups:
            own = [rows[number] for number in group]
            if not any(len(some) for some in own):
                continue
            first = self.networks[group[0]]
            spec = first.spec
            seen = {name: inputs[name] for name in reads(spec.name, inputs, "beside" in spec.sizes)}
            for view in self.views:
                said = logits_of(joined.logits, seen, own, first.shift.device, view)
                for number, logits in zip(group, said, strict=True):
                    with torch.inference_mode():
                        answer = self.networks[number].answer(logits.float()).cpu().numpy()
                    # one after another, so that one view gives what it always gave
                    found[number] = answer if view is self.views[0] else found[number] + answer
            for number in group:
                found[number] /= np.float32(len(self.views))
        return found


def _is_small(network: Network, inputs: Mapping[str, np.ndarray]) -> bool:
    if not len(next(iter(inputs.values()))) or convolves(network):
        return False
    # tried on the CPU, where a device cannot be asked what it draws from
    inputs = {name: inputs[name] for name in reads(network.spec.name, inputs, "beside" in network.spec.sizes)}
    traits = find_traits(copy.deepcopy(network).cpu(), inputs)
    return not traits.alone and traits.flops < TOGETHER_BELOW


def answers(
    members: Sequence[Member | Network],
    dataset: Dataset,
    rows: Sequence[np.ndarray],
    tta: tuple[Any, int] = ("none", 1),
) -> list[np.ndarray]:
    """What each member says of the ``rows`` that are given for it: (rows, outputs) float32 for each.

    They may be rows that taught it: boosting needs those. As an estimate they are worth nothing.
    ``tta``: an augmentation, and how many views of each picture are averaged.
    """
    networks = [one.network if isinstance(one, Member) else one for one in members]
    return Together(networks, dataset.inputs, views(*tta)).predict(dataset.inputs, rows)


def predict(
    members: list[Member], dataset: Dataset, plan: Plan, tta: tuple[Any, int] = ("none", 1)
) -> Predictions:
    """What every member says of the rows that neither taught nor stopped it.

    ``tta``: an augmentation, and how many views of each picture are averaged.
    """
    start = time.monotonic()
    unseen = ~((plan.roles.T > 0) & (plan.roles.T <= STOP))
    rows = [np.flatnonzero(unseen[member.index]) for member in members]
    asked = Together([member.network for member in members], dataset.inputs, views(*tta))
    found = asked.predict(dataset.inputs, rows)
    values = np.full((len(members), len(dataset), found[0].shape[1]), np.nan, np.float32)
    for member, own, mine in zip(members, rows, found, strict=True):
        values[member.index, own] = mine
    trained = sum(member.seconds for member in members)
    return Predictions(values, unseen, seconds=time.monotonic() - start, seconds_train=trained)
