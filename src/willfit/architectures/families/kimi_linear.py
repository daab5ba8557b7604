"""Kimi Linear: Kimi delta attention, multi-head latent attention in every fourth layer, and experts.

Source: transformers `models/kimi_linear`; names as in the published checkpoint.
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated
from willfit.architectures.blocks.delta import kimi_delta_tensors
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import kinds_of, sparse_layers
from willfit.architectures.blocks.state_space import state_dtype_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Kimi Linear config."""
    hidden = config.integer("hidden_size")
    count = layer_count(config)
    section = config.section("linear_attn_config") or config
    heads = section.integer("num_heads", "linear_num_heads")
    head_dim = section.integer("head_dim" if section is not config else "linear_head_dim")
    kernel = section.integer("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    delta = gated_delta(heads, head_dim, heads, head_dim, kernel, "kimi delta", state_dtype_of(config))
    latent = latent_attention_of(config)
    block = "model.layers.{layer}"

    def layer(key: tuple[bool, bool]) -> Layer:
        is_delta, routes = key
        mixer: Mixer = delta if is_delta else latent
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *(
                kimi_delta_tensors(
                    f"{block}.self_attn", hidden, heads, head_dim, kernel, decay_shape=(1, 1, heads, 1)
                )
                if is_delta
                else latent_attention_tensors(f"{block}.self_attn", hidden, latent)
            ),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += expert_tensors(
                f"{block}.block_sparse_moe",
                hidden,
                experts,
                bias="gate.e_score_correction_bias",
                names=("w1", "w3", "w2"),
            )
            return Layer(tensors, (mixer,), experts.feed_forward)
        width = config.integer("intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (mixer,), FeedForward(width))

    kinds = kinds_of(config, count)
    # The lists of layers count from 1.
    attending = set(section.integers("full_attn_layers"))
    linear_layers = (
        [kind == "linear_attention" for kind in kinds]
        if kinds
        else [index + 1 not in attending for index in range(count)]
    )
    return causal_decoder(
        config,
        family="kimi_linear",
        layers=repeated(layer, zip(linear_layers, sparse_layers(config, count), strict=True)),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        rope_dim=0 if config.boolean("mla_use_nope", default=True) else latent.rope_dim,
    )
