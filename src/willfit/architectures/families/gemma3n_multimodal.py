"""Gemma 3n with its vision and audio encoders: MobileNet-V5 and a conformer, each with an embedder.

Source: transformers `models/gemma3n/modeling_gemma3n.py`, timm `models/mobilenetv5.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.conformer import ConformerNames, conformer
from willfit.architectures.blocks.mobilenet import OUTPUT, mobilenet_v5
from willfit.architectures.blocks.tensors import linear, rms_norm, row
from willfit.architectures.blocks.towers import TowerShape, text_model, with_towers
from willfit.architectures.model import Architecture, Part, Split, Tensor, Tower
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

_MOBILENET = "mobilenetv5_300m_enc"

_NAMES = ConformerNames(
    stem=("conv_0", "conv_1"),
    layer="conformer.{layer}",
    halves=("ffw_layer_start", "ffw_layer_end"),
    linear="",
    attention="attention.attn",
    output="attention.post",
    positions="attention.attn.relative_position_embedding.pos_proj",
    norms=("attention.pre_attn_norm", "attention.post_norm", "norm"),
)

#: Defaults of `Gemma3nAudioConfig`.
_AUDIO = {
    "hidden_size": 1536, "conf_num_attention_heads": 8, "conf_num_hidden_layers": 12,
    "conf_conv_kernel_size": 5, "input_feat_size": 128, "sscp_conv_channel_size": [128, 32],
}  # fmt: skip


def build(config: Config) -> Architecture:
    """The architecture of a multimodal Gemma 3n config."""
    text = text_model(
        config,
        prefix="model.language_model",
        head_name="lm_head",
        text_type="gemma3n_text",
        tied_default=True,
    )
    towers = []
    vision, audio = config.section("vision_config"), config.section("audio_config")
    if vision is not None:
        towers.append(_vision(config, vision, text.hidden_size))
    if audio is not None:
        towers.append(_audio(config, audio.with_defaults(**_AUDIO), text.hidden_size))
    return with_towers(text, config, "gemma3n_multimodal", towers)


def _vision(config: Config, vision: Config, hidden: int) -> Tower:
    name = vision.text("architecture", default=_MOBILENET)
    if name != _MOBILENET:
        raise BadInput(f"{vision.where}: the vision encoder {name!r} is not known", f"known: {_MOBILENET}")
    tensors = (
        *mobilenet_v5("model.vision_tower.timm_model"),
        *_embedder("model.embed_vision", vision, OUTPUT, hidden, "vision"),
    )
    tokens = config.integer("vision_soft_tokens_per_image", default=256)
    return Tower("vision", tensors, OUTPUT, layers=0, heads=0, width=0, tokens=tokens)


def _audio(config: Config, audio: Config, hidden: int) -> Tower:
    size, heads = audio.integer("hidden_size"), audio.integer("conf_num_attention_heads")
    shape = TowerShape(size, audio.integer("conf_num_hidden_layers"), heads, 4 * size, heads, size // heads)
    channels = audio.integers("sscp_conv_channel_size")
    if len(channels) != 2:
        raise BadInput(f"{audio.where}: 'sscp_conv_channel_size' must name two channel counts")
    tensors = conformer(
        "model.audio_tower",
        shape,
        _NAMES,
        stem=(channels[0], channels[1]),
        bins=audio.integer("input_feat_size"),
        kernel=audio.integer("conf_conv_kernel_size"),
    )
    tensors += _embedder("model.embed_audio", audio, size, hidden, "audio")
    return shape.tower("audio", tensors, config.integer("audio_soft_tokens_per_image", default=188))


def _embedder(prefix: str, section: Config, width: int, hidden: int, part: Part) -> tuple[Tensor, ...]:
    """A small table of special tokens beside the encoder's output, both projected to the model's width."""
    rows = section.integer("vocab_size", default=128)
    return (
        Tensor(f"{prefix}.embedding.weight", (rows, width), part, "embedding", Split(0, rows)),
        *rms_norm(f"{prefix}.hard_embedding_norm", width, part),
        *rms_norm(f"{prefix}.soft_embedding_norm", width, part),
        *linear(f"{prefix}.embedding_projection", width, hidden, part, split=row(width)),
    )
