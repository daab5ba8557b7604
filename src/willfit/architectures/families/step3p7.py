"""Step-3.7: Step-3.5 with a vision tower.

Source: transformers `models/step3p7` with its `conversion_mapping.py`, whose names are the checkpoint's. The
tower's shape is the default of its config class where a file leaves it out.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import column, layer_norm, linear, parameter, row
from willfit.architectures.blocks.towers import convolution, stacked, tower_shape, with_towers
from willfit.architectures.families import step3p5
from willfit.architectures.model import Architecture, Split, Tensor, Tower
from willfit.checkpoints.config import Config

_VISION_DEFAULTS = {
    "width": 1536, "layers": 47, "heads": 16, "mlp_ratio": 8960 / 1536, "image_size": 728, "patch_size": 14,
}  # fmt: skip


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Step-3.7 config, nested or with the text model's fields at the top.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint.
    """
    text = step3p5.build(config.section("text_config") or config, prefix, head_name)
    vision = config.section("vision_config") or Config({}, config.where)
    tower = _tower(vision.with_defaults(**_VISION_DEFAULTS), text.hidden_size)
    return with_towers(text, config, "step3p7", (tower,))


def _tower(config: Config, text_hidden: int) -> Tower:
    hidden = config.integer("width", "hidden_size")
    width = round(hidden * config.number("mlp_ratio"))
    shape = tower_shape(
        config.with_defaults(intermediate_size=width),
        hidden=("width", "hidden_size"),
        layers=("layers", "num_hidden_layers"),
        heads=("heads", "num_attention_heads"),
    )
    heads, patch = shape.heads, config.integer("patch_size")
    positions = (config.integer("image_size") // patch) ** 2
    name = "vision_model"
    block = f"{name}.transformer.resblocks.{{layer}}"
    fused = Split(0, heads, ((hidden, heads),) * 3)
    layer = (
        *layer_norm(f"{block}.ln_1", hidden, part="vision"),
        Tensor(f"{block}.attn.in_proj_weight", (3 * hidden, hidden), "vision", "linear", fused),
        Tensor(f"{block}.attn.in_proj_bias", (3 * hidden,), "vision", "bias", fused),
        *linear(f"{block}.attn.out_proj", hidden, hidden, "vision", bias=True, split=row(heads)),
        *parameter(f"{block}.ls_1.gamma", (hidden,), "vision"),
        *layer_norm(f"{block}.ln_2", hidden, part="vision"),
        *linear(f"{block}.mlp.c_fc", hidden, shape.width, "vision", bias=True, split=column(shape.width)),
        *linear(f"{block}.mlp.c_proj", shape.width, hidden, "vision", bias=True, split=row(shape.width)),
        *parameter(f"{block}.ls_2.gamma", (hidden,), "vision"),
    )
    tensors = (
        *convolution(f"{name}.conv1", (hidden, 3, patch, patch), "vision", bias=False),
        *parameter(f"{name}.positional_embedding", (positions, hidden), "vision"),
        *layer_norm(f"{name}.ln_pre", hidden, part="vision"),
        *stacked(layer, shape.layers),
        *convolution(f"{name}.vit_downsampler1", (2 * hidden, hidden, 3, 3), "vision"),
        *convolution(f"{name}.vit_downsampler2", (4 * hidden, 2 * hidden, 3, 3), "vision"),
        *linear("vit_large_projector", 4 * hidden, text_hidden, "vision"),
    )
    # Two convolutions of stride 2 leave one token for 4 by 4 patches.
    return shape.tower("vision", tensors, positions // 16)
