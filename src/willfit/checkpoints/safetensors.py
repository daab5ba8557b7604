"""The header of a safetensors file: names, types and shapes of its tensors, without their data.

A file is an unsigned 64-bit little-endian length, that many bytes of JSON, then the data. The rules that a
header must satisfy are those of the format's reference reader (`safetensors/src/tensor.rs`, 0.8): the
header is at most 100 MB, starts with `{`, and the tensors cover the data exactly, without gap or overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from willfit.checkpoints.jsonfile import parse_object
from willfit.checkpoints.source import ByteSource, is_instead
from willfit.errors import BadInput
from willfit.quantities import dtype_name

_MAX_HEADER_BYTES = 100_000_000
#: The largest published checkpoints have about 300,000 tensors over all their files.
_MAX_TENSORS = 2**19

#: The number of bits of each type in a header. Types below a byte are packed without padding.
_DTYPE_BITS: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

#: Types that `quantities` does not name: not whole bytes, or not what any model computes in.
_OTHER_NAMES = {"F4": "fp4", "F6_E2M3": "fp6_e2m3", "F6_E3M2": "fp6_e3m2", "C64": "complex64"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a safetensors header describes it.

    Attributes
    ----------
    name
        Its name in the file.
    dtype
        Name of the stored type as in `quantities.DTYPE_BYTES`, or `fp4`, `fp6_e2m3`, `fp6_e3m2`, `complex64`.
    shape
        Its shape in elements of `dtype`.
    bytes
        What it takes in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


def read_header(source: ByteSource) -> tuple[StoredTensor, ...]:
    """Read the tensors that a safetensors file holds, in the order of the header.

    Raises
    ------
    BadInput
        If it is no safetensors file, or its header contradicts itself or the size of the file.
    """
    name = source.name
    head = source.read(0, 8)
    length = int.from_bytes(head, "little")
    first = source.read(8, 1) if len(head) == 8 else b""
    if first != b"{" or length > _MAX_HEADER_BYTES:
        if first != b"{":
            raise is_instead(name, source.read(0, 100))
        raise BadInput(f"{name} is no safetensors file: its header would be {length} bytes long")
    if source.size is not None and 8 + length > source.size:
        raise BadInput(f"{name} is truncated: its header ends early", "download it again")
    data = source.read(8, length)
    if len(data) < length:
        raise BadInput(f"{name} is truncated: its header ends early", "download it again")
    # Each tensor is an object with two lists. Refusing before parsing bounds the memory that parsing takes.
    if (
        data.count(b"{") > _MAX_TENSORS
        or data.count(b"[") > 2 * _MAX_TENSORS
        or data.count(b",") > 16 * _MAX_TENSORS
    ):
        raise BadInput(f"{name}: the header lists more than {_MAX_TENSORS} tensors")
    entries = parse_object(data, f"the header of {name}", _MAX_HEADER_BYTES, 3 * _MAX_TENSORS)
    return _tensors(entries, name, None if source.size is None else source.size - 8 - length)


def _tensors(entries: dict[str, Any], name: str, data_bytes: int | None) -> tuple[StoredTensor, ...]:
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise BadInput(f"{name}: `__metadata__` in the header is not a table of strings")
    tensors = []
    spans = []
    for tensor_name, entry in entries.items():
        tensor, begin = _tensor(tensor_name, entry, name)
        tensors.append(tensor)
        spans.append((begin, begin + tensor.bytes, tensor_name))
    end = 0
    for begin, stop, tensor_name in sorted(spans):
        if begin != end:
            fault = "overlaps another tensor" if begin < end else "leaves a gap before it"
            raise BadInput(f"{name}: the tensor {_short(tensor_name)} {fault}")
        end = stop
    if data_bytes is not None and end > data_bytes:
        raise BadInput(
            f"{name} is truncated: its tensors take {end} bytes, the file holds {data_bytes}",
            "download it again",
        )
    if data_bytes is not None and end < data_bytes:
        raise BadInput(f"{name}: {data_bytes - end} bytes at its end belong to no tensor")
    return tuple(tensors)


def _tensor(tensor_name: str, entry: Any, name: str) -> tuple[StoredTensor, int]:
    where = f"{name}: the tensor {_short(tensor_name)}"
    if not isinstance(entry, dict):
        raise BadInput(f"{where} is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise BadInput(f"{where} has the unknown type {_short(dtype)}")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise BadInput(f"{where} has no valid shape")
    if len(shape) > 64:
        raise BadInput(f"{where} has {len(shape)} dimensions")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int and 0 <= offset < 2**63 for offset in offsets)
    ):
        raise BadInput(f"{where} has no valid offsets")
    size, odd_bits = divmod(prod(shape) * _DTYPE_BITS[dtype], 8)
    if odd_bits:
        raise BadInput(f"{where} of type {dtype} does not fill whole bytes")
    begin, end = offsets
    if end - begin != size:
        raise BadInput(f"{where} takes {size} bytes by its shape, {end - begin} by its offsets")
    known = _OTHER_NAMES.get(dtype)
    return StoredTensor(tensor_name, known or dtype_name(dtype), tuple(shape), size), begin


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
