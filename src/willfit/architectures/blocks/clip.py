"""CLIP's and SigLIP's vision encoders.

Source: transformers `models/clip/modeling_clip.py`, `models/siglip/modeling_siglip.py`. The number of tokens
and the projector belong to the model around them.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, parameter
from willfit.architectures.blocks.towers import (
    CLIP_LAYER,
    TowerShape,
    convolution,
    learned_positions,
    side_of,
    tower_layers,
    tower_shape,
)
from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config


def clip_encoder(config: Config, prefix: str) -> tuple[TowerShape, tuple[Tensor, ...], int]:
    """CLIP's encoder: its shape, its tensors, and its patches per image without the class token.

    Parameters
    ----------
    config
        The vision section; fields that it leaves out have the defaults of `CLIPVisionConfig`.
    prefix
        Name of the encoder in the checkpoint.
    """
    config = config.with_defaults(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    shape = tower_shape(config)
    patch = side_of(config, "patch_size", 32)
    patches = (side_of(config, "image_size", 224) // patch) ** 2
    hidden, channels = shape.hidden, config.integer("num_channels", default=3)
    tensors = (
        *parameter(f"{prefix}.embeddings.class_embedding", (hidden,), "vision"),
        *convolution(
            f"{prefix}.embeddings.patch_embedding", (hidden, channels, patch, patch), "vision", bias=False
        ),
        *learned_positions(f"{prefix}.embeddings.position_embedding", patches + 1, hidden, "vision"),
        *layer_norm(f"{prefix}.pre_layrnorm", hidden, part="vision"),
        *tower_layers(f"{prefix}.encoder.layers.{{layer}}", shape, CLIP_LAYER, "vision"),
        *layer_norm(f"{prefix}.post_layernorm", hidden, part="vision"),
    )
    return shape, tensors, patches


def siglip_encoder(config: Config, prefix: str) -> tuple[TowerShape, tuple[Tensor, ...], int]:
    """SigLIP's encoder without its pooling head: its shape, its tensors, and its patches per image.

    Parameters
    ----------
    config
        The vision section.
    prefix
        Name of the encoder in the checkpoint.
    """
    shape = tower_shape(config)
    patch = side_of(config, "patch_size")
    patches = (side_of(config, "image_size") // patch) ** 2
    hidden, channels = shape.hidden, config.integer("num_channels", default=3)
    tensors = (
        *convolution(f"{prefix}.embeddings.patch_embedding", (hidden, channels, patch, patch), "vision"),
        *learned_positions(f"{prefix}.embeddings.position_embedding", patches, hidden, "vision"),
        *tower_layers(f"{prefix}.encoder.layers.{{layer}}", shape, CLIP_LAYER, "vision"),
        *layer_norm(f"{prefix}.post_layernorm", hidden, part="vision"),
    )
    return shape, tensors, patches
