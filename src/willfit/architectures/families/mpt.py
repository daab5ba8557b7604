"""MPT: ALiBi, layer norms without a shift, one fused projection, no biases.

Source: transformers `models/mpt/modeling_mpt.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "transformer", head_name: str = "lm_head") -> Architecture:
    """The architecture of an MPT config."""
    hidden = config.integer("d_model", "hidden_size")
    width = config.integer("expansion_ratio", default=4) * hidden
    shape = shape_of(config, width_default=width)
    attention = shape.attention()
    block = f"{prefix}.blocks.{{layer}}"
    layer = Layer(
        (
            *layer_norm(f"{block}.norm_1", hidden, bias=False),
            *fused_qkv(f"{block}.attn.Wqkv", hidden, attention),
            *linear(f"{block}.attn.out_proj", hidden, hidden, "attention", split=row(shape.heads)),
            *layer_norm(f"{block}.norm_2", hidden, bias=False),
            *plain_mlp(f"{block}.ffn", hidden, width),
        ),
        (attention,),
        FeedForward(width, gated=False),
    )
    return causal_decoder(
        config,
        family="mpt",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=shape.vocab,
        tied_default=True,
        prefix=prefix,
        embed_name="wte",
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.norm_f", hidden, bias=False),
    )
