"""Operations noted once do again what the function did, gradients included, and without torch's compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ayatori.nets.noted import noted

STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda x, w: x @ w,
    "silu": lambda x, w: nn.functional.silu(x),
    "shift": lambda x, w: x + 0.5,
    "halves": lambda x, w: torch.cat([part * place for place, part in enumerate(x.chunk(2, 1), 1)], 1),
    "norm": lambda x, w: nn.functional.layer_norm(x, x.shape[1:]),
    "in place": lambda x, w: (x * 1.0).relu_(),
    "constant": lambda x, w: x * torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "turned": lambda x, w: x.view(2, -1, 4).transpose(0, 1).reshape(x.shape),
    "sorted": lambda x, w: x.sort(1).values,
}


class Watch(TorchDispatchMode):
    """The names of all operations inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operations(function: Callable[..., Any], *values: Tensor) -> list[str]:
    with Watch() as watch:
        function(*values)
    return watch.seen


def numbers(seed: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    x, w = torch.randn(6, 4, generator=chance), torch.randn(4, 4, generator=chance)
    return x, w.requires_grad_()


@given(steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_was_noted_gives_the_same_values_and_gradients_on_other_numbers(
    steps: list[str], seed: int
) -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        for name in steps:
            x = STEPS[name](x, w)
        return x @ w

    again = noted(function, numbers(0))
    (x, w), (same_x, same_w) = numbers(seed), numbers(seed)
    said, wanted = again(x, w), function(same_x, same_w)
    assert torch.equal(said, wanted)
    said.square().sum().backward()
    wanted.square().sum().backward()
    assert torch.equal(w.grad, same_w.grad)


@given(steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_gradients_that_the_function_asks_for_are_noted_with_it(steps: list[str], seed: int) -> None:
    def function(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        said = x @ w
        for name in steps:
            said = STEPS[name](said, w)
        (gradient,) = torch.autograd.grad(said.square().sum(), [w])
        return said.detach(), gradient

    again = noted(function, numbers(0))
    with torch.no_grad():
        found = again(*numbers(seed))
    wanted = function(*numbers(seed))
    assert all(map(torch.equal, found, wanted))
    assert not any(value.requires_grad for value in found)


def test_what_a_function_does_not_return_is_not_done_again() -> None:
    drawn = torch.Generator().manual_seed(0)
    again = noted(lambda x: ((x * 2).exp(), x + 1)[1], [torch.zeros(3)])
    assert operations(again, torch.zeros(3)) == ["add"]
    kept = noted(lambda x: x + torch.rand(3, generator=drawn) * 0, [torch.zeros(3)])
    assert torch.equal(kept(torch.ones(3)), torch.ones(3))


def test_views_are_made_once_and_what_only_hands_a_tensor_on_is_left_out() -> None:
    def given(x: Tensor) -> Tensor:
        return (x.mT.mT.detach() @ x.mT) + x.mT.sum() * x.t().t()[0, 0]

    x = torch.randn(3, 3)
    again = noted(given, [torch.zeros(3, 3)])
    torch.testing.assert_close(again(x), given(x))
    assert operations(again, x) == ["transpose", "mm", "sum", "select", "select", "mul", "add"]


def test_what_is_written_to_is_read_anew_by_views_that_were_there() -> None:
    def given(x: Tensor) -> Tensor:
        own = x.clone()
        before = own.view(-1).sum()
        own.mul_(2)
        return own.view(-1).sum() - before

    again = noted(given, [torch.zeros(2, 3)])
    assert again(torch.ones(2, 3)) == 6


def test_many_networks_at_once_are_noted_below_vmap() -> None:
    def one(x: Tensor, w: Tensor) -> Tensor:
        return nn.functional.gelu(x @ w).sum(1)

    x, w = torch.randn(3, 5, 4), torch.randn(3, 4, 2)
    again = noted(torch.func.vmap(one), [torch.zeros(3, 5, 4), torch.zeros(3, 4, 2)])
    torch.testing.assert_close(again(x, w), torch.stack([one(a, b) for a, b in zip(x, w, strict=True)]))


def test_random_numbers_are_drawn_anew_from_the_generator_of_the_function() -> None:
    chance = torch.Generator().manual_seed(0)
    again = noted(lambda x: x + torch.rand(x.shape, generator=chance), [torch.zeros(4)])
    drawn = [again(torch.zeros(4)) for _ in range(2)]
    assert not torch.equal(*drawn)
    chance.manual_seed(0)
    assert torch.equal(torch.rand(4, generator=chance) * 0 + again(torch.zeros(4)), drawn[0])


def test_what_depends_on_values_is_refused() -> None:
    for function in (lambda x: x if x.sum() > 0 else -x, lambda x: x[x > 0], lambda x: x * x.max().item()):
        with pytest.raises(RuntimeError, match=r"depends on values|nobody gave"):
            noted(function, [torch.ones(3)])


def test_a_tensor_that_nobody_gave_is_refused() -> None:
    hidden = torch.ones(3)
    with pytest.raises(RuntimeError, match="nobody gave"):
        noted(lambda x: x + hidden, [torch.ones(3)])


def test_training_networks_of_a_table_does_not_load_the_compiler() -> None:
    code = """
import sys
import numpy as np
import ayatori
from ayatori.recipe import Recipe, TrainRecipe, change
chance = np.random.default_rng(0)
x = chance.normal(size=(120, 3))
recipe = Recipe(train=TrainRecipe(epochs=60, patience=60))
recipe = change(change(recipe, "explore", look=False), "evaluate", baselines=())
result = ayatori.run(x, recipe, y=(x[:, 0] > 0).astype(str))
assert result.recipe.engine.mode == "stacked"
assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
