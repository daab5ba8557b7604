"""Sums of gradients in the autograd engine, which are made in place on a real device.

Where two gradients of one value meet, the engine adds the second to the first if nothing else holds that, else the
first to the second, else it makes a new tensor (`torch/csrc/autograd/input_buffer.cpp: accumulate`). For tensor
subclasses, as fake tensors are, it always makes a new one. So such a sum is told apart, and its result takes the place
of the gradient that it would have been added to.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch.utils._python_dispatch import TorchDispatchMode

_ADD = torch.ops.aten.add.Tensor

#: Who calls where the engine itself adds: Python's entry into it, or nobody in a thread of its own.
_ENGINE = "_engine_run_backward"

#: Files whose frames stand around `__torch_dispatch__` itself.
_WRAPPERS = ("torch/_compile.py", "torch/_dynamo/eval_frame.py")


def is_sum(func: object, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether the engine adds two gradients of one value. To be asked in `__torch_dispatch__`."""
    if func is not _ADD or named or len(args) != 2 or torch.is_grad_enabled():
        return False
    first, second = args
    if (
        not (isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor))
        or first.shape != second.shape
    ):
        return False
    if torch._C._current_autograd_node() is None:
        return False
    caller = sys._getframe(1).f_back
    while caller is not None and caller.f_code.co_filename.endswith(_WRAPPERS):
        caller = caller.f_back
    return caller is None or caller.f_code.co_name == _ENGINE


def added_to(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor | None:
    """Which of two gradients the engine would add the other to; None for a new tensor."""
    if first.dtype != second.dtype:
        return None
    for held, alone in zip((first, second), alone_counts(), strict=True):
        if _counts(held) == alone and is_non_overlapping_and_dense_or_false(held):
            return held
    return None


def _counts(tensor: torch.Tensor) -> tuple[int, int]:
    """How many hold a tensor, and its storage."""
    return tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


@cache
def alone_counts() -> tuple[tuple[int, int], tuple[int, int]]:
    """The counts of two gradients that only the engine holds, as they are seen where it adds them."""
    seen: list[tuple[tuple[int, int], tuple[int, int]]] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is _ADD and not torch.is_grad_enabled():
                seen.append((_counts(args[0]), _counts(args[1])))
            return func(*args, **(kwargs or {}))

    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.empty(2, 2))
        rows = torch.empty(2, 2)
        both = (rows @ weight).sum() + (rows @ weight).sum()
        with Seen():
            both.backward()
    return seen[0]
