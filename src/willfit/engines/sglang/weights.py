"""What SGLang loads on each rank: sharded tensors, padded vocabularies, rotary tables.

`layers/linear.py`, `layers/vocab_parallel_embedding.py`, `layers/rotary_embedding/base.py`,
`distributed/utils.py` (0.5.23).
"""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture, Tensor
from willfit.engines.base import Subject
from willfit.engines.sglang.settings import Settings
from willfit.formats.gptq import Gptq
from willfit.formats.plain import Plain
from willfit.formats.scaled import Scaled
from willfit.formats.weights import WeightLine, rank_shape
from willfit.quantities import DTYPE_BYTES, ceil_div, round_up

#: Vocabularies are padded to a multiple of this before they are divided over ranks.
VOCAB_PADDING = 64

_FLOATS = frozenset({"fp32", "fp16", "bf16"})

#: Models whose token tables are plain `nn.Embedding`s, whole on every rank (`models/gemma3_causal.py`, 0.4.6 to
#: 0.5.23).
_WHOLE_TABLES = frozenset(
    {
        "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified",
        "gemma4_unified_text",
    }
)  # fmt: skip


def stage_bytes(subject: Subject, settings: Settings, dtype: str) -> tuple[int, ...]:
    """Bytes of the parameters on a rank of each pipeline stage, without a draft's.

    Each stage has its own layers, the first the embedding, the last the head; towers, and what belongs to no layer,
    are on the first.
    """
    architecture = subject.architecture
    by_tensor: dict[int, tuple[int, int]] = {}
    for line in subject.lines:
        if _is_loaded(line.tensor, settings):
            size, times = by_tensor.get(id(line.tensor), (0, 0))
            size += rank_bytes(line, architecture, settings, dtype)
            by_tensor[id(line.tensor)] = size, times + line.times
    total = sum(size for size, _ in by_tensor.values())
    copies = _copied_bytes(subject, settings)
    if settings.pp_size == 1:
        return (total + copies,)

    def size_of(tensors: tuple[Tensor, ...]) -> int:
        found = (by_tensor.get(id(tensor), (0, 1)) for tensor in tensors)
        return sum(size // max(1, times) for size, times in found)

    head = size_of(architecture.head)
    stages, start, count = [], 0, max(1, len(architecture.layers))
    for layers in pipeline_stages(len(architecture.layers), settings.pp_size):
        inner = sum(size_of(layer.tensors) for layer in architecture.layers[start : start + layers])
        stages.append(inner + copies * layers // count)
        start += layers
    stages[0] += total - head - sum(size_of(layer.tensors) for layer in architecture.layers)
    stages[-1] += head + (size_of(architecture.embeddings) if architecture.tied else 0)
    return tuple(stages)


def _is_loaded(tensor: Tensor, settings: Settings) -> bool:
    """Towers are left out if only the language model is asked for; a router's correction bias is a parameter."""
    if tensor.part == "mtp" or (tensor.part in ("vision", "audio") and settings.language_model_only):
        return False
    return tensor.kind != "buffer" or tensor.part == "router"


def draft_bytes(subject: Subject, settings: Settings, dtype: str) -> int:
    """Bytes of the checkpoint's multi-token-prediction module on a rank; head and embedding are shared."""
    if not settings.mtp:
        return 0
    architecture = subject.architecture
    return sum(
        rank_bytes(line, architecture, settings, dtype)
        for line in subject.lines
        if line.tensor.part == "mtp" and line.tensor.kind != "buffer"
    )


def rank_bytes(line: WeightLine, architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Bytes of a line on one rank: what no method quantizes is converted to the model's dtype."""
    tensor = line.tensor
    shape, copies = _shape_on_rank(tensor, architecture, settings)
    stored, name = line.format, line.format.name
    plain = name in _FLOATS and line.bytes == tensor.elements * line.times * DTYPE_BYTES[name]
    if plain and tensor.kind != "buffer":
        stored = Plain("fp32" if tensor.name.endswith("A_log") else dtype)
    without = "g_idx" if isinstance(stored, Gptq) and not stored.ordered else None
    size = sum(piece.bytes for piece in stored.pieces(shape) if piece.suffix != without)
    return size * copies * line.times


def _shape_on_rank(
    tensor: Tensor, architecture: Architecture, settings: Settings
) -> tuple[tuple[int, ...], int]:
    """Shape and number of a tensor's parts on a rank."""
    ranks = settings.tp_size
    table = tensor.part == "embedding" and tensor.kind == "embedding"
    if table and architecture.model_type in _WHOLE_TABLES:
        return tensor.shape, tensor.copies
    head = tensor.part == "head" and tensor.kind in ("linear", "bias")
    if (table or head) and tensor.split is not None and tensor.split.axis == 0:
        rows = ceil_div(round_up(tensor.shape[0], VOCAB_PADDING), ranks)
        return (rows, *tensor.shape[1:]), tensor.copies
    if tensor.part in ("attention", "mixer"):
        return rank_shape(tensor, settings.attention_ranks), tensor.copies
    if tensor.part != "experts" or settings.ep_size == 1:
        return rank_shape(tensor, ranks), tensor.copies
    shape = rank_shape(tensor, max(1, ranks // settings.ep_size))
    if tensor.copies > 1:
        return shape, ceil_div(tensor.copies, settings.ep_size)
    return (ceil_div(shape[0], settings.ep_size), *shape[1:]), 1


def _copied_bytes(subject: Subject, settings: Settings) -> int:
    """What is made from stored tensors: values from keys, and the halves of latent attention's up-projection.

    `models/gemma4_causal.py` loads keys as values. `models/deepseek_common/deepseek_weight_loader.py` keeps `w_kc`
    and `w_vc` beside `kv_b_proj`, in 8 bits if that is, else in 16.
    """
    doubled: set[int] = set()
    total, ranks = 0, settings.attention_ranks
    eight_bits = any(
        line.tensor.name.endswith("kv_b_proj.weight") and isinstance(line.format, Scaled)
        for line in subject.lines
    )
    for layer, times in subject.architecture.blocks:
        for mixer in layer.mixers:
            if isinstance(mixer, Attention) and mixer.value_is_key:
                doubled |= {id(t) for t in layer.tensors if t.name.endswith("k_proj.weight")}
            if isinstance(mixer, LatentAttention):
                elements = ceil_div(mixer.heads, ranks) * (mixer.nope_dim + mixer.value_dim) * mixer.kv_rank
                total += times * elements * (1 if eight_bits else 2)
    return total + sum(line.on_rank(ranks) for line in subject.lines if id(line.tensor) in doubled)


def rope_bytes(architecture: Architecture) -> int:
    """Bytes of the cos/sin tables: one in fp32 for each distinct rotary setting, as long as the scaled context."""
    total = 0
    for rope in architecture.ropes:
        positions, dim = architecture.max_positions, rope.dim
        if rope.kind in ("yarn", "deepseek_yarn") and rope.original_positions:
            positions = int(rope.original_positions * rope.factor)
        elif rope.kind in ("linear", "dynamic", "deepseek_llama_scaling"):
            positions = int(positions * rope.factor)
        total += positions * dim * 4
    return total


def pipeline_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: the remainder goes, one each, to the last stages.

    `distributed/utils.py: get_pp_indices`.
    """
    counts = [layers // stages] * stages
    for index in range(1, 1 + layers % stages):
        counts[-index] += 1
    return tuple(counts)
