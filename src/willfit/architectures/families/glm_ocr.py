"""GLM-OCR: GLM-4.1V's way of thinning out patches, an encoder that norms each head, and GLM-4 without biases.

Source: transformers `models/glm_ocr`; vLLM `model_executor/models/glm_ocr_mtp.py` for the prediction module,
whose names are those of DeepSeek's. The encoder has no table of positions.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import bounded_count
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.mtp import deepseek_mtp_tensors, mtp_modules
from willfit.architectures.blocks.tensors import column, layer_norm, linear, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    convolution,
    side_of,
    stacked,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tower
from willfit.checkpoints.config import Config

#: Defaults of `GlmOcrVisionConfig`.
_VISION = {
    "depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096, "patch_size": 14,
    "out_hidden_size": 1536, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
    "attention_bias": True,
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a GLM-OCR config."""
    prefix = "model.language_model"
    text = text_model(
        config,
        prefix=prefix,
        head_name="lm_head",
        text_type="glm4",
        attention_bias=False,
        partial_rotary_factor=1.0,
    )
    section = config.section("text_config") or config
    count = bounded_count(section, "num_nextn_predict_layers", default=0)
    own = deepseek_mtp_tensors(f"{prefix}.layers.{{layer}}", text.hidden_size, text.vocab_size, copies=True)
    last = text.layers[-1]
    modules = (replace(last, tensors=last.tensors + own),) * count
    tower = _tower(vision_section(config, **_VISION))
    return with_towers(
        text, config, "glm_ocr", (tower,), **(mtp_modules(modules, first=len(text.layers)) if count else {})
    )


def _tower(vision: Config) -> Tower:
    bias = vision.boolean("attention_bias")
    style = LayerStyle(
        norms=("norm1", "norm2"),
        projections=("attn.qkv", "attn.proj"),
        mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        rms=True,
        attention_bias=bias,
        mlp_bias=bias,
    )
    shape = tower_shape(vision, layers=("depth",), heads=("num_heads",))
    prefix, block = "model.visual", "model.visual.blocks.{layer}"
    outputs, channels = vision.integer("out_hidden_size"), vision.integer("in_channels")
    patch, merge = side_of(vision, "patch_size"), vision.integer("spatial_merge_size")
    kernel = (shape.hidden, channels, vision.integer("temporal_patch_size"), patch, patch)
    norms = (
        *rms_norm(f"{block}.attn.q_norm", shape.head_dim, part="vision"),
        *rms_norm(f"{block}.attn.k_norm", shape.head_dim, part="vision"),
    )
    tensors = (
        *convolution(f"{prefix}.patch_embed.proj", kernel, "vision"),
        *tower_layers(block, shape, style, "vision"),
        *stacked(norms, shape.layers),
        *rms_norm(f"{prefix}.post_layernorm", shape.hidden, part="vision"),
        *convolution(f"{prefix}.downsample", (outputs, shape.hidden, merge, merge), "vision"),
        *linear(f"{prefix}.merger.proj", outputs, outputs, "vision", split=column(outputs)),
        *layer_norm(f"{prefix}.merger.post_projection_norm", outputs, part="vision"),
        *gated_mlp(f"{prefix}.merger", outputs, outputs * channels, part="vision"),
    )
    return shape.tower("vision", tensors)
