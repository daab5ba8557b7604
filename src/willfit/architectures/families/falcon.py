"""Falcon 1 and 2: attention and a plain MLP mostly side by side, few key/value heads, no biases.

Source: transformers `models/falcon/modeling_falcon.py` (`RefinedWeb` and `RefinedWebModel` are the names of
its first configs). Falcon-RW has ALiBi, biases, all heads and norms in sequence.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

_MLP_NAMES = ("dense_h_to_4h", "dense_4h_to_h")


def build(config: Config, prefix: str = "transformer", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Falcon config."""
    hidden = config.integer("hidden_size")
    width = config.integer("ffn_hidden_size", default=4 * hidden)
    shape = shape_of(config, width_default=width)
    bias = config.boolean("bias", default=False)
    new = config.boolean("new_decoder_architecture", default=False)
    one_kv_head = not new and config.boolean("multi_query", default=True)
    attention = shape.attention(kv_heads=1) if one_kv_head else shape.attention()
    parallel = new or config.boolean("parallel_attn", default=True)
    block = f"{prefix}.h.{{layer}}"
    norms: tuple[str, ...]
    if new and config.integer("num_ln_in_parallel_attn", default=2) == 2:
        norms = ("ln_attn", "ln_mlp")
    elif parallel:
        norms = ("input_layernorm",)
    else:
        norms = ("input_layernorm", "post_attention_layernorm")
    layer = Layer(
        (
            *(tensor for norm in norms for tensor in layer_norm(f"{block}.{norm}", hidden)),
            *fused_qkv(f"{block}.self_attention.query_key_value", hidden, attention, bias=bias),
            *linear(
                f"{block}.self_attention.dense",
                hidden,
                hidden,
                "attention",
                bias=bias,
                split=row(shape.heads),
            ),
            *plain_mlp(f"{block}.mlp", hidden, width, bias=bias, names=_MLP_NAMES),
        ),
        (attention,),
        FeedForward(width, gated=False),
    )
    return causal_decoder(
        config,
        family="falcon",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=0 if config.boolean("alibi", default=False) else shape.head_dim,
        tied_default=True,
        prefix=prefix,
        embed_name="word_embeddings",
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.ln_f", hidden),
    )
