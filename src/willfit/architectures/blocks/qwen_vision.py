"""The vision encoders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, which other models took over.

Source: transformers `models/qwen2_vl`, `models/qwen2_5_vl`, `models/qwen3_vl`, `models/exaone4_5`. A patch
covers `temporal_patch_size` frames; a square of patches is merged into one token.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import column, layer_norm, linear, rms_norm, row
from willfit.architectures.blocks.towers import (
    LayerStyle,
    TowerShape,
    convolution,
    learned_positions,
    side_of,
    stacked,
    tower_layers,
    tower_shape,
)
from willfit.architectures.model import Tensor, Tower
from willfit.checkpoints.config import Config

_NORMS = ("norm1", "norm2")
_PROJECTIONS = ("attn.qkv", "attn.proj")
_QWEN2_LAYER = LayerStyle(_NORMS, _PROJECTIONS, ("mlp.fc1", "mlp.fc2"))
_QWEN2_5_LAYER = LayerStyle(_NORMS, _PROJECTIONS, ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), rms=True)
_QWEN3_LAYER = LayerStyle(_NORMS, _PROJECTIONS, ("mlp.linear_fc1", "mlp.linear_fc2"))

#: The published processors scale an image down to at most this many tokens (12.8 or 16.8 million pixels).
_IMAGE_TOKENS = 16384


def qwen2_vision(vision: Config, prefix: str, hidden: int) -> Tower:
    """Qwen2-VL's encoder: layer norms, a plain MLP. `hidden_size` in its section is the language model's."""
    width = vision.integer("embed_dim", default=1280) * vision.number("mlp_ratio", default=4)
    vision = vision.with_defaults(depth=32, embed_dim=1280, num_heads=16, intermediate_size=int(width))
    shape = tower_shape(vision, hidden=("embed_dim",), layers=("depth",), heads=("num_heads",))
    return shape.tower(
        "vision",
        (
            *_patches(vision, shape, prefix, default=14, bias=False),
            *tower_layers(f"{prefix}.blocks.{{layer}}", shape, _QWEN2_LAYER, "vision"),
            *layer_norm(f"{prefix}.merger.ln_q", shape.hidden, part="vision"),
            *_merger(f"{prefix}.merger", ("mlp.0", "mlp.2"), _merged(vision, shape), hidden),
        ),
        _IMAGE_TOKENS,
        _IMAGE_TOKENS * vision.integer("spatial_merge_size", default=2) ** 2,
    )


def qwen2_5_vision(vision: Config, prefix: str, hidden: int) -> Tower:
    """Qwen2.5-VL's encoder: RMS norms, a gated MLP with biases. EXAONE 4.5's has grouped queries."""
    vision = vision.with_defaults(depth=32, hidden_size=1280, num_heads=16, intermediate_size=3420)
    shape = tower_shape(vision, layers=("depth",), heads=("num_heads",))
    return shape.tower(
        "vision",
        (
            *_patches(vision, shape, prefix, default=14, bias=False),
            *tower_layers(f"{prefix}.blocks.{{layer}}", shape, _QWEN2_5_LAYER, "vision"),
            *rms_norm(f"{prefix}.merger.ln_q", shape.hidden, "vision"),
            *_merger(f"{prefix}.merger", ("mlp.0", "mlp.2"), _merged(vision, shape), hidden),
        ),
        _IMAGE_TOKENS,
        _IMAGE_TOKENS * vision.integer("spatial_merge_size", default=2) ** 2,
    )


def qwen3_vision(vision: Config, prefix: str, hidden: int) -> Tower:
    """Qwen3-VL's encoder: learned positions, and mergers for the layers that feed the decoder directly."""
    vision = vision.with_defaults(
        depth=27, hidden_size=1152, num_heads=16, intermediate_size=4304, num_position_embeddings=2304
    )
    shape = tower_shape(vision, layers=("depth",), heads=("num_heads",))
    positions, merged = vision.integer("num_position_embeddings"), _merged(vision, shape)
    names = ("linear_fc1", "linear_fc2")
    deep = f"{prefix}.deepstack_merger_list.{{layer}}"
    levels = len(vision.integers("deepstack_visual_indexes"))
    deepstack = (
        *layer_norm(f"{deep}.norm", merged, part="vision"),
        *_merger(deep, names, merged, hidden),
    )
    return shape.tower(
        "vision",
        (
            *_patches(vision, shape, prefix, default=16, bias=True),
            *learned_positions(f"{prefix}.pos_embed", positions, shape.hidden, "vision"),
            *tower_layers(f"{prefix}.blocks.{{layer}}", shape, _QWEN3_LAYER, "vision"),
            *layer_norm(f"{prefix}.merger.norm", shape.hidden, part="vision"),
            *_merger(f"{prefix}.merger", names, merged, hidden),
            *(stacked(deepstack, levels) if levels else ()),
        ),
        _IMAGE_TOKENS,
        _IMAGE_TOKENS * vision.integer("spatial_merge_size", default=2) ** 2,
    )


def _patches(
    vision: Config, shape: TowerShape, prefix: str, *, default: int, bias: bool
) -> tuple[Tensor, ...]:
    patch = side_of(vision, "patch_size", default)
    frames = vision.integer("temporal_patch_size", default=2)
    channels = vision.integer("in_channels", "in_chans", default=3)
    kernel = (shape.hidden, channels, frames, patch, patch)
    return convolution(f"{prefix}.patch_embed.proj", kernel, "vision", bias=bias)


def _merged(vision: Config, shape: TowerShape) -> int:
    merge = vision.integer("spatial_merge_size", default=2)
    return int(shape.hidden * merge**2)


def _merger(prefix: str, names: tuple[str, str], merged: int, hidden: int) -> tuple[Tensor, ...]:
    return (
        *linear(f"{prefix}.{names[0]}", merged, merged, "vision", bias=True, split=column(merged)),
        *linear(f"{prefix}.{names[1]}", merged, hidden, "vision", bias=True, split=row(merged)),
    )
