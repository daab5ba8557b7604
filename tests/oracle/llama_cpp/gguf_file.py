"""Writing a GGUF header to a file that has its full length but no data.

llama.cpp plans memory from the header alone, once the file is as long as the header says. The vocabulary is left out
(`tokenizer.ggml.model` is `no_vocab`): it takes no memory that llama.cpp logs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from willfit.checkpoints.gguf import GgufArray, GgufHeader, GgufTensor
from willfit.ggml_types import GGML_TYPES

#: Value type numbers of GGUF.
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64 = 4, 5, 6, 7, 8, 9, 10

_ALIGNMENT = 32

#: The one key of a tokenizer that decides about tensors.
_TOKEN_TYPES = "tokenizer.ggml.token_type_count"

#: Arrays that are read as 64-bit numbers even where the values are small.
_WIDE = (".ple.layer_multipliers", ".ple.head_offsets", ".ple.head_vocab_sizes")


def write_gguf(header: GgufHeader, path: Path) -> None:
    """Write `header` as one file of full length; its data is a hole.

    Tensors keep their order; a split checkpoint becomes one file. Arrays that were walked over are left out.
    """
    metadata = planned_metadata(header)
    head = [b"GGUF", struct.pack("<IQQ", 3, len(header.tensors), len(metadata))]
    for key, value in metadata.items():
        head.append(_text(key) + _value(value, _UINT64 if key.endswith(_WIDE) else None))
    offset = 0
    for tensor in header.tensors:
        kind = GGML_TYPES[tensor.type]
        head.append(_text(tensor.name) + struct.pack("<I", len(tensor.ne)))
        head.append(struct.pack(f"<{len(tensor.ne)}QIQ", *tensor.ne, kind.id, offset))
        offset += _padded(tensor.bytes)
    data = b"".join(head)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(_padded(len(data)) + offset)


def planned_metadata(header: GgufHeader) -> dict[str, Any]:
    """What the file says: the header's own keys, with a vocabulary that is only a number."""
    kept = {
        key: value
        for key, value in header.metadata.items()
        if (not key.startswith(("tokenizer.", "split.")) or key == _TOKEN_TYPES)
        and not isinstance(value, GgufArray)
    }
    architecture = kept["general.architecture"]
    kept["tokenizer.ggml.model"] = "no_vocab"
    if f"{architecture}.vocab_size" not in kept and (rows := _vocabulary(header)) is not None:
        kept[f"{architecture}.vocab_size"] = rows
    for tensor in header.tensors:
        if tensor.name == "token_types.weight":
            kept[_TOKEN_TYPES] = tensor.ne[1]
    kept.pop("general.alignment", None)
    return kept


def _vocabulary(header: GgufHeader) -> int | None:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, GgufArray):
        return tokens.length
    return next((tensor.ne[1] for tensor in header.tensors if tensor.name == "token_embd.weight"), None)


def make_header(
    metadata: Mapping[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...]]]
) -> GgufHeader:
    """A header from metadata and (name, type, shape as torch has it) of each tensor."""
    made: list[GgufTensor] = []
    offset = 0
    for name, kind, shape in tensors:
        size = tensor_bytes(kind, shape)
        made.append(GgufTensor(name, kind, shape[::-1], size, offset))
        offset += _padded(size)
    return GgufHeader(3, False, dict(metadata), tuple(made), (None,))


def with_types(header: GgufHeader, types: Mapping[str, str]) -> GgufHeader:
    """The header with other types for the named tensors."""
    tensors = []
    offset = 0
    for tensor in header.tensors:
        kind = types.get(tensor.name, tensor.type)
        size = tensor_bytes(kind, tensor.ne)
        tensors.append(GgufTensor(tensor.name, kind, tensor.ne, size, offset))
        offset += _padded(size)
    return replace(header, tensors=tuple(tensors))


def tensor_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of a ggml type."""
    found = GGML_TYPES[kind]
    return prod(shape) // found.block * found.bytes


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any, kind: int | None = None) -> bytes:
    if isinstance(value, tuple | list):
        kind = kind or _kind(value)
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(_scalar(kind, one) for one in value)
    kind = _kind([value])
    return struct.pack("<I", kind) + _scalar(kind, value)


def _kind(values: list[Any] | tuple[Any, ...]) -> int:
    """The type that llama.cpp expects where the converter wrote such values."""
    if all(isinstance(one, bool) for one in values) and values:
        return _BOOL
    if all(isinstance(one, str) for one in values) and values:
        return _STRING
    if any(isinstance(one, float) for one in values):
        return _FLOAT32
    if any(one < 0 for one in values):
        return _INT32
    return _UINT64 if any(one >= 2**32 for one in values) else _UINT32


def _scalar(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value)
    return struct.pack({_UINT32: "<I", _INT32: "<i", _FLOAT32: "<f", _BOOL: "<?", _UINT64: "<Q"}[kind], value)
