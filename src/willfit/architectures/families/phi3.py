"""Phi-3, Phi-3.5 and Phi-4: Llama with fused query/key/value and gate/up projections.

Source: transformers `models/phi3/modeling_phi3.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_gate_up_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import linear, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Phi-3 config."""
    shape = shape_of(config)
    hidden, inner = shape.hidden, shape.heads * shape.head_dim

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        block = f"{prefix}.layers.{{layer}}"
        return Layer(
            (
                *rms_norm(f"{block}.input_layernorm", hidden),
                *fused_qkv(f"{block}.self_attn.qkv_proj", hidden, attention),
                *linear(f"{block}.self_attn.o_proj", inner, hidden, "attention", split=row(shape.heads)),
                *rms_norm(f"{block}.post_attention_layernorm", hidden),
                *fused_gate_up_mlp(f"{block}.mlp", hidden, shape.width),
            ),
            (attention,),
            FeedForward(shape.width),
        )

    return causal_decoder(
        config,
        family="phi3",
        layers=repeated(layer, windows_of(config, shape.layers, always=True)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
