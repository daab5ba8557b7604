"""BLOOM: ALiBi, a norm after the embedding, fused interleaved query/key/value, biases everywhere.

Source: transformers `models/bloom/modeling_bloom.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import embedding, layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

_MLP_NAMES = ("dense_h_to_4h", "dense_4h_to_h")


def build(config: Config) -> Architecture:
    """The architecture of a BLOOM config."""
    hidden = config.integer("hidden_size", "n_embed")
    width = 4 * hidden
    shape = shape_of(config.with_defaults(hidden_size=hidden), width_default=width)
    attention = shape.attention()
    block = "h.{layer}"
    layer = Layer(
        (
            *layer_norm(f"{block}.input_layernorm", hidden),
            *fused_qkv(f"{block}.self_attention.query_key_value", hidden, attention, bias=True),
            *linear(
                f"{block}.self_attention.dense",
                hidden,
                hidden,
                "attention",
                bias=True,
                split=row(shape.heads),
            ),
            *layer_norm(f"{block}.post_attention_layernorm", hidden),
            *plain_mlp(f"{block}.mlp", hidden, width, bias=True, names=_MLP_NAMES),
        ),
        (attention,),
        FeedForward(width, gated=False),
    )
    return causal_decoder(
        config,
        family="bloom",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=shape.vocab,
        tied_default=True,
        embeddings=(
            *embedding("word_embeddings", shape.vocab, hidden),
            *layer_norm("word_embeddings_layernorm", hidden),
        ),
        final_norm=layer_norm("ln_f", hidden),
    )
