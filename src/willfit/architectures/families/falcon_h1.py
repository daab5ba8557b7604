"""Mamba-2 and attention with an MLP in every layer: Falcon-H1 has both mixers side by side, Bamba either.

Source: transformers `models/falcon_h1`, `models/bamba`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.state_space import hybrid_mamba2
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.mixers import Mixer
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Falcon-H1 or Bamba config."""
    parallel = config.text("model_type", default="falcon_h1") == "falcon_h1"
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)
    norm = not parallel or config.boolean("mamba_rms_norm", default=False)
    mlp_bias = config.boolean("mlp_bias", default=False)
    block = "model.layers.{layer}"

    def layer(key: tuple[bool, bool]) -> Layer:
        mixes, attends = key
        tensors: tuple[Tensor, ...] = ()
        mixers: tuple[Mixer, ...] = ()
        if mixes:
            mamba_tensors, recurrent = hybrid_mamba2(config, f"{block}.mamba", shape.hidden, norm=norm)
            tensors += mamba_tensors
            mixers += (recurrent,)
        if attends:
            attention = shape.attention()
            tensors += attention_tensors(
                f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias
            )
            mixers += (attention,)
        tensors += gated_mlp(f"{block}.feed_forward", shape.hidden, shape.width, bias=mlp_bias)
        tensors += rms_norm(f"{block}.input_layernorm", shape.hidden)
        tensors += rms_norm(f"{block}.pre_ff_layernorm", shape.hidden)
        return Layer(tensors, mixers, FeedForward(shape.width))

    attending = set(config.integers("attn_layer_indices"))
    keys = (
        (parallel or index not in attending, parallel or index in attending) for index in range(shape.layers)
    )
    return causal_decoder(
        config,
        family="falcon_h1",
        layers=repeated(layer, keys),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        norm_name="final_layernorm",
    )
