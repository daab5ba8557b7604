"""The packed integers of compressed-tensors (`pack-quantized`).

Layout (`compressors/pack_quantized/base.py`): `weight_packed` int32 (out, ceil(in * bits / 32)),
`weight_scale` in the model's dtype, `weight_shape` int64 (2), for asymmetric quantization
`weight_zero_point` int32 (ceil(out * bits / 32), groups), and with activation ordering by group
`weight_g_idx` int32 (in).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class PackQuantized(Pieced):
    """Packed weights.

    Attributes
    ----------
    bits
        1 to 8.
    group
        Inputs that share a scale; 0 for one scale per output channel, -1 for one per tensor.
    scale_dtype
        Dtype of the scales.
    symmetric
        False if zero points are stored.
    ordered
        Whether `weight_g_idx` is stored.
    """

    bits: int = 4
    group: int = 128
    scale_dtype: str = "bf16"
    symmetric: bool = True
    ordered: bool = False

    @property
    def name(self) -> str:
        """See `Format.name`."""
        reach = f"g{self.group}" if self.group > 0 else "per tensor" if self.group < 0 else "per channel"
        return f"w{self.bits}a16 {reach}"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        groups = ceil_div(columns, self.group) if self.group > 0 else 1
        scale_rows = rows if self.group >= 0 else 1
        stored = [
            array("weight_packed", "int32", (*lead, rows, ceil_div(columns * self.bits, 32))),
            array("weight_scale", self.scale_dtype, (*lead, scale_rows, groups)),
            array("weight_shape", "int64", (*lead, 2)),
        ]
        if not self.symmetric:
            zeros = (*lead, ceil_div(scale_rows * self.bits, 32), groups)
            stored.append(array("weight_zero_point", "int32", zeros))
        if self.ordered:
            stored.append(array("weight_g_idx", "int32", (*lead, columns)))
        return tuple(stored)
