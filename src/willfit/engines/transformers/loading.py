"""What from_pretrained() leaves on each device: weights in the dtype they are loaded in, and buffers.

`modeling_utils.py`, `core_model_loading.py`, `integrations/accelerate.py`, `quantizers/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.caching_allocator import block_bytes
from willfit.engines.transformers.eras import LATE_TABLES, Era
from willfit.formats.plain import Plain
from willfit.formats.weights import WeightLine, rank_shape
from willfit.quantities import DTYPE_BYTES

#: Bytes per element of a matrix that is quantized while loading, held on the device beside the result: bitsandbytes
#: `nn/modules.py: Params4bit._quantize` and `Int8Params.cuda` (the 16-bit matrix; 8 bits once more, transposed, up to
#: 0.44), transformers `quantizers/quantizer_fbgemm_fp8.py`. Others make several copies, up to four of 32 bits.
_CONVERTED_FROM = {"bitsandbytes": (2, 3), "fbgemm_fp8": (2, 2)}
_CONVERTED_AT_MOST = 16

#: Bytes per element while AWQ's matrices are packed anew for ExLlama: AutoAWQ `utils/packing_utils.py:
#: unpack_reorder_pack` (two int8 copies and one int64).
_REPACKED = 10

#: Methods whose checkpoints are packed by a run of its own: a user who names them means such a checkpoint.
_PACKED_BEFORE = frozenset(
    ("aqlm", "awq", "compressed-tensors", "gptq", "modelopt", "auto-round", "exl2", "exl3")
)

#: Methods whose packed matrices are allocated as such when the model is built, so that a piece of half their size
#: is less than the weights.
_BUILT_PACKED = frozenset(("fp8", "mxfp4", "bitnet"))

#: Matrices that AutoAWQ joins (`utils/fused_utils.py: fuse_qkv`).
_QKV = ("q_proj.weight", "k_proj.weight", "v_proj.weight")

#: Model types whose own code makes one rotary table for all layers, in every pass (`modeling_chatglm.py`).
_OWN_ROTARY = frozenset(("chatglm",))

#: Model types with a square causal mask (one byte per pair of positions) as a buffer of the whole model.
_SQUARE_MASK = frozenset(("gpt_bigcode",))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes of a loaded model, by where a device map can cut it.

    Attributes
    ----------
    first
        Input side: embeddings, towers, tensors shared by layers.
    layers, layer
        How many layers, and the bytes of all of them together.
    last
        Final norm and output projection.
    slack
        What the allocator's blocks hold beyond the tensors, if each is allocated for itself.
    buffers
        Rotary tables and masks that are computed, not loaded.
    largest
        Bytes of the largest single tensor.
    merged
        Bytes of the sources that are held beside the largest tensor that is merged from several.
    joined
        Bytes of the joined matrices of queries, keys and values, all layers together.
    dequantized
        Bytes of the largest quantized matrix in the compute dtype; 0 if nothing is quantized.
    widest
        Output features of the widest quantized matrix.
    matrices
        Elements of all matrices.
    elements
        Elements of all tensors, packed ones counted as what they stand for.
    width
        Bytes of one element of what is not quantized.
    """

    first: int
    layers: int
    layer: int
    last: int
    slack: int
    buffers: int
    largest: int
    merged: int
    joined: int
    dequantized: int
    widest: int
    matrices: int
    elements: int
    width: int

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return self.first + self.layer + self.last

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest quantized matrix."""
        return self.dequantized // self.width


def load(subject: Subject, era: Era, dtype: str, ranks: int, dequantize: bool) -> Loaded:
    """The model as loaded.

    Parameters
    ----------
    dtype
        What plain tensors are converted to.
    ranks
        Tensor-parallel ranks; the sizes are those of one of them.
    dequantize
        Quantized tensors are expanded to `dtype`.
    """
    width = DTYPE_BYTES[dtype]
    architecture = subject.architecture
    sums = {"first": 0, "layer": 0, "last": 0}
    slack = largest = merged = joined = dequantized = widest = matrices = elements = 0
    for line in subject.lines:
        tensor = line.tensor
        if tensor.part == "mtp":
            continue
        in_layer = "{layer}" in tensor.name
        place = "layer" if in_layer else "last" if tensor.part == "head" else "first"
        arrays = _arrays(line, width, ranks, dequantize)
        count = tensor.copies * line.times
        size = sum(arrays)
        sums[place] += size * count
        elements += prod(rank_shape(tensor, ranks)) * count
        if era.warm_up == "no":
            slack += sum(block_bytes(array) - array for array in arrays) * count
        if era.grouped_experts and tensor.copies > 1:
            size *= tensor.copies
            merged = max(merged, size)
        largest = max(largest, size)
        if tensor.kind != "linear":
            continue
        shape = rank_shape(tensor, ranks)
        matrices += prod(shape) * count
        if tensor.name.endswith(_QKV):
            joined += size * count
        if _packed(line) and not dequantize:
            dequantized = max(dequantized, prod(shape[-2:]) * width)
            widest = max(widest, shape[-2])
    layers = len(architecture.layers) + len(architecture.encoder)
    return Loaded(
        first=sums["first"],
        layers=layers,
        layer=sums["layer"],
        last=sums["last"],
        slack=slack,
        buffers=buffer_bytes(architecture, era, width),
        largest=largest,
        merged=merged,
        joined=joined,
        dequantized=dequantized,
        widest=widest,
        matrices=matrices,
        elements=elements,
        width=width,
    )


def buffer_bytes(architecture: Architecture, era: Era, width: int) -> int:
    """Rotary tables of versions that keep them in every layer, and square causal masks."""
    model_type, positions = architecture.model_type, architecture.max_positions
    total = positions * positions if model_type in _SQUARE_MASK else 0
    if model_type in _OWN_ROTARY:
        return total
    if era.rope_tables == "all" or (era.rope_tables == "some" and model_type in LATE_TABLES):
        dims = max((rope.dim for rope in architecture.ropes), default=0)
        total += len(architecture.layers) * 2 * positions * dims * width
    return total


def scratch_bytes(subject: Subject, era: Era, kernel: str | None, loaded: Loaded) -> int:
    """Bytes that a quantized kernel keeps for itself.

    ExLlama keeps room for one expanded matrix; ExLlamaV2 also for its fp32 products, 8 sequences of 2048 tokens
    (AutoGPTQ `nn_modules/qlinear/qlinear_exllamav2.py: scratch_space`, AutoAWQ `modules/linear/exllamav2.py`).
    """
    name = subject.recipe.name
    if name.startswith("gptq int4") and era.exllama:
        fixed = loaded.dequantized
    elif name.startswith("awq") and kernel in ("exllama", "exllamav2"):
        fixed = loaded.dequantized
        kernel = "exllamav2"  # the version that transformers takes
    else:
        return 0
    return fixed + (loaded.widest * 2048 * 8 * 4 if kernel == "exllamav2" else 0)


def warm_up_bytes(subject: Subject, era: Era, dtype: str, loaded: Loaded) -> int:
    """Bytes that loading allocates in one piece; 0 if that is no more than the weights.

    `modeling_utils.py: caching_allocator_warmup`. Where a matrix is quantized while loading, the model still has it
    unquantized at that time; half of it is taken, of torchao's 4-bit types a quarter.
    """
    recipe = subject.recipe
    if era.warm_up != "half" or not recipe.named or recipe.method in _BUILT_PACKED | _PACKED_BEFORE:
        return 0
    part = 4 if recipe.name.startswith("torchao int4") else 2
    piece = loaded.elements * DTYPE_BYTES[dtype] // part
    return piece if piece > loaded.total else 0


def converting(subject: Subject, kernel: str | None, fused: bool, loaded: Loaded) -> tuple[int, int, str]:
    """What loading holds beside the weights at most: bytes, the most that is possible, and the formula."""
    recipe = subject.recipe
    elements = loaded.largest_matrix
    if fused:
        return loaded.joined, loaded.joined, f"{loaded.joined} B of joined matrices beside their parts"
    if recipe.name.startswith("awq") and kernel in ("exllama", "exllamav2"):
        size = elements * _REPACKED
        return size, size, f"{elements} elements x {_REPACKED} B while a matrix is packed anew"
    if recipe.rule is not None and recipe.named and recipe.method not in _BUILT_PACKED | _PACKED_BEFORE:
        low, high = _CONVERTED_FROM.get(recipe.method, (2, _CONVERTED_AT_MOST))
        return elements * low, elements * high, f"{elements} elements x {low} B of a matrix that is quantized"
    text = f"{loaded.merged} B of experts, held beside the tensor that they are merged into"
    return loaded.merged, loaded.merged, text if loaded.merged else ""


def _packed(line: WeightLine) -> bool:
    return not isinstance(line.format, Plain) or DTYPE_BYTES[line.format.dtype] < 2


def _arrays(line: WeightLine, width: int, ranks: int, dequantize: bool) -> list[int]:
    """Bytes of each array that one tensor of a line becomes."""
    shape = rank_shape(line.tensor, ranks)
    if line.tensor.kind != "buffer" and (dequantize or not _packed(line)):
        return [prod(shape) * width]
    return [piece.bytes for piece in line.format.pieces(shape)]
