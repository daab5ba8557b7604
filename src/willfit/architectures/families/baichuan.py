"""Baichuan and Baichuan 2: Llama with one fused projection `W_pack`; the 13B models use ALiBi.

Source: `modeling_baichuan.py` as published with baichuan-inc/Baichuan2-7B-Chat and -13B-Chat. Their configs
do not name the position method; as in vLLM's `baichuan.py`, a hidden size of 4096 means rotary embedding.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import linear, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

_ROTARY_HIDDEN = 4096


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Baichuan config."""
    shape = shape_of(config)
    attention = shape.attention()
    inner = shape.heads * shape.head_dim
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *fused_qkv(f"{block}.self_attn.W_pack", shape.hidden, attention),
            *linear(f"{block}.self_attn.o_proj", inner, shape.hidden, "attention", split=row(shape.heads)),
            *gated_mlp(f"{block}.mlp", shape.hidden, shape.width),
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    return causal_decoder(
        config.with_defaults(max_position_embeddings=config.raw("model_max_length")),
        family="baichuan",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim if shape.hidden == _ROTARY_HIDDEN else 0,
        prefix=prefix,
        head_name=head_name,
    )
