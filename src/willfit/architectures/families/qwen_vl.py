"""Qwen's vision-language models: a Qwen vision encoder on a language model that has its own family.

Source: transformers `models/qwen2_vl`, `models/qwen2_5_vl`, `models/qwen3_vl`, `models/qwen3_5`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.architectures.blocks.qwen_vision import qwen2_5_vision, qwen2_vision, qwen3_vision
from willfit.architectures.blocks.towers import Tying, text_model, vision_section, with_towers
from willfit.architectures.model import Architecture, Tower
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs between the models.

    Attributes
    ----------
    vision
        Builds the encoder from its section, its name and the language model's width.
    text_type
        The language model's family, where the section does not say it.
    prefix, tower
        Names of the decoder and of the encoder in the checkpoint.
    tying
        Whose `tie_word_embeddings` counts.
    """

    vision: Callable[[Config, str, int], Tower]
    text_type: str = ""
    prefix: str = "model.language_model"
    tower: str = "model.visual"
    tying: Tying = "own"


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "qwen2_vl": Variant(qwen2_vision, "qwen2", "model", "visual", "either"),
    "qwen2_5_vl": Variant(qwen2_5_vision, "qwen2", "model", "visual", "either"),
    "qwen3_vl": Variant(qwen3_vision, "qwen3"),
    "qwen3_vl_moe": Variant(qwen3_vision, "qwen3_vl_moe_text"),
    "qwen3_5": Variant(qwen3_vision, "qwen3_5_text"),
    "qwen3_5_moe": Variant(qwen3_vision, "qwen3_5_moe_text"),
    "qwen4_exp": Variant(qwen3_vision, "qwen4_exp_text"),
}


def build(config: Config) -> Architecture:
    """The architecture of a Qwen vision-language config."""
    variant = VARIANTS[config.text("model_type")]
    text = text_model(
        config, prefix=variant.prefix, head_name="lm_head", text_type=variant.text_type, tying=variant.tying
    )
    tower = variant.vision(vision_section(config), variant.tower, text.hidden_size)
    return with_towers(text, config, "qwen_vl", (tower,))
