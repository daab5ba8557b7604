"""What ik_llama.cpp's `-rtr` makes of weights on the host once they are read (`iqk_repack_tensor`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.llama_cpp.loading.weights import Placed
from willfit.ggml_types import INTERLEAVED_TYPES

#: Type -> that in which so many rows are interleaved; only processors compute with most of these.
_INTERLEAVED = {
    plain: (name, int(rows)) for name in INTERLEAVED_TYPES for plain, _, rows in [name.rpartition("_R")]
}
#: Not repacked: its rows are read one by one. BF16 is repacked on some processors only, and MXFP4 never.
_KEPT, _KEPT_TYPES = "token_embd.weight", ("BF16", "MXFP4")


def repacked(placed: Placed) -> Placed:
    """A tensor as computations find it: as it was, or with its rows interleaved, of the same size."""
    tensor = placed.tensor
    if placed.buffer.device is not None or tensor.name == _KEPT or tensor.type in _KEPT_TYPES:
        return placed
    name, rows = _INTERLEAVED.get(tensor.type, ("", 1))
    if not name or len(tensor.ne) < 2 or tensor.ne[1] % rows:
        return placed
    return replace(placed, tensor=replace(tensor, type=name))
