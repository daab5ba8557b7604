"""What vLLM holds beside the parameters: rotary tables, scales, expert maps and the like.

`model_executor/layers/rotary_embedding/`, `layers/attention/attention.py` and the models' own buffers (0.33).
"""

from __future__ import annotations

from collections.abc import Iterator

from willfit.architectures.mixers import Attention, CompressedAttention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.engines.base import Subject
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.loading.stages import divided, pipeline_stages
from willfit.engines.vllm.models import support
from willfit.engines.vllm.settings import Settings
from willfit.quantities import DTYPE_BYTES, ceil_div

#: fp32 scalars that every attention layer keeps: key, value, query and probability scales.
_SCALES_PER_ATTENTION = 4

#: Positions of the rotary tables of the vision encoders of Qwen and GLM, over half of a head.
_VISION_POSITIONS = 8192

#: Ends of names of an encoder's learned positions.
_POSITIONS = ("position_embedding.weight", "positional_embedding_vlm")

#: Scalars in the model's dtype, by family: once, and for each layer.
_SCALARS = {
    "gemma": (1, 0),
    "gemma3_multimodal": (1, 0),
    "gemma3n": (4, 1),
    "gemma3n_multimodal": (4, 1),
    "gemma4": (1, 1),
    "gemma4_multimodal": (1, 1),
    "apertus": (0, 2),
}


#: Scalars in the model's dtype that come with inputs made for each layer (`models/gemma4.py`).
_PER_LAYER_INPUT_SCALARS = 3

#: A Gemma 3n conformer layer's mask of 12 x 24 positions, and four scalars.
_CONFORMER_BYTES = 12 * 24 + 16

#: Models whose indexer has a rotary table of its own (`models/deepseek_v32/attention.py`).
_SECOND_TABLE = frozenset({"deepseek_v32"})

#: Models whose rotary table is kept in fp32 (`models/gpt_oss.py`, `models/hy_v3.py`).
_FP32_TABLES = frozenset({"deepseek_v4", "gpt_oss", "hy_v3"})

#: Rotary modules of Transformers' classes that have one for each kind of layer.
_TABLES = {"olmo3": 2}

#: Transformers' modules that hold a causal mask of a byte for each pair of positions.
_WRITTEN_MASKS = frozenset({"gpt_bigcode"})

#: fp32 scalars that the latent attention of these models keeps beside the usual ones (`models/kimi_k3/nvidia/mla.py`).
_LATENT_SCALARS = {"kimi_linear": 1, "kimi_k3": 1}


def buffer_bytes(subject: Subject, settings: Settings, dtype: str) -> int:
    """Bytes of all buffers of one rank.

    Parameters
    ----------
    subject
        The model as stored.
    dtype
        The model's dtype.
    """
    architecture = subject.architecture
    if through_transformers(architecture, settings):
        # Transformers' modules compute angles from two copies of the fp32 frequencies; biases are buffers there.
        tables = sum(4 * rope.dim for rope in architecture.ropes) * _TABLES.get(architecture.model_type, 1)
        tables += sum(
            4 * line.tensor.elements * line.times for line in subject.lines if is_correction_bias(line.tensor)
        )
        if architecture.model_type in _WRITTEN_MASKS:
            tables += architecture.max_positions**2
    else:
        era = era_for(settings.version, settings.generation)
        tables = rope_bytes(architecture, dtype, era.interleaved_table)
    towers = () if settings.language_model_only else architecture.towers
    layers = _widest_stage(architecture, settings, dtype)
    drafts = architecture.mtp_layers if settings.mtp else ()
    layers += sum(_mixer_bytes(m, architecture, settings, dtype) for layer in drafts for m in layer.mixers)
    return (
        tables
        + sum(_tower_bytes(architecture, tower, DTYPE_BYTES[dtype]) for tower in towers)
        + layers
        + _scalar_bytes(architecture, dtype)
        + _map_bytes(architecture, settings)
        + _position_bytes(architecture)
    )


def _widest_stage(architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Buffers of the layers of the pipeline stage that has most of them."""
    each = {
        id(layer): sum(_mixer_bytes(mixer, architecture, settings, dtype) for mixer in layer.mixers)
        for layer, _ in architecture.blocks
    }
    if settings.pipeline_parallel == 1:
        return sum(each[id(layer)] * times for layer, times in architecture.blocks)
    counts = pipeline_stages(len(architecture.layers), settings.pipeline_parallel)
    return max(sum(each[id(layer)] for layer in part) for part in divided(architecture.layers, counts))


def through_transformers(architecture: Architecture, settings: Settings) -> bool:
    """Whether this version runs the model with Transformers' modules."""
    return support(architecture, settings.version).through


def is_correction_bias(tensor: Tensor) -> bool:
    """Whether a tensor is a router's correction bias, stored as a buffer."""
    return tensor.kind == "buffer" and tensor.part == "router"


def rope_bytes(architecture: Architecture, dtype: str, interleaved: int) -> int:
    """Bytes of the cos/sin tables: one per distinct rotary setting, as long as the scaled context.

    `positions x rotary dim x dtype`: positions are the model's own limit, times the factor for linear scaling,
    the original limit times the factor for YaRN, and four times the limit for multi-axis positions, whose
    largest index follows a video's duration. Proportional tables are as wide as the widest head.

    Parameters
    ----------
    interleaved
        How many times as long as the limit the table of interleaved multi-axis positions is.
    """
    total = 0
    for rope in architecture.ropes:
        positions, dim = architecture.max_positions, rope.dim
        if rope.kind in ("yarn", "deepseek_yarn") and rope.original_positions:
            positions = int(rope.original_positions * rope.factor)
        elif rope.kind in ("linear", "dynamic", "deepseek_llama_scaling"):
            positions = int(positions * rope.factor)
        elif rope.kind == "mrope":
            positions *= 4
        elif rope.kind == "interleaved_mrope":
            positions *= interleaved
        elif rope.kind == "proportional":
            dim = max(
                (mixer.head_dim for mixer in _mixers(architecture) if isinstance(mixer, Attention)),
                default=dim,
            )
        total += positions * dim * DTYPE_BYTES["fp32" if architecture.model_type in _FP32_TABLES else dtype]
    # DeepSeek-V4's layers without compressed entries rotate by another base (`models/deepseek_v4/attention.py`).
    compressed = {
        mixer.ratio > 1 for mixer in _mixers(architecture) if isinstance(mixer, CompressedAttention)
    }
    twice = architecture.model_type in _SECOND_TABLE or len(compressed) > 1
    return total * (2 if twice else 1)


def _mixers(architecture: Architecture) -> Iterator[Mixer]:
    """The mixers of all layers, one by one."""
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            for _ in range(times):
                yield mixer


def _mixer_bytes(mixer: Mixer, architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Scales of an attention module; a view of a Mamba-2 convolution's weights, and Falcon-H1's multipliers."""
    if isinstance(mixer, CompressedAttention) or (mixer.kind == "cross attention" and architecture.towers):
        return 0
    if not mixer.fixed_states:
        more = _LATENT_SCALARS.get(architecture.model_type, 0) if isinstance(mixer, LatentAttention) else 0
        return 4 * (_SCALES_PER_ATTENTION + more)
    if not isinstance(mixer, Recurrent) or mixer.kind != "mamba2":
        return 0
    ranks, size = settings.tensor_parallel, DTYPE_BYTES[dtype]
    inner, shared = mixer.output_width // ranks, mixer.conv_channels - mixer.output_width
    if mamba_groups(mixer) > 1:
        shared //= ranks
    channels = inner + shared
    multipliers = inner + channels + ceil_div(mixer.heads, ranks)
    return size * (channels * mixer.conv_kernel + (multipliers if architecture.family == "falcon_h1" else 0))


def mamba_groups(mixer: Recurrent) -> int:
    """Groups of a Mamba-2 layer: its convolution runs over the inputs and two states of each group."""
    state = mixer.recurrent // mixer.output_width
    return (mixer.conv_channels - mixer.output_width) // (2 * state) if state else 0


def _tower_bytes(architecture: Architecture, tower: Tower, size: int) -> int:
    """Rotary tables and position indices of an encoder (`models/qwen2_vl.py`, `siglip.py`, `pixtral`, ...)."""
    head = tower.hidden_size // (tower.heads or 1)
    positions = next((t.shape[0] for t in tower.tensors if t.name.endswith(_POSITIONS)), 0)
    match architecture.family:
        case "qwen_vl" | "exaone4_5":
            return _VISION_POSITIONS * (head // 2) * size
        case "glm4v":
            return _VISION_POSITIONS * (head // 2) * size + 8 * positions
        case "llama4_multimodal":
            return positions * (head // 2) * 8
        case "gemma3_multimodal":
            return 8 * positions
        case "llava":
            return 8 * positions if positions else 4 * head
        case "gemma4_multimodal" if tower.modality == "vision":
            standardised = sum(
                t.elements for t in tower.tensors if t.name.endswith(("std_bias", "std_scale"))
            )
            return 2 * head + standardised * size
        case "gemma3n_multimodal" if tower.modality == "audio":
            return tower.layers * (2 * tower.hidden_size + _CONFORMER_BYTES)
    return 0


def _scalar_bytes(architecture: Architecture, dtype: str) -> int:
    family = "gemma" if architecture.model_type == "gemma" else architecture.family
    once, each = _SCALARS.get(family, (0, 0))
    count = once + each * len(architecture.layers)
    if architecture.family.startswith("gemma4"):
        count += sum(1 for layer in architecture.layers if layer.feed_forward and layer.feed_forward.experts)
        if any("per_layer_model_projection" in tensor.name for tensor in architecture.embeddings):
            count += _PER_LAYER_INPUT_SCALARS
    return count * DTYPE_BYTES[dtype]


def _map_bytes(architecture: Architecture, settings: Settings) -> int:
    """Under expert parallelism each layer maps all experts to its own (`layers/fused_moe/routed_experts.py`)."""
    if not settings.expert_parallel or settings.expert_ranks == 1:
        return 0
    return sum(4 * layer.feed_forward.experts for layer in architecture.layers if layer.feed_forward)


def _position_bytes(architecture: Architecture) -> int:
    """BERT keeps the indices of its positions."""
    if architecture.family != "bert":
        return 0
    return sum(
        8 * t.shape[0] for t in architecture.embeddings if t.name.endswith("position_embeddings.weight")
    )
