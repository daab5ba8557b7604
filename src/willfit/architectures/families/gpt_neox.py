"""GPT-NeoX and Pythia: fused interleaved query/key/value, partial rotary embedding, layer norms, biases.

Source: transformers `models/gpt_neox/modeling_gpt_neox.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

_MLP_NAMES = ("dense_h_to_4h", "dense_4h_to_h")


def build(config: Config, prefix: str = "gpt_neox", head_name: str = "embed_out") -> Architecture:
    """The architecture of a GPT-NeoX config."""
    config = config.with_defaults(rotary_pct=0.25)
    shape = shape_of(config)
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=True)
    attention = shape.attention()
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *layer_norm(f"{block}.input_layernorm", hidden),
            *layer_norm(f"{block}.post_attention_layernorm", hidden),
            *fused_qkv(f"{block}.attention.query_key_value", hidden, attention, bias=bias),
            *linear(
                f"{block}.attention.dense", hidden, hidden, "attention", bias=bias, split=row(shape.heads)
            ),
            *plain_mlp(f"{block}.mlp", hidden, shape.width, bias=True, names=_MLP_NAMES),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    return causal_decoder(
        config,
        family="gpt_neox",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        embed_name="embed_in",
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.final_layer_norm", hidden),
    )
