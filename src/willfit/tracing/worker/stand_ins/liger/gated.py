"""Gated activations and rotary embeddings, whose gradients overwrite what they were kept for.

liger_kernel/ops/swiglu.py, ops/geglu.py, ops/rope.py (0.8.5).
"""

from __future__ import annotations

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer


class Gated(torch.autograd.Function):
    """An activation of one tensor times another: both are kept, and become their gradients."""

    @staticmethod
    def forward(ctx, gate, up, kernel):  # type: ignore[no-untyped-def]
        """Multiply."""
        gate, up = gate.contiguous(), up.contiguous()
        flat = gate.view(-1, gate.shape[-1])
        output = buffer(kernel, flat, flat.shape, flat.dtype)
        ctx.save_for_backward(flat, up.view(-1, up.shape[-1]))
        return output.view(gate.shape)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of both."""
        gate, up = ctx.saved_tensors
        gradient = gradient.contiguous()
        return gate.view(gradient.shape), up.view(gradient.shape), None


class Rotary(torch.autograd.Function):
    """Queries and keys are turned in place, and so are their gradients."""

    @staticmethod
    def forward(ctx, queries, keys, cos, sin):  # type: ignore[no-untyped-def]
        """Turn."""
        queries, keys = (tensor.transpose(1, 2).contiguous() for tensor in (queries, keys))
        ctx.save_for_backward(*_tables(cos, sin))
        return queries.transpose(1, 2), keys.transpose(1, 2)

    @staticmethod
    def backward(ctx, of_queries, of_keys):  # type: ignore[no-untyped-def]
        """Turn back."""
        cos, sin = ctx.saved_tensors
        of_queries, of_keys = (tensor.transpose(1, 2).contiguous() for tensor in (of_queries, of_keys))
        del cos, sin
        return of_queries.transpose(1, 2), of_keys.transpose(1, 2), None, None


def _tables(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tables of angles, contiguous and with a batch dimension."""
    found = []
    for table in (cos, sin):
        if table.dim() == 4:
            table = table.squeeze(1)
        found.append((table.unsqueeze(0) if table.dim() == 2 else table).contiguous())
    return found[0], found[1]


def rotary(queries, keys, cos, sin, position_ids=None, unsqueeze_dim=1):  # type: ignore[no-untyped-def]
    """In place of transformers' `apply_rotary_pos_emb` (transformers/rope.py: liger_rotary_pos_emb)."""
    return Rotary.apply(queries, keys, cos, sin)
