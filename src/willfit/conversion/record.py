"""A tensor on its way into a GGUF file, and a header made of such tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.ggml_types import GGML_TYPES

#: Bytes to which each tensor's data is padded (`GGUF_DEFAULT_ALIGNMENT` of ggml).
ALIGNMENT = 32


class Entry(NamedTuple):
    """One tensor to be written.

    Attributes
    ----------
    name
        Its name in the file, or behind the layer's index: `attn_q.weight`.
    ne
        Its dimensions in ggml's order, the contiguous one first.
    type
        Its ggml type; empty for whatever float type the converter is asked for.
    """

    name: str
    ne: tuple[int, ...]
    type: str = ""

    @property
    def bytes(self) -> int:
        """What its data takes, without the padding behind it."""
        return GGML_TYPES[self.type].stored(self.ne)


def header_of(entries: Iterable[Entry], metadata: Mapping[str, Any], head_bytes: int = 0) -> GgufHeader:
    """The header of a file with these tensors one after the other.

    Parameters
    ----------
    head_bytes
        What lies before the first tensor.
    """
    tensors = []
    offset = padded(head_bytes)
    for entry in entries:
        size = entry.bytes
        tensors.append(GgufTensor(entry.name, entry.type, entry.ne, size, offset))
        offset += padded(size)
    return GgufHeader(3, False, metadata, tuple(tensors), (offset if head_bytes else None,))


def padded(size: int) -> int:
    """`size` bytes, rounded up to where the next tensor starts."""
    return -(-size // ALIGNMENT) * ALIGNMENT
