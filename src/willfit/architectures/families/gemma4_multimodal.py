"""Gemma 4 with its vision and audio encoders, and the unified one, which embeds patches and samples directly.

Source: transformers `models/gemma4`, `models/gemma4_unified`.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.conformer import ConformerNames, conformer
from willfit.architectures.blocks.tensors import buffer, column, layer_norm, linear, parameter, rms_norm, row
from willfit.architectures.blocks.towers import (
    TowerShape,
    stacked,
    text_model,
    tower_shape,
    with_towers,
)
from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: Defaults of `Gemma4VisionConfig`.
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16, "num_attention_heads": 12,
    "head_dim": 64, "patch_size": 16, "position_embedding_size": 10240,
}  # fmt: skip

#: Defaults of `Gemma4AudioConfig`.
_AUDIO = {
    "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8, "conv_kernel_size": 5,
    "subsampling_conv_channels": [128, 32], "output_proj_dims": 1536,
}  # fmt: skip

#: Mel bins of the audio encoder's spectrogram, which its config does not name.
_MEL_BINS = 128

_NAMES = ConformerNames(
    stem=("layer0", "layer1"),
    layer="layers.{layer}",
    halves=("feed_forward1", "feed_forward2"),
    linear=".linear",
    attention="self_attn",
    output="self_attn.post",
    positions="self_attn.relative_k_proj",
    norms=("norm_pre_attn", "norm_post_attn", "norm_out"),
)


def build(config: Config) -> Architecture:
    """The architecture of a multimodal Gemma 4 config."""
    unified = config.text("model_type") == "gemma4_unified"
    text = text_model(
        config,
        prefix="model.language_model",
        head_name="lm_head",
        text_type="gemma4_text",
        tied_default=True,
        # The unified model has no per-layer inputs; the class default of the other is 256.
        hidden_size_per_layer_input=0 if unified else 256,
    )
    towers = []
    vision, audio = config.section("vision_config"), config.section("audio_config")
    if vision is not None:
        tokens = config.integer("vision_soft_tokens_per_image", default=280)
        make_vision = _patch_embedder if unified else _vision
        towers.append(make_vision(vision, text.hidden_size, tokens))
    if audio is not None:
        make_audio = _waveform_embedder if unified else _audio
        towers.append(make_audio(audio, text.hidden_size))
    return with_towers(text, config, "gemma4_multimodal", towers)


def _vision(vision: Config, hidden: int, tokens: int) -> Tower:
    vision = vision.with_defaults(**_VISION)
    shape = replace(tower_shape(vision), head_dim=vision.integer("head_dim"))
    prefix = "model.vision_tower"
    patch, size = vision.integer("patch_size"), shape.hidden
    positions = (2, vision.integer("position_embedding_size"), size)
    standardized = vision.boolean("standardize", default=False)
    tensors = (
        *parameter(f"{prefix}.patch_embedder.position_embedding_table", positions, "vision"),
        *linear(f"{prefix}.patch_embedder.input_proj", 3 * patch**2, size, "vision"),
        *stacked(_vision_layer(vision, shape, f"{prefix}.encoder.layers.{{layer}}"), shape.layers),
        *(buffer(f"{prefix}.std_bias", (size,), "vision") if standardized else ()),
        *(buffer(f"{prefix}.std_scale", (size,), "vision") if standardized else ()),
        *linear("model.embed_vision.embedding_projection", size, hidden, "vision"),
    )
    return shape.tower(
        "vision", tensors, tokens, tokens * vision.integer("pooling_kernel_size", default=3) ** 2
    )


def _vision_layer(vision: Config, shape: TowerShape, prefix: str) -> tuple[Tensor, ...]:
    """Gemma's layer with norms before and after attention and MLP. Each linear layer can clip its inputs."""
    hidden, width, heads, kv_heads = shape.hidden, shape.width, shape.heads, shape.kv_heads
    inner, keys = heads * shape.head_dim, kv_heads * shape.head_dim
    bias = vision.boolean("attention_bias", default=False)
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"

    def divided(
        name: str, inputs: int, outputs: int, units: int, *, bias: bool = False
    ) -> tuple[Tensor, ...]:
        return linear(f"{name}.linear", inputs, outputs, "vision", bias=bias, split=column(units))

    return (
        *rms_norm(f"{prefix}.input_layernorm", hidden, "vision"),
        *divided(f"{attention}.q_proj", hidden, inner, heads, bias=bias),
        *divided(f"{attention}.k_proj", hidden, keys, kv_heads, bias=bias),
        *divided(f"{attention}.v_proj", hidden, keys, kv_heads, bias=bias),
        *linear(f"{attention}.o_proj.linear", inner, hidden, "vision", bias=bias, split=row(heads)),
        *rms_norm(f"{attention}.q_norm", shape.head_dim, "vision"),
        *rms_norm(f"{attention}.k_norm", shape.head_dim, "vision"),
        *rms_norm(f"{prefix}.post_attention_layernorm", hidden, "vision"),
        *rms_norm(f"{prefix}.pre_feedforward_layernorm", hidden, "vision"),
        *divided(f"{mlp}.gate_proj", hidden, width, width),
        *divided(f"{mlp}.up_proj", hidden, width, width),
        *linear(f"{mlp}.down_proj.linear", width, hidden, "vision", split=row(width)),
        *rms_norm(f"{prefix}.post_feedforward_layernorm", hidden, "vision"),
    )


def _audio(audio: Config, hidden: int) -> Tower:
    audio = audio.with_defaults(**_AUDIO)
    hidden_size = audio.integer("hidden_size")
    shape = tower_shape(Config({**audio.fields, "intermediate_size": 4 * hidden_size}, audio.where))
    channels = audio.integers("subsampling_conv_channels")
    if len(channels) != 2:
        raise BadInput(f"{audio.where}: 'subsampling_conv_channels' must name two channel counts")
    outputs = audio.integer("output_proj_dims")
    tensors = (
        *conformer(
            "model.audio_tower",
            shape,
            _NAMES,
            stem=(channels[0], channels[1]),
            bins=_MEL_BINS,
            kernel=audio.integer("conv_kernel_size"),
        ),
        *linear("model.audio_tower.output_proj", shape.hidden, outputs, "audio", bias=True),
        *linear("model.embed_audio.embedding_projection", outputs, hidden, "audio"),
    )
    return shape.tower("audio", tensors)


def _patch_embedder(vision: Config, hidden: int, tokens: int) -> Tower:
    """No encoder: pixels of a large patch go through one linear layer, with learned 2-D positions."""
    width = vision.integer("mm_embed_dim", default=3840)
    side = vision.integer("patch_size", default=16) * vision.integer("pooling_kernel_size", default=3)
    pixels = 3 * side**2
    prefix = "model.embed_vision"
    tensors = (
        *layer_norm(f"{prefix}.patch_ln1", pixels, part="vision"),
        *linear(f"{prefix}.patch_dense", pixels, width, "vision", bias=True),
        *layer_norm(f"{prefix}.patch_ln2", width, part="vision"),
        *parameter(
            f"{prefix}.pos_embedding", (vision.integer("mm_posemb_size", default=1120), 2, width), "vision"
        ),
        *layer_norm(f"{prefix}.pos_norm", width, part="vision"),
        *linear(f"{prefix}.multimodal_embedder.embedding_projection", width, hidden, "vision"),
    )
    return Tower("vision", tensors, width, layers=0, heads=0, width=0, tokens=tokens)


def _waveform_embedder(audio: Config, hidden: int) -> Tower:
    """No encoder: a frame of raw samples goes through one linear layer."""
    width = audio.integer("audio_embed_dim", "hidden_size", default=640)
    projection = linear("model.embed_audio.embedding_projection", width, hidden, "audio")
    return Tower("audio", projection, width, layers=0, heads=0, width=0)
