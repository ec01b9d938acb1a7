"""Members that step as one: their weights, gradients and the optimizer's memory lie side by side.

A stack of one member is that member's own network, called as it is. Nothing here depends on which
members stand in a stack: each has its own rows, row weights, random numbers, learning rate, clipping
and loss, and a loss that is not finite stays its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayatori.nets.dropout import Dropout, seed_globally
from ayatori.nets.joined import Joined
from ayatori.nets.noted import UNNOTED, noted
from ayatori.recipe import EngineRecipe
from ayatori.records import AyatoriError
from ayatori.train.adamw import Group
from ayatori.train.learner import Learner, State, clone, copied
from ayatori.train.loss import Loss
from ayatori.train.memory import is_out_of_memory
from ayatori.train.stream import Given


class Stack:
    """Learners with equal ``spec``, ``loss`` and number of steps, and one AdamW for them all."""

    def __init__(self, learners: Sequence[Learner], engine: EngineRecipe) -> None:
        self.learners = tuple(learners)
        self.joined = Joined([learner.network for learner in learners], share=True)
        self.device = learners[0].network.shift.device
        self.dtype = torch.bfloat16 if engine.dtype == "bfloat16" else torch.float32
        self.parts = 1  # a batch is cut into so many parts, when memory ran out
        self._shift = torch.stack([one.network.shift for one in learners])[:, None]
        self._scale = torch.stack([one.network.scale for one in learners])[:, None]
        self._regression = learners[0].network.spec.task == "regression"
        self._recipe = learners[0].recipe
        self._moments: State = {}
        self._groups = self._make_groups()
        self._wanted = [value for value in self.joined.parameters.values() if value.requires_grad]
        self._noted: tuple[Callable[..., Any], list[Any]] | None = None
        self.asked_to_note, self.made = False, 0  # steps so far
        self._rate = max(one.learning_rate for one in learners)
        self._decay = learners[0].weight_decay
        self._equal = len({(one.learning_rate, one.weight_decay) for one in learners}) == 1
        # each member's share of the largest rate, and how much of a weight fades in a step
        share = [one.learning_rate / self._rate for one in learners]
        fade = [one.learning_rate * one.weight_decay for one in learners]
        self._share, self._fade = torch.tensor([share, fade], device=self.device)
        self._dropouts = [part for part in self.joined.base.modules() if isinstance(part, Dropout)]
        self.draws = any(_draws(one) for one in learners)
        self.vary = learners[0].vary
        self.weighs = any((one.weight[one.rows] != 1).any() for one in learners)
        # see own_rows: rows (steps, members, size), which view of each, and what was picked of them
        self.epoch, self.orders = -1, np.zeros((0, len(learners), 0), np.int32)
        self.views: np.ndarray | None = None
        self.drawn: tuple[dict[str, Tensor], Tensor] | None = None
        self._sum = torch.zeros(len(learners), dtype=torch.float64, device=self.device)
        self._rows: Tensor | float = 0.0
        self._steps = 0

    def _make_groups(self) -> list[Group]:
        """A group for each kind of parameter, which goes on from the members' moments; they become views."""
        first = self.learners[0]
        rates = first.network.rates()
        kinds: dict[tuple[tuple[float, float], torch.dtype], list[str]] = {}
        for name, parameter in self.joined.parameters.items():
            if parameter.requires_grad:
                kinds.setdefault((rates.get(name, (1.0, 1.0)), parameter.dtype), []).append(name)
        return [
            Group(
                [self.joined.parameters[name] for name in names],
                tuple([self._moment(f"{kind}/{name}") for name in names] for kind in MOMENTS),  # type: ignore[arg-type]
                torch.tensor(float(first.progress.steps), device=self.device),
                rate,
                decay,
            )
            for ((rate, decay), _), names in kinds.items()
        ]

    def _moment(self, key: str) -> Tensor:
        own = [learner.moments[key] for learner in self.learners]
        if self.joined.alone:
            return own[0]
        stacked = torch.stack(own)
        for learner, view in zip(self.learners, stacked, strict=True):
            learner.moments[key] = view
        self._moments[key] = stacked
        return stacked

    def standardise(self, target: Tensor) -> Tensor:
        """Targets (k, b, ...) as the loss sees them, each in its member's own standard deviations."""
        if not self._regression or not target.is_floating_point():
            return target
        return ((target - self._shift) / self._scale).float()

    def logits(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """(k, b, ...) -> (k, b, outputs) float32.

        Stop rows need no more digits than training rows do; values close to their target would.
        """
        bf16 = self.dtype == torch.bfloat16 and (training or not self._regression)
        with torch.autocast(self.device.type, self.dtype, enabled=bf16):
            return self.joined.logits(inputs, training).float()

    def note(self, given: Given) -> bool:
        """Note the operations of a step on such rows, there and back, for all later ones of this shape.

        They need no autograd and little Python then. False, and nothing changed, where that cannot be done or
        where noted operations give something else.
        """
        self.asked_to_note = True
        given = self._standard(given)
        kept = [value.clone() for value in self.joined.buffers.values()]

        def run(function: Callable[..., Any]) -> Any:
            self.joined.reseed()
            try:
                return function()
            finally:
                for value, before in zip(self.joined.buffers.values(), kept, strict=True):
                    value.copy_(before)

        values = self._values(given)
        try:
            function = run(lambda: noted(lambda *_: self._losses_and_gradients(given), values))
            with torch.no_grad():
                again = run(lambda: function(*values))
            expected = run(lambda: self._losses_and_gradients(given))
        except UNNOTED:
            return False
        if not all(map(_close, again, expected)):
            return False
        self._noted = function, given.shapes()
        return True

    def _standard(self, given: Given) -> Given:
        offset = None if given.offset is None else self.standardise(given.offset)
        return dataclasses.replace(given, target=self.standardise(given.target), offset=offset)

    def _values(self, given: Given) -> list[Tensor]:
        """All tensors that a step depends on, in order."""
        return [*self.joined.parameters.values(), *self.joined.buffers.values(), *given.tensors()]

    def span(self, here: int, drawn_for: int) -> None:
        """A step of ``here`` rows; its dropout draws for ``drawn_for`` (see ``Dropout``)."""
        for part in self._dropouts:
            part.span = (max(1, here), max(1, drawn_for))

    def seed(self, seeds: Sequence[int]) -> None:
        """What each member draws next follows from its seed alone."""
        for learner, seed in zip(self.learners, seeds, strict=True):
            learner.chance.manual_seed(seed)
            if learner.traits.draws_globally:
                seed_globally(seed)

    def step(self, given: Given, factor: float) -> None:
        """One step of every member on its own rows, by ``factor`` of the learning rate."""
        given = self._standard(given)
        while True:
            try:
                total = self._gradients(given)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside of the handler, which holds on to what had been allocated
            self._halve(given.target.shape[1])
        if self._recipe.clip:
            self._clip(self._recipe.clip)
        self._update(factor)
        self._sum += total * given.rows
        self._rows = self._rows + given.rows
        self._steps += 1

    def _gradients(self, given: Given) -> Tensor:
        """The way forward and back, part by part of the batch; (k,) losses."""
        for group in self._groups:
            group.forget()
        if self.parts == 1 and self._noted and self._noted[1] == given.shapes():
            with torch.no_grad():
                total, *gradients = self._noted[0](*self._values(given))
            for parameter, gradient in zip(self._wanted, gradients, strict=True):
                parameter.grad = gradient
            return total
        total = torch.zeros(len(self.learners), device=self.device)
        for part in _slices(given.target.shape[1], self.parts):
            loss = self._losses(given.part(part))
            loss.sum().backward()
            total += loss.detach()
        return total

    def _losses(self, given: Given) -> Tensor:
        """(k,): what each member is to make small."""
        weight = given.weight
        logits = self.logits(given.inputs, training=True)
        logits = logits if given.offset is None else logits + given.offset
        loss = self.learners[0].loss
        # a weight for each label of a row wants the loss of each
        each = loss.each if weight is not None and weight.ndim == 3 else loss  # type: ignore[attr-defined]
        losses = row_losses(each, logits, given.target)
        if weight is not None:
            losses = losses * weight
            losses = losses if losses.ndim == 2 else losses.mean(2)
        # divided by the rows, not by their weights: a batch of heavy rows must move the network further
        return losses.sum(1) / given.rows

    def _losses_and_gradients(self, given: Given) -> tuple[Tensor | None, ...]:
        # notes are taken in this thread
        with torch.autograd.set_multithreading_enabled(False):
            loss = self._losses(given)
            found = torch.autograd.grad(loss.sum(), self._wanted, allow_unused=True)
        return loss.detach(), *map(_laid_out, found, self._wanted)

    def _halve(self, rows: int) -> None:
        """After memory ran out: the same step in twice as many parts."""
        if self.parts >= rows:
            raise AyatoriError(
                "a step must fit into memory, however not even one row does; make the network or the "
                "pictures smaller, or let fewer members train together"
            )
        self.parts *= 2
        for learner in self.learners:
            learner.note = f"memory ran out: each batch is now taken in {self.parts} parts"
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _clip(self, largest: float) -> None:
        """No member's gradient is longer than ``largest``."""
        gradients = [value.grad for value in self.joined.parameters.values() if value.grad is not None]
        gradients = [gradient for gradient in gradients if gradient.numel()]
        if not gradients:
            return
        if self.joined.alone:
            # as torch.nn.utils.clip_grad_norm_, without the Python around it
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
            return
        norms = torch.stack(
            [torch.linalg.vector_norm(gradient.reshape(len(gradient), -1), dim=1) for gradient in gradients]
        )
        factor = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(_beside(factor, gradient))

    def _update(self, factor: float) -> None:
        """AdamW, by ``factor`` of the learning rate."""
        if not self._equal:
            self._update_each(factor)
            return
        for group in self._groups:
            group.step(self._rate * factor * group.factor, self._decay * group.decay, self._recipe.beta2)

    @torch.no_grad()
    def _update_each(self, factor: float) -> None:
        """Each member by its own rates: decay, then its share of a step that is proportional to the rate."""
        for group in self._groups:
            fade = self._fade * (factor * group.factor * group.decay)
            # AdamW leaves alone what no loss depends on
            moved = [value for value in group.parameters if value.grad is not None]
            for value in moved:
                value.mul_(1 - _beside(fade, value))
            before = [value.clone() for value in moved]
            group.step(self._rate * factor * group.factor, 0.0, self._recipe.beta2)
            for value, old in zip(moved, before, strict=True):
                value.copy_(torch.lerp(old, value, _beside(self._share, value)))

    def states(self) -> list[tuple[Learner, tuple[State, State]]]:
        """Each learner, and a copy of its weights and moments.

        Those of a stack are copied in one piece: of fifty small networks in a third of the time.
        """
        first = self.learners[0]
        if self.joined.alone:
            return [(first, copied(first))]
        stacked = self.joined.parameters | self.joined.buffers
        weights = clone({name: stacked[name] for name in first.network.state_dict()})
        own = zip(_unbind(weights), _unbind(clone(self._moments)), strict=True)
        return list(zip(self.learners, own, strict=True))

    def end_epoch(self) -> None:
        """Tell the learners their mean training loss, and how many steps they made."""
        means = (self._sum / self._rows).tolist() if self._steps else [0.0] * len(self.learners)
        for learner, mean in zip(self.learners, means, strict=True):
            learner.train_loss = mean
            learner.progress.steps += self._steps
        self._sum = torch.zeros_like(self._sum)
        self.made += self._steps
        self._rows, self._steps = 0.0, 0


MOMENTS = ("exp_avg", "exp_avg_sq")


def _unbind(stacked: State) -> list[State]:
    """What each learner has of it."""
    parts = [value.unbind() for value in stacked.values()]
    return [dict(zip(stacked, own, strict=True)) for own in zip(*parts, strict=True)]


def _laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """In memory as the parameter is, as the fused AdamW takes for granted."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _close(found: Tensor | None, expected: Tensor | None) -> bool:
    """Equal but for rounding."""
    if found is None or expected is None or not expected.numel():
        return (found is None) == (expected is None)
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-7)


def _draws(learner: Learner) -> bool:
    own = any(isinstance(part, Dropout) and part.p > 0 for part in learner.network.modules())
    return own or learner.traits.draws_globally


def row_losses(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """(k, b, outputs), (k, b, ...) -> (k, b), or (k, b, labels) where the loss says that of each.

    A loss of the user's own sees one member at a time.
    """
    if len(logits) == 1 or not getattr(loss, "of_rows", False):
        return torch.stack([loss(own, wanted) for own, wanted in zip(logits, target, strict=True)])
    return loss(logits, target)


def _slices(rows: int, parts: int) -> list[slice]:
    edges = [round(rows * part / parts) for part in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if b > a]


def _beside(values: Tensor, like: Tensor) -> Tensor:
    """(k,) -> (k, 1, 1, ...), to go with (k, ...); a member alone has no first dimension."""
    return values.view(-1, *[1] * (like.ndim - 1))
