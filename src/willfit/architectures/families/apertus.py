"""Apertus: a plain MLP whose activation (xIELU) has two parameters, and normalised queries and keys.

Source: transformers `models/apertus/modeling_apertus.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import parameter, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of an Apertus config."""
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)
    attention = shape.attention()
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *rms_norm(f"{block}.attention_layernorm", shape.hidden),
            *attention_tensors(
                f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias, qk_norm=True
            ),
            *rms_norm(f"{block}.feedforward_layernorm", shape.hidden),
            *plain_mlp(f"{block}.mlp", shape.hidden, shape.width),
            *parameter(f"{block}.mlp.act_fn.alpha_p", (1,), "mlp"),
            *parameter(f"{block}.mlp.act_fn.alpha_n", (1,), "mlp"),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    return causal_decoder(
        config,
        family="apertus",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
