"""GLM-4 in the transformers layout: separate projections, a fused gate/up projection, RMS norms.

Source: transformers `models/glm/modeling_glm.py`, `models/glm4/modeling_glm4.py`. The newer models also
normalise what attention and MLP return.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import fused_gate_up_mlp
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a GLM-4 config."""
    config = config.with_defaults(partial_rotary_factor=0.5)
    shape = shape_of(config)
    attention = shape.attention()
    norms_after = config.text("model_type", default="glm") != "glm"
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(
                f"{block}.self_attn",
                shape.hidden,
                attention,
                bias=config.boolean("attention_bias", default=True),
            ),
            *(rms_norm(f"{block}.post_self_attn_layernorm", shape.hidden) if norms_after else ()),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *fused_gate_up_mlp(f"{block}.mlp", shape.hidden, shape.width),
            *(rms_norm(f"{block}.post_mlp_layernorm", shape.hidden) if norms_after else ()),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    return causal_decoder(
        config,
        family="glm",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
