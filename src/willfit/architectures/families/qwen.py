"""The first Qwen: fused query/key/value with a bias, and an `intermediate_size` that counts gate and up.

Source: `modeling_qwen.py` as published with Qwen/Qwen-7B-Chat.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import linear, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "transformer", head_name: str = "lm_head") -> Architecture:
    """The architecture of a first-generation Qwen config."""
    shape = shape_of(config.with_defaults(head_dim=config.raw("kv_channels")))
    bias = not config.boolean("no_bias", default=True)
    width = shape.width // 2
    attention = shape.attention()
    inner = shape.heads * shape.head_dim
    block = f"{prefix}.h.{{layer}}"
    layer = Layer(
        (
            *rms_norm(f"{block}.ln_1", shape.hidden),
            *fused_qkv(f"{block}.attn.c_attn", shape.hidden, attention, bias=True),
            *linear(
                f"{block}.attn.c_proj", inner, shape.hidden, "attention", bias=bias, split=row(shape.heads)
            ),
            *rms_norm(f"{block}.ln_2", shape.hidden),
            *gated_mlp(f"{block}.mlp", shape.hidden, width, bias=bias, names=("w1", "w2", "c_proj")),
        ),
        (attention,),
        FeedForward(width),
    )
    return causal_decoder(
        config,
        family="qwen",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        embed_name="wte",
        norm_name="ln_f",
        head_name=head_name,
    )
