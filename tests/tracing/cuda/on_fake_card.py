"""Runs one scenario on fake tensors of a pretended card, and prints what it saw.

`on_fake_card.py NAME CAPABILITY PATH ...`: a process of its own, as the shims stay.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from willfit.tracing.question import Card
from willfit.tracing.worker import shims
from willfit.tracing.worker.cuda import attention, workspaces

device = "cpu"
card = Card()


class Seen(TorchDispatchMode):
    """Operations that reach the device, with their results' types and places."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []
        self.results: dict[str, list[str]] = {}
        self.taken: dict[str, list[tuple[str, int]]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.removeprefix("aten::")
        self.ops.append(name)
        taken = workspaces.of(name, args, kwargs or {}, result, card)
        if taken:
            self.taken[name] = [(each.name, each.nbytes) for each in taken]
        several = result if isinstance(result, (tuple, list)) else [result]
        self.results[name] = [
            f"{str(each.dtype)[6:]} {each.device.type} {list(each.shape)}"
            for each in several
            if isinstance(each, torch.Tensor)
        ]
        return result


def kept(function: Callable[[], torch.Tensor]) -> tuple[int, torch.Tensor]:
    """Bytes on the device that autograd keeps, each storage once."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == torch.device(device).type:
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    return sum(storages.values()), result


def attend(dtype: str, heads: int, groups: int, width: int, mask: str) -> dict[str, Any]:
    """Attention over 2 sequences of 100 tokens, forward and back."""
    made = {"device": device, "dtype": getattr(torch, dtype), "requires_grad": True}
    query = torch.empty(2, 100, heads, width, **made)
    key, value = (torch.empty(2, 100, groups, width, **made) for _ in range(2))
    given = torch.ones(2, 1, 100, 100, dtype=torch.bool, device=device) if mask == "bool" else None

    def run() -> torch.Tensor:
        return functional.scaled_dot_product_attention(
            *(each.transpose(1, 2) for each in (query, key, value)),
            attn_mask=given,
            is_causal=given is None,
            enable_gqa=heads != groups,
        )

    with Seen() as seen:
        nbytes, out = kept(run)
        out.sum().backward()
    assert query.grad is not None
    assert query.grad.shape == query.shape
    with torch.no_grad(), Seen() as quiet:
        run()
    return {
        "kernels": dict(attention.chosen),
        "kept": nbytes,
        "results": seen.results,
        "taken": seen.taken,
        "without_gradient": quiet.results,
    }


def whole() -> dict[str, Any]:
    """A layer, an optimizer's step and clipping, as CUDA would run them."""
    made = {"device": device, "requires_grad": True}
    weight, bias = torch.empty(64, 64, **made), torch.empty(64, **made)
    with Seen() as seen:
        table = torch.empty(100, 64, **made)
        rows = functional.embedding(torch.zeros(5000, dtype=torch.int64, device=device), table)
        rows = rows[torch.zeros(32, dtype=torch.int64, device=device)].view(2, 16, 64)
        normed = functional.layer_norm(rows.bfloat16(), [64], weight[0].bfloat16(), bias.bfloat16())
        normed = functional.rms_norm(normed, [64], weight[0].bfloat16())
        with torch.autocast("cuda", torch.bfloat16):
            product = functional.linear(normed, weight, bias)
        assert product.dtype is torch.bfloat16
        active = functional.mish(functional.silu(product))
        functional.dropout(active, 0.1).float().sum().backward()
    parameters = [torch.nn.Parameter(each.detach()) for each in (weight, bias)]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = torch.optim.AdamW(parameters)
    with Seen() as stepped:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    taken = {**seen.taken, **stepped.taken}
    return {"ops": seen.ops, "results": seen.results, "taken": taken, "step": sorted(set(stepped.ops))}


def main() -> None:
    global card, device
    name, capability, path, *rest = sys.argv[1:]
    major, minor = capability.split(".")
    card = Card(capability=(int(major), int(minor)))
    shims.install(card, path)
    device = "cuda:0" if path == "fake-cuda" else "cpu"
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        if name == "attend":
            dtype, heads, groups, width, mask = rest
            answer = attend(dtype, int(heads), int(groups), int(width), mask)
        else:
            answer = whole()
    print(json.dumps(answer), flush=True)
    os._exit(0)  # autograd's thread for a device that is not there would not end


if __name__ == "__main__":
    main()
