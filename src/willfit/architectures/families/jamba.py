"""Jamba: Mamba-1 layers with attention every so often, and experts in every other MLP.

Source: transformers `models/jamba`.
"""

from __future__ import annotations

from math import ceil

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.state_space import mamba_tensors
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.mixers.recurrent import mamba
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Jamba config."""
    shape = shape_of(config)
    attention_period = config.integer("attn_layer_period", default=8)
    attention_offset = config.integer("attn_layer_offset", default=4)
    expert_period = config.integer("expert_layer_period", default=2)
    expert_offset = config.integer("expert_layer_offset", default=1)
    experts = config.integer("num_experts", "num_local_experts", default=16)
    top_k = config.integer("num_experts_per_tok", default=2)
    state = config.integer("mamba_d_state", default=16)
    kernel = config.integer("mamba_d_conv", default=4)
    inner = config.integer("mamba_expand", default=2) * shape.hidden
    automatic = config.raw("mamba_dt_rank") in (None, "auto")
    rank = ceil(shape.hidden / 16) if automatic else config.integer("mamba_dt_rank")
    block = "model.layers.{layer}"

    def layer(key: tuple[bool, bool]) -> Layer:
        attends, routes = key
        attention, recurrent = shape.attention(), mamba(inner, state, kernel, rank)
        if attends:
            tensors = attention_tensors(f"{block}.self_attn", shape.hidden, attention)
        else:
            tensors = (
                *mamba_tensors(
                    f"{block}.mamba",
                    shape.hidden,
                    inner,
                    state,
                    kernel,
                    rank,
                    conv_bias=config.boolean("mamba_conv_bias", default=True),
                    bias=config.boolean("mamba_proj_bias", default=False),
                ),
                *rms_norm(f"{block}.mamba.dt_layernorm", rank),
                *rms_norm(f"{block}.mamba.b_layernorm", state),
                *rms_norm(f"{block}.mamba.c_layernorm", state),
            )
        feed_forward = f"{block}.feed_forward"
        if routes:
            tensors += router(f"{feed_forward}.router", shape.hidden, experts)
            tensors += gated_mlp(
                f"{feed_forward}.experts.{{expert}}",
                shape.hidden,
                shape.width,
                part="experts",
                copies=experts,
            )
            widths = FeedForward(0, experts=experts, top_k=top_k, expert_width=shape.width)
        else:
            tensors += gated_mlp(feed_forward, shape.hidden, shape.width)
            widths = FeedForward(shape.width)
        tensors += rms_norm(f"{block}.input_layernorm", shape.hidden)
        tensors += rms_norm(f"{block}.pre_ff_layernorm", shape.hidden)
        return Layer(tensors, (attention if attends else recurrent,), widths)

    keys = (
        (
            index % attention_period == attention_offset,
            experts > 1 and index % expert_period == expert_offset,
        )
        for index in range(shape.layers)
    )
    return causal_decoder(
        config,
        family="jamba",
        layers=repeated(layer, keys),
        hidden=shape.hidden,
        vocab=shape.vocab,
        norm_name="final_layernorm",
    )
