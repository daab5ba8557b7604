"""Experts as one grouped operation: liger_kernel/ops/fused_moe.py: LigerFusedMoEFunction (0.8.5)."""

from __future__ import annotations

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer

#: Rows of a tile (`BLOCK_M_TOKEN`). How many tiles there are depends on the routing: each expert may leave one unfull.
TILE = 64


class Experts(torch.autograd.Function):
    """Keeps what goes into the activation, and indices; the gradient makes the rest anew."""

    @staticmethod
    def forward(ctx, rows, gate_up, down, index, weights):  # type: ignore[no-untyped-def]
        """Route, multiply, add up."""
        rows = rows.contiguous()
        tokens, chosen = index.shape
        experts, width, hidden = gate_up.shape[0], gate_up.shape[1] // 2, rows.shape[1]
        routed = tokens * chosen
        tiles = -(-routed // TILE) + experts
        starts, offsets = (buffer("routing", rows, (experts + 1,), torch.int32) for _ in range(2))
        of_tiles = [buffer("routing", rows, (tiles,), torch.int32) for _ in range(2)]
        order = [buffer("routing", rows, (routed,), torch.int32) for _ in range(3)]
        del offsets
        before = buffer("moe_up", rows, (routed, 2 * width), rows.dtype)
        after = buffer("moe_up", rows, (routed, width), rows.dtype)
        each = buffer("moe_down", rows, (routed, hidden), rows.dtype)
        flat = weights.flatten().contiguous()
        output = buffer("moe_sum", rows, (tokens, hidden), each.dtype)
        del after, each
        ctx.save_for_backward(rows, gate_up, down, before, flat, starts, *order, *of_tiles)
        ctx.sizes = (tokens, chosen, width, hidden)
        return output

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of rows, both matrices and weights."""
        gate_up, down = ctx.saved_tensors[1:3]
        gradient = gradient.contiguous()
        tokens, chosen, width, hidden = ctx.sizes
        routed, dtype = tokens * chosen, gradient.dtype
        of_before = buffer("moe_down_backward", gradient, (routed, 2 * width), dtype)
        weighted = buffer("moe_down_backward", gradient, (routed, width), dtype)
        of_weights = torch.zeros(routed, dtype=dtype, device=gradient.device)
        of_down = torch.zeros_like(down)
        expanded = buffer("moe_up_backward", gradient, (routed, hidden), dtype)
        of_rows = torch.zeros(tokens, hidden, dtype=dtype, device=gradient.device)
        of_gate_up = torch.zeros_like(gate_up)
        del of_before, weighted, expanded
        return of_rows, of_gate_up, of_down, None, of_weights.view(tokens, chosen)


def forward(module, hidden, top_k_index, top_k_weights):  # type: ignore[no-untyped-def]
    """In place of an experts module's forward pass (transformers/swiglu.py: LigerExperts)."""
    rows = hidden.view(-1, hidden.shape[-1])
    index = top_k_index.view(-1, top_k_index.shape[-1]).to(torch.int32)
    weights = top_k_weights.view(-1, top_k_weights.shape[-1])
    return Experts.apply(rows, module.gate_up_proj, module.down_proj, index, weights).view(hidden.shape)
