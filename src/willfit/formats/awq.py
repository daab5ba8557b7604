"""AWQ: 4-bit integers packed along the output axis into int32, with zero points and scales per group.

Layout (AutoAWQ `WQLinear_GEMM`): `qweight` int32 (in, out / 8), `qzeros` int32 (groups, out / 8), `scales`
fp16 (groups, out). `qzeros` is allocated also without zero points. There is no `g_idx`. The GEMV variant
transposes the arrays; GEMV-fast pads the groups and widens the zero points to fp16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class Awq(Pieced):
    """AWQ weights.

    Attributes
    ----------
    bits
        Bits of a weight; 4 in every published checkpoint.
    group
        Inputs that share a scale; -1 for all of them.
    version
        `gemm` (also right for `gemv`, whose pieces are transposed) or `gemv_fast`.
    """

    bits: int = 4
    group: int = 128
    version: Literal["gemm", "gemv_fast"] = "gemm"

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"awq int{self.bits} " + ("per channel" if self.group <= 0 else f"g{self.group}")

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        groups = 1 if self.group <= 0 else ceil_div(columns, self.group)
        per_word = 32 // self.bits
        if self.version == "gemv_fast":
            # AutoAWQ `calculate_zeros_width`: groups in words of `per_word`, rounded up to a multiple that
            # grows as groups shrink, and one row of scales for every slot of those words.
            multiple = max(1, 128 // self.group) if self.group > 0 else 1
            slots = ceil_div(ceil_div(groups, per_word), multiple) * multiple * per_word
            return (
                array("qweight", "int16", (*lead, ceil_div(rows, 4), columns)),
                array("scales", "fp16", (*lead, slots, rows)),
                array("qzeros", "fp16", (*lead, slots, rows)),
            )
        return (
            array("qweight", "int32", (*lead, columns, ceil_div(rows, per_word))),
            array("qzeros", "int32", (*lead, groups, ceil_div(rows, per_word))),
            array("scales", "fp16", (*lead, groups, rows)),
        )
