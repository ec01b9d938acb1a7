"""What is found by trying a network, what follows from it, and whose chance is whose."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import mlp, normed, pictures, settled, table
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from ayatori.nets import Network, Traits, build, find_traits, measure
from ayatori.nets.dropout import Dropout, own_chance
from ayatori.nets.joined import Joined
from ayatori.recipe import NetRecipe
from ayatori.records import Dataset, Member
from ayatori.train import train
from ayatori.train.stream import Stream, own_order

Factory = Callable[[tuple[int, ...], int], nn.Module]


class Between(nn.Module):
    """A layer, what ``middle(module, x)`` does to it, and another layer."""

    def __init__(self, middle: Callable[[Between, Tensor], Tensor], shape: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(int(np.prod(shape)), 8), nn.Linear(8, out)
        self.gate = nn.Parameter(torch.zeros(()))
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, self.first(x.flatten(1))))


def between(middle: Callable[[Between, Tensor], Tensor]) -> Factory:
    return lambda shape, outputs: Between(middle, shape, outputs)


class Recurrent(nn.Module):
    """A table as a series of single numbers."""

    def __init__(self, kind: type[nn.RNNBase], shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.inner, self.last = kind(1, 6, batch_first=True), nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x.flatten(1)[:, :, None])[0][:, -1])


def normed_weights(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(int(np.prod(shape)), 8)), nn.Linear(8, outputs))


def depends_on_data(module: Between, x: Tensor) -> Tensor:
    return x.relu() if x.sum() > 0 else x


SHARED = "a generator that everybody shares"
ALONE: dict[str, tuple[Factory, str]] = {
    "LSTM": (lambda shape, outputs: Recurrent(nn.LSTM, shape, outputs), "lstm"),
    "GRU": (lambda shape, outputs: Recurrent(nn.GRU, shape, outputs), "gru"),
    "a class for each instance": (normed_weights, "weight_norm"),
    "Python that depends on data": (between(depends_on_data), "data-dependent control flow"),
    "numbers taken out": (between(lambda _, x: x * x.detach().amax().item()), "item()"),
    "Python's chance": (between(lambda _, x: x * (1 + 0.1 * random.random())), SHARED),
    "NumPy's chance": (between(lambda _, x: x * (1 + 0.1 * float(np.random.rand()))), SHARED),  # noqa: NPY002
    "torch's chance": (between(lambda _, x: x * (torch.rand(8) > 0.2)), SHARED),
    "torch's dropout": (between(lambda module, x: F.dropout(x, 0.2, module.training)), SHARED),
}


def tried(factory: Factory, dataset: Dataset) -> tuple[Network, Traits]:
    network = build(NetRecipe(name=factory), dataset, measure(dataset.inputs, dataset.schema), 0)
    network.fit(dataset.inputs, dataset.labels)
    return network, find_traits(network, dataset.inputs)


def chance() -> tuple:
    """The state of every global generator."""
    _, keys, place, *_ = np.random.get_state(legacy=True)  # noqa: NPY002
    return random.getstate(), keys.tobytes(), place, torch.get_rng_state().numpy().tobytes()


def assert_same_bits(first: Member, second: Member) -> None:
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    assert [line.stop_loss for line in first.history] == [line.stop_loss for line in second.history]


@pytest.mark.parametrize("case", ALONE)
def test_a_network_that_cannot_be_stacked_is_found_by_trying_and_takes_turns(case: str) -> None:
    factory, word = ALONE[case]
    dataset = table()
    before = chance()
    _, traits = tried(factory, dataset)
    assert word in traits.alone
    assert len(traits.alone.splitlines()) == 1
    assert len(traits.alone) <= 160
    assert traits.draws_globally == (word == SHARED)
    found = []
    for engine in ("turns", "stacks on threads"):
        plan, recipe = settled(dataset, factory, engine, epochs=2)
        assert recipe.engine.mode == "turns"
        found.append(train(dataset, plan, recipe))
        assert chance() == before
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002 (whatever the state is)
        before = chance()
    assert recipe.engine.why == f"this network cannot be stacked: {traits.alone}"
    for first, second in zip(*found, strict=True):
        assert_same_bits(first, second)


STACKS: dict[str, Factory] = {
    "a plain one": mlp,
    "batch normalisation": lambda shape, outputs: nn.Sequential(nn.Flatten(), *normed(shape, outputs)),
    "layer normalisation": lambda s, o: nn.Sequential(nn.Linear(s[0], 8), nn.LayerNorm(8), nn.Linear(8, o)),
    "no bias": lambda s, o: nn.Sequential(nn.Linear(s[0], 8, bias=False), nn.Linear(8, o)),
    "a parameter without a dimension": between(lambda module, x: x * (1 + module.gate)),
    "one dropout in two places": lambda s, o: nn.Sequential(
        drop := nn.Dropout(0.2), nn.Linear(s[0], 8), drop, nn.Linear(8, o)
    ),
}


@pytest.mark.parametrize("case", STACKS)
def test_a_network_that_can_be_stacked_is(case: str) -> None:
    dataset = table()
    assert tried(STACKS[case], dataset)[1].alone == ""
    _, recipe = settled(dataset, STACKS[case], "stacked")
    assert recipe.engine.mode == "stacked"


def zero_at_first(shape: tuple[int, ...], outputs: int) -> nn.Module:
    norm = nn.BatchNorm1d(8)
    nn.init.zeros_(norm.weight)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return x + self.norm(x)

    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), Residual(), nn.Linear(8, outputs))


MIXES: dict[str, Factory] = {
    "batch normalisation": lambda shape, outputs: nn.Sequential(
        nn.Flatten(), *normed((int(np.prod(shape)),), outputs)
    ),
    "less the mean": between(lambda _, x: x - x.mean(0)),
    "less the mean, later": between(lambda module, x: x + module.gate * (x - x.mean(0))),
    "a norm that begins at zero": zero_at_first,
    "attention between rows": between(lambda _, x: (x @ x.T).softmax(1) @ x),
    "the next row": between(lambda _, x: x + 0.1 * x.roll(1, 0)),
}


@pytest.mark.parametrize("make", [table, pictures])
@pytest.mark.parametrize("case", MIXES)
def test_a_network_whose_output_depends_on_other_rows_is_found_by_trying(
    case: str, make: Callable[[], Dataset]
) -> None:
    assert tried(MIXES[case], make())[1].mixes_rows


@pytest.mark.parametrize("make", [table, pictures])
@pytest.mark.parametrize("case", ["a plain one", "dropout", "chance"])
def test_a_network_that_looks_at_one_row_at_a_time_is_not_taken_for_one_that_mixes_them(
    case: str, make: Callable[[], Dataset]
) -> None:
    alike = {
        "a plain one": mlp,
        "dropout": ALONE["torch's dropout"][0],
        "chance": ALONE["Python's chance"][0],
    }
    assert not tried(alike[case], make())[1].mixes_rows


def test_rows_that_are_equal_do_not_hide_that_they_are_mixed() -> None:
    # as in a bag that holds its first row five times
    dataset = table()
    places = np.sort(np.r_[np.zeros(9, int), np.arange(100)])
    network, _ = tried(MIXES["less the mean"], dataset)
    inputs = {name: values[places] for name, values in dataset.inputs.items()}
    assert find_traits(network, inputs).mixes_rows


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_network_is_tried_on_whatever_rows_there_are(rows: int) -> None:
    dataset = table()
    network, traits = tried(mlp, dataset)
    assert find_traits(network, {name: values[:rows] for name, values in dataset.inputs.items()}) == traits


def test_trying_a_network_leaves_it_as_it_was() -> None:
    dataset = table()
    factory = STACKS["batch normalisation"]
    network, _ = tried(factory, dataset)
    fresh = build(NetRecipe(name=factory), dataset, measure(dataset.inputs, dataset.schema), 0)
    fresh.fit(dataset.inputs, dataset.labels)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_factory_that_draws_from_numpy_or_python_gives_the_same_weights_for_the_same_seed() -> None:
    def drawn(shape: tuple[int, ...], outputs: int) -> nn.Module:
        layer = nn.Linear(shape[0], outputs)
        nn.init.constant_(layer.weight, float(np.random.rand()))  # noqa: NPY002
        nn.init.constant_(layer.bias, random.random())
        return layer

    dataset = table()
    sizes = measure(dataset.inputs, dataset.schema)
    before = chance()
    one, same, other = (build(NetRecipe(name=drawn), dataset, sizes, seed) for seed in (1, 1, 2))
    assert chance() == before
    for name, value in one.named_parameters():
        assert torch.equal(value, same.get_parameter(name))
        assert not value.numel() or not torch.equal(value, other.get_parameter(name))


# chance and order


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 60),
    steps=st.integers(1, 7),
    size=st.integers(1, 70),
    epochs=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_every_row_comes_equally_often_and_every_batch_is_full(
    rows: int, steps: int, size: int, epochs: int, seed: int
) -> None:
    own = np.sort(np.random.default_rng(seed).choice(1000, rows, replace=False))
    stream = Stream(steps, size, None)
    orders = [own_order(own, stream, seed, epoch) for epoch in range(epochs)]
    assert all(order.shape == (steps, size) for order in orders)
    for end in range(1, epochs + 1):
        found, counts = np.unique(np.concatenate(orders[:end]), return_counts=True)
        assert set(found) <= set(own)
        often, more = divmod(end * steps * size, rows)
        assert np.array_equal(
            np.sort(np.r_[counts, np.zeros(rows - len(found), int)]),
            np.sort(np.r_[np.full(rows - more, often), np.full(more, often + 1)]),
        )


def test_two_epochs_and_two_members_have_orders_of_their_own() -> None:
    own, stream = np.arange(50), Stream(5, 10, None)
    orders = [own_order(own, stream, seed, epoch).tobytes() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


@settings(deadline=None, max_examples=40)
@given(
    p=st.floats(0.0, 1.0),
    exact=st.booleans(),
    rows=st.integers(1, 40),
    seeds=st.lists(st.integers(0, 2**60), min_size=2, max_size=5, unique=True),
)
def test_each_network_of_a_stack_drops_what_it_drops_alone(
    p: float, exact: bool, rows: int, seeds: list[int]
) -> None:
    x = torch.ones(len(seeds), rows, 7)
    dropout = Dropout(p, exact)
    dropout.generators = tuple(torch.Generator().manual_seed(seed) for seed in seeds)
    together = torch.func.vmap(dropout, randomness="error")(x)
    for seed, found in zip(seeds, together, strict=True):
        dropout.generators = (torch.Generator().manual_seed(seed),)
        assert torch.equal(dropout(x[0]), found)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.001, 0.1, 0.15, 0.5, 0.9, 0.999, 1.0])
def test_dropout_keeps_the_right_share_and_the_right_mean(p: float, exact: bool) -> None:
    dropout = Dropout(p, exact)
    own_chance(dropout, [torch.Generator().manual_seed(0)])
    n = 400_000
    found = dropout(torch.ones(n // 100, 100))
    meant = p if exact else round(256 * p) / 256
    kept = (found > 0).double().mean().item()
    sigma = (max(meant * (1 - meant), 1e-9) / n) ** 0.5
    assert kept == pytest.approx(1 - meant, abs=5 * sigma + 2**-17)
    if kept:
        # what is kept grows so that the mean stays
        assert found.max().item() == pytest.approx(1 / (1 - meant), rel=0.01 if exact else 1e-6)
        assert len(found.unique()) <= 2
    assert torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))


def test_what_fills_up_a_batch_changes_no_chance_of_the_next_layer() -> None:
    layers = nn.Sequential(Dropout(0.3, exact=True), Dropout(0.4))

    def answers(rows: int) -> Tensor:
        own_chance(layers, [torch.Generator().manual_seed(3)])
        for part in layers:
            part.span = (rows, 60)
        return layers(torch.ones(rows, 9))

    assert torch.equal(answers(31), answers(50)[:31])


def test_a_stack_draws_for_each_network_what_it_draws_alone() -> None:
    dataset = table()
    networks = [
        build(
            NetRecipe(name=STACKS["one dropout in two places"]),
            dataset,
            {**measure(dataset.inputs, dataset.schema)},
            seed,
        )
        for seed in (1, 2, 3)
    ]
    inputs = {name: torch.from_numpy(values[:20]) for name, values in dataset.inputs.items()}
    alone = []
    for seed, network in enumerate(networks):
        own_chance(network, [torch.Generator().manual_seed(seed)])
        alone.append(network.train()(inputs))
        own_chance(network, [torch.Generator().manual_seed(seed)])
    joined = Joined(networks)
    found = joined.logits({name: value.expand(3, *value.shape) for name, value in inputs.items()}, True)
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[0], found[1])
