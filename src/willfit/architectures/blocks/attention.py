"""Tensors of softmax attention: separate or fused projections, optional biases and query/key norms."""

from __future__ import annotations

from willfit.architectures.blocks.tensors import column, linear, rms_norm, row
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Part, Split, Tensor


def attention_tensors(
    prefix: str,
    hidden: int,
    attention: Attention,
    *,
    bias: bool = False,
    out_bias: bool = False,
    key_bias: bool | None = None,
    qk_norm: bool = False,
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm"),
    names: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    part: Part = "attention",
) -> tuple[Tensor, ...]:
    """Separate query, key, value and output projections.

    Parameters
    ----------
    prefix
        Name of the attention module, without a trailing dot.
    hidden
        Width of the layer's input and output.
    attention
        Head counts and widths. With `value_is_key` there is no value projection; with `shares_cache`
        there are no key and value projections.
    bias, out_bias
        Whether q/k/v and the output projection have biases.
    key_bias
        Whether the key projection has one, where it differs from its neighbours (Whisper).
    qk_norm
        An RMS norm over each head's query and key, called `qk_norm_names`.
    """
    query, key, value, output = (f"{prefix}.{name}" for name in names)
    heads, kv_heads = attention.heads, attention.kv_heads
    tensors = linear(query, hidden, heads * attention.head_dim, part, bias=bias, split=column(heads))
    if not attention.shares_cache:
        biased = bias if key_bias is None else key_bias
        tensors += linear(
            key, hidden, kv_heads * attention.head_dim, part, bias=biased, split=column(kv_heads)
        )
        if not attention.value_is_key:
            tensors += linear(
                value, hidden, kv_heads * attention.value_dim, part, bias=bias, split=column(kv_heads)
            )
    tensors += linear(output, heads * attention.value_dim, hidden, part, bias=out_bias, split=row(heads))
    if qk_norm:
        tensors += rms_norm(f"{prefix}.{qk_norm_names[0]}", attention.head_dim)
        if not attention.shares_cache:
            tensors += rms_norm(f"{prefix}.{qk_norm_names[1]}", attention.head_dim)
    return tensors


def wide_qk_norms(prefix: str, attention: Attention) -> tuple[Tensor, ...]:
    """RMS norms over all query heads together and over all key heads together (`q_norm`, `k_norm`)."""
    heads, kv_heads, head_dim = attention.heads, attention.kv_heads, attention.head_dim
    return (
        Tensor(f"{prefix}.q_norm.weight", (heads * head_dim,), "norm", "norm", column(heads)),
        Tensor(f"{prefix}.k_norm.weight", (kv_heads * head_dim,), "norm", "norm", column(kv_heads)),
    )


def fused_qkv(
    name: str, hidden: int, attention: Attention, *, bias: bool = False, part: Part = "attention"
) -> tuple[Tensor, ...]:
    """One projection that makes queries, keys and values together."""
    heads, kv_heads = attention.heads, attention.kv_heads
    sections = (
        (heads * attention.head_dim, heads),
        (kv_heads * attention.head_dim, kv_heads),
        (kv_heads * attention.value_dim, kv_heads),
    )
    split = Split(0, kv_heads, sections)
    return linear(name, hidden, attention.projected_width, part, bias=bias, split=split)
