"""InternLM2: Llama's shapes with a fused query/key/value projection and names of its own.

Source: `modeling_internlm2.py` as published with internlm/internlm2-chat-7b.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import linear, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "output") -> Architecture:
    """The architecture of an InternLM2 config."""
    shape = shape_of(config)
    bias = config.boolean("bias", default=False)
    attention = shape.attention()
    inner = shape.heads * shape.head_dim
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *rms_norm(f"{block}.attention_norm", shape.hidden),
            *fused_qkv(f"{block}.attention.wqkv", shape.hidden, attention, bias=bias),
            *linear(
                f"{block}.attention.wo", inner, shape.hidden, "attention", bias=bias, split=row(shape.heads)
            ),
            *rms_norm(f"{block}.ffn_norm", shape.hidden),
            *gated_mlp(f"{block}.feed_forward", shape.hidden, shape.width, names=("w1", "w3", "w2")),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    return causal_decoder(
        config,
        family="internlm2",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        embed_name="tok_embeddings",
        head_name=head_name,
    )
