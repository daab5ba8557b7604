"""Llama 3.2 Vision: a tiled vision encoder, and a Llama in which some layers attend over the image only.

Source: transformers `models/mllama/modeling_mllama.py`. A cross-attention layer has no
self-attention. It keeps keys and values of the image: all tiles, each of its patches and a class token.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import Shape, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import embedding, layer_norm, linear, parameter, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    convolution,
    learned_positions,
    side_of,
    stacked,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.mixers import CrossAttention
from willfit.architectures.model import Architecture, FeedForward, Layer, Tower
from willfit.checkpoints.config import Config

_LAYER = LayerStyle(
    norms=("input_layernorm", "post_attention_layernorm"),
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    mlp=("mlp.fc1", "mlp.fc2"),
    attention_bias=False,
)

#: Defaults of `MllamaVisionConfig` and `MllamaTextConfig`.
_VISION = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8,
    "attention_heads": 16, "image_size": 448, "patch_size": 14, "max_num_tiles": 4, "vision_output_dim": 7680,
}  # fmt: skip
_TEXT = {
    "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
}  # fmt: skip

#: The token table has rows for tokens that are never produced (`<|image|>` and padding).
_EXTRA_ROWS = 8

#: Ways to arrange up to four tiles.
_ASPECT_RATIOS = 8


def build(config: Config) -> Architecture:
    """The architecture of a Llama 3.2 Vision config."""
    vision = vision_section(config, **_VISION)
    text = (config.section("text_config") or config).with_defaults(**_TEXT)
    shape = shape_of(text)
    positions = (side_of(vision, "image_size") // side_of(vision, "patch_size")) ** 2 + 1
    source = vision.integer("max_num_tiles") * positions
    crossing = set(text.integers("cross_attention_layers"))
    prefix = "language_model.model"
    decoder = causal_decoder(
        text,
        family="mllama",
        layers=repeated(
            lambda crosses: _layer(f"{prefix}.layers.{{layer}}", shape, source if crosses else 0),
            [index in crossing for index in range(shape.layers)],
        ),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name="language_model.lm_head",
        embeddings=embedding(f"{prefix}.embed_tokens", shape.vocab + _EXTRA_ROWS, shape.hidden),
    )
    tower = _tower(vision, positions, shape.hidden)
    return with_towers(decoder, config, "mllama", (tower,), encoder_tokens=source)


def _layer(prefix: str, shape: Shape, source: int) -> Layer:
    """A decoder layer; with `source` positions to look at, a cross-attention layer with its gates."""
    attention = shape.attention()
    hidden = shape.hidden
    if source:
        mixing = (
            *parameter(f"{prefix}.cross_attn_attn_gate", (1,), "attention"),
            *parameter(f"{prefix}.cross_attn_mlp_gate", (1,), "mlp"),
            *attention_tensors(f"{prefix}.cross_attn", hidden, attention, qk_norm=True),
        )
    else:
        mixing = attention_tensors(f"{prefix}.self_attn", hidden, attention)
    return Layer(
        (
            *rms_norm(f"{prefix}.input_layernorm", hidden),
            *mixing,
            *rms_norm(f"{prefix}.post_attention_layernorm", hidden),
            *gated_mlp(f"{prefix}.mlp", hidden, shape.width),
        ),
        (CrossAttention(shape.heads, shape.kv_heads, shape.head_dim, source) if source else attention,),
        FeedForward(shape.width),
    )


def _tower(vision: Config, positions: int, text_hidden: int) -> Tower:
    """Local layers over each tile, then global layers over all tiles; outputs of several layers are kept."""
    shape = tower_shape(vision, heads=("attention_heads", "num_attention_heads"))
    hidden, prefix = shape.hidden, "vision_model"
    tiles, patch = vision.integer("max_num_tiles"), side_of(vision, "patch_size")
    # One row for each way to arrange the tiles, and one for padding.
    rows = len(vision.items("supported_aspect_ratios") or range(_ASPECT_RATIOS)) + 1
    kernel = (hidden, vision.integer("num_channels", default=3), patch, patch)
    gated, global_layer = (
        f"{prefix}.gated_positional_embedding",
        f"{prefix}.global_transformer.layers.{{layer}}",
    )
    gates = (
        *parameter(f"{global_layer}.gate_attn", (1,), "vision"),
        *parameter(f"{global_layer}.gate_ffn", (1,), "vision"),
    )
    global_layers = vision.integer("num_global_layers")
    tensors = (
        *parameter(f"{prefix}.class_embedding", (hidden,), "vision"),
        *convolution(f"{prefix}.patch_embedding", kernel, "vision", bias=False),
        *parameter(f"{gated}.gate", (1,), "vision"),
        *parameter(f"{gated}.embedding", (positions, hidden), "vision"),
        *learned_positions(f"{gated}.tile_embedding", rows, tiles * positions * hidden, "vision"),
        *(
            tensor
            for name in ("pre_tile_positional_embedding", "post_tile_positional_embedding")
            for tensor in (
                *parameter(f"{prefix}.{name}.gate", (1,), "vision"),
                *learned_positions(f"{prefix}.{name}.embedding", rows, tiles * hidden, "vision"),
            )
        ),
        *layer_norm(f"{prefix}.layernorm_pre", hidden, part="vision"),
        *tower_layers(f"{prefix}.transformer.layers.{{layer}}", shape, _LAYER, "vision"),
        *tower_layers(global_layer, shape, _LAYER, "vision", layers=global_layers),
        *stacked(gates, global_layers),
        *layer_norm(f"{prefix}.layernorm_post", hidden, part="vision"),
        *linear(
            "multi_modal_projector", vision.integer("vision_output_dim"), text_hidden, "vision", bias=True
        ),
    )
    return Tower("vision", tensors, hidden, shape.layers + global_layers, shape.heads, shape.width)
