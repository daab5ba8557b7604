"""Kimi K3: MoonViT-V2 with a projector, on Kimi Linear's successor.

Source: the names and shapes of the published checkpoint.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    TowerShape,
    convolution,
    text_model,
    tower_layers,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.checkpoints.config import Config

_LAYER = LayerStyle(
    norms=("norm0", "norm1"),
    projections=("wqkv", "wo"),
    mlp=("mlp.fc0", "mlp.fc1"),
    rms=True,
    attention_bias=False,
    mlp_bias=False,
)


def build(config: Config) -> Architecture:
    """The architecture of a Kimi K3 config."""
    text = text_model(config, prefix="language_model.model", head_name="language_model.lm_head")
    return with_towers(text, config, "kimi_k3", (_tower(vision_section(config), text.hidden_size),))


def _tower(vision: Config, hidden: int) -> Tower:
    heads, width = vision.integer("vt_num_attention_heads"), vision.integer("vt_hidden_size")
    shape = TowerShape(
        hidden=width,
        layers=vision.integer("vt_num_hidden_layers"),
        heads=heads,
        width=vision.integer("vt_intermediate_size"),
        kv_heads=heads,
        head_dim=vision.integer("qkv_hidden_size", default=width) // heads,
    )
    patch = vision.integer("patch_size", default=14)
    rows, columns = vision.integer("init_pos_emb_height"), vision.integer("init_pos_emb_width")
    kernel = vision.integers("merge_kernel_size") or [2, 2]
    merged = width * kernel[0] * kernel[-1]
    tensors = (
        *convolution("vision_tower.patch_embed.proj", (width, 3, patch, patch), "vision", bias=False),
        Tensor("vision_tower.patch_embed.pos_emb.weight", (rows, columns, width), "vision", "other"),
        *tower_layers("vision_tower.encoder.blocks.{layer}", shape, _LAYER, "vision"),
        *rms_norm("vision_tower.encoder.final_layernorm", width, "vision"),
        *linear("mm_projector.proj.0", merged, merged, "vision"),
        *linear("mm_projector.proj.2", merged, hidden, "vision"),
        *rms_norm("mm_projector.post_norm", hidden, "vision"),
    )
    return shape.tower("vision", tensors)
