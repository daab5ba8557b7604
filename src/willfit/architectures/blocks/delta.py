"""Tensors of delta-rule mixers: gated delta nets, Kimi delta attention, and the attention among them."""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.state_space import convolution
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Split, Tensor


def gated_attention_tensors(prefix: str, hidden: int, attention: Attention) -> tuple[Tensor, ...]:
    """Attention whose query projection also makes a gate for each head's output (Qwen3-Next)."""
    heads, width = attention.heads, attention.heads * attention.head_dim
    _, *others = attention_tensors(prefix, hidden, attention, qk_norm=True)
    query = linear(f"{prefix}.q_proj", hidden, 2 * width, "attention", split=column(heads))
    return (*query, *others)


def delta_net_tensors(
    prefix: str,
    hidden: int,
    key_heads: int,
    key_dim: int,
    value_heads: int,
    value_dim: int,
    kernel: int,
    *,
    fused: bool,
) -> tuple[Tensor, ...]:
    """A gated delta net in Qwen's layout, divided over ranks by key heads and by value heads.

    Parameters
    ----------
    prefix
        Name of the mixer, without a trailing dot.
    hidden, key_heads, key_dim, value_heads, value_dim, kernel
        Width of the residual stream, heads and their widths, taps of the convolution.
    fused
        Two projections make everything (Qwen3-Next), or four (Qwen3.5).
    """
    keys, values = key_heads * key_dim, value_heads * value_dim
    by_value = column(value_heads)
    mixed = Split(0, key_heads, ((2 * keys, key_heads), (values, value_heads)))
    if fused:
        # Rows are grouped by key head: its query, its key, its share of the values and of their gates.
        by_key = column(key_heads)
        projections = (
            *linear(f"{prefix}.in_proj_qkvz", hidden, 2 * keys + 2 * values, "mixer", split=by_key),
            *linear(f"{prefix}.in_proj_ba", hidden, 2 * value_heads, "mixer", split=by_key),
        )
    else:
        projections = (
            *linear(f"{prefix}.in_proj_qkv", hidden, 2 * keys + values, "mixer", split=mixed),
            *linear(f"{prefix}.in_proj_z", hidden, values, "mixer", split=by_value),
            *linear(f"{prefix}.in_proj_b", hidden, value_heads, "mixer", split=by_value),
            *linear(f"{prefix}.in_proj_a", hidden, value_heads, "mixer", split=by_value),
        )
    return (
        *parameter(f"{prefix}.dt_bias", (value_heads,), "mixer", by_value),
        *parameter(f"{prefix}.A_log", (value_heads,), "mixer", by_value),
        *convolution(f"{prefix}.conv1d", 2 * keys + values, kernel, split=mixed),
        *projections,
        *rms_norm(f"{prefix}.norm", value_dim),
        *linear(f"{prefix}.out_proj", values, hidden, "mixer", split=row(value_heads)),
    )


def kimi_delta_tensors(
    prefix: str,
    hidden: int,
    heads: int,
    head_dim: int,
    kernel: int,
    *,
    forget_rank: int = 0,
    gate_rank: int = 0,
    decay_shape: tuple[int, ...] = (),
) -> tuple[Tensor, ...]:
    """Kimi delta attention (Kimi Linear, section 3): a delta net whose state decays by channel.

    Parameters
    ----------
    prefix
        Name of the mixer, without a trailing dot.
    hidden, heads, head_dim, kernel
        Width of the residual stream, heads and their width, taps of the three convolutions.
    forget_rank, gate_rank
        Width of the bottleneck through which the forget and the output gate go; 0 without one.
    decay_shape
        Shape of `A_log`; (heads,) if empty.
    """
    inner, by_head = heads * head_dim, column(heads)
    decay = decay_shape or (heads,)
    tensors: tuple[Tensor, ...] = ()
    for name in ("q", "k", "v"):
        tensors += linear(f"{prefix}.{name}_proj", hidden, inner, "mixer", split=by_head)
    for name in ("q", "k", "v"):
        tensors += convolution(f"{prefix}.{name}_conv1d", inner, kernel, split=by_head)
    decay_split = Split(decay.index(heads), heads) if heads in decay else None
    tensors += parameter(f"{prefix}.A_log", decay, "mixer", decay_split)
    tensors += parameter(f"{prefix}.dt_bias", (inner,), "mixer", by_head)
    for name, rank in (("f", forget_rank), ("g", gate_rank)):
        if rank:
            tensors += linear(f"{prefix}.{name}_a_proj", hidden, rank, "mixer")
            tensors += linear(f"{prefix}.{name}_b_proj", rank, inner, "mixer", split=by_head)
        else:
            tensors += linear(f"{prefix}.{name}_proj", hidden, inner, "mixer", split=by_head)
    return (
        *tensors,
        *linear(f"{prefix}.b_proj", hidden, heads, "mixer", split=by_head),
        *rms_norm(f"{prefix}.o_norm", head_dim),
        *linear(f"{prefix}.o_proj", inner, hidden, "mixer", split=row(heads)),
    )
