"""Tensors that a library's kernel would fill, under the kernel's name.

A plain `torch.empty` would be as large, but a trace of it would not say what it is for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Namespace of the operations, as traces show it.
NAMESPACE = "stand_in"

#: Types of devices whose tensors are on the card: on the fake CPU, where torch takes no fake CUDA tensors, also that.
CARDS = {"cuda"}

_library: list[torch.library.Library] = []
_known: dict[str, object] = {}


def buffer(kernel: str, like: torch.Tensor, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A new tensor on another's device.

    Parameters
    ----------
    kernel
        The operation's name in traces.
    like
        Whose device it is on.
    """
    operation = _known.get(kernel)
    if operation is None:
        if not _library:
            _library.append(torch.library.Library(NAMESPACE, "FRAGMENT"))
        _library[0].define(f"{kernel}(Tensor like, int[] shape, ScalarType dtype) -> Tensor")
        _library[0].impl(kernel, _made, "CompositeExplicitAutograd")
        operation = _known[kernel] = getattr(getattr(torch.ops, NAMESPACE), kernel).default
    with torch.no_grad():
        return operation(like, shape, dtype)  # type: ignore[operator]


def _made(like: torch.Tensor, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)


def on_card(tensor: torch.Tensor) -> bool:
    """Whether a library would take its way for CUDA."""
    return tensor.device.type in CARDS
