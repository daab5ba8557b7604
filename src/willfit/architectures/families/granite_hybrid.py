"""Granite 4: Mamba-2 or attention, then a shared MLP with or without experts beside it.

Source: transformers `models/granitemoehybrid`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_experts, fused_gate_up_mlp, router
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.state_space import hybrid_mamba2
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.mixers import Mixer
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Granite 4 config."""
    shape = shape_of(config)
    experts = config.integer("num_local_experts", default=0)
    shared = config.integer("shared_intermediate_size", default=1024)
    bias = config.boolean("attention_bias", default=False)
    widths = FeedForward(
        shared,
        experts=experts,
        top_k=config.integer("num_experts_per_tok", default=0) if experts else 0,
        expert_width=shape.width if experts else 0,
    )
    block = "model.layers.{layer}"

    def layer(kind: str) -> Layer:
        mixer: Mixer
        if kind in ("mamba", "linear_attention"):
            mixer_tensors, mixer = hybrid_mamba2(config, f"{block}.mamba", shape.hidden)
        else:
            mixer = attention = shape.attention()
            mixer_tensors = attention_tensors(
                f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias
            )
        tensors = (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *mixer_tensors,
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
        )
        if experts:
            mixture = f"{block}.block_sparse_moe"
            tensors += router(f"{mixture}.router.layer", shape.hidden, experts)
            tensors += fused_experts(
                mixture,
                shape.hidden,
                shape.width,
                experts,
                names=("input_linear.weight", "output_linear.weight"),
            )
        tensors += fused_gate_up_mlp(
            f"{block}.shared_mlp", shape.hidden, shared, names=("input_linear", "output_linear")
        )
        return Layer(tensors, (mixer,), widths)

    rotary = config.text("position_embedding_type", default="nope") == "rope"
    return causal_decoder(
        config,
        family="granite_hybrid",
        layers=repeated(layer, kinds_of(config, shape.layers) or ("mamba",) * shape.layers),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim if rotary else 0,
    )
