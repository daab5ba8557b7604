"""Muse Glimmer: gated attention, sliding windows, norms around attention and MLP, a vision tower.

Source: transformers `models/muse_glimmer/modeling_muse_glimmer.py`. Its query/key norms have no parameters.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp, plain_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import column, layer_norm, linear, rms_norm
from willfit.architectures.blocks.towers import learned_positions, stacked
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, FeedForward, Layer, Tower
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Muse Glimmer config, or of its text section alone."""
    text = config.section("text_config")
    if text is None:
        return build_text(config)
    language = build_text(
        text.with_defaults(torch_dtype=config.raw("torch_dtype", "dtype")), "model.language_model"
    )
    vision = config.section("vision_config")
    tower = (_tower(config, vision, language.hidden_size),) if vision else ()
    return replace(language, model_type=config.text("model_type"), towers=tower)


def build_text(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Muse Glimmer text config, alone or inside a larger model."""
    shape = shape_of(config)
    hidden, inner = shape.hidden, shape.heads * shape.head_dim
    bias = config.boolean("attention_bias", default=False)

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        block = f"{prefix}.layers.{{layer}}"
        gate = linear(f"{block}.self_attn.gate_proj", hidden, inner, "attention", split=column(shape.heads))
        return Layer(
            (
                *rms_norm(f"{block}.input_layernorm", hidden),
                *attention_tensors(f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias),
                *gate,
                *rms_norm(f"{block}.post_attention_layernorm", hidden),
                *rms_norm(f"{block}.pre_feedforward_layernorm", hidden),
                *gated_mlp(f"{block}.mlp", hidden, shape.width),
                *rms_norm(f"{block}.post_feedforward_layernorm", hidden),
            ),
            (attention,),
            FeedForward(shape.width),
        )

    return causal_decoder(
        config,
        family="muse_glimmer",
        layers=repeated(layer, windows_of(config, shape.layers, default_pattern=4)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )


def _tower(config: Config, vision: Config, text_hidden: int) -> Tower:
    hidden, width = vision.integer("hidden_size"), vision.integer("intermediate_size")
    layers, heads = layer_count(vision), vision.integer("num_attention_heads")
    grid = vision.integer("pos_emb_height", default=32) * vision.integer("pos_emb_width", default=32)
    merge = vision.integer("merge_size", default=2)
    patch = vision.integer("patch_temporal", default=2) * 3 * vision.integer("patch_size", default=14) ** 2
    adapter_in = config.integer("out_hidden_size", default=6144)
    adapter = config.integer("projector_hidden_size", default=4096)
    attention = Attention(heads, heads, hidden // heads, hidden // heads, keeps_cache=False)
    name = "model.vision_tower"
    block = f"{name}.layers.{{layer}}"
    layer = (
        *layer_norm(f"{block}.norm1", hidden, part="vision"),
        *layer_norm(f"{block}.norm2", hidden, part="vision"),
        *attention_tensors(
            f"{block}.attn",
            hidden,
            attention,
            bias=True,
            out_bias=True,
            names=("q_proj", "k_proj", "v_proj", "proj"),
            part="vision",
        ),
        *plain_mlp(f"{block}.mlp", hidden, width, bias=True, part="vision", names=("fc1", "fc2")),
    )
    return Tower(
        "vision",
        (
            *linear(f"{name}.patch_embedder.patch_embedding", patch, hidden, "vision"),
            *learned_positions(f"{name}.patch_embedder.position_embedding_table", grid, hidden, "vision"),
            *layer_norm(f"{name}.ln_pre", hidden, part="vision"),
            *stacked(layer, layers),
            *layer_norm(f"{name}.ln_post", hidden, part="vision"),
            *linear("model.vision_adapter.fc1", adapter_in, adapter, "vision"),
            *linear("model.vision_adapter.fc2", adapter, adapter, "vision"),
            *linear("model.vision_projection", adapter, text_hidden, "vision"),
        ),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        width=width,
        tokens=grid // merge**2,
    )
