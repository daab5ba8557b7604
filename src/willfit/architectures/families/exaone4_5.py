"""EXAONE 4.5: Qwen2.5-VL's vision encoder with grouped queries, EXAONE 4, and multi-token prediction.

Source: transformers `models/exaone4_5`, `models/exaone4`. The multi-token-prediction module is in the
checkpoint only: one full-attention layer, a projection of twice the width, and three norms.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import bounded_count
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.qwen_vision import qwen2_5_vision
from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.blocks.towers import text_model, vision_section, with_towers
from willfit.architectures.model import Architecture, Layer
from willfit.checkpoints.config import Config

_PREFIX = "model.language_model"


def build(config: Config) -> Architecture:
    """The architecture of an EXAONE 4.5 config."""
    text = text_model(config, prefix=_PREFIX, head_name="lm_head", text_type="exaone4")
    tower = qwen2_5_vision(vision_section(config), "model.visual", text.hidden_size)
    section = config.section("text_config") or config
    modules = bounded_count(section, "num_nextn_predict_layers", "_num_mtp_layers", default=0)
    # Modules that share their layers are stored once.
    stored = min(modules, 1) if section.boolean("mtp_share_layers", default=False) else modules
    return with_towers(text, config, "exaone4_5", (tower,), **mtp_modules((_module(text),) * stored))


def _module(text: Architecture) -> Layer:
    """The last layer under the module's name, with the module's own norms and projection."""
    last, hidden = text.layers[-1], text.hidden_size
    tensors = tuple(
        replace(tensor, name=tensor.name.replace(f"{_PREFIX}.layers.", "mtp.layers."))
        for tensor in last.tensors
    )
    return replace(
        last,
        tensors=(
            *rms_norm("mtp.pre_fc_norm_embedding", hidden),
            *rms_norm("mtp.pre_fc_norm_hidden", hidden),
            *linear("mtp.fc", 2 * hidden, hidden, "mtp"),
            *tensors,
            *rms_norm("mtp.norm", hidden),
        ),
    )
