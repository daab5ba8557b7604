"""Persimmon, and Fuyu, which feeds image patches into it through one linear layer.

Sources: transformers `models/persimmon/modeling_persimmon.py`, `models/fuyu/modeling_fuyu.py`.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer, Tower
from willfit.checkpoints.config import Config

_MLP_NAMES = ("dense_h_to_4h", "dense_4h_to_h")


def build(config: Config) -> Architecture:
    """The architecture of a Persimmon or Fuyu config."""
    if config.text("model_type") != "fuyu":
        return build_text(config)
    text = config.section("text_config") or config
    language = build_text(
        text.with_defaults(torch_dtype=config.raw("torch_dtype", "dtype")),
        "language_model.model",
        "language_model.lm_head",
    )
    patch = config.integer("patch_size", default=30)
    hidden = language.hidden_size
    values = patch * patch * config.integer("num_channels", default=3)
    tower = Tower(
        "vision",
        linear("vision_embed_tokens", values, hidden, "vision", bias=True),
        hidden_size=hidden,
        layers=0,
        heads=0,
        width=0,
    )
    return replace(language, model_type="fuyu", towers=(tower,))


def build_text(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Persimmon config, alone or inside a larger model."""
    config = config.with_defaults(partial_rotary_factor=0.5)
    shape = shape_of(config)
    attention = shape.attention()
    inner = shape.heads * shape.head_dim
    block = f"{prefix}.layers.{{layer}}"
    query_key_norms = (
        *layer_norm(f"{block}.self_attn.q_layernorm", shape.head_dim),
        *layer_norm(f"{block}.self_attn.k_layernorm", shape.head_dim),
    )
    layer = Layer(
        (
            *layer_norm(f"{block}.input_layernorm", shape.hidden),
            *fused_qkv(f"{block}.self_attn.query_key_value", shape.hidden, attention, bias=True),
            *linear(
                f"{block}.self_attn.dense",
                inner,
                shape.hidden,
                "attention",
                bias=True,
                split=row(shape.heads),
            ),
            *(query_key_norms if config.boolean("qk_layernorm", default=True) else ()),
            *layer_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *plain_mlp(f"{block}.mlp", shape.hidden, shape.width, bias=True, names=_MLP_NAMES),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    return causal_decoder(
        config,
        family="persimmon",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.final_layernorm", shape.hidden),
    )
