"""Pieces of vision and audio encoders, and how a text model and its towers become one architecture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from willfit.architectures.blocks.decoder import MAX_LAYERS, dtype_of
from willfit.architectures.blocks.tensors import column, layer_norm, linear, rms_norm, row
from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Part, Split, Tensor, Tower
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: How a multimodal config decides whether the output head shares the token table.
#: `own`     its own `tie_word_embeddings`, else the text section's
#: `either`  tied if it or its text section says so
#: `never`   its class has no tied head, whatever the text section says
Tying = Literal["own", "either", "never"]


@dataclass(frozen=True, slots=True)
class TowerShape:
    """Widths of a tower's transformer.

    Attributes
    ----------
    hidden, layers, heads, width
        Width of the residual stream, layers, attention heads, intermediate size.
    kv_heads
        Key/value heads.
    head_dim
        Width of a head.
    """

    hidden: int
    layers: int
    heads: int
    width: int
    kv_heads: int
    head_dim: int

    def tower(
        self,
        modality: Literal["vision", "audio"],
        tensors: tuple[Tensor, ...],
        tokens: int = 0,
        positions: int = 0,
    ) -> Tower:
        """A tower of this shape."""
        return Tower(modality, tensors, self.hidden, self.layers, self.heads, self.width, tokens, positions)


def tower_shape(
    config: Config,
    *,
    hidden: tuple[str, ...] = ("hidden_size",),
    layers: tuple[str, ...] = ("num_hidden_layers",),
    heads: tuple[str, ...] = ("num_attention_heads",),
    width: tuple[str, ...] = ("intermediate_size",),
) -> TowerShape:
    """Read the widths of a tower, each under the given names.

    Raises
    ------
    BadInput
        If a field is missing or impossible; the message names it.
    """
    size, count, depth = config.integer(*hidden), config.integer(*heads), config.integer(*layers)
    if not (size and count and 0 < depth <= MAX_LAYERS):
        raise BadInput(f"{config.where}: {hidden[0]}, {heads[0]} and {layers[0]} do not describe an encoder")
    return TowerShape(
        hidden=size,
        layers=depth,
        heads=count,
        width=config.integer(*width),
        kv_heads=config.integer("num_key_value_heads", default=count),
        head_dim=size // count,
    )


@dataclass(frozen=True, slots=True)
class LayerStyle:
    """How a tower names the parts of a layer, and which of them have biases.

    Attributes
    ----------
    norms
        Norm before attention and before the MLP.
    projections
        Two names (a fused query/key/value projection, and the output), or four.
    mlp
        Two names (up, down), or three (gate, up, down).
    rms
        RMS norms instead of layer norms with a shift.
    attention_bias, mlp_bias
        Whether the linear layers of attention and of the MLP have biases.
    output_bias
        Whether attention's output projection has one, where it differs from the others (InternViT).
    """

    norms: tuple[str, str]
    projections: tuple[str, ...]
    mlp: tuple[str, ...]
    rms: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    output_bias: bool | None = None


#: CLIP's layers, which SigLIP, Idefics and many others copied.
CLIP_LAYER = LayerStyle(
    norms=("layer_norm1", "layer_norm2"),
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    mlp=("mlp.fc1", "mlp.fc2"),
)


def tower_layers(
    prefix: str, shape: TowerShape, style: LayerStyle, part: Part, *, layers: int | None = None
) -> tuple[Tensor, ...]:
    """All layers of a tower's transformer, as tensors with `copies`.

    Parameters
    ----------
    prefix
        Name of a layer, with `{layer}`.
    layers
        How many, if not all of `shape.layers`.
    """
    hidden, heads, kv_heads, inner = shape.hidden, shape.heads, shape.kv_heads, shape.heads * shape.head_dim
    keys = kv_heads * shape.head_dim
    norm = rms_norm if style.rms else layer_norm
    names = [f"{prefix}.{name}" for name in style.projections]
    bias = style.attention_bias
    output_bias = bias if style.output_bias is None else style.output_bias
    if len(names) == 2:
        split = Split(0, kv_heads, ((inner, heads), (keys, kv_heads), (keys, kv_heads)))
        attention = linear(names[0], hidden, inner + 2 * keys, part, bias=bias, split=split)
    else:
        attention = (
            *linear(names[0], hidden, inner, part, bias=bias, split=column(heads)),
            *linear(names[1], hidden, keys, part, bias=bias, split=column(kv_heads)),
            *linear(names[2], hidden, keys, part, bias=bias, split=column(kv_heads)),
        )
    *ups, down = (f"{prefix}.{name}" for name in style.mlp)
    tensors = (
        *norm(f"{prefix}.{style.norms[0]}", hidden, part=part),
        *attention,
        *linear(names[-1], inner, hidden, part, bias=output_bias, split=row(heads)),
        *norm(f"{prefix}.{style.norms[1]}", hidden, part=part),
        *(
            tensor
            for up in ups
            for tensor in linear(
                up, hidden, shape.width, part, bias=style.mlp_bias, split=column(shape.width)
            )
        ),
        *linear(down, shape.width, hidden, part, bias=style.mlp_bias, split=row(shape.width)),
    )
    return stacked(tensors, shape.layers if layers is None else layers)


def stacked(tensors: Iterable[Tensor], layers: int) -> tuple[Tensor, ...]:
    """The tensors of one layer of a tower as those of all its `layers` layers."""
    return tuple(replace(tensor, copies=tensor.copies * layers) for tensor in tensors)


def convolution(name: str, shape: tuple[int, ...], part: Part, *, bias: bool = True) -> tuple[Tensor, ...]:
    """A convolution kernel (outputs, inputs / groups, *kernel) and its bias."""
    kernel = Tensor(f"{name}.weight", shape, part, "conv")
    return (kernel, Tensor(f"{name}.bias", shape[:1], part, "bias")) if bias else (kernel,)


def learned_positions(name: str, rows: int, width: int, part: Part = "embedding") -> tuple[Tensor, ...]:
    """A table of learned positions, on every rank."""
    return (Tensor(f"{name}.weight", (rows, width), part, "other"),)


def audio_stem(prefix: str, hidden: int, mels: int, positions: int, part: Part) -> tuple[Tensor, ...]:
    """Whisper's stem: two convolutions over the spectrogram, the second of stride 2, and fixed positions."""
    return (
        *convolution(f"{prefix}.conv1", (hidden, mels, 3), part),
        *convolution(f"{prefix}.conv2", (hidden, hidden, 3), part),
        *learned_positions(f"{prefix}.embed_positions", positions, hidden, part),
    )


def side_of(config: Config, name: str, default: int | None = None) -> int:
    """A square size that configs give as one number or as [height, width] (the larger counts).

    Raises
    ------
    BadInput
        If the field is missing without a default, or is no size.
    """
    if isinstance(config.raw(name), list):
        return max(config.integers(name), default=0)
    return config.integer(name) if default is None else config.integer(name, default=default)


def vision_section(config: Config, **defaults: Any) -> Config:
    """`vision_config` over the defaults of its class.

    Raises
    ------
    BadInput
        If the config has no such section.
    """
    return _section(config, "vision_config").with_defaults(**defaults)


def audio_section(config: Config, **defaults: Any) -> Config:
    """`audio_config` over the defaults of its class.

    Raises
    ------
    BadInput
        If the config has no such section.
    """
    return _section(config, "audio_config").with_defaults(**defaults)


def _section(config: Config, name: str) -> Config:
    section = config.section(name)
    if section is None:
        raise BadInput(f"{config.where}: the section {name!r} is missing", "it is needed to size the encoder")
    return section


#: What text sections of published configs leave out, by the `model_type` of the section: the defaults of
#: transformers' config classes (LLaVA 1.5, 1.6 and Pixtral, Qwen2-Audio, Gemma 3).
_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000,
    },
    "qwen2": {
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 151936,
    },
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "max_position_embeddings": 131072,
    },
}  # fmt: skip


def text_model(
    config: Config,
    *,
    prefix: str,
    head_name: str,
    text_type: str = "",
    section: str = "text_config",
    tying: Tying = "own",
    tied_default: bool = False,
    **defaults: Any,
) -> Architecture:
    """The language model inside a multimodal config, built by its own family.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint.
    text_type
        `model_type` under which the family knows the text section, if it is another than the section's.
    section
        Name of the text section. With a `text_type` its fields may lie at the top instead (Qwen2-VL).
    tying, tied_default
        Whose `tie_word_embeddings` counts, and what its absence means.
    defaults
        Fields that published text sections leave out.

    Raises
    ------
    BadInput
        If the text section is missing, or a field in it is missing or wrong.
    """
    text = config.section(section)
    if text is None:
        if not text_type:
            raise BadInput(
                f"{config.where}: the section {section!r} is missing", "it holds the language model"
            )
        text = config
    model_type = text_type or text.text("model_type", default="llama")
    if tying == "never":
        tied = False
    elif tying == "either":
        tied = any(place.boolean("tie_word_embeddings", default=tied_default) for place in (config, text))
    else:
        tied = config.boolean(
            "tie_word_embeddings", default=text.boolean("tie_word_embeddings", default=tied_default)
        )
    # A quantized checkpoint may store experts otherwise, which the language model's family decides.
    quantization = config.raw("quantization_config")
    filled = text.with_defaults(
        **_TEXT_DEFAULTS.get(model_type, {}), **defaults, quantization_config=quantization
    )
    fields = {**filled.fields, "model_type": model_type, "tie_word_embeddings": tied}
    return build(Config(fields, text.where), prefix=prefix, head_name=head_name)


def with_towers(
    text: Architecture, config: Config, family: str, towers: Iterable[Tower], **changes: Any
) -> Architecture:
    """A language model with its towers, under the multimodal config's own `model_type`."""
    return replace(
        text,
        model_type=config.text("model_type"),
        family=family,
        dtype=dtype_of(config, default=text.dtype),
        towers=tuple(towers),
        **changes,
    )
