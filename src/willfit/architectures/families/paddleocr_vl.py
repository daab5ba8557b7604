"""PaddleOCR-VL: SigLIP at the image's own size, a projector over two by two patches, and ERNIE 4.5.

Source: vLLM `model_executor/models/paddleocr_vl.py`; names as published with PaddlePaddle/PaddleOCR-VL. The
file also holds SigLIP's pooling head and a table of 32768 packed positions, which no engine loads.
"""

from __future__ import annotations

from willfit.architectures.blocks.clip import siglip_encoder
from willfit.architectures.blocks.tensors import layer_norm, linear
from willfit.architectures.blocks.towers import text_model, vision_section, with_towers
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config

#: Defaults of `PaddleOCRVisionConfig`.
_VISION = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14, "spatial_merge_size": 2,
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a PaddleOCR-VL config, whose language model's fields lie at the top or apart."""
    text = text_model(config, prefix="model", head_name="lm_head", text_type="ernie4_5", tied_default=True)
    vision = vision_section(config, **_VISION)
    shape, tensors, _ = siglip_encoder(vision, "visual.vision_model")
    merged = shape.hidden * vision.integer("spatial_merge_size") ** 2
    tensors += (
        *layer_norm("mlp_AR.pre_norm", shape.hidden, part="vision"),
        *linear("mlp_AR.linear_1", merged, merged, "vision", bias=True),
        *linear("mlp_AR.linear_2", merged, text.hidden_size, "vision", bias=True),
    )
    return with_towers(text, config, "paddleocr_vl", (shape.tower("vision", tensors),))
