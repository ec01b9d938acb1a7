"""How many operations a call takes, counted by torch's own formulas.

As ``torch.utils.flop_counter.FlopCounterMode``, which loads torch's whole compiler (one to two seconds) with
the first operation that it sees.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(TorchDispatchMode):
    """Counts the operations inside ``with Flops() as counted`` in ``counted.total``.

    >>> with Flops() as counted:
    ...     _ = torch.nn.Linear(3, 5)(torch.zeros(7, 3))
    >>> counted.total
    210
    """

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's word for "do not wrap this": the wrapper is what loads the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
        said = func(*args, **kwargs)
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **kwargs, out_val=said)
        return said
