"""Bytes of matrices in fastLLM's types, on a card and in RAM (`src/fastllm.cpp: GetDataBytes` and the kernels)."""

from __future__ import annotations

import re
from math import prod

from willfit.architectures.model import Tensor
from willfit.errors import BadInput
from willfit.formats.ggml import Ggml
from willfit.formats.weights import WeightLine
from willfit.ggml_types import GGML_TYPES
from willfit.quantities import DTYPE_BYTES, ceil_div

#: Types by the names that a user may write.
_PLAIN = {"float32": 4, "fp32": 4, "float16": 2, "fp16": 2, "half": 2, "bfloat16": 2, "bf16": 2}
_EIGHT = ("fp8", "float8", "fp8_e4m3")
_GROUP = re.compile(r"int4g(\d*)")

#: Inputs of a group where none is written, and the sides of a block of fp8 that shares a scale.
_GROUP_SIZE, _BLOCK, _FLOAT = 128, 128, 4

#: Formats of plain numbers, which take the type that is asked for; norms are fp32.
_FLOATS = ("fp32", "fp16", "bf16")


def check(name: str) -> None:
    """Refuse a type that there is not.

    Raises
    ------
    BadInput
        That names those that there are.
    """
    ggml = name.startswith("ggml_") and name[5:].upper() in GGML_TYPES
    if name not in ("", "auto", "int8", "int4", *_PLAIN, *_EIGHT) and not _GROUP.fullmatch(name) and not ggml:
        raise BadInput(
            f"fastLLM has no dtype {name[:40]}",
            "known: float16, bfloat16, fp8, int8, int4, int4g128, ggml_q4_k, ...",
        )


def held_bytes(line: WeightLine, shape: tuple[int, ...], dtype: str, on_card: bool) -> int:
    """Bytes of one tensor of a line, or of a rank's part of it.

    Parameters
    ----------
    shape
        Of the tensor, or of the part.
    dtype
        The type that is asked for; `auto` for the checkpoint's.
    on_card
        Whether it is on a card; scales in RAM are in fp32.
    """
    tensor, name = line.tensor, line.format.name
    if tensor.kind != "linear" or len(shape) < 2:
        width = _FLOAT if tensor.kind == "norm" else 2
        return prod(shape) * width if name in _FLOATS else line.format.bytes(shape)
    if isinstance(line.format, Ggml) or (dtype == "auto" and name not in _FLOATS and not _integers(name)):
        # A block of fp8 has one scale in fp32 for the 16 bits that some checkpoints have.
        return line.format.bytes(shape)
    return matrix_bytes("int4g" if dtype == "auto" and _integers(name) else dtype, shape, on_card)


def _integers(name: str) -> bool:
    """Whether a format is of integers in groups, which are repacked."""
    return name.startswith(("awq", "gptq", "w4a16"))


def matrix_bytes(dtype: str, shape: tuple[int, ...], on_card: bool) -> int:
    """Bytes of matrices of a type."""
    *outer, rows, columns = shape
    count, numbers = prod(outer), rows * columns
    if dtype == "auto":
        dtype = "float16"
    if dtype in _PLAIN:
        return count * numbers * _PLAIN[dtype]
    if dtype in _EIGHT:
        return count * (numbers + _FLOAT * ceil_div(rows, _BLOCK) * ceil_div(columns, _BLOCK))
    if dtype == "int8":
        # A scale in fp32 for each row, with the zero point: a byte on a card, fp32 in RAM.
        return count * (numbers + rows * (_FLOAT + (1 if on_card else _FLOAT)))
    if dtype == "int4":
        return count * (ceil_div(numbers, 2) + rows * 2 * _FLOAT)
    if dtype.startswith("ggml_"):
        return Ggml(dtype[5:].upper()).bytes(shape)
    found = _GROUP.fullmatch(dtype)
    group = int(found[1] or _GROUP_SIZE) if found else _GROUP_SIZE
    groups = rows * ceil_div(columns, group)
    # On a card Marlin's layout, with scales in 16 bits and packed zero points.
    scales = groups * 2 + ceil_div(groups, 2) if on_card else groups * 2 * _FLOAT
    return count * (ceil_div(numbers, 2) + scales)


def table_bytes(tensor: Tensor) -> int:
    """Bytes of the token table."""
    return tensor.elements * DTYPE_BYTES["fp16"]
