"""Qwen2-Audio and Voxtral: Whisper's encoder, a projector, and a language model.

Source: transformers `models/qwen2_audio`, `models/voxtral`.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.seq2seq import encoder_layer
from willfit.architectures.blocks.tensors import layer_norm, linear
from willfit.architectures.blocks.towers import (
    audio_section,
    audio_stem,
    stacked,
    text_model,
    tower_shape,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config

#: Defaults of `Qwen2AudioEncoderConfig`, and of `VoxtralEncoderConfig`, which is spelled differently.
_AUDIO = {
    "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
    "num_mel_bins": 128, "max_source_positions": 1500,
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a Qwen2-Audio or Voxtral config."""
    voxtral = config.text("model_type") == "voxtral"
    text = text_model(
        config, prefix="language_model.model", head_name="language_model.lm_head", tying="never"
    )
    audio = audio_section(config, **_AUDIO)
    shape = tower_shape(
        audio,
        hidden=("hidden_size", "d_model"),
        layers=("num_hidden_layers", "encoder_layers"),
        heads=("num_attention_heads", "encoder_attention_heads"),
        width=("intermediate_size", "encoder_ffn_dim"),
    )
    prefix, positions = "audio_tower", audio.integer("max_source_positions")
    layer = encoder_layer(
        f"{prefix}.layers.{{layer}}", shape.hidden, shape.heads, shape.width, key_bias=False
    )
    # Voxtral concatenates as many positions as make one intermediate size, Qwen2-Audio averages two.
    inputs = shape.width if voxtral else shape.hidden
    tensors = (
        *audio_stem(prefix, shape.hidden, audio.integer("num_mel_bins"), positions, "audio"),
        *stacked((replace(tensor, part="audio") for tensor in layer.tensors), shape.layers),
        *layer_norm(f"{prefix}.layer_norm", shape.hidden, part="audio"),
        *_projector(voxtral, inputs, text.hidden_size),
    )
    tokens = positions * shape.hidden // shape.width if voxtral else positions // 2
    return with_towers(text, config, "audio_language", (shape.tower("audio", tensors, tokens, positions),))


def _projector(voxtral: bool, inputs: int, hidden: int) -> tuple[Tensor, ...]:
    prefix = "multi_modal_projector"
    if not voxtral:
        return linear(f"{prefix}.linear", inputs, hidden, "audio", bias=True)
    return (
        *linear(f"{prefix}.linear_1", inputs, hidden, "audio"),
        *linear(f"{prefix}.linear_2", hidden, hidden, "audio"),
    )
