"""Ling 3: Kimi delta attention, gated multi-head latent attention in every sixth layer, and experts.

Source: transformers `models/bailing_hybrid`; names as in the published checkpoints, whose
multi-token-prediction module continues the layers.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.delta import kimi_delta_tensors
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import kinds_of, sparse_layers
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.state_space import state_dtype_of
from willfit.architectures.blocks.tensors import column, linear, rms_norm
from willfit.architectures.mixers import LatentAttention, Mixer
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Ling 3 config."""
    hidden = config.integer("hidden_size")
    count = layer_count(config)
    latent = latent_attention_of(config)
    heads = config.integer("linear_num_heads", default=latent.heads)
    # transformers stores the delta heads' width apart, because it lets `head_dim` be the rotated width.
    head_dim = config.integer("linear_head_dim", "head_dim", default=128)
    kernel = config.integer("linear_conv_kernel_dim", "short_conv_kernel_size", default=4)
    delta = gated_delta(heads, head_dim, heads, head_dim, kernel, "kimi delta", state_dtype_of(config))
    block = "model.layers.{layer}"

    def layer(key: tuple[bool, bool]) -> Layer:
        is_delta, routes = key
        prefix = f"{block}.attention"
        mixer: Mixer = delta if is_delta else latent
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *(
                kimi_delta_tensors(prefix, hidden, heads, head_dim, kernel)
                if is_delta
                else _latent_tensors(prefix, hidden, latent)
            ),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += expert_tensors(f"{block}.mlp", hidden, experts, bias="gate.expert_bias")
            return Layer(tensors, (mixer,), experts.feed_forward)
        width = config.integer("intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (mixer,), FeedForward(width))

    group = config.integer("layer_group_size", default=6)
    kinds = kinds_of(config, count) or [
        "linear_attention" if (index + 1) % group else "full_attention" for index in range(count)
    ]
    sparse = sparse_layers(config, count)
    module = layer((False, sparse[-1]))
    fusion = (
        *rms_norm(f"{block}.enorm", hidden),
        *rms_norm(f"{block}.hnorm", hidden),
        *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
        *rms_norm(f"{block}.final_layernorm", hidden),
    )
    modules = (replace(module, tensors=module.tensors + fusion),) * bounded_count(
        config, "num_nextn_predict_layers", "num_mtp_layers", default=0
    )
    keys = zip((kind == "linear_attention" for kind in kinds), sparse, strict=True)
    return causal_decoder(
        config,
        family="bailing_hybrid",
        layers=repeated(layer, keys),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        rope_dim=latent.rope_dim,
        embed_name="word_embeddings",
        **mtp_modules(modules, first=count),
    )


def _latent_tensors(prefix: str, hidden: int, latent: LatentAttention) -> tuple[Tensor, ...]:
    """Latent attention with one output gate a head; its projection out is called `dense`."""
    tensors = tuple(
        replace(tensor, name=tensor.name.replace(".o_proj.", ".dense."))
        for tensor in latent_attention_tensors(prefix, hidden, latent)
    )
    gate = linear(f"{prefix}.g_proj", hidden, latent.heads, "attention", split=column(latent.heads))
    return tensors + gate
