"""What SGLang loads on each rank: sharded tensors, padded vocabularies, rotary tables.

`layers/linear.py`, `layers/vocab_parallel_embedding.py`, `layers/rotary_embedding/base.py`,
`distributed/utils.py` (0.5.23).
"""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Architecture, Tensor
from willfit.engines.base import Subject
from willfit.engines.sglang.eras import Era
from willfit.engines.sglang.segments import fused_name, segment_bytes
from willfit.engines.sglang.settings import Settings
from willfit.formats.base import Piece
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


#: A line that is loaded, the arrays of one of its tensors on a rank, and how many such tensors a layer has there.
RankLine = tuple[WeightLine, list[Piece], int]


def rank_lines(subject: Subject, settings: Settings, dtype: str) -> list[RankLine]:
    """What is loaded on a rank, without a draft's."""
    return [
        (line, *rank_pieces(line, subject.architecture, settings, dtype))
        for line in subject.lines
        if _is_loaded(line.tensor, settings)
    ]


def stage_bytes(
    subject: Subject, settings: Settings, dtype: str, loaded: list[RankLine] | None = None
) -> tuple[int, ...]:
    """Bytes of the parameters on a rank of each pipeline stage, without a draft's.

    Each stage has its own layers, the first the embedding, the last the head; towers, and what belongs to no layer,
    are on the first.
    """
    architecture = subject.architecture
    by_tensor: dict[int, tuple[int, int]] = {}
    for line, pieces, copies in loaded or rank_lines(subject, settings, dtype):
        size, times = by_tensor.get(id(line.tensor), (0, 0))
        for piece in pieces:
            size += piece.bytes * copies * line.times
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


def vocabulary_bytes(subject: Subject, settings: Settings, dtype: str) -> int:
    """Bytes of embedding and head on a rank."""
    architecture = subject.architecture
    ends = {id(tensor) for tensor in (*architecture.embeddings, *architecture.head) if len(tensor.shape) == 2}
    size = sum(
        rank_bytes(line, architecture, settings, dtype) for line in subject.lines if id(line.tensor) in ends
    )
    return 2 * size if architecture.tied else size


def rank_bytes(line: WeightLine, architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Bytes of a line on one rank: what no method quantizes is converted to the model's dtype."""
    pieces, copies = rank_pieces(line, architecture, settings, dtype)
    return sum(piece.bytes for piece in pieces) * copies * line.times


def rank_pieces(
    line: WeightLine, architecture: Architecture, settings: Settings, dtype: str
) -> tuple[list[Piece], int]:
    """The arrays that one tensor of a line becomes on a rank, and how many such tensors a layer has there."""
    tensor = line.tensor
    shape, copies = _shape_on_rank(tensor, architecture, settings)
    stored, name = line.format, line.format.name
    plain = name in _FLOATS and line.bytes == tensor.elements * line.times * DTYPE_BYTES[name]
    if plain and tensor.kind != "buffer":
        stored = Plain("fp32" if tensor.name.endswith("A_log") else dtype)
    without = "g_idx" if isinstance(stored, Gptq) and not stored.ordered else None
    return [piece for piece in stored.pieces(shape) if piece.suffix != without], copies


def loading_slack(subject: Subject, loaded: list[RankLine], era: Era) -> int:
    """Bytes that loading leaves reserved beside the parameters of a whole model's rank.

    Segments are rounded (`segments.py`). Where experts in NVFP4 have their scales twice while they are loaded, those
    of the second projection lie in the segments of scales that stay, so they cannot be given back
    (`layers/quantization/modelopt_quant.py: ModelOptNvFp4FusedMoEMethod`).
    """
    owners = {
        id(tensor): index
        for index, (layer, _) in enumerate(subject.architecture.blocks)
        for tensor in layer.tensors
    }
    sizes: dict[tuple[int, str, str, int], int] = {}
    held = scales = 0
    for line, pieces, copies in loaded:
        tensor, experts = line.tensor, line.tensor.part == "experts"
        times = line.times if experts else line.times * copies
        together = copies if experts else 1
        name, owner = fused_name(tensor.name), owners.get(id(tensor), -1)
        last = tensor.name.rpartition(".")[2]
        for piece in pieces:
            key = owner, name, f"{last}.{piece.suffix}", times
            sizes[key] = sizes.get(key, 0) + piece.bytes * together
            held += piece.bytes * together * times
            if experts and line.format.name == "nvfp4" and piece.suffix == "weight_scale" and "down" in name:
                scales += piece.bytes * together * times
    tables = [(table, 1) for table in rope_tables(subject.architecture)]
    blocks = [(size, key[3]) for key, size in sizes.items()] + tables
    slack = segment_bytes(blocks) - held - sum(table for table, _ in tables)
    return slack + (scales if era.doubled_scales else 0)


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
        # Attention replicas look words up on their own; the head stays divided over all ranks.
        parts = settings.attention_ranks if table else ranks
        rows = ceil_div(round_up(tensor.shape[0], VOCAB_PADDING), parts)
        return (rows, *tensor.shape[1:]), tensor.copies
    if tensor.part in ("attention", "mixer"):
        return rank_shape(tensor, settings.attention_ranks), tensor.copies
    if tensor.part != "experts" or settings.ep_size == 1:
        return rank_shape(tensor, ranks), tensor.copies
    shape, redundant = (
        rank_shape(tensor, max(1, ranks // settings.ep_size)),
        settings.ep_num_redundant_experts,
    )
    if tensor.copies > 1:
        return shape, ceil_div(tensor.copies + redundant, settings.ep_size)
    return (ceil_div(shape[0] + redundant, settings.ep_size), *shape[1:]), 1


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
    """Bytes of all cos/sin tables."""
    return sum(rope_tables(architecture))


def rope_tables(architecture: Architecture) -> list[int]:
    """Bytes of the cos/sin tables: one in fp32 for each distinct rotary setting, as long as the scaled context.

    Gemma 4's full layers have a table as wide as a head, although they rotate a part of it
    (`layers/rotary_embedding/rope_variant.py: Gemma4RotaryEmbedding`).
    """
    tables = []
    for rope in architecture.ropes:
        positions, dim = architecture.max_positions, rope.dim
        if rope.kind in ("yarn", "deepseek_yarn") and rope.original_positions:
            positions = int(rope.original_positions * rope.factor)
        elif rope.kind in ("linear", "dynamic", "deepseek_llama_scaling"):
            positions = int(positions * rope.factor)
        elif rope.kind == "proportional":
            dim = max(dim, *(getattr(mixer, "head_dim", 0) for mixer in _mixers(architecture)))
        tables.append(positions * dim * 4)
    return tables


def _mixers(architecture: Architecture) -> list[Mixer]:
    return [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]


def pipeline_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: the remainder goes, one each, to the last stages.

    `distributed/utils.py: get_pp_indices`.
    """
    counts = [layers // stages] * stages
    for index in range(1, 1 + layers % stages):
        counts[-index] += 1
    return tuple(counts)
