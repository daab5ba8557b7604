"""GLM-5 Next with its vision encoder.

Source: transformers `models/glm5_next`; names as in the published checkpoint.
"""

from __future__ import annotations

from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import layer_norm, linear, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    convolution,
    stacked,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tower
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a GLM-5 Next config with text and vision sections."""
    text = text_model(config, prefix="model.language_model", head_name="lm_head", text_type="glm5_next_text")
    tower = _tower(vision_section(config), "model.visual")
    return with_towers(text, config, "glm5_next_vl", (tower,))


def _tower(vision: Config, prefix: str) -> Tower:
    shape = tower_shape(vision, layers=("depth",), heads=("num_heads",))
    bias = vision.boolean("attention_bias", default=True)
    style = LayerStyle(
        norms=("norm1", "norm2"),
        projections=("attn.qkv", "attn.proj"),
        mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        rms=True,
        attention_bias=bias,
        mlp_bias=bias,
    )
    block, merger = f"{prefix}.blocks.{{layer}}", f"{prefix}.merger"
    head_norms = (
        *rms_norm(f"{block}.attn.q_norm", shape.head_dim, "vision"),
        *rms_norm(f"{block}.attn.k_norm", shape.head_dim, "vision"),
    )
    patch = vision.integer("patch_size", default=14)
    frames, channels = (
        vision.integer("temporal_patch_size", default=2),
        vision.integer("in_channels", default=3),
    )
    merge, side = vision.integer("spatial_merge_size", default=2), vision.integer("image_size", default=0)
    hidden = vision.integer("out_hidden_size")
    tensors = (
        *convolution(f"{prefix}.patch_embed.proj", (shape.hidden, channels, frames, patch, patch), "vision"),
        *tower_layers(block, shape, style, "vision"),
        *stacked(head_norms, shape.layers),
        *linear(f"{merger}.proj", hidden, hidden, "vision"),
        *layer_norm(f"{merger}.post_projection_norm", hidden, part="vision"),
        *gated_mlp(merger, hidden, vision.integer("projection_intermediate_size"), part="vision"),
        *convolution(f"{prefix}.downsample", (hidden, shape.hidden, merge, merge), "vision"),
        *rms_norm(f"{prefix}.post_layernorm", shape.hidden, "vision"),
    )
    return shape.tower("vision", tensors, (side // (patch * merge)) ** 2)
