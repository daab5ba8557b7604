"""dots.ocr: a gated vision encoder whose patches are normed, a merger, and Qwen2.

Source: vLLM `model_executor/models/dots_ocr.py`; names as published with rednote-hilab/dots.ocr.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
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

_NORMS, _PROJECTIONS, _MLP = ("norm1", "norm2"), ("attn.qkv", "attn.proj"), ("mlp.fc1", "mlp.fc3", "mlp.fc2")

#: Defaults of `DotsVisionConfig`.
_VISION = {
    "embed_dim": 1536, "intermediate_size": 4224, "num_hidden_layers": 42, "num_attention_heads": 12,
    "patch_size": 14, "spatial_merge_size": 2,
}  # fmt: skip

#: The published processor scales an image down to at most 11,289,600 pixels: 28 x 28 of them are a token.
_IMAGE_TOKENS = 14400


def build(config: Config) -> Architecture:
    """The architecture of a dots.ocr config, whose language model's fields lie at the top."""
    text = text_model(config, prefix="model", head_name="lm_head", text_type="qwen2")
    vision = vision_section(config, **_VISION)
    shape = tower_shape(vision, hidden=("embed_dim",))
    bias = vision.boolean("use_bias", default=False)
    style = LayerStyle(_NORMS, _PROJECTIONS, _MLP, rms=True, attention_bias=bias, mlp_bias=bias)
    prefix, patch = "vision_tower", side_of(vision, "patch_size")
    merged = shape.hidden * vision.integer("spatial_merge_size") ** 2
    tensors = (
        *convolution(f"{prefix}.patch_embed.patchifier.proj", (shape.hidden, 3, patch, patch), "vision"),
        *rms_norm(f"{prefix}.patch_embed.patchifier.norm", shape.hidden, "vision"),
        *tower_layers(f"{prefix}.blocks.{{layer}}", shape, style, "vision"),
        *rms_norm(f"{prefix}.post_trunk_norm", shape.hidden, "vision"),
        *layer_norm(f"{prefix}.merger.ln_q", shape.hidden, part="vision"),
        *linear(f"{prefix}.merger.mlp.0", merged, merged, "vision", bias=True),
        *linear(f"{prefix}.merger.mlp.2", merged, text.hidden_size, "vision", bias=True),
    )
    return with_towers(text, config, "dots_ocr", (shape.tower("vision", tensors, _IMAGE_TOKENS),))
