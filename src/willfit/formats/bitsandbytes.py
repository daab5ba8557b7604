"""bitsandbytes: NF4 and FP4 in blocks over the flattened tensor, and LLM.int8() with a scale per row.

4-bit layout (`QuantState.as_dict` in `bitsandbytes/functional.py`), names as in a saved checkpoint:

- `weight` uint8 (ceil(elements / 2), 1)
- `weight.absmax`: one per block of 64, fp32; with double quantization uint8, and then also
  `weight.nested_absmax`, one fp32 per 256 of them, and `weight.nested_quant_map`, 256 fp32
- `weight.quant_map`, 16 fp32
- `weight.quant_state.bitsandbytes__nf4`, a JSON text as uint8

8-bit layout (`Int8Params`): `weight` int8, `SCB` one fp32 per row, `weight_format` one uint8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Literal

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div

#: `bnb_4bit_compute_dtype` is not stored; the state names the dtype that the weight had before.
_TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_NESTED_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Bnb4(Pieced):
    """NF4 or FP4 weights.

    Attributes
    ----------
    kind
        `nf4` or `fp4`.
    double
        Whether the block maxima are quantized again.
    dtype
        The dtype that a weight had before.
    block
        Elements that share a maximum.
    """

    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = False
    dtype: str = "bf16"
    block: int = 64

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"{self.kind} double" if self.double else self.kind

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`. Fused experts are one flattened tensor."""
        elements = prod(shape)
        blocks = ceil_div(elements, self.block)
        state = array(f"weight.quant_state.bitsandbytes__{self.kind}", "uint8", (self._state_length(shape),))
        stored = [
            array("weight", "uint8", (ceil_div(elements, 2), 1)),
            array("weight.absmax", "uint8" if self.double else "fp32", (blocks,)),
            array("weight.quant_map", "fp32", (16,)),
        ]
        if self.double:
            stored.append(array("weight.nested_absmax", "fp32", (ceil_div(blocks, _NESTED_BLOCK),)))
            stored.append(array("weight.nested_quant_map", "fp32", (256,)))
        return (*stored, state)

    def _state_length(self, shape: tuple[int, ...]) -> int:
        """Bytes of the JSON text; the offset is a double, whose 16 or 17 digits depend on the weights."""
        state: dict[str, object] = {
            "quant_type": self.kind,
            "blocksize": self.block,
            "dtype": _TORCH_NAMES.get(self.dtype, self.dtype),
            "shape": list(shape),
        }
        if self.double:
            state["nested_blocksize"] = _NESTED_BLOCK
            state["nested_dtype"] = "float32"
            state["nested_offset"] = 0.04371137917041779
        return len(json.dumps(state))


@dataclass(frozen=True, slots=True)
class BnbInt8(Pieced):
    """LLM.int8() weights."""

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return "llm.int8"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, _ = matrix(shape)
        return (
            array("weight", "int8", shape),
            array("SCB", "fp32", (*lead, rows)),
            array("weight_format", "uint8", lead),
        )
