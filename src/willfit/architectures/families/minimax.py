"""MiniMax-Text-01 and M1: lightning attention with softmax attention in every eighth layer, and experts.

Source: transformers `models/minimax`; names as in the checkpoints of both layouts.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.tensors import column, linear, rms_norm, row
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import linear_attention
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config) -> Architecture:
    """The architecture of a MiniMax-Text-01 or M1 config."""
    shape = shape_of(config)
    hidden = shape.hidden
    experts = config.integer("num_local_experts", default=8)
    top_k = config.integer("num_experts_per_tok", default=2)
    inner = shape.heads * shape.head_dim
    block = "model.layers.{layer}"

    def layer(linear_layer: bool) -> Layer:
        mixer: Mixer
        prefix = f"{block}.self_attn"
        if linear_layer:
            mixer = linear_attention(shape.heads, shape.head_dim)
            by_head = column(shape.heads)
            tensors = (
                Tensor(f"{prefix}.norm.weight", (inner,), "norm", "norm", by_head),
                *linear(f"{prefix}.qkv_proj", hidden, 3 * inner, "mixer", split=by_head),
                *linear(f"{prefix}.out_proj", inner, hidden, "mixer", split=row(shape.heads)),
                *linear(f"{prefix}.output_gate", hidden, inner, "mixer", split=by_head),
            )
        else:
            mixer = attention = shape.attention()
            tensors = attention_tensors(prefix, hidden, attention)
        moe = f"{block}.block_sparse_moe"
        tensors += (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
            *router(f"{moe}.gate", hidden, experts),
            *gated_mlp(
                f"{moe}.experts.{{expert}}",
                hidden,
                shape.width,
                part="experts",
                names=("w1", "w3", "w2"),
                copies=experts,
            ),
        )
        widths = FeedForward(0, experts=experts, top_k=top_k, expert_width=shape.width)
        return Layer(tensors, (mixer,), widths)

    return causal_decoder(
        config,
        family="minimax",
        layers=repeated(layer, _linear_layers(config, shape.layers)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("rotary_dim", default=shape.head_dim),
    )


def _linear_layers(config: Config, layers: int) -> tuple[bool, ...]:
    kinds = kinds_of(config, layers)
    if kinds:
        return tuple(kind == "linear_attention" for kind in kinds)
    flags = config.integers("attn_type_list")
    if flags and len(flags) < layers:
        raise BadInput(f"{config.where}: 'attn_type_list' has {len(flags)} entries for {layers} layers")
    if flags:
        return tuple(flag == 0 for flag in flags[:layers])
    return tuple(index % 2 == 1 for index in range(layers))
