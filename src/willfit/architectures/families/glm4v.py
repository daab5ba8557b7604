"""GLM-4.1V, 4.5V and 4.6V: a vision encoder that thins out patches by a convolution, on GLM-4 or GLM-4.5.

Source: transformers `models/glm4v`, `models/glm4v_moe`. The encoder's MLPs are as wide as its output;
`intermediate_size` in its section is the merger's.
"""

from __future__ import annotations

from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import column, layer_norm, linear, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    convolution,
    learned_positions,
    side_of,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tower
from willfit.checkpoints.config import Config

#: Defaults of `Glm4vVisionConfig` and `Glm4vMoeVisionConfig`.
_VISION = {
    "depth": 24, "hidden_size": 1536, "num_heads": 12, "image_size": 336, "patch_size": 14,
    "out_hidden_size": 4096, "intermediate_size": 13696, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip


#: The published processors scale an image down to at most 28 x 28 x 6144 pixels of two frames.
_IMAGE_TOKENS = 6144


def build(config: Config) -> Architecture:
    """The architecture of a GLM-4.1V, 4.5V or 4.6V config."""
    text = text_model(
        config,
        prefix="model.language_model",
        head_name="lm_head",
        text_type="glm4v_moe_text" if config.text("model_type") == "glm4v_moe" else "glm4",
        tying="either",
        attention_bias=True,
        partial_rotary_factor=0.5,
    )
    return with_towers(text, config, "glm4v", (_tower(vision_section(config, **_VISION)),))


def _tower(vision: Config) -> Tower:
    bias = vision.boolean("attention_bias", default=False)
    style = LayerStyle(
        norms=("norm1", "norm2"),
        projections=("attn.qkv", "attn.proj"),
        mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        rms=True,
        attention_bias=bias,
        output_bias=False,
        mlp_bias=False,
    )
    shape = tower_shape(vision, layers=("depth",), heads=("num_heads",), width=("out_hidden_size",))
    hidden, outputs, prefix = shape.hidden, vision.integer("out_hidden_size"), "model.visual"
    patch, merge = side_of(vision, "patch_size"), vision.integer("spatial_merge_size")
    kernel = (
        hidden,
        vision.integer("in_channels", default=3),
        vision.integer("temporal_patch_size"),
        patch,
        patch,
    )
    positions = (side_of(vision, "image_size") // patch) ** 2
    tensors = (
        *learned_positions(f"{prefix}.embeddings.position_embedding", positions, hidden, "vision"),
        *convolution(f"{prefix}.patch_embed.proj", kernel, "vision"),
        *rms_norm(f"{prefix}.post_conv_layernorm", hidden, "vision"),
        *tower_layers(f"{prefix}.blocks.{{layer}}", shape, style, "vision"),
        *rms_norm(f"{prefix}.post_layernorm", hidden, "vision"),
        *convolution(f"{prefix}.downsample", (outputs, hidden, merge, merge), "vision"),
        *linear(f"{prefix}.merger.proj", outputs, outputs, "vision", split=column(outputs)),
        *layer_norm(f"{prefix}.merger.post_projection_norm", outputs, part="vision"),
        *gated_mlp(f"{prefix}.merger", outputs, vision.integer("intermediate_size"), part="vision"),
    )
    return shape.tower("vision", tensors, _IMAGE_TOKENS, 4 * _IMAGE_TOKENS)
