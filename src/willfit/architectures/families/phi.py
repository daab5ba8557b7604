"""Phi-1, Phi-1.5 and Phi-2: attention and a plain MLP side by side behind one layer norm, biases everywhere.

Source: transformers `models/phi/modeling_phi.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Phi config."""
    config = config.with_defaults(partial_rotary_factor=0.5)
    shape = shape_of(config)
    attention = shape.attention()
    block = f"{prefix}.layers.{{layer}}"
    query_key_norms = (
        *layer_norm(f"{block}.self_attn.q_layernorm", shape.head_dim),
        *layer_norm(f"{block}.self_attn.k_layernorm", shape.head_dim),
    )
    layer = Layer(
        (
            *layer_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(
                f"{block}.self_attn",
                shape.hidden,
                attention,
                bias=True,
                out_bias=True,
                names=("q_proj", "k_proj", "v_proj", "dense"),
            ),
            *(query_key_norms if config.boolean("qk_layernorm", default=False) else ()),
            *plain_mlp(f"{block}.mlp", shape.hidden, shape.width, bias=True, names=("fc1", "fc2")),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    return causal_decoder(
        config,
        family="phi",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        head_bias=True,
        final_norm=layer_norm(f"{prefix}.final_layernorm", shape.hidden),
    )
