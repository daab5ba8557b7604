"""Values that are known although a tensor on the device has none: those that were computed from data alone.

A script's data is real. What is copied from it to the device, and what integers and masks are made of it there, has
values that its code may look at: whether a batch is padded, how many labels count, the longest sequence. So a real
tensor stands beside each fake one that depends on nothing but such values. What comes from a parameter has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

aten = torch.ops.aten

#: Elements of a result that is still computed beside: a batch of tokens has fewer, a matrix of scores has more.
LIMIT = 1 << 20

_BESIDE = "_willfit_known"
_UNSURE = "_willfit_unsure"

#: Operations that leave their result as the memory was.
_UNSET = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_")


def of(tensor: Tensor) -> Tensor | None:
    """The real tensor that has a tensor's values; None if they are not known."""
    if not isinstance(tensor, FakeTensor):
        return tensor if tensor.device.type == "cpu" else None
    found: Tensor | None = getattr(tensor, _BESIDE, None)
    return None if found is None or getattr(found.untyped_storage(), _UNSURE, False) else found


def set_to(tensor: Tensor, values: Tensor) -> None:
    """Say what a fake tensor's values are."""
    setattr(tensor, _BESIDE, values)


def forget(tensor: Tensor) -> None:
    """A tensor was written to with what is not known, and so are those that share its storage."""
    found = getattr(tensor, _BESIDE, None)
    if found is not None:
        setattr(found.untyped_storage(), _UNSURE, True)


def follow(func: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
    """Compute an operation on values that are known, after it ran on fake tensors."""
    told = _told(func, args)
    if told is not None:
        set_to(result, torch.tensor(told).expand(result.shape))
        return
    known = all(of(tensor) is not None for tensor in _tensors((args, named)))
    values = _values(func, args, named, result) if known else None
    if func._schema.is_mutable:
        if values is None:
            for tensor in _written(func, args, named):
                forget(tensor)
    elif values is not None:
        for fake, real in zip(_tensors(result), _tensors(values), strict=False):
            if isinstance(fake, FakeTensor) and fake.shape == real.shape and fake.dtype is real.dtype:
                set_to(fake, real)


def _values(func: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> Any:
    """What an operation gives for known values; None where that is not to be had."""
    if torch.Tag.nondeterministic_seeded in func.tags or func._schema.name.partition("::")[2] in _UNSET:
        return None
    if any(tensor.numel() > LIMIT for tensor in _tensors(result)):
        return None
    real = _mapped((args, named), lambda tensor: of(tensor))
    if real[1].get("device") is not None:
        real[1]["device"] = torch.device("cpu")
    real[1].pop("pin_memory", None)
    try:
        return func(*real[0], **real[1])
    except Exception:
        return None  # the fake tensors have said what is wrong, or the CPU has no such kernel


def _told(func: Any, args: tuple[Any, ...]) -> bool | None:
    """What comparisons ask that look for values which are not numbers: there are none."""
    if func is aten.ne.Tensor and args[0] is args[1]:  # `isnan`
        return False
    if func is aten.eq.Tensor and args[0] is args[1]:
        return True
    if func in (aten.eq.Scalar, aten.ne.Scalar) and isinstance(args[1], float) and math.isinf(args[1]):
        if of(args[0]) is None:
            return bool(func is aten.ne.Scalar)  # `isinf`, `isfinite`
    elif func in (aten.isinf.default, aten.isnan.default, aten.isposinf.default, aten.isneginf.default):
        return False if of(args[0]) is None else None
    return None


def _written(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operation writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[place] if place < len(args) else named.get(argument.name))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value
