"""Phi-3-vision: CLIP ViT-L/14 at 336 pixels, squares of four patches, two linear layers, Phi-3.

Source: `modeling_phi3_v.py` as published with microsoft/Phi-3.5-vision-instruct. The config names the encoder
but not its widths.
"""

from __future__ import annotations

from willfit.architectures.blocks.clip import clip_encoder
from willfit.architectures.blocks.tensors import linear, parameter
from willfit.architectures.blocks.towers import text_model, with_towers
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config

#: openai/clip-vit-large-patch14-336.
_CLIP = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14,
}  # fmt: skip

#: The published processors cut an image into up to 16 crops: 144 tokens each and for the whole, 12 that end
#: the rows of patches for each row of crops and for the whole, one between.
_IMAGE_TOKENS = 17 * 144 + 5 * 12 + 1


def build(config: Config) -> Architecture:
    """The architecture of a Phi-3-vision config."""
    text = text_model(config, prefix="model", head_name="lm_head", text_type="phi3")
    prefix = "model.vision_embed_tokens"
    shape, encoder, patches = clip_encoder(
        Config(_CLIP, config.where), f"{prefix}.img_processor.vision_model"
    )
    merged = 4 * shape.hidden
    tensors = (
        *encoder,
        *parameter(f"{prefix}.glb_GN", (1, 1, merged), "vision"),
        *parameter(f"{prefix}.sub_GN", (1, 1, 1, merged), "vision"),
        *linear(f"{prefix}.img_projection.0", merged, text.hidden_size, "vision", bias=True),
        *linear(f"{prefix}.img_projection.2", text.hidden_size, text.hidden_size, "vision", bias=True),
    )
    return with_towers(
        text, config, "phi3_v", (shape.tower("vision", tensors, _IMAGE_TOKENS, 17 * (patches + 1)),)
    )
