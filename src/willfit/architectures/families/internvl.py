"""InternVL, in transformers' layout and in its own: InternViT, pixel shuffle, a projector, a language model.

Sources: transformers `models/internvl/modeling_internvl.py`; `modeling_intern_vit.py` and
`modeling_internvl_chat.py` as published with OpenGVLab/InternVL3-8B.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear, parameter, rms_norm
from willfit.architectures.blocks.towers import (
    LayerStyle,
    TowerShape,
    convolution,
    side_of,
    stacked,
    text_model,
    tower_layers,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.checkpoints.config import Config

#: Defaults of `InternVLVisionConfig` and of the chat model's `InternVisionConfig`.
_HF_VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 448, "patch_size": 14,
}  # fmt: skip
_CHAT_VISION = {
    "hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 48, "num_attention_heads": 25,
    "image_size": 224, "patch_size": 14, "norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False,
}  # fmt: skip

#: The published processors cut an image into up to 12 tiles, beside the whole.
_TILES = 12


def build(config: Config) -> Architecture:
    """The architecture of an InternVL config in either layout."""
    if config.text("model_type") == "internvl":
        return _build_hf(config)
    return _build_chat(config)


def _build_hf(config: Config) -> Architecture:
    text = text_model(
        config, prefix="language_model.model", head_name="language_model.lm_head", tied_default=True
    )
    vision = vision_section(config, **_HF_VISION)
    style = LayerStyle(
        norms=("layernorm_before", "layernorm_after"),
        projections=tuple(f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "projection_layer")),
        mlp=("mlp.fc1", "mlp.fc2"),
        rms=vision.text("norm_type", default="layer_norm") == "rms_norm",
        attention_bias=vision.boolean("attention_bias", default=False),
        output_bias=True,
    )
    shape = tower_shape(vision)
    hidden, prefix = shape.hidden, "vision_tower"
    normed = vision.boolean("use_qk_norm", default=False)
    pooled = vision.boolean("use_mean_pooling", default=True)
    names = ("cls_token", "position_embeddings", "patch_embeddings.projection")
    tensors = (
        *_embeddings(vision, shape, f"{prefix}.embeddings", names),
        *_layers(
            shape, style, f"{prefix}.encoder.layer.{{layer}}", ("lambda_1", "lambda_2"), "attention", normed
        ),
        *(() if pooled else layer_norm(f"{prefix}.layernorm", hidden, part="vision")),
        *_projector(
            config,
            hidden,
            text.hidden_size,
            tuple(f"multi_modal_projector.{name}" for name in ("layer_norm", "linear_1", "linear_2")),
        ),
    )
    return with_towers(text, config, "internvl", (_sized(shape, tensors, config, vision),))


def _build_chat(config: Config) -> Architecture:
    section = config.section("llm_config") or config
    internlm = section.text("model_type", default="llama") == "internlm2"
    text = text_model(
        config,
        prefix="language_model.model",
        head_name="language_model.output" if internlm else "language_model.lm_head",
        section="llm_config",
    )
    vision = vision_section(config, **_CHAT_VISION)
    style = LayerStyle(
        norms=("norm1", "norm2"),
        projections=("attn.qkv", "attn.proj"),
        mlp=("mlp.fc1", "mlp.fc2"),
        rms=vision.text("norm_type") == "rms_norm",
        attention_bias=vision.boolean("qkv_bias"),
        output_bias=True,
    )
    shape = tower_shape(vision)
    normed = vision.boolean("qk_normalization")
    names = ("class_embedding", "position_embedding", "patch_embedding")
    tensors = (
        *_embeddings(vision, shape, "vision_model.embeddings", names),
        *_layers(shape, style, "vision_model.encoder.layers.{layer}", ("ls1", "ls2"), "attn", normed),
        *_projector(config, shape.hidden, text.hidden_size, ("mlp1.0", "mlp1.1", "mlp1.3")),
    )
    return with_towers(text, config, "internvl", (_sized(shape, tensors, config, vision),))


def _embeddings(
    vision: Config, shape: TowerShape, prefix: str, names: tuple[str, str, str]
) -> tuple[Tensor, ...]:
    """Class token, positions and patches."""
    patch = side_of(vision, "patch_size")
    positions = (side_of(vision, "image_size") // patch) ** 2 + 1
    kernel = (shape.hidden, vision.integer("num_channels", default=3), patch, patch)
    return (
        *parameter(f"{prefix}.{names[0]}", (1, 1, shape.hidden), "vision"),
        *parameter(f"{prefix}.{names[1]}", (1, positions, shape.hidden), "vision"),
        *convolution(f"{prefix}.{names[2]}", kernel, "vision"),
    )


def _layers(
    shape: TowerShape, style: LayerStyle, prefix: str, scales: tuple[str, str], attention: str, normed: bool
) -> tuple[Tensor, ...]:
    """Layers whose two branches are scaled, with norms over all heads' queries and keys if `normed`."""
    own: tuple[Tensor, ...] = tuple(
        tensor for name in scales for tensor in parameter(f"{prefix}.{name}", (shape.hidden,), "vision")
    )
    if normed:
        own += rms_norm(f"{prefix}.{attention}.q_norm", shape.hidden, "vision")
        own += rms_norm(f"{prefix}.{attention}.k_norm", shape.hidden, "vision")
    return stacked(own, shape.layers) + tower_layers(prefix, shape, style, "vision")


def _projector(config: Config, vision: int, hidden: int, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    merged = vision * _shuffle(config)
    return (
        *layer_norm(names[0], merged, part="vision"),
        *linear(names[1], merged, hidden, "vision", bias=True),
        *linear(names[2], hidden, hidden, "vision", bias=True),
    )


def _shuffle(config: Config) -> int:
    """How many patches become one token."""
    return int(1 / config.number("downsample_ratio", default=0.5)) ** 2


def _sized(shape: TowerShape, tensors: tuple[Tensor, ...], config: Config, vision: Config) -> Tower:
    """The tower with what the most tiles, beside the whole image, become; each has a class token as well."""
    tiles = config.integer("max_dynamic_patch", default=_TILES) + 1
    patches = (side_of(vision, "image_size") // side_of(vision, "patch_size")) ** 2
    return shape.tower("vision", tensors, tiles * (patches // _shuffle(config)), tiles * (patches + 1))
