"""LLaVA, LLaVA-NeXT, LLaVA-OneVision, Mistral 3: a vision encoder, a small projector, any language model.

Source: transformers `models/llava`, `models/llava_next`, `models/llava_onevision`, `models/mistral3`, `models/pixtral`.
"""

from __future__ import annotations

from willfit.architectures.blocks.clip import clip_encoder, siglip_encoder
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.blocks.towers import (
    LayerStyle,
    TowerShape,
    convolution,
    side_of,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

_PIXTRAL_LAYER = LayerStyle(
    norms=("attention_norm", "ffn_norm"),
    projections=("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
    mlp=("feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"),
    rms=True,
    attention_bias=False,
    mlp_bias=False,
)

#: LLaVA-NeXT cuts an image into up to four tiles beside the whole (its `image_grid_pinpoints`).
_NEXT_TILES = 5
#: LLaVA-OneVision keeps the patches of up to nine tiles beside the whole (`vision_aspect_ratio` `anyres_max_9`).
_ONEVISION_TILES = 10


def build(config: Config) -> Architecture:
    """The architecture of a LLaVA, LLaVA-NeXT or Mistral 3 config."""
    model_type = config.text("model_type")
    text = text_model(
        config,
        prefix="language_model.model",
        head_name="language_model.lm_head",
        tying="own" if model_type == "mistral3" else "either",
    )
    vision = vision_section(config)
    shape, tensors, tokens = _encoder(vision)
    positions = (side_of(vision, "image_size", 1024) // side_of(vision, "patch_size", 16)) ** 2
    projector = _merging_projector if model_type == "mistral3" else _projector
    tensors += projector(config, shape.hidden, text.hidden_size)
    if model_type == "mistral3":
        merge = config.integer("spatial_merge_size", default=2)
        rows = side_of(vision, "image_size", 1024) // side_of(vision, "patch_size", 16) // merge
        tokens = rows * (rows + 1)
    if model_type in ("llava_next", "llava_onevision"):
        tensors += parameter("image_newline", (text.hidden_size,), "vision")
        tiles = _NEXT_TILES if model_type == "llava_next" else _ONEVISION_TILES
        tokens, positions = tokens * tiles, positions * tiles
    return with_towers(text, config, "llava", (shape.tower("vision", tensors, tokens, positions),))


def _encoder(vision: Config) -> tuple[TowerShape, tuple[Tensor, ...], int]:
    kind = vision.text("model_type", default="clip_vision_model")
    if kind == "pixtral":
        return _pixtral(vision)
    if kind == "siglip_vision_model":
        return siglip_encoder(vision, "vision_tower.vision_model")
    if kind == "clip_vision_model":
        return clip_encoder(vision, "vision_tower.vision_model")
    raise BadInput(
        f"{vision.where}: the vision encoder {kind!r} is not known", "known: clip, siglip, pixtral"
    )


def _pixtral(vision: Config) -> tuple[TowerShape, tuple[Tensor, ...], int]:
    """Pixtral's encoder: gated MLPs, rotary positions. Each row of patches ends in a token of its own."""
    vision = vision.with_defaults(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16
    )
    shape = tower_shape(vision)
    patch = side_of(vision, "patch_size", 16)
    rows = side_of(vision, "image_size", 1024) // patch
    kernel = (shape.hidden, vision.integer("num_channels", default=3), patch, patch)
    prefix = "vision_tower"
    tensors = (
        *convolution(f"{prefix}.patch_conv", kernel, "vision", bias=False),
        *rms_norm(f"{prefix}.ln_pre", shape.hidden, "vision"),
        *tower_layers(f"{prefix}.transformer.layers.{{layer}}", shape, _PIXTRAL_LAYER, "vision"),
    )
    return shape, tensors, rows * (rows + 1)


def _projector(config: Config, vision: int, hidden: int) -> tuple[Tensor, ...]:
    bias = config.boolean("multimodal_projector_bias", default=True)
    prefix = "multi_modal_projector"
    return _two_layers(prefix, vision * _feature_layers(config), hidden, bias)


def _merging_projector(config: Config, vision: int, hidden: int) -> tuple[Tensor, ...]:
    """Mistral 3 first merges squares of patches into one."""
    bias = config.boolean("multimodal_projector_bias", default=False)
    features = _feature_layers(config)
    merged = vision * config.integer("spatial_merge_size", default=2) ** 2
    prefix = "multi_modal_projector"
    return (
        *rms_norm(f"{prefix}.norm", vision, "vision"),
        *linear(f"{prefix}.patch_merger.merging_layer", merged, vision, "vision"),
        *_two_layers(prefix, vision * features, hidden, bias),
    )


def _two_layers(prefix: str, inputs: int, hidden: int, bias: bool) -> tuple[Tensor, ...]:
    return (
        *linear(f"{prefix}.linear_1", inputs, hidden, "vision", bias=bias, split=column(hidden)),
        *linear(f"{prefix}.linear_2", hidden, hidden, "vision", bias=bias, split=row(hidden)),
    )


def _feature_layers(config: Config) -> int:
    """How many encoder layers are concatenated: `vision_feature_layer` is one index or a list."""
    layers = config.raw("vision_feature_layer")
    return len(layers) if isinstance(layers, list) else 1
