"""Kimi-K3: the vision tower MoonViT in its second version, on the successor of Kimi Linear.

Source: names and shapes of the published checkpoint.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.tensors import column, linear, rms_norm, row
from willfit.architectures.blocks.towers import convolution, learned_positions, stacked, tower_shape
from willfit.architectures.families import kimi_linear
from willfit.architectures.model import Architecture, Tower
from willfit.checkpoints.config import Config


def build(
    config: Config, prefix: str = "language_model.model", head_name: str = "language_model.lm_head"
) -> Architecture:
    """The architecture of a Kimi-K3 config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint.
    """
    vision = config.section("vision_config")
    decoder = kimi_linear.build(config.section("text_config") or config, prefix, head_name)
    return replace(
        decoder,
        model_type=config.text("model_type", default="kimi_k3"),
        family="kimi_k3",
        towers=(_tower(vision, decoder.hidden_size),) if vision else (),
    )


def _tower(config: Config, text_hidden: int) -> Tower:
    """MoonViT in its second version: RMS norms, no biases, attention wider than the stream."""
    shape = tower_shape(
        config,
        hidden=("vt_hidden_size",),
        layers=("vt_num_hidden_layers",),
        heads=("vt_num_attention_heads",),
        width=("vt_intermediate_size",),
    )
    hidden, heads = shape.hidden, shape.heads
    inner = config.integer("qkv_hidden_size", default=hidden)
    patch = config.integer("patch_size")
    merged = hidden
    for side in config.integers("merge_kernel_size"):
        merged *= side
    rows = config.integer("init_pos_emb_height") * config.integer("init_pos_emb_width")
    block = "vision_tower.encoder.blocks.{layer}"
    layer = (
        *rms_norm(f"{block}.norm0", hidden, part="vision"),
        *linear(f"{block}.wqkv", hidden, 3 * inner, "vision", split=column(heads)),
        *linear(f"{block}.wo", inner, hidden, "vision", split=row(heads)),
        *rms_norm(f"{block}.norm1", hidden, part="vision"),
        *linear(f"{block}.mlp.fc0", hidden, shape.width, "vision", split=column(shape.width)),
        *linear(f"{block}.mlp.fc1", shape.width, hidden, "vision", split=row(shape.width)),
    )
    tensors = (
        *convolution("vision_tower.patch_embed.proj", (hidden, 3, patch, patch), "vision", bias=False),
        *learned_positions("vision_tower.patch_embed.pos_emb", rows, hidden, "vision"),
        *stacked(layer, shape.layers),
        *rms_norm("vision_tower.encoder.final_layernorm", hidden, part="vision"),
        *linear("mm_projector.proj.0", merged, merged, "vision"),
        *linear("mm_projector.proj.2", merged, text_hidden, "vision"),
        *rms_norm("mm_projector.post_norm", text_hidden, part="vision"),
    )
    return shape.tower("vision", tensors)
