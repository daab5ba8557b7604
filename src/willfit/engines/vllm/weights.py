"""What vLLM loads on each rank: sharded tensors, padded vocabularies, rotary tables.

`model_executor/layers/vocab_parallel_embedding.py`, `layers/rotary_embedding/`, `distributed/utils.py`.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture, Split, Tensor
from willfit.engines.base import Subject
from willfit.engines.vllm.settings import Settings
from willfit.formats.weights import WeightLine
from willfit.quantities import DTYPE_BYTES, ceil_div, round_up

#: Vocabularies are padded to a multiple of this before they are divided over ranks.
VOCAB_PADDING = 64

#: fp32 scalars that every attention layer keeps: key, value, query and probability scales.
_SCALES_PER_ATTENTION = 4


def is_loaded(line: WeightLine, subject: Subject, settings: Settings) -> bool:
    """Whether vLLM loads a tensor at all.

    The head is dropped for pooling, towers if only the language model is asked for, multi-token-prediction
    modules unless they draft. Buffers of old checkpoints (positions, rotary frequencies) are computed anew;
    a router's correction bias is loaded.
    """
    tensor = line.tensor
    if tensor.part == "head" and settings.runner == "pooling" and tensor.kind != "norm":
        return False
    if tensor.part in ("vision", "audio") and settings.language_model_only:
        return False
    if tensor.part == "mtp" and not settings.mtp:
        return False
    return tensor.kind != "buffer" or tensor.part == "router"


def rank_bytes(line: WeightLine, subject: Subject, ranks: int, dtype: str) -> int:
    """Bytes of a line on one tensor-parallel rank, as loaded.

    Vocabularies are padded, and what no method quantizes is converted to the model's dtype.
    """
    tensor = line.tensor
    is_vocabulary = tensor.kind == "embedding" and tensor.part == "embedding" and tensor.split is not None
    if is_vocabulary or (tensor.part == "head" and tensor.kind in ("linear", "bias")):
        size = _padded(line, tensor, ranks)
    else:
        size = line.on_rank(ranks)
    base = subject.recipe.base
    if line.format == base and base.name in DTYPE_BYTES:
        size = size * DTYPE_BYTES[dtype] // DTYPE_BYTES[base.name]
    return size


def _padded(line: WeightLine, tensor: Tensor, ranks: int) -> int:
    rows = tensor.shape[0]
    padded = round_up(rows, VOCAB_PADDING)
    if padded == rows and padded % ranks == 0:
        return line.on_rank(ranks)
    wider = replace(tensor, shape=(padded, *tensor.shape[1:]), split=Split(0, padded))
    return line.format.bytes((ceil_div(padded, ranks), *wider.shape[1:])) * line.times


def rope_bytes(architecture: Architecture, dtype: str) -> int:
    """Bytes of the cos/sin tables: one per distinct rotary setting, as long as the scaled context.

    `positions x rotary dim x dtype`: positions are the model's own limit, times the factor for linear scaling,
    the original limit times the factor for YaRN, and four times the limit for multi-axis positions, whose
    largest index follows a video's duration.
    """
    total = 0
    for rope in architecture.ropes:
        positions = architecture.max_positions
        if rope.kind in ("yarn", "deepseek_yarn") and rope.original_positions:
            positions = int(rope.original_positions * rope.factor)
        elif rope.kind in ("linear", "dynamic", "deepseek_llama_scaling"):
            positions = int(positions * rope.factor)
        elif rope.kind == "mrope":
            positions *= 4
        total += positions * rope.dim * DTYPE_BYTES[dtype]
    return total


def buffer_bytes(architecture: Architecture, dtype: str) -> int:
    """Rotary tables and the scale scalars of the attention layers."""
    attention = sum(
        times
        for layer, times in architecture.blocks
        for mixer in layer.mixers
        if not mixer.fixed_states and mixer.kind != "cross attention"
    )
    return rope_bytes(architecture, dtype) + attention * _SCALES_PER_ATTENTION * 4


def latent_copy_bytes(subject: Subject, settings: Settings) -> int:
    """MLA keeps the latent's up-projection a second time in 16 bits if the checkpoint has it quantized."""
    total = 0
    for layer, times in subject.architecture.blocks:
        for mixer in layer.mixers:
            if not isinstance(mixer, LatentAttention):
                continue
            quantized = any(
                line.tensor.name.endswith("kv_b_proj.weight") and line.format != subject.recipe.base
                for line in subject.lines
            )
            if quantized:
                heads = ceil_div(mixer.heads, settings.tensor_parallel)
                total += times * heads * (mixer.nope_dim + mixer.value_dim) * mixer.kv_rank * 2
    return total


def pipeline_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: the remainder goes, one each, to the stages before the last.

    `distributed/utils.py: get_pp_indices`.
    """
    counts = [layers // stages] * stages
    for index in range(2, 2 + layers % stages):
        counts[-index] += 1
    return tuple(counts)
