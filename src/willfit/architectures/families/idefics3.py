"""Idefics3 and SmolVLM: a SigLIP encoder, pixel shuffle and one linear layer before a Llama.

Source: transformers `models/idefics3/modeling_idefics3.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.clip import siglip_encoder
from willfit.architectures.blocks.tensors import linear
from willfit.architectures.blocks.towers import text_model, vision_section, with_towers
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config

#: Defaults of `Idefics3VisionConfig`, which SmolVLM shares.
_VISION = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip

#: An image becomes up to 4 x 4 tiles and itself (the published processors' longest edge is 4 tiles).
_TILES = 17


def build(config: Config) -> Architecture:
    """The architecture of an Idefics3 or SmolVLM config."""
    text = text_model(config, prefix="model.text_model", head_name="lm_head")
    # The encoder has a post_layernorm but, unlike CLIP, neither class token nor first norm.
    shape, tensors, patches = siglip_encoder(vision_section(config, **_VISION), "model.vision_model")
    scale = config.integer("scale_factor", default=2)
    tensors += linear(
        "model.connector.modality_projection.proj", shape.hidden * scale**2, text.hidden_size, "vision"
    )
    tower = shape.tower("vision", tensors, _TILES * (patches // scale**2), _TILES * patches)
    return with_towers(text, config, "idefics3", (tower,))
