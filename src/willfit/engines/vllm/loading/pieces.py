"""What each tensor of a checkpoint becomes on a rank: sharded, padded, with scales, in the dtypes that vLLM chooses.

`model_executor/layers/linear.py`, `layers/vocab_parallel_embedding.py`, `layers/quantization/` (0.33).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

from willfit.architectures.model import Architecture, Tensor
from willfit.engines.base import Subject
from willfit.engines.versions import parse_version
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.loading.buffers import is_correction_bias, through_transformers
from willfit.engines.vllm.settings import Settings
from willfit.formats.base import Format, Piece
from willfit.formats.bitsandbytes import Bnb4
from willfit.formats.fp4 import Mxfp4
from willfit.formats.gptq import Gptq
from willfit.formats.plain import Plain
from willfit.formats.scaled import Scaled
from willfit.formats.weights import WeightLine, rank_shape
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div, round_up

#: Models whose shared experts are whole on every rank where experts are divided over data-parallel replicas
#: (`config/parallel.py: use_sequence_parallel_moe`).
_WHOLE_SHARED = frozenset(
    {
        "axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "kimi_k2", "llama4", "mimo_v2",
        "nemotron_h", "qwen2_moe", "qwen3_5_moe", "qwen3_next",
    }
)  # fmt: skip

#: Models that take an image's features before the last layer of a CLIP encoder (`vision_feature_layer` -2).
_EARLIER_FEATURES = frozenset({"llava", "llava_next"})

#: Projections of drafts and of image encoders that vLLM divides over ranks (`models/qwen3_next_mtp.py`, `mllama4.py`).
_DIVIDED = {
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"), ("mtp.fc.weight",)
    ),
    "llama4": (
        "patch_embedding.linear.weight",
        ".fc1.weight",
        ".fc2.weight",
        "multi_modal_projector.linear_1.weight",
    ),
}

#: Vocabularies are padded to a multiple of this before they are divided over ranks.
VOCAB_PADDING = 64

#: Beginnings of names of heads that give scores, which pooling keeps.
_TASK_HEADS = ("classifier.", "score.", "v_head.", "bert.pooler.")

#: Ends of names of what is kept in fp32 whatever the model's dtype, for all models and by model type.
_FP32 = (
    "A_log",
    "bert.pooler.dense.weight",
    "bert.pooler.dense.bias",
    "classifier.weight",
    "classifier.bias",
    "score.weight",
    "e_score_correction_bias",
    "mlp.expert_bias",
    "classifier.dense.weight",
    "classifier.dense.bias",
    "classifier.out_proj.weight",
    "classifier.out_proj.bias",
)
_FP32_OF = {
    # Hyper-connections, sinks and positions inside an entry (`models/deepseek_v4/`).
    "deepseek_v4": ("_fn", "_base", "_scale", ".ape", ".attn_sink"),
    "deepseek_v32": ("indexer.k_norm.weight", "indexer.k_norm.bias"),
    "gemma3n": ("altup.correct_output_scale",),
    "gemma3n_text": ("altup.correct_output_scale",),
    "glm_moe_dsa": ("indexer.k_norm.weight", "indexer.k_norm.bias"),
    "kimi_linear": ("dt_bias", "conv1d.weight"),
    "kimi_k3": ("dt_bias", "conv1d.weight"),
}

#: Models whose router is kept in fp32 (`params_dtype` of the gate in `models/glm4_moe.py` and others).
_FP32_ROUTERS = frozenset(
    {
        "afmoe", "ernie4_5_moe", "ernie4_5_vl_moe", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "hy_v3", "longcat_flash",
        "minimax_m2", "minimax_m3_vl", "step3p5", "step3p7",
    }
)  # fmt: skip

#: Models whose router a method quantizes unless the checkpoint excepts it, and since when (`models/qwen3_moe.py`).
_QUANTIZED_ROUTERS = {"qwen3_moe": (0, 10, 2)}

#: Ends of names of what is loaded unquantized whatever the checkpoint has: fused with an unquantized projection
#: (`models/deepseek_v32/attention.py`), or by a kernel that reads 16 bits (`models/deepseek_v4/compressor.py`).
_PLAIN_OF = {
    "deepseek_v32": ("indexer.wk.weight",),
    "deepseek_v4": ("compressor.wkv.weight", "compressor.wgate.weight"),
    "glm_moe_dsa": ("indexer.wk.weight",),
}

#: Methods that have no kernels for experts, which stay as the model's dtype (`layers/quantization/fbgemm_fp8.py`).
_NO_EXPERTS = frozenset({"fbgemm_fp8"})

#: Norms over all heads, which every rank holds whole (`models/olmoe.py`).
_WHOLE_OF = {"olmoe": ("q_norm.weight", "k_norm.weight")}

#: Image and audio encoders that are Transformers' modules, whole on every rank (`models/gemma3n_mm.py`,
#: `models/gemma4_mm.py`).
_WHOLE_TOWERS = frozenset({"gemma3n", "gemma4", "gemma4_unified"})

#: Parts of names of what a model's code has no place for, and the norm that it builds though the checkpoint may lack it
#: (`models/stablelm.py`).
_UNUSED_OF = {"stablelm": ("q_layernorm.norms.", "k_layernorm.norms.")}
#: Multi-token-prediction modules use the model's head since this version.
_SHARES_MTP_HEAD = (0, 16)
#: Image encoders that no method quantizes (`models/kimi_k25.py: _maybe_ignore_quant_config`).
_PLAIN_TOWERS = frozenset({"kimi_k25"})

#: Experts are padded to this width on a rank (`models/kimi_k3/nvidia/model.py`).
_LEAST_EXPERT_WIDTH = {"kimi_linear": 256, "kimi_k3": 256}

#: DeepSeek-V4's kernels have no fewer query heads (`models/deepseek_v4/attention.py: get_padded_num_q_heads`).
_LEAST_SINKS = 64

#: Formats of plain numbers that are converted to the model's dtype.
_FLOATS = frozenset({"fp32", "fp16", "bf16"})

#: Inputs of a tile of Triton's MXFP4 layout on Hopper.
_TRITON_TILE = 256

#: Projections that vLLM fuses into the one before them, so that they have no `weight_shape` of their own.
_FUSED = ("k_proj.weight", "v_proj.weight", "up_proj.weight")


@dataclass(frozen=True, slots=True)
class OnRank:
    """A line as one rank loads it.

    Attributes
    ----------
    pieces
        The arrays that one tensor becomes.
    copies
        How many such tensors a layer has there.
    """

    line: WeightLine
    pieces: Sequence[Piece]
    copies: int

    @property
    def bytes(self) -> int:
        """Of all layers."""
        return sum(piece.bytes for piece in self.pieces) * self.copies * self.line.times


def on_rank(subject: Subject, settings: Settings, dtype: str, device: Device) -> list[OnRank]:
    """All lines that are loaded, on one rank of tensor parallelism; see `rank_pieces`."""
    return [
        OnRank(line, *rank_pieces(line, subject, settings, dtype, device))
        for line in subject.lines
        if is_loaded(line, subject, settings)
    ]


def is_loaded(line: WeightLine, subject: Subject, settings: Settings) -> bool:
    """Whether vLLM loads a tensor as a parameter at all.

    The head is dropped for pooling unless it classifies, towers if only the language model is asked for,
    multi-token-prediction modules unless they draft. Buffers of checkpoints (positions, rotary frequencies) are
    computed anew; a router's correction bias is loaded.
    """
    tensor = line.tensor
    if tensor.part == "head" and settings.runner == "pooling" and tensor.kind != "norm":
        return tensor.name.startswith(_TASK_HEADS)
    if tensor.part in ("vision", "audio") and settings.language_model_only:
        return False
    if tensor.name.endswith("lm_head.bias") and through_transformers(subject.architecture, settings):
        return False
    if _is_after_features(tensor, subject.architecture):
        return False
    if any(part in tensor.name for part in _UNUSED_OF.get(subject.architecture.model_type, ())):
        return False
    if tensor.part == "mtp" and not (settings.mtp and _is_own_of_mtp(tensor, settings)):
        return False
    if tensor.part == "mtp" and tensor.kind == "buffer":
        return tensor.name.endswith("bias")
    if is_correction_bias(tensor):
        return not through_transformers(subject.architecture, settings)
    return tensor.kind != "buffer"


def _is_own_of_mtp(tensor: Tensor, settings: Settings) -> bool:
    """Whether a multi-token-prediction module keeps a tensor of its own where the model has the same.

    Its token table is the model's within one pipeline stage, its head since 0.16 (`v1/spec_decode/eagle.py`).
    """
    if tensor.name.endswith("embed_tokens.weight"):
        return settings.pipeline_parallel > 1
    shared = tensor.name.endswith(("shared_head.head.weight", "lm_head.weight"))
    return not shared or parse_version(settings.version) < _SHARES_MTP_HEAD


def _is_after_features(tensor: Tensor, architecture: Architecture) -> bool:
    """The norm of a CLIP encoder whose features are taken before its last layer (`models/clip.py`, `llava.py`)."""
    return takes_earlier_features(architecture) and tensor.name.rpartition("vision_model.")[2].startswith(
        "post_layernorm."
    )


def takes_earlier_features(architecture: Architecture) -> bool:
    """Whether images go through all layers of a CLIP encoder but the last, which is not built."""
    return architecture.model_type in _EARLIER_FEATURES and any(
        "pre_layrnorm" in tensor.name for tower in architecture.towers for tensor in tower.tensors
    )


def rank_bytes(line: WeightLine, subject: Subject, settings: Settings, dtype: str, device: Device) -> int:
    """Bytes of a line on one rank, as loaded; see `rank_pieces`."""
    pieces, copies = rank_pieces(line, subject, settings, dtype, device)
    return sum(piece.bytes for piece in pieces) * copies * line.times


def rank_pieces(
    line: WeightLine, subject: Subject, settings: Settings, dtype: str, device: Device
) -> tuple[list[Piece], int]:
    """The arrays that one tensor of a line becomes on a rank, and how many such tensors a layer has there.

    Parameters
    ----------
    dtype
        The model's dtype; what no method quantizes is converted to it.
    device
        The card, on whose kernels the padding of MXFP4 experts depends.
    """
    tensor, architecture = line.tensor, subject.architecture
    shape, copies = _shape_on_rank(line, architecture, settings)
    stored = _as_loaded(line, subject, settings, dtype, shape)
    if tensor.part == "experts" and subject.recipe.method == "mxfp4":
        shape = _padded_for_kernel(tensor, shape, settings, device)
    without = ""
    if isinstance(stored, Bnb4) and stored.double and era_for(settings.version).plain_maxima:
        stored = replace(stored, double=False)
    if isinstance(stored, Gptq) and not stored.ordered:
        without = "g_idx"
    elif tensor.name.endswith(_FUSED):
        without = "weight_shape"
    pieces = [piece for piece in stored.pieces(shape) if piece.suffix != without]
    if tensor.part == "experts":
        # All experts of a projection share an array of two numbers each in the model's dtype.
        pieces = [
            replace(p, bytes=2 * DTYPE_BYTES[dtype]) if p.suffix == "weight_shape" else p for p in pieces
        ]
    return pieces, copies


def _shape_on_rank(
    line: WeightLine, architecture: Architecture, settings: Settings
) -> tuple[tuple[int, ...], int]:
    """Shape and number of a tensor's parts on a rank."""
    tensor, ranks, kind = line.tensor, settings.tensor_parallel, architecture.model_type
    if _is_vocabulary(tensor, architecture):
        rows = ceil_div(round_up(tensor.shape[0], VOCAB_PADDING), ranks)
        return (rows, *tensor.shape[1:]), tensor.copies
    if tensor.part != "experts" and tensor.name.endswith(_DIVIDED.get(kind, ())):
        return (ceil_div(tensor.shape[0], ranks), *tensor.shape[1:]), tensor.copies
    whole = kind in _WHOLE_TOWERS and "_tower." in tensor.name
    if settings.expert_parallel and settings.data_parallel > 1 and kind in _WHOLE_SHARED:
        whole = whole or "shared_expert" in tensor.name
    if whole or tensor.name.endswith(_WHOLE_OF.get(kind, ())):
        return tensor.shape, tensor.copies
    if kind == "deepseek_v4" and tensor.name.endswith(".attn_sink"):
        return (max(_LEAST_SINKS, *rank_shape(tensor, ranks)),), tensor.copies
    if tensor.part != "experts":
        return rank_shape(tensor, ranks), tensor.copies
    # All replicas share the experts of a layer out.
    ranks = settings.expert_ranks
    if settings.expert_parallel:
        more = settings.redundant_experts or 0
        if tensor.copies > 1:
            return tensor.shape, ceil_div(tensor.copies + more, ranks)
        return (ceil_div(tensor.shape[0] + more, ranks), *tensor.shape[1:]), 1
    shape = rank_shape(tensor, ranks)
    least = _LEAST_EXPERT_WIDTH.get(kind, 0)
    if tensor.split is not None and ranks > 1 and shape[tensor.split.axis] < least:
        axis = tensor.split.axis
        shape = (*shape[:axis], least, *shape[axis + 1 :])
    return shape, tensor.copies


def _is_vocabulary(tensor: Tensor, architecture: Architecture) -> bool:
    """Token tables and heads; BERT's positions and token types are held like vocabularies, too."""
    if tensor.part == "embedding" and len(tensor.shape) == 2:
        table = tensor.kind == "embedding" and tensor.split is not None
        return table or (architecture.family == "bert" and tensor.kind == "other")
    return tensor.part == "head" and tensor.kind in ("linear", "bias") and tensor.split is not None


def _as_loaded(
    line: WeightLine, subject: Subject, settings: Settings, dtype: str, shape: tuple[int, ...]
) -> Format:
    tensor, stored, kind = line.tensor, line.format, subject.architecture.model_type
    name = line.tensor.name
    if tensor.kind == "buffer":
        # Correction biases are added to scores in fp32; tables of token ids stay as they are.
        return Plain("fp32") if is_correction_bias(tensor) else stored
    router = tensor.part == "router" or (tensor.part == "mtp" and name.endswith(".gate.weight"))
    fp32_router = router and tensor.kind == "linear" and kind in _FP32_ROUTERS
    if fp32_router or name.endswith((*_FP32, *_FP32_OF.get(kind, ()))):
        return Plain("fp32")
    quantized = _QUANTIZED_ROUTERS.get(kind)
    if router and quantized and not subject.recipe.named and parse_version(settings.version) >= quantized:
        # Recipes never quantize what they know to be a router; this code has it as any other projection, and whoever
        # publishes a checkpoint excepts it.
        return subject.recipe.format_of(name.format(layer=0), replace(tensor, part="mlp"))
    if _is_plain(line) or (tensor.part == "vision" and kind in _PLAIN_TOWERS):
        return Plain(dtype)
    if name.endswith(_PLAIN_OF.get(kind, ())) or (
        tensor.part == "experts" and subject.recipe.method in _NO_EXPERTS
    ):
        return Plain(dtype)
    if isinstance(stored, Scaled):
        return _scaled_as_loaded(stored, subject, tensor, shape)
    return stored


def _is_plain(line: WeightLine) -> bool:
    """Whether a tensor is stored as floating-point numbers one by one, as a recipe or a file header says."""
    name = line.format.name
    return name in _FLOATS and line.bytes == line.tensor.elements * line.times * DTYPE_BYTES[name]


def _scaled_as_loaded(stored: Scaled, subject: Subject, tensor: Tensor, shape: tuple[int, ...]) -> Scaled:
    """Scales of compressed-tensors are held in fp32; blocks of experts are refined until they divide a shard.

    `compressed_tensors/schemes/`, `fused_moe/oracle/fp8.py: refine_fp8_moe_block_shape`.
    """
    if subject.recipe.method.startswith("compressed"):
        stored = replace(stored, scale_dtype="fp32")
    if stored.granularity == "block" and tensor.part == "experts" and tensor.split is not None:
        width = shape[tensor.split.axis]
        refined = gcd(*stored.block, width, subject.architecture.hidden_size)
        if width % stored.block[0] and refined >= 32:
            stored = replace(stored, block=(refined, refined))
    return stored


def _padded_for_kernel(
    tensor: Tensor, shape: tuple[int, ...], settings: Settings, device: Device
) -> tuple[int, ...]:
    """MXFP4 experts and their biases as wide as the card's kernel needs them.

    `fused_moe/oracle/mxfp4.py: mxfp4_round_up_hidden_size_and_intermediate_size`: Triton's kernels pad the
    intermediate width to 64; Marlin's (older cards) and TensorRT-LLM's (Blackwell) to 128 and the hidden width to 256.
    """
    intermediate, hidden = (64, 1) if runs_triton_mxfp4(settings, device) else (128, 256)
    inner = "down_proj" in tensor.name
    fused = 2 if "gate_up" in tensor.name else 1
    outer, least = (hidden, 1) if inner else (intermediate, fused)
    if tensor.kind == "bias":
        return (*shape[:-1], least * round_up(shape[-1] // least, outer))
    rows, columns = shape[-2:]
    columns = round_up(columns, intermediate if inner else hidden)
    return (*shape[:-2], least * round_up(rows // least, outer), columns)


def runs_triton_mxfp4(settings: Settings, device: Device) -> bool:
    """Hopper runs MXFP4 experts with Triton's kernels; until 0.10 it needed Marlin's for that."""
    return device.compute_capability.startswith("9.") and parse_version(settings.version) >= (0, 11)


def layout_bytes(subject: Subject, settings: Settings, device: Device) -> int:
    """What Triton's layout of MXFP4 experts adds after loading: inputs in tiles of 256.

    The logs of gpt-oss-120b on an H100 have 64.38 GiB (0.11.0, 0.14.1) where 60.80 GiB were loaded.
    """
    if not runs_triton_mxfp4(settings, device):
        return 0
    total = 0
    for line in subject.lines:
        if isinstance(line.format, Mxfp4) and line.tensor.part == "experts":
            shape, copies = _shape_on_rank(line, subject.architecture, settings)
            *lead, rows, columns = _padded_for_kernel(line.tensor, shape, settings, device)
            added = round_up(columns, _TRITON_TILE) - columns
            total += prod(lead) * rows * added // 2 * copies * line.times
    return total
