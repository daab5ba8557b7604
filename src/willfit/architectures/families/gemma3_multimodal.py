"""Gemma 3 with its vision encoder: SigLIP, average pooling to a fixed number of tokens, one projection.

Source: transformers `models/gemma3/modeling_gemma3.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.clip import siglip_encoder
from willfit.architectures.blocks.tensors import parameter, rms_norm
from willfit.architectures.blocks.towers import text_model, vision_section, with_towers
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config

#: Defaults of `SiglipVisionConfig`.
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16,
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a multimodal Gemma 3 config."""
    text = text_model(
        config,
        prefix="language_model.model",
        head_name="language_model.lm_head",
        text_type="gemma3_text",
        tied_default=True,
    )
    shape, tensors, patches = siglip_encoder(vision_section(config, **_VISION), "vision_tower.vision_model")
    prefix = "multi_modal_projector"
    tensors += (
        *parameter(f"{prefix}.mm_input_projection_weight", (shape.hidden, text.hidden_size), "vision"),
        *rms_norm(f"{prefix}.mm_soft_emb_norm", shape.hidden, "vision"),
    )
    tower = shape.tower("vision", tensors, config.integer("mm_tokens_per_image", default=256), patches)
    return with_towers(text, config, "gemma3_multimodal", (tower,))
