"""Tensors of feed-forward parts: gated and plain MLPs, routers, experts stored one by one or fused."""

from __future__ import annotations

from willfit.architectures.blocks.tensors import column, linear, row
from willfit.architectures.model import Part, Split, Tensor


def gated_mlp(
    prefix: str,
    hidden: int,
    width: int,
    *,
    bias: bool = False,
    part: Part = "mlp",
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    copies: int = 1,
) -> tuple[Tensor, ...]:
    """Gate, up and down projections (SwiGLU, GeGLU)."""
    gate, up, down = (f"{prefix}.{name}" for name in names)
    return (
        *linear(gate, hidden, width, part, bias=bias, split=column(width), copies=copies),
        *linear(up, hidden, width, part, bias=bias, split=column(width), copies=copies),
        *linear(down, width, hidden, part, bias=bias, split=row(width), copies=copies),
    )


def plain_mlp(
    prefix: str,
    hidden: int,
    width: int,
    *,
    bias: bool = False,
    part: Part = "mlp",
    names: tuple[str, str] = ("up_proj", "down_proj"),
    copies: int = 1,
) -> tuple[Tensor, ...]:
    """Up and down projections with an activation between."""
    up, down = (f"{prefix}.{name}" for name in names)
    return (
        *linear(up, hidden, width, part, bias=bias, split=column(width), copies=copies),
        *linear(down, width, hidden, part, bias=bias, split=row(width), copies=copies),
    )


def fused_gate_up_mlp(
    prefix: str,
    hidden: int,
    width: int,
    *,
    bias: bool = False,
    names: tuple[str, str] = ("gate_up_proj", "down_proj"),
) -> tuple[Tensor, ...]:
    """Gate and up in one projection (2 * width, hidden), and down."""
    return (
        *linear(f"{prefix}.{names[0]}", hidden, 2 * width, "mlp", bias=bias, split=column(width)),
        *linear(f"{prefix}.{names[1]}", width, hidden, "mlp", bias=bias, split=row(width)),
    )


def router(name: str, hidden: int, experts: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """The gate that scores experts, on every rank."""
    return tuple(
        Tensor(f"{name}.{suffix}", shape, "router", kind)
        for suffix, shape, kind in (
            ("weight", (experts, hidden), "linear"),
            *((("bias", (experts,), "bias"),) if bias else ()),
        )
    )


def fused_experts(
    prefix: str,
    hidden: int,
    width: int,
    experts: int,
    *,
    bias: bool = False,
    gated: bool = True,
    names: tuple[str, str] = ("gate_up_proj", "down_proj"),
) -> tuple[Tensor, ...]:
    """All experts in two 3-D parameters: (experts, up, hidden) and (experts, hidden, width).

    `up` is 2 * width for gated experts. Shapes are given as (experts, out, in) whatever the stored order.
    """
    up = 2 * width if gated else width
    first, second = (f"{prefix}.{name}" for name in names)
    tensors = (
        Tensor(first, (experts, up, hidden), "experts", "linear", Split(1, width)),
        Tensor(second, (experts, hidden, width), "experts", "linear", Split(2, width)),
    )
    if not bias:
        return tensors
    return (
        *tensors,
        Tensor(f"{first}_bias", (experts, up), "experts", "bias", Split(1, width)),
        Tensor(f"{second}_bias", (experts, hidden), "experts", "bias"),
    )
