"""MiniMax-M3 with its vision encoder: CLIP's layers with rotary positions, a projector that merges patches.

Source: transformers `models/minimax_m3_vl` and, for the checkpoint's names, its `conversion_mapping.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear
from willfit.architectures.blocks.towers import (
    CLIP_LAYER,
    convolution,
    side_of,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config

#: Defaults of `MiniMaxM3VLVisionConfig`.
_VISION = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "image_size": 2016, "patch_size": 14,
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a multimodal MiniMax-M3 config."""
    text = text_model(
        config,
        prefix="language_model.model",
        head_name="language_model.lm_head",
        text_type="minimax_m3_vl_text",
        tying="either",
    )
    vision = vision_section(config, **_VISION)
    shape = tower_shape(vision)
    hidden, patch, prefix = shape.hidden, side_of(vision, "patch_size"), "vision_tower.vision_model"
    compression = vision.section("img_token_compression_config") or vision
    merge = compression.integer("spatial_merge_size", default=2)
    frames = compression.integer("temporal_patch_size", default=2)
    kernel = (hidden, vision.integer("num_channels", default=3), frames, patch, patch)
    outputs, inner = text.hidden_size, config.integer("projector_hidden_size", default=6144)
    tensors = (
        *convolution(f"{prefix}.embeddings.patch_embedding", kernel, "vision", bias=False),
        *layer_norm(f"{prefix}.pre_layrnorm", hidden, part="vision"),
        *tower_layers(f"{prefix}.encoder.layers.{{layer}}", shape, CLIP_LAYER, "vision"),
        *linear("multi_modal_projector.linear_1", hidden, inner, "vision", bias=True),
        *linear("multi_modal_projector.linear_2", inner, outputs, "vision", bias=True),
        *linear("patch_merge_mlp.linear_1", outputs * merge**2, inner, "vision", bias=True),
        *linear("patch_merge_mlp.linear_2", inner, outputs, "vision", bias=True),
    )
    tokens = (side_of(vision, "image_size") // patch // merge) ** 2
    return with_towers(text, config, "minimax_m3_multimodal", (shape.tower("vision", tensors, tokens),))
