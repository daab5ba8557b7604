"""The order of tensors in files that were written as the converter lists them (`llama_model_quantize`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.record import padded

_FIRST = ("token_embd", "token_types", "position_embd", "token_embd_norm")


def as_listed(header: GgufHeader) -> GgufHeader:
    """A file with what the converter computes first, then tables of the input, layers, and what comes behind them."""
    tensors = sorted(header.tensors, key=lambda tensor: _stage(tensor.name))
    offset = min((tensor.offset for tensor in tensors), default=0)
    moved = []
    for tensor in tensors:
        moved.append(replace(tensor, offset=offset))
        offset += padded(tensor.bytes)
    return replace(header, tensors=tuple(moved))


def _stage(name: str) -> int:
    if "blk." in name:
        return 1
    if name.startswith("rope_"):
        return -1
    return 0 if name.partition(".")[0] in _FIRST else 2
