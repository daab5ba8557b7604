"""Qwen2.5-Omni and Qwen3-Omni: the thinker, which reads text, images and sound.

Source: transformers `models/qwen2_5_omni`, `models/qwen3_omni_moe`. Published files hold a talker and a vocoder
as well, which serving engines leave out (vLLM `models/qwen3_omni_moe_thinker.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from willfit.architectures.blocks.qwen_vision import qwen2_5_vision, qwen3_vision
from willfit.architectures.blocks.seq2seq import encoder_layer
from willfit.architectures.blocks.tensors import embedding, layer_norm, linear
from willfit.architectures.blocks.towers import (
    TowerShape,
    audio_section,
    convolution,
    stacked,
    text_model,
    tower_shape,
    vision_section,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.checkpoints.config import Config

_NOTE = "the talker and the vocoder are not counted: engines serve the thinker"

#: Defaults of both audio encoders.
_AUDIO = {
    "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
    "num_mel_bins": 128, "max_source_positions": 1500, "downsample_hidden_size": 480,
}  # fmt: skip

#: Strides of the three convolutions of Qwen3-Omni: an eighth of the mel bins and of the frames is left.
_REDUCTION = 8


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs: vision encoder, family of the language model, and how sound is taken in."""

    vision: Callable[[Config, str, int], Tower]
    text_type: str
    audio: Callable[[Config, TowerShape, str, int], tuple[Tensor, ...]]
    key_bias: bool


def _plain_stem(audio: Config, shape: TowerShape, prefix: str, hidden: int) -> tuple[Tensor, ...]:
    """Qwen2.5-Omni: Whisper's two convolutions, marks of beginning and end, a projection."""
    mels = audio.integer("num_mel_bins")
    return (
        *convolution(f"{prefix}.conv1", (shape.hidden, mels, 3), "audio"),
        *convolution(f"{prefix}.conv2", (shape.hidden, shape.hidden, 3), "audio"),
        *embedding(f"{prefix}.audio_bos_eos_token", 2, hidden, "audio"),
        *linear(f"{prefix}.proj", shape.hidden, hidden, "audio", bias=True),
    )


def _striding_stem(audio: Config, shape: TowerShape, prefix: str, hidden: int) -> tuple[Tensor, ...]:
    """Qwen3-Omni: three convolutions over time and frequency, two projections."""
    channels, mels = audio.integer("downsample_hidden_size"), audio.integer("num_mel_bins")
    return (
        *convolution(f"{prefix}.conv2d1", (channels, 1, 3, 3), "audio"),
        *convolution(f"{prefix}.conv2d2", (channels, channels, 3, 3), "audio"),
        *convolution(f"{prefix}.conv2d3", (channels, channels, 3, 3), "audio"),
        *linear(f"{prefix}.conv_out", channels * mels // _REDUCTION, shape.hidden, "audio"),
        *linear(f"{prefix}.proj1", shape.hidden, shape.hidden, "audio", bias=True),
        *linear(f"{prefix}.proj2", shape.hidden, hidden, "audio", bias=True),
    )


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "qwen2_5_omni": Variant(qwen2_5_vision, "qwen2", _plain_stem, key_bias=False),
    "qwen3_omni_moe": Variant(qwen3_vision, "qwen3_moe", _striding_stem, key_bias=True),
}


def build(config: Config) -> Architecture:
    """The architecture of the thinker of a Qwen-Omni config, or of a config that is a thinker's."""
    variant = VARIANTS[config.text("model_type").removesuffix("_thinker")]
    thinker = config.section("thinker_config") or config
    name = "thinker." if "thinker_config" in config else ""
    text = text_model(
        thinker, prefix=f"{name}model", head_name=f"{name}lm_head", text_type=variant.text_type, tying="never"
    )
    audio = audio_section(thinker, **_AUDIO)
    shape = tower_shape(
        audio,
        hidden=("d_model",),
        layers=("encoder_layers",),
        heads=("encoder_attention_heads",),
        width=("encoder_ffn_dim",),
    )
    prefix = f"{name}audio_tower"
    layer = encoder_layer(
        f"{prefix}.layers.{{layer}}", shape.hidden, shape.heads, shape.width, key_bias=variant.key_bias
    )
    tensors = (
        *variant.audio(audio, shape, prefix, text.hidden_size),
        *stacked((replace(tensor, part="audio") for tensor in layer.tensors), shape.layers),
        *layer_norm(f"{prefix}.ln_post", shape.hidden, part="audio"),
    )
    towers = (
        variant.vision(vision_section(thinker), f"{name}visual", text.hidden_size),
        shape.tower("audio", tensors, audio.integer("max_source_positions") // 2),
    )
    built = with_towers(text, thinker, "qwen_omni", towers)
    notes = (*built.notes, _NOTE) if name else built.notes
    return replace(built, model_type=config.text("model_type"), notes=notes)
