"""A step of a small layer on fake CUDA tensors, and what it must show.

Where a shim fails torch says nothing and does something else: attention by plain products, an autocast that is off,
activations whose gradient is taken apart. Each of these shows in what is kept.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from willfit.tracing.question import Card
from willfit.tracing.worker.cuda import attention
from willfit.tracing.worker.tracer import Tracer

#: Sequences, tokens, heads, width of a head.
B, S, H, D = 2, 64, 4, 32


def faults() -> list[str]:
    """What is not as it is on a real device; empty if all is well."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    found = []
    with FakeTensorMode():
        tracer = Tracer("cuda:0", Card())
        with tracer:
            tracer.at("forward", 1, 1)
            weight = torch.nn.Parameter(torch.empty(H * D, H * D, device="cuda:0"))
            rows = torch.empty(B, S, H * D, device="cuda:0", requires_grad=True)
            with torch.autocast("cuda", torch.bfloat16):
                passed = checkpoint(_layer, rows, weight, use_reentrant=False)
            if passed.dtype is not torch.bfloat16:
                found.append("autocast is off")
            tracer.at("backward")
            passed.float().sum().backward()
        if weight.grad is None or weight.grad.device.type != "cuda":
            found.append("no gradients are made")
    ops = {storage.op for storage in tracer.trace.storages}
    if sum(attention.chosen.values()) != 2:
        found.append("the kernel of attention is not chosen here, forward and again")
    if "silu_backward" not in ops:
        found.append("the gradient of SiLU is taken apart")
    return found


def _layer(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    product = functional.silu(functional.linear(rows, weight)).view(B, S, H, D).transpose(1, 2)
    return functional.scaled_dot_product_attention(product, product, product, is_causal=True)
