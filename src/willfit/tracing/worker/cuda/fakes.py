"""Fake results of attention kernels where torch's own differ from what the kernels return.

torch's fake ones serve compilers and CUDA graphs; two tensors of 8 bytes for each layer, and one of log-sum-exps, would
be counted on the device and are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

aten = torch.ops.aten
Kernel = Callable[..., Any]


def install() -> None:
    """Put the fake results in place."""
    fake_impls.op_implementations_dict[aten._scaled_dot_product_efficient_attention.default] = efficient
    fake_impls.op_implementations_dict[aten._scaled_dot_product_cudnn_attention.default] = cudnn


def efficient(mode: FakeTensorMode, kernel: Kernel, *args: Any, **named: Any) -> Any:
    """Seed and offset of the random numbers are on the host unless a graph is captured
    (native/transformers/cuda/attention.cu: `_efficient_attention_forward`)."""
    device = args[0].device
    with in_kernel_invocation_manager(mode):
        out, sums, seed, offset = kernel(*args, **named)
    host = torch.device("cpu")
    return _on(mode, out, device), _on(mode, sums, device), _on(mode, seed, host), _on(mode, offset, host)


def cudnn(mode: FakeTensorMode, kernel: Kernel, *args: Any, **named: Any) -> Any:
    """Log-sum-exps are made only if they are asked for (native/cudnn/MHA.cpp: `run_cudnn_SDP_fprop`)."""
    device = args[0].device
    with in_kernel_invocation_manager(mode):
        out, sums, rows, keys, queries, most, seed, offset, debug = kernel(*args, **named)
        if not args[4]:
            sums = sums.new_empty(0)
    return (
        _on(mode, out, device),
        _on(mode, sums, device),
        rows,
        keys,
        queries,
        most,
        _on(mode, seed, device),
        _on(mode, offset, device),
        debug,
    )


def _on(mode: FakeTensorMode, tensor: torch.Tensor, device: torch.device) -> FakeTensor:
    return FakeTensor(mode, tensor, device)
