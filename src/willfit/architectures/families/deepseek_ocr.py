"""DeepSeek-OCR: SAM's encoder, CLIP on what it compressed, a projector, and a small DeepSeek mixture.

Source: vLLM `model_executor/models/deepencoder.py`, `deepseek_ocr.py`; names as published with
deepseek-ai/DeepSeek-OCR. Its file stores no norm after CLIP's layers, and patch weights that are never used.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import layer_norm, linear, parameter
from willfit.architectures.blocks.towers import (
    LayerStyle,
    TowerShape,
    convolution,
    learned_positions,
    text_model,
    tower_layers,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: SAM ViT-B at 1024 pixels, and CLIP-L: the file's `vision_config` names them, both are fixed in the code.
_SAM = TowerShape(hidden=768, layers=12, heads=12, kv_heads=12, head_dim=64, width=3072)
_CLIP = TowerShape(hidden=1024, layers=24, heads=16, kv_heads=16, head_dim=64, width=4096)
_PATCH, _SIDE, _CLIP_PATCH, _CLIP_POSITIONS = 16, 64, 14, 257
_WINDOW, _GLOBAL_LAYERS = 14, (2, 5, 8, 11)
_NECK = (256, 512, 1024)

#: CLIP's output beside SAM's goes through the projector.
_PROJECTED = 2 * 1024

#: An image of 1024 x 1024 pixels is 256 tokens, and up to nine crops of 640 x 640 are 100 each, rows marked.
_IMAGE_TOKENS = 273 + 9 * 100 + 31

_SAM_LAYER = LayerStyle(("norm1", "norm2"), ("attn.qkv", "attn.proj"), ("mlp.lin1", "mlp.lin2"))
_CLIP_LAYER = LayerStyle(
    ("layer_norm1", "layer_norm2"), ("self_attn.qkv_proj", "self_attn.out_proj"), ("mlp.fc1", "mlp.fc2")
)


def build(config: Config) -> Architecture:
    """The architecture of a DeepSeek-OCR config."""
    if config.section("language_config") is None:
        raise BadInput(
            f"{config.where}: the section 'language_config' is missing", "it holds the language model"
        )
    text = text_model(
        config, prefix="model", head_name="lm_head", text_type="deepseek", section="language_config"
    )
    hidden = text.hidden_size
    projector = (
        *linear("model.projector.layers", _PROJECTED, hidden, "vision", bias=True),
        *parameter("model.image_newline", (hidden,), "vision"),
        *parameter("model.view_seperator", (hidden,), "vision"),
    )
    towers = (
        _SAM.tower("vision", _sam("model.sam_model"), 0),
        _CLIP.tower("vision", (*_clip("model.vision_model"), *projector), _IMAGE_TOKENS),
    )
    return with_towers(text, config, "deepseek_ocr", towers)


def _sam(prefix: str) -> tuple[Tensor, ...]:
    width, head = _SAM.hidden, _SAM.head_dim
    reach = [_SIDE if layer in _GLOBAL_LAYERS else _WINDOW for layer in range(_SAM.layers)]
    first, second, third = _NECK
    return (
        *convolution(f"{prefix}.patch_embed.proj", (width, 3, _PATCH, _PATCH), "vision"),
        *parameter(f"{prefix}.pos_embed", (_SIDE, _SIDE, width), "vision"),
        *tower_layers(f"{prefix}.blocks.{{layer}}", _SAM, _SAM_LAYER, "vision"),
        *(
            tensor
            for layer, side in enumerate(reach)
            for axis in "hw"
            for tensor in parameter(
                f"{prefix}.blocks.{layer}.attn.rel_pos_{axis}", (2 * side - 1, head), "vision"
            )
        ),
        *convolution(f"{prefix}.neck.0", (first, width, 1, 1), "vision", bias=False),
        *layer_norm(f"{prefix}.neck.1", first, part="vision"),
        *convolution(f"{prefix}.neck.2", (first, first, 3, 3), "vision", bias=False),
        *layer_norm(f"{prefix}.neck.3", first, part="vision"),
        *convolution(f"{prefix}.net_2", (second, first, 3, 3), "vision", bias=False),
        *convolution(f"{prefix}.net_3", (third, second, 3, 3), "vision", bias=False),
    )


def _clip(prefix: str) -> tuple[Tensor, ...]:
    width, embeddings = _CLIP.hidden, f"{prefix}.embeddings"
    kernel = (width, 3, _CLIP_PATCH, _CLIP_PATCH)
    return (
        *parameter(f"{embeddings}.class_embedding", (width,), "vision"),
        *convolution(f"{embeddings}.patch_embedding", kernel, "vision", bias=False),
        *learned_positions(f"{embeddings}.position_embedding", _CLIP_POSITIONS, width, "vision"),
        *layer_norm(f"{prefix}.pre_layrnorm", width, part="vision"),
        *tower_layers(f"{prefix}.transformer.layers.{{layer}}", _CLIP, _CLIP_LAYER, "vision"),
    )
