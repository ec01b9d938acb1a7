"""Members that may look only at some columns of a table: what is hidden from them cannot matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import mlp, pictures, settled
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stack import assert_like, mixed_columns, same_bits

from ayatori.model import Model
from ayatori.model_files import load_model, save_model
from ayatori.nets.table_front import TableFront, measure_table
from ayatori.records import Dataset, Member, Plan, Schema
from ayatori.store import RunFolder
from ayatori.train import answers, loop, train
from ayatori.train.stack import Stack


def sharing(plan: Plan, *shares: float) -> Plan:
    shares = shares * plan.members if len(shares) == 1 else shares
    columns = [dataclasses.replace(c, features=s) for c, s in zip(plan.columns, shares, strict=True)]
    return dataclasses.replace(plan, columns=tuple(columns))


def hidden_of(member: Member) -> np.ndarray:
    return member.network.front.hidden.numpy()


def spoiled(dataset: Dataset, hidden: np.ndarray, how: str, rows: slice = slice(None)) -> Dataset:
    """Something else in the hidden columns: of all numbers, then of all categories."""
    numbers, categories = (dataset.inputs[name].copy() for name in ("numbers", "categories"))
    values = {"gaps": np.nan, "infinite": -np.inf, "large": 1e300, "small": -7.5}
    first, second = np.split(hidden, [numbers.shape[1]])
    numbers[rows, first] = values[how]
    names = np.array([len(names) for names in dataset.schema.categories.values()])
    codes = {"gaps": -1, "infinite": names - 1, "large": -1, "small": names - 1}
    categories[rows, second] = np.broadcast_to(codes[how], len(names))[second]
    return dataclasses.replace(dataset, inputs={"numbers": numbers, "categories": categories})


def wide() -> Dataset:
    """Numbers with and without gaps, short and long lists of words."""
    dataset = mixed_columns()
    random = np.random.default_rng(1)
    n = len(dataset)
    more = random.normal(size=(n, 2))
    more[random.random(n) < 0.3, 1] = np.nan
    inputs = {**dataset.inputs, "numbers": np.hstack([dataset.inputs["numbers"], more])}
    assert inputs["categories"].shape[1] == 2
    return dataclasses.replace(dataset, inputs=inputs)


HOW = ["gaps", "infinite", "large", "small"]


@pytest.mark.parametrize("net", [mlp, "mlp", "linear"])
def test_a_network_says_the_same_whatever_stands_in_a_hidden_column(net: Callable | str) -> None:
    dataset = wide()
    plan, recipe = settled(dataset, net, "stacked", epochs=2, learning_rate=0.002)
    members = train(dataset, sharing(plan, 0.4), recipe)
    rows = [np.arange(len(dataset))]
    for member in members:
        hidden = hidden_of(member)
        assert (~hidden).sum() == 2  # of five columns
        [before] = answers([member], dataset, rows)
        for how in HOW:
            [after] = answers([member], spoiled(dataset, hidden, how), rows)
            assert np.array_equal(before, after)
        for column in np.flatnonzero(~hidden):
            [other] = answers([member], spoiled(dataset, np.arange(5) == column, "small"), rows)
            assert not np.allclose(before, other)


@pytest.mark.parametrize("engine", ["turns", "stacks on threads"])
def test_a_member_learns_the_same_whatever_stands_in_a_column_that_is_hidden_from_it(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NOTED_FROM", 0)
    dataset = wide()
    plan, recipe = settled(dataset, mlp, engine, epochs=2)
    plan = sharing(plan, 0.4)
    before = train(dataset, plan, recipe)
    for number, member in enumerate(before[:2]):
        # only in some rows: gaps and words that come or go altogether would give the network another shape
        other = spoiled(dataset, hidden_of(member), "small", slice(0, 40))
        after = train(other, plan, recipe)
        assert after[number].network.spec == member.network.spec
        assert same_bits(after[number], member)
        assert not same_bits(after[2], before[2])  # who may see these columns did


def test_a_stack_holds_members_that_see_different_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    step, sizes = Stack.step, set()
    monkeypatch.setattr(
        Stack, "step", lambda stack, *given: (sizes.add(len(stack.learners)), step(stack, *given))[1]
    )
    dataset = wide()
    found = []
    for engine in ("turns", "stacked"):
        plan, recipe = settled(dataset, mlp, engine, epochs=3, folds=4)
        found.append(train(dataset, sharing(plan, 0.5), recipe))
    assert sizes == {1, 4}
    assert len({hidden_of(member).tobytes() for member in found[1]}) > 1
    for expected, member in zip(*found, strict=True):
        assert np.array_equal(hidden_of(member), hidden_of(expected))
        assert_like(member, expected)
    # and asked together they say what they say alone
    rows = [np.arange(len(dataset))] * 4
    for member, together in zip(found[1], answers(found[1], dataset, rows), strict=True):
        np.testing.assert_allclose(together, answers([member], dataset, rows[:1])[0], rtol=1e-4, atol=1e-6)
        spoilt = spoiled(dataset, hidden_of(member), "gaps")
        again = answers(found[1], spoilt, rows)[member.index]
        assert np.array_equal(together, again)


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.integers(0, 6), words=st.integers(0, 6), share=st.floats(0, 0.99), seed=st.integers(0, 2**31)
)
def test_columns_are_drawn_by_the_seed_in_their_share_and_one_is_always_seen(
    numbers: int, words: int, share: float, seed: int
) -> None:
    columns = numbers + words
    if not columns:
        return
    sizes = {"numbers": numbers, "missing": [], "vocabulary": [3] * words, "known": [2] * words}
    front = TableFront({**sizes, "features": share})
    front.hide(share, seed)
    seen = ~front.hidden.numpy()
    assert seen.sum() == max(1, round(share * columns))
    order = np.random.default_rng([seed, 11]).permutation(columns)
    assert set(np.flatnonzero(seen)) == set(order[: seen.sum()])


def test_hidden_numbers_gaps_and_words_become_zeros_and_unknown() -> None:
    inputs = {
        "numbers": np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan], [9.0, 7.0]]),
        "categories": np.array([[0, 1], [0, 1], [1, 0], [1, 0]], np.int32),
    }
    schema = Schema("table", "classification", ("no", "yes"), categories={"a": ("x", "y"), "b": ("x", "y")})
    front = TableFront(measure_table(inputs, schema) | {"features": 0.5})
    front.hidden.copy_(torch.tensor([False, True, True, False]))
    front.fit(inputs)
    features = front({name: torch.from_numpy(values) for name, values in inputs.items()})
    plain = TableFront(measure_table(inputs, schema))
    plain.fit(inputs)
    expected = plain({name: torch.from_numpy(values) for name, values in inputs.items()})
    assert torch.equal(features.numbers[:, 0], expected.numbers[:, 0])
    assert not features.numbers[:, 1].any()
    # a flag for the gaps of the second number, one for each word
    assert features.flags.shape == expected.flags.shape == (4, 3)
    assert not features.flags[:, :2].any()
    assert torch.equal(features.flags[:, 2], expected.flags[:, 2])


def test_members_that_see_everything_are_what_they_were() -> None:
    dataset = wide()
    plan, recipe = settled(dataset, mlp, "stacked", epochs=2)
    whole = train(dataset, plan, recipe)
    some = train(dataset, sharing(plan, 1.0, 0.5, 1.0), recipe)
    assert "hidden" not in "".join(whole[0].network.state_dict())
    assert "features" not in whole[0].network.spec.sizes
    assert not torch.allclose(*(m[1].network.body.module[1].weight for m in (whole, some)))
    for number in (0, 2):
        # a stack of two rounds otherwise than a stack of three
        assert_like(some[number], whole[number])


def test_pictures_have_no_columns_to_hide() -> None:
    dataset = pictures()
    plan, recipe = settled(dataset, mlp, epochs=1)
    pairs = zip(train(dataset, plan, recipe), train(dataset, sharing(plan, 0.1), recipe), strict=True)
    assert all(same_bits(*pair) for pair in pairs)


def test_a_saved_network_still_sees_its_columns_alone(tmp_path: Path) -> None:
    dataset = wide()
    plan, recipe = settled(dataset, "mlp", epochs=1)
    members = train(dataset, sharing(plan, 0.4), recipe)
    save_model(Model("some", dataset.schema, tuple(m.network for m in members)), RunFolder(tmp_path))
    rows = [np.arange(len(dataset))]
    for member, network in zip(members, load_model(tmp_path, device="cpu").networks, strict=True):
        hidden = hidden_of(member)
        assert np.array_equal(network.front.hidden.numpy(), hidden)
        [before] = answers([member], dataset, rows)
        for data in (dataset, spoiled(dataset, hidden, "gaps")):
            assert np.array_equal(answers([network], data, rows)[0], before)
