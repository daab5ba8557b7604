"""OLMo Hybrid: delta nets with separate projections, and OLMo 2's attention in every fourth layer.

Source: transformers `models/olmo_hybrid`; names as in the published checkpoints.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.state_space import convolution
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of an OLMo Hybrid config."""
    shape = shape_of(config)
    hidden = shape.hidden
    key_heads = config.integer("linear_num_key_heads", default=shape.heads)
    value_heads = config.integer("linear_num_value_heads", default=shape.heads)
    key_dim = config.integer("linear_key_head_dim", default=int(0.75 * hidden / key_heads))
    value_dim = config.integer("linear_value_head_dim", default=2 * key_dim)
    kernel = config.integer("linear_conv_kernel_dim", default=4)
    delta = gated_delta(key_heads, key_dim, value_heads, value_dim, kernel)
    bias = config.boolean("attention_bias", default=False)
    widths = FeedForward(shape.width)
    block = "model.layers.{layer}"
    mlp = gated_mlp(f"{block}.mlp", hidden, shape.width)

    def layer(kind: str) -> Layer:
        if kind == "linear_attention":
            tensors = (
                *_delta_tensors(
                    f"{block}.linear_attn", hidden, key_heads, key_dim, value_heads, value_dim, kernel
                ),
                *mlp,
                *rms_norm(f"{block}.attention_layer_norm", hidden),
                *rms_norm(f"{block}.feedforward_layer_norm", hidden),
            )
            return Layer(tensors, (delta,), widths)
        attention = shape.attention()
        prefix = f"{block}.self_attn"
        tensors = (
            *attention_tensors(prefix, hidden, attention, bias=bias, out_bias=bias),
            *rms_norm(f"{prefix}.q_norm", attention.heads * attention.head_dim),
            *rms_norm(f"{prefix}.k_norm", attention.kv_heads * attention.head_dim),
            *mlp,
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
            *rms_norm(f"{block}.post_feedforward_layernorm", hidden),
        )
        return Layer(tensors, (attention,), widths)

    kinds = kinds_of(config, shape.layers) or [
        "linear_attention" if (index + 1) % 4 else "full_attention" for index in range(shape.layers)
    ]
    return causal_decoder(
        config,
        family="olmo_hybrid",
        layers=repeated(layer, kinds),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
    )


def _delta_tensors(
    prefix: str, hidden: int, key_heads: int, key_dim: int, value_heads: int, value_dim: int, kernel: int
) -> tuple[Tensor, ...]:
    by_key, by_value = column(key_heads), column(value_heads)
    keys, values = key_heads * key_dim, value_heads * value_dim
    return (
        *parameter(f"{prefix}.A_log", (value_heads,), "mixer", by_value),
        *parameter(f"{prefix}.dt_bias", (value_heads,), "mixer", by_value),
        *linear(f"{prefix}.q_proj", hidden, keys, "mixer", split=by_key),
        *linear(f"{prefix}.k_proj", hidden, keys, "mixer", split=by_key),
        *linear(f"{prefix}.v_proj", hidden, values, "mixer", split=by_value),
        *linear(f"{prefix}.a_proj", hidden, value_heads, "mixer", split=by_value),
        *linear(f"{prefix}.b_proj", hidden, value_heads, "mixer", split=by_value),
        *linear(f"{prefix}.g_proj", hidden, values, "mixer", split=by_value),
        *linear(f"{prefix}.o_proj", values, hidden, "mixer", split=row(value_heads)),
        *convolution(f"{prefix}.q_conv1d", keys, kernel, split=by_key),
        *convolution(f"{prefix}.k_conv1d", keys, kernel, split=by_key),
        *convolution(f"{prefix}.v_conv1d", values, kernel, split=by_value),
        *rms_norm(f"{prefix}.o_norm", value_dim),
    )
