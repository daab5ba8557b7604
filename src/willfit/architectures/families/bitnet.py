"""BitNet b1.58: Llama with a norm before each output projection, for ternary weights.

Source: transformers `models/bitnet/modeling_bitnet.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a BitNet config."""
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)
    attention = shape.attention()
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias),
            *rms_norm(f"{block}.self_attn.attn_sub_norm", shape.hidden),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *gated_mlp(f"{block}.mlp", shape.hidden, shape.width),
            *rms_norm(f"{block}.mlp.ffn_sub_norm", shape.width),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    return causal_decoder(
        config,
        family="bitnet",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
