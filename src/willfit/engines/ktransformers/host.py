"""What lies in RAM: experts as kt-kernel's methods hold them, the rows that they compute on, and buffers between."""

from __future__ import annotations

from collections.abc import Callable

from willfit.conversion.mix import MixFacts, quantized
from willfit.conversion.record import Entry
from willfit.engines.base import Subject
from willfit.engines.experts import Matrix, expert_matrices
from willfit.engines.ktransformers.settings import DEFAULT_FILE_TYPE, Settings
from willfit.engines.ktransformers.sources import SOURCES
from willfit.estimate import Term, between, exact
from willfit.file_types import quantization
from willfit.quantities import ceil_div, round_up

#: Methods that keep the checkpoint's own groups of a row, which share a scale in fp32, and bytes of two numbers.
_GROUPED = {
    "RAWINT4": (32, 1), "MXFP4": (32, 1), "GPTQ_INT4": (128, 1), "SYCL_GPTQ_INT4": (128, 1), "MXFP8": (32, 2),
}  # fmt: skip

#: Methods with one scale for each row, and bytes of two numbers.
_BY_ROW = {"AMXINT4": 1, "AMXINT8": 2, "MOE_INT4": 1, "MOE_INT8": 2, "FP8_PERCHANNEL": 2}

_BLOCK, _ALIGNMENT, _SCALE = 128, 64, 4

#: Every method that is known here.
METHODS = ("LLAMAFILE", "BF16", "FP8", *_BY_ROW, *_GROUPED)

#: Methods whose inputs are rounded to integers; others compute on 16 bits.
_INTEGERS = ("AMXINT4", "AMXINT8", "MOE_INT4", "MOE_INT8", "RAWINT4", "GPTQ_INT4", "SYCL_GPTQ_INT4")

#: Rows of an expert's inputs are padded to this (`operators/amx/la/amx_kernels.hpp: M_STEP`).
_ROWS = 32

#: Buffers between card and RAM are there twice, for input and output in 16 bits.
_DEPTH, _BOTH_WAYS = 2, 2 * 2


def _packed(method: str, rows: int, columns: int) -> int:
    """Bytes of a matrix."""
    numbers = rows * columns
    if method == "BF16":
        return 2 * numbers
    if method == "FP8":
        blocks = ceil_div(rows, _BLOCK) * ceil_div(columns, _BLOCK)
        return round_up(numbers + _SCALE * blocks, _ALIGNMENT)
    if method in _BY_ROW:
        return numbers * _BY_ROW[method] // 2 + _SCALE * rows
    group, pair = _GROUPED[method]
    return numbers * pair // 2 + _SCALE * numbers // group


def _divided(matrix: Matrix, parts: int, size: Callable[[int, int], int]) -> int:
    """Bytes of one expert's matrix, which `parts` groups of threads share."""
    if matrix.by_rows:
        return parts * size(ceil_div(matrix.rows, parts), matrix.columns)
    return parts * size(matrix.rows, ceil_div(matrix.columns, parts))


def _file_bytes(subject: Subject, named: str) -> int:
    """Bytes of the experts in a GGUF file of a type."""
    quant = quantization(named)
    architecture = subject.architecture
    entries = []
    for index, layer in enumerate(architecture.layers):
        for tensor in layer.tensors:
            if tensor.part == "experts" and tensor.kind == "linear" and len(tensor.shape) > 1:
                *outer, rows, columns = tensor.shape
                down = tensor.split is not None and tensor.split.axis - len(outer) == 1
                count = tensor.copies * (outer[0] if outer else 1)
                name = f"blk.{index}.ffn_{'down' if down else 'up'}_exps.weight"
                entries.append(Entry(name, (columns, rows, count), "F16"))
    most = max((layer.feed_forward.experts for layer in architecture.layers if layer.feed_forward), default=0)
    facts = MixFacts(architecture.model_type, len(architecture.layers), most, 1, False)
    imatrix = quant.imatrix is not False
    return sum(entry.bytes for entry in quantized(entries, facts, quant.file_type, imatrix=imatrix))


def experts_term(subject: Subject, settings: Settings) -> Term:
    """The experts, those that are on cards as well not left out.

    Raises
    ------
    BadInput
        If the file type of GGUF files is not known.
    """
    method, version = settings.kt_method, settings.version
    if method == "LLAMAFILE":
        named = settings.kt_weight_format or DEFAULT_FILE_TYPE
        size = _file_bytes(subject, named)
        formula = f"{size} B of experts ({named.upper()})"
        reference = SOURCES.cite("gguf experts", version)
        # Files of one type differ in which matrices have more bits.
        return between("experts", size, int(0.9 * size), int(1.15 * size), formula, reference)
    parts = settings.kt_threadpool_count
    groups: dict[tuple[int, int], int] = {}
    for matrix in expert_matrices(subject):
        each = _divided(matrix, parts, lambda rows, columns: _packed(method, rows, columns))
        groups[each, matrix.experts] = groups.get((each, matrix.experts), 0) + matrix.layers
    size = sum(each * count * layers for (each, count), layers in groups.items())
    formula = " + ".join(
        f"{layers} matrices x {count} experts x {each} B" for (each, count), layers in groups.items()
    )
    if method.startswith("MOE_"):
        # Padding of the general kernels' layouts.
        reference = SOURCES.cite("general experts", version)
        return between("experts", size, size, int(1.1 * size), formula, reference)
    return exact("experts", size, formula, SOURCES.cite("experts", version))


def workspace_term(subject: Subject, settings: Settings, chunk: int, longest: int) -> Term:
    """Rows on their way through the experts of a layer, of each group of threads.

    The room for a whole part of a prompt is asked for at once, and taken as far as prompts reach.
    """
    parts, widest, most = settings.kt_threadpool_count, 0, 0
    formula = "0 B"
    operand = 1 if settings.kt_method in _INTEGERS else 2
    for layer, _ in subject.architecture.blocks:
        ffn = layer.feed_forward
        if ffn is None or not ffn.experts:
            continue
        hidden, inner = subject.architecture.hidden_size, ceil_div(ffn.expert_width, parts)
        rows = ffn.top_k * min(chunk, longest)
        padded = rows + _ROWS * ffn.experts
        each = rows * 4 * (hidden + inner) + padded * (operand * (hidden + inner) + 4 * (hidden + 2 * inner))
        if parts * each > widest:
            widest = parts * each
            full = ffn.top_k * chunk
            wide = 2 * (full + _ROWS * ffn.experts) * (operand * (hidden + inner) + 4 * (hidden + 2 * inner))
            most = parts * (full * 4 * (hidden + inner) + wide)
            formula = (
                f"{parts} groups of threads x ({rows} rows x {4 * (hidden + inner)} B + {padded} padded rows x "
                f"{operand * (hidden + inner) + 4 * (hidden + 2 * inner)} B)"
            )
    rule = "gguf experts" if settings.kt_method == "LLAMAFILE" else "experts"
    return between("workspace", widest, 0, most, formula, SOURCES.cite(rule, settings.version))


def staging_term(hidden: int, settings: Settings, chunk: int, longest: int) -> Term:
    """Pinned buffers for the largest part of a prompt."""
    rows = min(chunk, longest)
    size = _DEPTH * rows * hidden * _BOTH_WAYS
    formula = f"{_DEPTH} buffers x {rows} tokens x {hidden} x {_BOTH_WAYS} B, pinned"
    return between("staging", size, 0, 2 * size, formula, SOURCES.cite("staging", settings.version))
