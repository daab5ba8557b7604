"""What a script reads of a fake tensor: the value if it is known, else one that leaves it on its way.

A loss is 1, a mask has no zeros, and comparisons hold; nothing is infinite or not a number (`known.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from willfit.tracing.worker.scripts import known
from willfit.tracing.worker.shims import values

aten = torch.ops.aten

#: Operations whose result's size depends on values, and what is taken of it where these are not known.
_ALL = "every element counts"
_DIFFER = "all elements differ"


class Answers:
    """Answers for fake tensors.

    Parameters
    ----------
    note
        Told what was assumed.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def install(self) -> None:
        """Put the answers in place."""
        ways = fake_impls.op_implementations_dict
        ways[aten._local_scalar_dense.default] = self._item
        ways[aten.equal.default] = self._equal
        ways[aten.nonzero.default] = self._nonzero
        ways[aten.masked_select.default] = self._masked_select
        ways[aten._unique2.default] = self._unique
        FakeTensor.tolist = lambda tensor: self.real(tensor).tolist()
        FakeTensor.numpy = lambda tensor, *, force=False: self.real(tensor).numpy()
        FakeTensor.__format__ = _format
        FakeTensor.__deepcopy__ = _copied
        FakeTensor.data_ptr = _address

    def real(self, tensor: Tensor) -> Tensor:
        """A real tensor with the values that are told."""
        found = known.of(tensor)
        if found is not None:
            return found
        if tensor.dtype is torch.bool:
            return torch.full(tensor.shape, values.full_masks)
        if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
            self._note("whole numbers that come from the model were read as 1")
        return torch.ones(tensor.shape, dtype=tensor.dtype)

    def _item(self, mode: FakeTensorMode, func: object, tensor: Tensor) -> Any:
        found = known.of(tensor)
        if found is None:
            found = self.real(tensor)
        return found.item()

    def _equal(self, mode: FakeTensorMode, func: object, first: Tensor, second: Tensor) -> bool:
        if first.shape != second.shape:
            return False
        one, other = known.of(first), known.of(second)
        return True if one is None or other is None else torch.equal(one, other)

    def _nonzero(self, mode: FakeTensorMode, func: object, tensor: Tensor) -> Tensor:
        found = known.of(tensor)
        if found is None:
            self._note(f"places where a mask is set: {_ALL}")
            count = tensor.numel()
        else:
            count = int(found.count_nonzero())
        # As CUDA's kernel makes it: one column for each dimension (native/cuda/Nonzero.cu).
        return _made(mode, (tensor.dim(), count), tensor).t()

    def _masked_select(self, mode: FakeTensorMode, func: object, tensor: Tensor, mask: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(tensor.shape, mask.shape)
        found = known.of(mask)
        if found is None:
            self._note(f"elements that a mask selects: {_ALL}")
            count = shape.numel()
        else:
            count = int(found.expand(shape).count_nonzero())
        return _made(mode, (count,), tensor, tensor.dtype)

    def _unique(
        self,
        mode: FakeTensorMode,
        func: object,
        tensor: Tensor,
        sorted: bool = True,
        return_inverse: bool = False,
        return_counts: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = known.of(tensor)
        if found is None:
            self._note(f"`unique`: {_DIFFER}")
            count = tensor.numel()
        else:
            count = found.unique().numel()
        return (
            _made(mode, (count,), tensor, tensor.dtype),
            _made(mode, tuple(tensor.shape) if return_inverse else (0,), tensor),
            _made(mode, (count if return_counts else 0,), tensor),
        )


def _format(tensor: Tensor, said: str) -> str:
    """As `Tensor.__format__` does it: a number's own form."""
    return format(tensor.item(), said) if tensor.dim() == 0 else object.__format__(tensor, said)


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """As `Tensor.__deepcopy__` does it; that would copy the fake mode as well."""
    if id(tensor) not in memo:
        if not tensor.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
        new: Any = tensor.detach().clone(memory_format=torch.preserve_format)
        if isinstance(tensor, torch.nn.Parameter):
            new = torch.nn.Parameter(new, tensor.requires_grad)
        else:
            new.requires_grad_(tensor.requires_grad)
        if tensor.grad is not None:
            new.grad = _copied(tensor.grad, memo)
        memo[id(tensor)] = new
    found: Tensor = memo[id(tensor)]
    return found


def _address(tensor: Tensor) -> int:
    """A number that tensors have in common if they begin at the same place, for code that looks for tied ones."""
    return tensor.untyped_storage()._cdata + tensor.storage_offset() * tensor.element_size()


def _made(
    mode: FakeTensorMode, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype = torch.int64
) -> Tensor:
    with mode:
        return torch.empty(shape, dtype=dtype, device=like.device)
