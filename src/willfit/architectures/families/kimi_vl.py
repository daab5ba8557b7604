"""Kimi-VL and Kimi K2.5: MoonViT, which takes images of any size, on a DeepSeek-V3 language model.

Sources: `modeling_kimi_vl.py` as published with moonshotai/Kimi-VL-A3B-Instruct; transformers
`models/kimi_k25` and, for the checkpoint's names, its `conversion_mapping.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear, parameter
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

_LAYER = LayerStyle(norms=("norm0", "norm1"), projections=("wqkv", "wo"), mlp=("mlp.fc0", "mlp.fc1"))

#: Defaults of `MoonViTConfig` and of Kimi K2.5's vision section, in the latter's spelling.
_VISION = {
    "vt_hidden_size": 1152, "vt_intermediate_size": 4304, "vt_num_hidden_layers": 27,
    "vt_num_attention_heads": 16, "init_pos_emb_height": 64, "init_pos_emb_width": 64,
    "merge_kernel_size": [2, 2], "patch_size": 14,
}  # fmt: skip


#: Tokens and patches of the largest image: processors take at most 4,096 patches, padded to whole squares, or 16,384.
_LARGEST = {"kimi_vl": (33**2, 66**2), "kimi_k25": (4096, 16384)}


def build(config: Config) -> Architecture:
    """The architecture of a Kimi-VL or Kimi K2.5 config."""
    text = text_model(config, prefix="language_model.model", head_name="language_model.lm_head")
    vision = vision_section(config, **_VISION)
    shape = tower_shape(
        vision,
        hidden=("hidden_size", "vt_hidden_size"),
        layers=("num_hidden_layers", "vt_num_hidden_layers"),
        heads=("num_attention_heads", "vt_num_attention_heads"),
        width=("intermediate_size", "vt_intermediate_size"),
    )
    hidden, patch = shape.hidden, side_of(vision, "patch_size")
    height = vision.integer("pos_emb_height", "init_pos_emb_height")
    positions = (height, vision.integer("pos_emb_width", "init_pos_emb_width"), hidden)
    merged = hidden
    for merge in vision.integers("merge_kernel_size"):
        merged *= merge
    if config.text("model_type") == "kimi_vl":
        norm, first, second = (
            f"multi_modal_projector.{name}" for name in ("pre_norm", "linear_1", "linear_2")
        )
    else:
        norm, first, second = (f"mm_projector.{name}" for name in ("pre_norm", "proj.0", "proj.2"))
    tensors = (
        *convolution("vision_tower.patch_embed.proj", (hidden, 3, patch, patch), "vision"),
        *parameter("vision_tower.patch_embed.pos_emb.weight", positions, "vision"),
        *tower_layers("vision_tower.encoder.blocks.{layer}", shape, _LAYER, "vision"),
        *layer_norm("vision_tower.encoder.final_layernorm", hidden, part="vision"),
        *layer_norm(norm, hidden, part="vision"),
        *linear(first, merged, merged, "vision", bias=True),
        *linear(second, merged, text.hidden_size, "vision", bias=True),
    )
    return with_towers(
        text, config, "kimi_vl", (shape.tower("vision", tensors, *_LARGEST[config.text("model_type")]),)
    )
