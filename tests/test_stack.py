"""Members in stacks: each sees its own rows, goes its own way, and comes to what it would come to alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ENGINES, assert_close, bootstrapped, mlp, normed, pictures, plain_loop, settled, table
from torch import Tensor, nn
from torch.nn import functional as F

from ayatori import load
from ayatori.nets.joined import Joined
from ayatori.recipe import Recipe, change
from ayatori.records import SCORE, SEALED, STOP, UNUSED, Dataset, Member, Plan
from ayatori.train import learner as learners
from ayatori.train import loop, train
from ayatori.train.stack import Stack
from ayatori.train.stream import Batch, make_stream

TRACED = {"traced": 0, "as they are": 10**9}


class Less(nn.Module):
    """Takes away the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def centred(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), Less(), nn.Linear(8, outputs))


def normed_flat(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *normed((int(np.prod(shape)),), outputs))


def twice_dropped(shape: tuple[int, ...], outputs: int) -> nn.Module:
    flat = int(np.prod(shape))
    layers = (nn.Linear(flat, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 16), nn.Dropout(0.3))
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, outputs))


class Scaled(nn.Module):
    """Parameters of every kind: one without a dimension, one that is not used, one that is frozen."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(int(np.prod(shape)), 12), nn.Linear(12, outputs)
        self.scale = nn.Parameter(torch.ones(()))
        self.idle = nn.Parameter(torch.ones(3, 3))
        self.first.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.last(torch.tanh(self.first(x.flatten(1))))


def same_bits(first: Member, second: Member) -> bool:
    other = second.network.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.network.state_dict().items())


def assert_like(found: Member, expected: Member) -> None:
    """Weights to 1e-5, and the same end."""
    assert_close(found, {n: v for n, v in expected.network.state_dict().items() if n != "temperature"})
    assert (found.reason, found.best_epoch, len(found.history)) == (
        expected.reason,
        expected.best_epoch,
        len(expected.history),
    )


@pytest.fixture
def shared_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures as large ones: read once for all members, who take their own rows."""
    monkeypatch.setattr("ayatori.train.stream.SMALL_PICTURE", 0)


# 1: nothing of a foreign row


def with_unused(plan: Plan) -> Plan:
    """Some training rows of member 0 are given to nobody, some only to the others."""
    roles = plan.roles.copy()
    own = np.flatnonzero((roles[:, 0] > 0) & (roles[:, 0] < STOP))
    roles[own[:10]] = UNUSED
    roles[own[10:20], 0] = UNUSED
    return dataclasses.replace(plan, roles=roles)


def spoiled(dataset: Dataset, rows: np.ndarray, value: float) -> Dataset:
    """The data with other inputs and other labels in these rows."""
    inputs, target = {name: values.copy() for name, values in dataset.inputs.items()}, dataset.labels.copy()
    for name, values in inputs.items():
        other = -1 if np.isnan(value) and values.dtype.kind == "i" else value  # how a category is missing
        values[rows] = 255 - values[rows] if name == "image" else other
    target[rows] = (target[rows] + 1) % 3
    return dataclasses.replace(dataset, inputs=inputs, target=target)


def assert_foreign_rows_change_nothing(
    dataset: Dataset, plan: Plan, recipe: Recipe, values: Sequence[float]
) -> None:
    """Member 0 learns the same bits whatever stands in rows that it may not see; others do not."""
    plan = with_unused(plan)
    before = train(dataset, plan, recipe)
    foreign = np.flatnonzero(np.isin(plan.roles[:, 0], [SCORE, SEALED, UNUSED]))
    for value in values:
        after = train(spoiled(dataset, foreign, value), plan, recipe)
        assert same_bits(before[0], after[0])
        assert not same_bits(before[1], after[1])


LEAKS = [
    *[(table, value, engine, "as they are") for value in (np.nan, 1e6) for engine in ENGINES],
    *[(table, value, engine, "traced") for value in (np.nan, 1e6) for engine in ENGINES if "stack" in engine],
    *[(pictures, 0.0, engine, traced) for engine in ENGINES for traced in TRACED],
]


@pytest.mark.parametrize(("make", "value", "engine", "traced"), LEAKS)
def test_what_a_member_may_not_see_changes_nothing_of_it(
    make: Callable[[], Dataset], value: float, engine: str, traced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NOTED_FROM", TRACED[traced])
    dataset = make()
    plan, recipe = settled(dataset, engine=engine, epochs=2)
    plan = with_unused(plan)
    before = train(dataset, plan, recipe)
    everyone = np.flatnonzero(np.isin(plan.roles, [SCORE, SEALED, UNUSED]).all(axis=1))
    for first, second in zip(before, train(spoiled(dataset, everyone, value), plan, recipe), strict=True):
        assert same_bits(first, second)
    foreign = np.flatnonzero(np.isin(plan.roles[:, 0], [SCORE, SEALED, UNUSED]))
    after = train(spoiled(dataset, foreign, value), plan, recipe)
    assert not same_bits(before[1], after[1])  # who may see these rows did
    if np.isnan(value) and "stack" in engine:
        # with gaps the others have other shapes and leave the stack; a product of fewer rounds otherwise
        for name, kept in before[0].network.named_parameters():
            torch.testing.assert_close(after[0].network.get_parameter(name), kept, rtol=1e-5, atol=1e-6)
    else:
        assert same_bits(before[0], after[0])


# 2: only own rows


def numbered(dataset: Dataset) -> Dataset:
    """Every row carries its number, in two values that nothing changes before the network."""
    inputs = {name: values.copy() for name, values in dataset.inputs.items()}
    numbers = np.arange(len(dataset))
    for name, values in inputs.items():
        flat = values.reshape(len(values), -1)
        flat[:, 0], flat[:, 1] = (numbers // 16, numbers % 16) if name == "image" else (numbers, numbers % 16)
    return dataclasses.replace(dataset, inputs=inputs)


def number_of(inputs: dict[str, Tensor]) -> np.ndarray:
    if "image" in inputs:
        flat = inputs["image"].flatten(2).long()
        return (16 * flat[..., 0] + flat[..., 1]).numpy()
    return inputs["numbers"][..., 0].long().numpy()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("net", [normed_flat, centred, mlp])
@pytest.mark.parametrize(("make", "stream"), [(table, "own"), (pictures, "own"), (pictures, "shared")])
def test_a_network_is_only_ever_given_its_own_rows(
    make: Callable[[], Dataset],
    stream: str,
    net: Callable[..., nn.Module],
    engine: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if stream == "shared":
        request.getfixturevalue("shared_pictures")
    dataset = numbered(make())
    plan, recipe = settled(dataset, net, engine, epochs=2)
    plan = with_unused(bootstrapped(plan))
    logits, seen = Joined.logits, []

    def spy(joined: Joined, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        if training:
            seen.extend(zip(joined.networks, number_of(inputs), strict=True))
        return logits(joined, inputs, training)

    monkeypatch.setattr(Joined, "logits", spy)
    monkeypatch.setattr("ayatori.nets.traits.Joined", type("Unwatched", (Joined,), {"logits": logits}))
    for member in train(dataset, plan, recipe):
        given = [rows for network, rows in seen if network is member.network]
        assert len(given) >= 2
        assert set(np.concatenate(given)) == set(plan.train_rows(member.index))
        if net is not mlp and stream == "shared":
            # nor one row twice, to fill up
            assert all(len(set(rows)) == len(rows) for rows in given)


# 3: members stop one by one


def test_members_leave_the_stack_one_by_one_and_the_others_learn_on_as_if_none_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, step, retire = table(), Stack.step, learners.retire
    plan, recipe = settled(dataset, engine="stacked", epochs=6, folds=4)
    unbroken = train(dataset, plan, recipe)
    ends, stepped, retired = {1: 2, 3: 4}, [], []

    def watched(stack: Stack, *given) -> None:
        for learner in retired:
            assert learner.done
            assert not learner.moments
            assert not learner.good[0]
            for value in [*learner.network.parameters(), *learner.network.buffers()]:
                # its tensors are all that their memory holds
                assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
        stepped.append((stack.learners[0].progress.epoch, tuple(one.index for one in stack.learners)))
        step(stack, *given)

    monkeypatch.setattr(Stack, "step", watched)
    monkeypatch.setattr(loop, "retire", lambda learner: (retire(learner), retired.append(learner)))
    members = train(dataset, plan, recipe, on_epoch=lambda line: ends.get(line.member, 99) == line.epoch)
    assert [len(member.history) for member in members] == [6, 2, 6, 4]
    assert [members[index].reason for index in (1, 3)] == ["it was asked to stop"] * 2
    assert sorted(set(stepped)) == [
        (0, (0, 1, 2, 3)),
        (1, (0, 1, 2, 3)),
        (2, (0, 2, 3)),
        (3, (0, 2, 3)),
        (4, (0, 2)),
        (5, (0, 2)),
    ]
    for index in (0, 2):
        assert_like(members[index], unbroken[index])


@pytest.mark.parametrize("engine", ["stacked", "stacks on threads"])
@pytest.mark.parametrize("make", [table, pictures])
def test_every_member_keeps_its_own_best_weights_and_its_own_reason(
    make: Callable[[], Dataset], engine: str
) -> None:
    dataset = make()
    settings = {"epochs": 30, "patience": 3, "learning_rate": 0.05, "folds": 4}
    plan, recipe = settled(dataset, engine=engine, **settings)
    _, alone = settled(dataset, engine="turns", **settings)
    members = train(dataset, plan, recipe)
    for member, expected in zip(members, train(dataset, plan, alone), strict=True):
        assert_like(member, expected)
        losses = [line.stop_loss for line in member.history]
        best = losses[member.best_epoch - 1]
        assert best <= min(losses) + recipe.train.min_delta * len(losses)
        rows = plan.rows(member.index, STOP)
        with torch.no_grad():
            logits = member.network({n: torch.from_numpy(v[rows]) for n, v in dataset.inputs.items()})
        again = F.cross_entropy(logits, torch.from_numpy(dataset.labels[rows])).item()
        assert again == pytest.approx(best, rel=1e-5)
    assert len({len(member.history) for member in members}) > 1


# 4: rates of its own


def rated(plan: Plan, rates: list[tuple[float, float]]) -> Plan:
    columns = [
        dataclasses.replace(column, learning_rate=rate, weight_decay=decay)
        for column, (rate, decay) in zip(plan.columns, rates, strict=True)
    ]
    return dataclasses.replace(plan, columns=tuple(columns))


RATES = [(0.01, 0.0), (0.002, 0.5), (0.03, 0.05), (0.0, -1.0)]


@pytest.mark.parametrize("traced", TRACED)
@pytest.mark.parametrize("net", [mlp, Scaled, "mlp"], ids=["own", "parameters of every kind", "ours"])
def test_a_stack_holds_members_with_rates_of_their_own(
    net: Callable[..., nn.Module] | str, traced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NOTED_FROM", TRACED[traced])
    step, sizes = Stack.step, []
    monkeypatch.setattr(
        Stack, "step", lambda stack, *given: (sizes.append(len(stack.learners)), step(stack, *given))
    )
    dataset = table()
    plan, recipe = settled(dataset, net, "stacked", folds=4, epochs=12, weight_decay=0.1, learning_rate=0.002)
    recipe = change(recipe, "loss", label_smoothing=0.0)
    # our own network has parameters that learn a hundred times as fast
    plan = rated(plan, [(rate / 10, decay) if net == "mlp" else (rate, decay) for rate, decay in RATES])
    members = train(dataset, plan, recipe)
    assert set(sizes) == {4}
    for member in members:
        assert_close(member, plain_loop(dataset, plan, recipe, member.index))


def test_a_member_that_diverges_does_so_alone() -> None:
    dataset = table()
    plan, recipe = settled(dataset, engine="stacked", folds=4, epochs=12)
    recipe = change(recipe, "loss", label_smoothing=0.0)
    plan = rated(plan, [*RATES[:3], (1e20, 0.0)])
    members = train(dataset, plan, recipe)
    for member in members[:3]:
        assert_close(member, plain_loop(dataset, plan, recipe, member.index))
        assert not any(line.note for line in member.history)
    assert members[3].reason == "the loss was not finite 6 times"
    assert [line.note for line in members[3].history][:2] == [
        "the loss was not finite: back to epoch 0, with steps 0.5 times as long",
        "the loss was not finite: back to epoch 1, with steps 0.25 times as long",
    ]
    assert all(bool(value.isfinite().all()) for value in members[3].network.parameters())


# 5: every task


def numbers_to_predict() -> Dataset:
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 4))
    return load(x, y=1e3 * np.stack([x[:, 0] + x[:, 1] ** 2, x[:, 2]], 1) + 5e3)


def labels_to_predict() -> Dataset:
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 4))
    return load(x, y=np.stack([x[:, 0] > 0, x[:, 1] > 1, x[:, 2] + x[:, 3] > 0], 1).astype(int))


def mixed_columns(rare: bool = False) -> Dataset:
    random = np.random.default_rng(0)
    n = 240
    words = random.choice(list("abcdefghijklm"), n)
    numbers = np.where(random.random(n) < 0.2, np.nan, random.normal(size=n))
    frame = pd.DataFrame({"word": words, "size": numbers, "colour": random.choice(["red", "blue"], n)})
    if rare:
        # six rows of each: enough of them fall to some members, not to all
        frame["town"] = random.permutation(np.repeat([f"t{i}" for i in range(40)], 6))
    frame["y"] = np.where(np.isin(words, list("abcdef")) ^ (np.nan_to_num(numbers) > 0), "yes", "no")
    return load(frame)


def own_scalar(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target)


def own_by_row(logits: Tensor, target: Tensor) -> Tensor:
    return F.multi_margin_loss(logits, target, reduction="none")


TASKS: dict[str, tuple[Callable[[], Dataset], Callable[..., nn.Module] | str, dict]] = {
    "regression": (numbers_to_predict, mlp, {}),
    "regression by our own network": (numbers_to_predict, "mlp", {"name": "huber"}),
    "labels": (labels_to_predict, mlp, {}),
    "labels by our own network": (labels_to_predict, "mlp", {"class_weights": (1.0, 3.0, 0.5)}),
    "class weights": (table, mlp, {"class_weights": (1.0, 4.0, 0.2)}),
    "class weights of pictures": (pictures, mlp, {"class_weights": (1.0, 4.0, 0.2)}),
    "focal loss": (table, mlp, {"name": "focal"}),
    "a loss that gives a number": (table, mlp, {"name": own_scalar}),
    "a loss that gives a number, pictures": (pictures, mlp, {"name": own_scalar}),
    "a loss that gives one for each row": (table, mlp, {"name": own_by_row}),
    "a loss that gives one for each row, pictures": (pictures, mlp, {"name": own_by_row}),
    "words and gaps": (mixed_columns, mlp, {}),
    "words and gaps by our own network": (mixed_columns, "mlp", {}),
    "linear": (mixed_columns, "linear", {}),
    "rare words": (lambda: mixed_columns(rare=True), "mlp", {}),
    "parameters of every kind": (table, Scaled, {}),
    "two dropouts of pictures": (pictures, twice_dropped, {}),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["rows once", "rows weighted"])
@pytest.mark.parametrize("case", TASKS)
@pytest.mark.usefixtures("shared_pictures")
def test_a_stack_gives_what_members_in_turn_give(case: str, weighted: bool) -> None:
    make, net, loss = TASKS[case]
    dataset = make()
    found: list[list[Member]] = []
    for engine in ("turns", "stacks on threads" if weighted else "stacked"):
        plan, recipe = settled(dataset, net, engine, epochs=3, clip=0.5, learning_rate=0.01)
        plan = bootstrapped(plan) if weighted else plan
        found.append(train(dataset, plan, change(recipe, "loss", **loss)))
    for expected, member in zip(*found, strict=True):
        assert_like(member, expected)
        assert [line.stop_loss for line in member.history] == pytest.approx(
            [line.stop_loss for line in expected.history], rel=1e-4
        )


@pytest.mark.usefixtures("shared_pictures")
def test_two_dropouts_of_a_shared_batch_are_those_of_a_plain_loop() -> None:
    dataset = pictures()
    plan, recipe = settled(dataset, twice_dropped, "stacked", epochs=8)
    recipe = change(recipe, "loss", label_smoothing=0.0)
    for member in train(dataset, plan, recipe):
        assert_close(member, plain_loop(dataset, plan, recipe, member.index))


def test_networks_that_know_different_words_do_not_share_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    step, together = Stack.step, set()

    def watched(stack: Stack, *given) -> None:
        together.add(frozenset(repr(one.network.spec) for one in stack.learners))
        step(stack, *given)

    monkeypatch.setattr(Stack, "step", watched)
    dataset = mixed_columns(rare=True)
    plan, recipe = settled(dataset, engine="stacked", epochs=1)
    train(dataset, plan, recipe)
    assert len(together) > 1
    assert all(len(specs) == 1 for specs in together)


def test_a_frozen_parameter_stays_what_it_was() -> None:
    dataset = table()
    plan, recipe = settled(dataset, Scaled, "stacked", epochs=1)
    short = train(dataset, plan, recipe)
    _, longer = settled(dataset, Scaled, "stacked", epochs=3)
    for first, second in zip(short, train(dataset, plan, longer), strict=True):
        frozen = "body.module.first.weight"
        assert torch.equal(first.network.state_dict()[frozen], second.network.state_dict()[frozen])
        assert not torch.equal(*(m.network.state_dict()["body.module.last.weight"] for m in (first, second)))


# 6: killed and resumed


class CutError(Exception):
    pass


class Memory:
    """A keeper that is killed at its ``fatal``-th save, after or before it has written."""

    def __init__(self, fatal: int, written: bool) -> None:
        self.fatal, self.written, self.saves = fatal, written, 0
        self.found: tuple[dict[int, dict], dict[str, Tensor]] | None = None

    def save_checkpoint(self, progress: dict[int, dict], tensors: dict[str, Tensor]) -> None:
        self.saves += 1
        if self.saves != self.fatal or self.written:
            self.found = progress, {name: value.detach().clone() for name, value in tensors.items()}
        if self.saves == self.fatal:
            raise CutError

    def load_checkpoint(self) -> tuple[dict[int, dict], dict[str, Tensor]] | None:
        return self.found


def told(member: Member) -> list[tuple]:
    return [(line.epoch, line.train_loss, line.stop_loss, line.learning_rate) for line in member.history]


def resumed(dataset: Dataset, plan: Plan, recipe: Recipe, fatal: int, written: bool) -> list[Member]:
    keeper = Memory(fatal, written)
    with pytest.raises(CutError):
        train(dataset, plan, recipe, keeper)
    return train(dataset, plan, recipe, keeper)


@pytest.mark.parametrize("engine", ["stacked", "stacks on threads"])
@pytest.mark.parametrize("make", [table, pictures])
def test_a_run_that_is_cut_goes_on_to_the_same_bytes_though_members_stop_at_different_epochs(
    make: Callable[[], Dataset], engine: str
) -> None:
    dataset = make()
    settings = {"epochs": 12, "patience": 2, "learning_rate": 0.08, "checkpoint_seconds": 0.0}
    plan, recipe = settled(dataset, twice_dropped, engine, folds=4, **settings)
    whole = train(dataset, plan, recipe)
    ends = [len(member.history) for member in whole]
    assert len(set(ends)) > 1
    for fatal in (1, min(ends), max(ends) - 1):
        for first, second in zip(whole, resumed(dataset, plan, recipe, fatal, fatal % 2 == 0), strict=True):
            assert same_bits(first, second)
            assert told(first) == told(second)
            assert (first.reason, first.best_epoch) == (second.reason, second.best_epoch)


class File(Memory):
    """Its tensors come back as a file has them: the first dimension outermost, however they lay in memory."""

    def load_checkpoint(self) -> tuple[dict[int, dict], dict[str, Tensor]] | None:
        if self.found is None:
            return None
        progress, tensors = self.found
        plain = torch.contiguous_format
        return progress, {n: v.clone(memory_format=plain) for n, v in tensors.items()}


@pytest.mark.usefixtures("shared_pictures")
def test_a_cnn_that_was_done_when_its_run_was_cut_has_the_same_bytes() -> None:
    dataset = pictures()
    settings = {"epochs": 8, "patience": 1, "learning_rate": 0.02, "checkpoint_seconds": 0.0}
    plan, recipe = settled(dataset, "cnn", "turns", folds=4, **settings)
    whole = train(dataset, plan, recipe)
    ends = [len(member.history) for member in whole]
    assert min(ends) < max(ends)
    keeper = File(min(ends) + 1, written=True)
    with pytest.raises(CutError):
        train(dataset, plan, recipe, keeper)
    for first, second in zip(whole, train(dataset, plan, recipe, keeper), strict=True):
        assert same_bits(first, second)
        for name, value in first.network.named_parameters():
            assert value.stride() == second.network.get_parameter(name).stride()


def test_a_member_that_stepped_back_resumes_to_the_same_bytes() -> None:
    dataset = table()
    plan, recipe = settled(dataset, engine="stacked", folds=4, epochs=9, checkpoint_seconds=0.0)
    plan = rated(plan, [*RATES[:3], (1e20, 0.0)])
    whole = train(dataset, plan, recipe)
    for fatal in (3, 8):
        for first, second in zip(whole, resumed(dataset, plan, recipe, fatal, True), strict=True):
            assert same_bits(first, second)
            assert first.reason == second.reason


@pytest.mark.parametrize("net", [mlp, "mlp", "linear"])
def test_the_copies_that_a_stack_makes_are_its_members_own_states(net: object) -> None:
    plan, recipe = settled(table(), net=net, engine="stacked", epochs=2)
    job = loop.Job(table(), plan, recipe, make_stream(table(), plan, recipe), torch.device("cpu"))
    members = loop.new_learners(job, range(plan.members))
    (stack,) = loop.form(members, job, [])
    for batch in range(2):
        stack.step(loop.own_rows(stack, job, Batch((5, 0, batch), 0.0)), 1.0)
    assert len(stack.learners) == plan.members > 1
    for member, (weights, moments) in stack.states():
        for found, expected in ((weights, member.network.state_dict()), (moments, member.moments)):
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.equal(found[name], value), name
                assert found[name].data_ptr() != value.data_ptr() or not value.numel()


def test_the_best_weights_of_a_member_do_not_keep_those_of_its_whole_stack_in_memory() -> None:
    plan, recipe = settled(table(), engine="stacked", epochs=3)
    job = loop.Job(table(), plan, recipe, make_stream(table(), plan, recipe), torch.device("cpu"))
    for member in loop.train_members(job, range(plan.members), None, lambda _: None):
        for value in member.best.values():
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
