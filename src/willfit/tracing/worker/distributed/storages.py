"""What the tracer must know where several processes share tensors.

FSDP frees and takes a storage by resizing it; DTensors are no tensors of their own, and what they try out to find a
shape or a layout is never there.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor

from willfit.tracing.worker.tracer import Tracer


def install(tracer: Tracer) -> None:
    """Make torch tell the tracer, once in a process."""
    from torch.distributed._functional_collectives import AsyncCollectiveTensor
    from torch.distributed.tensor import DTensor

    tracer.wrappers = (DTensor, AsyncCollectiveTensor)
    _resizes(tracer)
    _propagation(tracer)
    _eager()
    _addresses()
    _foreach()


def _resizes(tracer: Tracer) -> None:
    """`UntypedStorage.resize_`: to nothing, a storage dies; from nothing, it is born."""
    resize = torch.UntypedStorage.resize_

    def resized(self: torch.UntypedStorage, size: int) -> Any:
        result = resize(self, size)
        tracer.resized(self)
        return result

    torch.UntypedStorage.resize_ = resized


def _propagation(tracer: Tracer) -> None:
    """DTensors run each operation once on tensors of full size without data, to know its result's shape."""
    from torch.distributed.tensor._sharding_prop import ShardingPropagator

    propagate = ShardingPropagator._propagate_tensor_meta_non_cached

    def unseen(*args: Any, **kwargs: Any) -> Any:
        with tracer.unseen():
            return propagate(*args, **kwargs)

    ShardingPropagator._propagate_tensor_meta_non_cached = unseen


def _eager() -> None:
    """Collectives return what has to be waited for, as they do outside of fake tensors.

    Torch takes fake tensors for a sign of compilation, waits at once and asks for each layout again.
    """
    import torch.distributed._functional_collectives as collectives

    before = collectives._are_we_tracing
    for module in list(sys.modules.values()):
        if getattr(module, "_are_we_tracing", None) is before:
            module._are_we_tracing = lambda: False  # type: ignore[attr-defined]
    collectives._maybe_wrap_tensor = _Awaited.apply
    waits = torch.ops._c10d_functional.wait_tensor.default
    fake_impls.op_implementations_dict[waits] = lambda mode, function, result: result


class _Awaited(torch.autograd.Function):
    """`_wrap_tensor_autograd`, of which fake tensors have a copy."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor) -> torch.Tensor:
        """What has to be waited for, around a collective's result."""
        from torch.distributed._functional_collectives import AsyncCollectiveTensor

        return AsyncCollectiveTensor(result)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient as it is."""
        return gradient


def _addresses() -> None:
    """FSDP1 tells storages apart by their addresses. Fake ones have none: a storage's own object stands for it."""
    actual = torch.UntypedStorage.data_ptr

    def start(self: torch.UntypedStorage) -> int:
        if self.device.type != "meta":
            return actual(self)
        return self._cdata if self.nbytes() else 0

    def address(self: torch.Tensor) -> int:
        storage = self.untyped_storage()
        return start(storage) + self.storage_offset() * self.element_size() if storage.nbytes() else 0

    torch.UntypedStorage.data_ptr = start
    FakeTensor.data_ptr = address


def _foreach() -> None:
    """Torch works on lists of plain tensors at once where nothing else is asked for; fake ones stand for plain ones."""
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    optimizer._foreach_supported_types.append(FakeTensor)
    _foreach_utils._foreach_supported_types.append(FakeTensor)
