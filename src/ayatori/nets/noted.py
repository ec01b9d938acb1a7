"""A function of tensors -> the operations that it does, noted once, without the Python around them.

What ``torch.fx.experimental.proxy_tensor.make_fx`` does with real tensors; that one loads torch's compiler,
which takes longer than the training of a small table, and then a third of a second for each network.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

# how torch says that operations cannot be noted; one goes on without
UNNOTED = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, SyntaxError, LookupError)
# numbers and shapes that come of values would be noted as if they were always the same
OF_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


def noted(function: Callable[..., Any], given: Sequence[Tensor]) -> Callable[..., Any]:
    """Call ``function`` on ``given``, and return what does the same operations on tensors of the same shapes.

    Below autograd and ``vmap``: a function that asks for gradients is noted with the way back, and what is
    returned needs no autograd for it. It may return tensors in tuples and lists. Random numbers are
    drawn anew, from the generators that the function draws from.

    Raises
    ------
    RuntimeError
        Where the operations depend on values, or take in a tensor that nobody gave.

    >>> double = noted(lambda x, y: (x + y).relu() * 2, [torch.zeros(2), torch.zeros(2)])
    >>> double(torch.tensor([1.0, -3.0]), torch.tensor([2.0, 1.0]))
    tensor([6., 0.])
    """
    notes = _Notes(given)
    with notes:
        said = function(*given)
    notes.graph.output(map_aggregate(said, notes._named))
    _tidy(notes.graph)
    notes.graph.eliminate_dead_code()
    return _written(notes.graph, notes.root)


class _Notes(TorchDispatchMode):
    """Every operation becomes a node of ``graph``; constants are attributes of ``root``."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.root = fx.Graph(), nn.Module()
        self._nodes = {
            id(value): self.graph.placeholder(f"given_{number}") for number, value in enumerate(given)
        }
        self._alive: list[Any] = [*given]  # an id is a name only as long as its tensor lives

    def node(self, value: Tensor) -> fx.Node:
        if id(value) not in self._nodes:
            raise RuntimeError("a tensor is used that nobody gave")
        return self._nodes[id(value)]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would load its compiler, to tell it to leave this alone

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if any(tag in func.tags for tag in OF_VALUES) and not _by_places(func, args):
            raise RuntimeError(f"{func} depends on values")
        if func is torch.ops.aten.lift_fresh.default:  # a constant that was written out in the code
            self._name(args[0], self._attribute(args[0].clone()))
        named = map_aggregate((tuple(args), dict(kwargs or {})), self._named)
        said = func(*args, **(kwargs or {}))
        node = self.graph.call_function(func, *named)
        self._name(said, node)
        return said

    def _named(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.node(value)
        return self._attribute(value) if isinstance(value, torch.Generator) else value

    def _attribute(self, value: Any) -> fx.Node:
        name = f"constant_{len(self.graph.nodes)}"
        setattr(self.root, name, value)
        return self.graph.get_attr(name)

    def _name(self, said: Any, node: fx.Node) -> None:
        if isinstance(said, Tensor):
            self._nodes[id(said)] = node
            self._alive.append(said)
        elif isinstance(said, list | tuple):
            for place, part in enumerate(said):
                if isinstance(part, Tensor):
                    self._name(part, self.graph.call_function(operator.getitem, (node, place)))


def _written(graph: fx.Graph, root: nn.Module) -> Callable[..., Any]:
    """The graph as a function of Python.

    It calls what is inside of ``torch.ops``, whose own Python would be a fifteenth of a small network's step.
    """
    code = graph.python_code("self")
    known: dict[str, Any] = dict(code.globals)

    def bare(found: re.Match[str]) -> str:
        name = found[0].replace(".", "_")
        known[name] = operator.attrgetter(found[0].removeprefix("torch."))(torch)._op
        return name

    exec(re.sub(r"\btorch\.ops\.\w+\.\w+\.\w+", bare, code.src), known)
    return functools.partial(known["forward"], root)


def _tidy(graph: fx.Graph) -> None:
    """Leave out what only hands a tensor on, what turns it back, and views that are there already."""
    aten = torch.ops.aten
    there: dict[str, fx.Node] = {}
    turns = (aten.transpose.int, aten.t.default)
    for node in graph.nodes:
        if not getattr(node.target, "is_view", False):
            continue
        before, *how = node.args
        same = there.setdefault(repr((node.target, node.args, node.kwargs)), node)
        if node.target in (aten.detach.default, aten.alias.default):
            same = before
        elif node.target in turns and before.target == node.target and list(before.args[1:]) == how:
            same = before.args[0]
        if same is not node:
            node.replace_all_uses_with(same)


def _by_places(func: Any, args: Sequence[Any]) -> bool:
    """Whether it takes rows by their numbers; how many a mask takes depends on its values."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return not any(index.dtype in (torch.bool, torch.uint8) for index in args[1] if index is not None)
