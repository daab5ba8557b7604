"""ERNIE 4.5-VL: a vision encoder, a resampler over space and time, a text model with two kinds of experts.

Source: transformers `models/ernie4_5_vl_moe` and, for the checkpoint's names, its `conversion_mapping.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    side_of,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config

_LAYER = LayerStyle(
    norms=("norm1", "norm2"), projections=("attn.qkv", "attn.proj"), mlp=("mlp.fc1", "mlp.fc2")
)

#: Defaults of `Ernie4_5_VLMoeVisionConfig`.
_VISION = {
    "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 5120, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_merge_size": 2,
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of an ERNIE 4.5-VL config."""
    text = text_model(
        config, prefix="model", head_name="lm_head", text_type="ernie4_5_vl_moe_text", tied_default=True
    )
    vision = vision_section(config, **_VISION)
    shape = tower_shape(vision, layers=("depth",), heads=("num_heads",))
    pixels = vision.integer("in_channels", default=3) * side_of(vision, "patch_size") ** 2
    spatial = shape.hidden * vision.integer("spatial_merge_size") ** 2
    temporal = spatial * vision.integer("temporal_merge_size")
    resampler = "model.resampler_model"
    tensors = (
        *linear("vision_model.patch_embed.proj", pixels, shape.hidden, "vision"),
        *tower_layers("vision_model.blocks.{layer}", shape, _LAYER, "vision"),
        *layer_norm("vision_model.ln", shape.hidden, part="vision"),
        *_merge(f"{resampler}.spatial_linear", spatial, spatial),
        *_merge(f"{resampler}.temporal_linear", temporal, spatial),
        *linear(f"{resampler}.mlp", spatial, text.hidden_size, "vision", bias=True),
        *rms_norm(f"{resampler}.after_norm", text.hidden_size, "vision"),
    )
    return with_towers(text, config, "ernie4_5_vl", (shape.tower("vision", tensors),))


def _merge(prefix: str, inputs: int, outputs: int) -> tuple[Tensor, ...]:
    return (
        *linear(f"{prefix}.0", inputs, outputs, "vision", bias=True),
        *linear(f"{prefix}.2", outputs, outputs, "vision", bias=True),
        *layer_norm(f"{prefix}.3", outputs, part="vision"),
    )
