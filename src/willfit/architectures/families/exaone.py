"""EXAONE 3 and 3.5: Llama's shapes under GPT-2's names.

Source: `modeling_exaone.py` as published with LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "transformer", head_name: str = "lm_head") -> Architecture:
    """The architecture of an EXAONE 3 config."""
    shape = shape_of(config)
    attention = shape.attention()
    block = f"{prefix}.h.{{layer}}"
    layer = Layer(
        (
            *rms_norm(f"{block}.ln_1", shape.hidden),
            *attention_tensors(
                f"{block}.attn.attention",
                shape.hidden,
                attention,
                names=("q_proj", "k_proj", "v_proj", "out_proj"),
            ),
            *rms_norm(f"{block}.ln_2", shape.hidden),
            *gated_mlp(f"{block}.mlp", shape.hidden, shape.width, names=("c_fc_0", "c_fc_1", "c_proj")),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    return causal_decoder(
        config,
        family="exaone",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        embed_name="wte",
        norm_name="ln_f",
        head_name=head_name,
    )
