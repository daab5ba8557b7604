"""OLMo and EXAONE 4: Llama's projections with norms after attention and MLP, or without any scale.

Sources: transformers `models/olmo`, `models/olmo2`, `models/olmo3`, `models/exaone4`. OLMo's norms have no
parameters; OLMo 2 and 3 normalise all query and key heads together, EXAONE 4 each head.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of an OLMo, OLMo 2, OLMo 3 or EXAONE 4 config."""
    model_type = config.text("model_type")
    scaled = model_type != "olmo"
    per_head = model_type.startswith("exaone")
    pattern = config.raw("sliding_window_pattern")
    if isinstance(pattern, str):  # EXAONE 4 spells it out: LLLG
        config = Config({**config.fields, "sliding_window_pattern": len(pattern)}, config.where)
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        block = f"{prefix}.layers.{{layer}}"
        queries, keys = (1, 1) if per_head else (shape.heads, shape.kv_heads)
        query_key_norms = (
            *rms_norm(f"{block}.self_attn.q_norm", queries * shape.head_dim),
            *rms_norm(f"{block}.self_attn.k_norm", keys * shape.head_dim),
        )
        return Layer(
            (
                *attention_tensors(f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias),
                *(query_key_norms if scaled else ()),
                *(rms_norm(f"{block}.post_attention_layernorm", shape.hidden) if scaled else ()),
                *gated_mlp(f"{block}.mlp", shape.hidden, shape.width),
                *(rms_norm(f"{block}.post_feedforward_layernorm", shape.hidden) if scaled else ()),
            ),
            (attention,),
            FeedForward(shape.width),
        )

    slides = model_type in ("olmo3", "exaone4")
    return causal_decoder(
        config,
        family="post_normed",
        layers=repeated(layer, windows_of(config, shape.layers, default_pattern=4 if slides else 1)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        final_norm=None if scaled else (),
    )
