"""Fused adapters: one function for layers that share their input, or for one alone, and one for a gated MLP.

unsloth: kernels/fast_lora.py: LoRA_QKV, LoRA_W, LoRA_MLP (2024.8 to 2026.1); fms_acceleration_foak:
fused_ops/unsloth_lora/bnb/fast_lora.py, gptq/fast_lora.py (0.4.0), which keep what dropout left of the input.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer
from willfit.tracing.worker.stand_ins.unsloth.factors import (
    Apart,
    Pair,
    adapted,
    held_matrices,
    of_rows_through,
)


def _pairs(factors: tuple[torch.Tensor, ...]) -> list[Pair]:
    return list(zip(factors[::2], factors[1::2], strict=True))


def _remember_autocast(ctx: Any, rows: torch.Tensor) -> None:
    """`custom_fwd`."""
    kind = rows.device.type
    ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


def _as_forward(ctx: Any) -> AbstractContextManager[Any]:
    """`custom_bwd`."""
    kind, dtype, enabled = ctx.autocast
    return torch.autocast(kind, dtype, enabled=enabled)


class Projected(torch.autograd.Function):
    """Adapted layers of one input, which is kept; that of several is overwritten by its gradient, but on GPTQ."""

    @staticmethod
    def forward(ctx, rows, way, projections, *factors):  # type: ignore[no-untyped-def]
        """The product of each."""
        _remember_autocast(ctx, rows)
        flat = rows.view(-1, rows.shape[-1])
        matrices = held_matrices(projections)
        outputs, given = [], []
        for projection, pair, whole in zip(projections, _pairs(factors), matrices, strict=True):
            output, left = adapted(way, flat, projection, pair, whole)
            if projection.base.bias is not None:
                output += projection.base.bias
            outputs.append(output.view(*rows.shape[:-1], -1))
            given.append(left)
        ctx.way, ctx.projections = way, projections
        ctx.in_place = len(projections) > 1 and all(one is None for one in matrices)
        dropped = given if projections[0].dropout is not None else ()
        ctx.save_for_backward(rows, *factors, *dropped)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *gradients):  # type: ignore[no-untyped-def]
        """Gradients of rows and of all factors."""
        with _as_forward(ctx):
            return _projected_backward(ctx, gradients)


def _projected_backward(ctx: Any, gradients: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    way: Apart = ctx.way
    count = len(ctx.projections)
    rows, *saved = ctx.saved_tensors
    factors, dropped = saved[: 2 * count], saved[2 * count :]
    shape = rows.shape
    rows = rows.reshape(-1, shape[-1])
    gradients = tuple(one.reshape(-1, one.shape[-1]) for one in gradients)
    pairs = [way.narrowed(pair, rows.dtype) for pair in _pairs(tuple(factors))]
    begun = way.begun(pairs)
    made: list[torch.Tensor] = []
    for index, projection in enumerate(ctx.projections):
        given = dropped[index] if dropped else rows
        made += way.of_factors(given, gradients[index], pairs[index], projection.scale, begun[index])
    of_rows: Any = None
    for index, projection in enumerate(ctx.projections):
        if of_rows is None:
            of_rows = of_rows_through(way, gradients[0], projection.base, rows if ctx.in_place else None)
        else:
            way.add_through(of_rows, gradients[index], projection.base)
        left = dropped[index] if dropped else None
        way.add_through_factors(of_rows, gradients[index], pairs[index], projection.scale, left)
    return (of_rows.view(shape), None, None, *made)


class GatedMLP(torch.autograd.Function):
    """Gate, up and down with their adapters: input, gate and up are kept, and become their gradients."""

    @staticmethod
    def forward(ctx, rows, way, projections, kernel, *factors):  # type: ignore[no-untyped-def]
        """The MLP's output."""
        _remember_autocast(ctx, rows)
        flat = rows.view(-1, rows.shape[-1])
        gate_pair, up_pair, down_pair = _pairs(factors)
        gate, _ = adapted(way, flat, projections[0], gate_pair)
        up, _ = adapted(way, flat, projections[1], up_pair)
        bent = buffer(kernel, gate, gate.shape, gate.dtype)
        output, _ = adapted(way, bent, projections[2], down_pair)
        ctx.way, ctx.projections = way, projections
        ctx.save_for_backward(rows, gate, up, *factors)
        return output.view(*rows.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of rows and of all factors."""
        with _as_forward(ctx):
            return _mlp_backward(ctx, gradient)


def _mlp_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    way: Apart = ctx.way
    rows, gate, up, *factors = ctx.saved_tensors
    shape = rows.shape
    gradient = gradient.view(-1, gradient.shape[-1])
    rows = rows.view(-1, shape[-1])
    pairs = [way.narrowed(pair, rows.dtype) for pair in _pairs(tuple(factors))]
    of_gate, of_up, of_down = ctx.projections
    first, second = pairs[2]
    # What a kernel writes over it is the activation's output again; gate and up become their gradients.
    whole = way.matrix(of_down.base)
    bent = way.product(gradient, whole.t())
    del whole
    way.add_low_rank(bent, gradient, (second.t(), first.t()), of_down.scale)
    begun = way.begun([pairs[2], pairs[0], pairs[1]])
    of_down_factors = way.of_factors(bent, gradient, pairs[2], of_down.scale, begun[0])
    of_up_factors = way.of_factors(rows, up, pairs[1], of_up.scale, begun[2])
    of_gate_factors = way.of_factors(rows, gate, pairs[0], of_gate.scale, begun[1])
    of_rows = of_rows_through(way, up, of_up.base, rows)
    way.add_through_factors(of_rows, up, pairs[1], of_up.scale, None)
    way.add_through(of_rows, gate, of_gate.base)
    way.add_through_factors(of_rows, gate, pairs[0], of_gate.scale, None)
    return (of_rows.view(shape), None, None, None, *of_gate_factors, *of_up_factors, *of_down_factors)
