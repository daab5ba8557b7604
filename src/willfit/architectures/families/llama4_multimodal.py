"""Llama 4 with its vision encoder: a ViT per tile, pixel shuffle, an adapter, one projection.

Source: transformers `models/llama4/modeling_llama4.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear, parameter
from willfit.architectures.blocks.towers import (
    LayerStyle,
    side_of,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config

_LAYER = LayerStyle(
    norms=("input_layernorm", "post_attention_layernorm"),
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    mlp=("mlp.fc1", "mlp.fc2"),
)

#: Defaults of `Llama4VisionConfig`.
_VISION = {
    "hidden_size": 768, "intermediate_size": 5632, "num_hidden_layers": 34, "num_attention_heads": 16,
    "image_size": 448, "patch_size": 14, "vision_output_dim": 7680, "projector_input_dim": 4096,
    "projector_output_dim": 4096, "pixel_shuffle_ratio": 0.5,
}  # fmt: skip

#: The published processor cuts an image into up to 16 tiles, beside the whole.
_TILES = 17


def build(config: Config) -> Architecture:
    """The architecture of a multimodal Llama 4 config."""
    text = text_model(
        config, prefix="language_model.model", head_name="language_model.lm_head", text_type="llama4_text"
    )
    vision = vision_section(config, **_VISION)
    shape = tower_shape(vision)
    hidden, patch, prefix = shape.hidden, side_of(vision, "patch_size"), "vision_model"
    patches = (side_of(vision, "image_size") // patch) ** 2
    pixels = vision.integer("num_channels", default=3) * patch**2
    inner, outputs = vision.integer("projector_input_dim"), vision.integer("projector_output_dim")
    bias = vision.boolean("multi_modal_projector_bias", default=False)
    tensors = (
        *parameter(f"{prefix}.class_embedding", (hidden,), "vision"),
        *parameter(f"{prefix}.positional_embedding_vlm", (patches + 1, hidden), "vision"),
        *linear(f"{prefix}.patch_embedding.linear", pixels, hidden, "vision"),
        *layer_norm(f"{prefix}.layernorm_pre", hidden, part="vision"),
        *tower_layers(f"{prefix}.model.layers.{{layer}}", shape, _LAYER, "vision"),
        *layer_norm(f"{prefix}.layernorm_post", hidden, part="vision"),
        *linear(f"{prefix}.vision_adapter.mlp.fc1", shape.width, inner, "vision", bias=bias),
        *linear(f"{prefix}.vision_adapter.mlp.fc2", outputs, outputs, "vision", bias=bias),
        *linear(
            "multi_modal_projector.linear_1", vision.integer("vision_output_dim"), text.hidden_size, "vision"
        ),
    )
    tokens = _TILES * int(patches * vision.number("pixel_shuffle_ratio") ** 2)
    return with_towers(
        text, config, "llama4_multimodal", (shape.tower("vision", tensors, tokens, _TILES * (patches + 1)),)
    )
