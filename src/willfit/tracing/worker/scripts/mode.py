"""Fake tensors for what is on the device, real ones for what is not.

A script's data pipeline looks at values, so that operations on the host run as they are: `torch.tensor`, samplers,
collators. A tensor becomes fake where it is put on the device, and what is computed with it is fake. Parameters are
fake from their birth, also on the host, so that a model costs no memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import Parameter

from willfit.tracing.worker.scripts import known

aten = torch.ops.aten


class HostIsReal(FakeTensorMode):
    """Runs operations on the host for real.

    Attributes
    ----------
    over
        What is raised by every operation from here on; None while the script runs.
    arrived
        Told of fake tensors that were made of no other: of real ones on the host, or of nothing.
    became_parameter
        Told of what is in parameters that are made on the device.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.allow_meta = True  # a model on `meta` is material for one on the device
        self.over: BaseException | None = None
        self.arrived: Callable[[torch.Tensor], None] = lambda _: None
        self.became_parameter: Callable[[torch.Tensor], None] = lambda _: None
        self._inside = threading.local()  # whether an operation on fake tensors is taken apart

    @property
    def avoid_device_init(self) -> bool:
        """Always: `torch.cuda.is_available` says what the script is to believe."""
        return True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if self.over is not None:
            raise self.over
        named = dict(kwargs or {})
        if getattr(self._inside, "fake", False):
            return super().__torch_dispatch__(func, types, args, named)
        named.pop("pin_memory", None)  # there is no driver that could pin it
        if func in _PINS:
            return args[0]
        if FakeTensor not in types and not _for_device(func, args, named):
            return func(*args, **named)
        self._inside.fake = True
        try:
            result = super().__torch_dispatch__(func, types, args, named)
        finally:
            self._inside.fake = False
        known.follow(func, args, named, result)
        if FakeTensor not in types and isinstance(result, FakeTensor):
            self.arrived(result)
        return result

    def empty(self, like: torch.Tensor) -> FakeTensor:
        """A fake tensor on the host, with a storage of its own."""
        meta = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
        return FakeTensor(self, meta, torch.device("cpu"))


_PINS = (aten._pin_memory.default, aten.pin_memory.default)


def _for_device(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    device = args[1] if func is torch.ops.prims.device_put.default else named.get("device")
    return device is not None and torch.device(device).type == "cuda"


def parameters_are_fake(mode: HostIsReal) -> None:
    """Let each parameter that is made on the host be fake, while the mode is on; its values are never looked at."""
    kind: Any = Parameter
    make = kind.__new__

    def new(cls: type, data: Any = None, requires_grad: bool = True) -> Any:
        if (
            type(data) is torch.Tensor
            and data.device.type == "cpu"
            and torch._C._get_dispatch_mode(mode._mode_key)
        ):
            data = mode.empty(data)
        elif isinstance(data, FakeTensor):
            mode.became_parameter(data)
        return make(cls, data, requires_grad)

    kind.__new__ = new


def data_is_set() -> None:
    """Let `tensor.data = other` move a fake tensor to the other's device, as it does a real one."""
    plain: Any = torch.Tensor.data

    def put(self: FakeTensor, value: torch.Tensor) -> None:
        if not isinstance(value, FakeTensor):
            value = self.fake_mode.from_tensor(value)
        plain.__set__(self, value)
        self.fake_device = value.fake_device

    FakeTensor.data = property(plain.__get__, put)


def modules_move() -> None:
    """Let `module.to(...)` put what it made in the place of a fake parameter, which stays the same object.

    torch swaps the two if one is fake (torch/nn/modules/module.py: `_apply`), and refuses that where anything else
    holds the parameter. Of a real one the data is set, and the old data goes at once.
    """
    swap = torch.utils.swap_tensors

    def swapped(first: torch.Tensor, second: torch.Tensor) -> None:
        if isinstance(first, FakeTensor):
            first.data = second
        else:
            swap(first, second)

    torch.utils.swap_tensors = swapped
