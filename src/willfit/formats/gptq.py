"""GPTQ: integers packed along the input axis into int32, with a zero point and an fp16 scale per group.

Layout (AutoGPTQ and GPTQModel, `BaseQuantLinear` buffers):

- `qweight` int32 (ceil(in * bits / 32), out)
- `qzeros`  int32 (groups, ceil(out * bits / 32)), stored also when the quantization is symmetric
- `scales`  fp16  (groups, out)
- `g_idx`   int32 (in), the group of each input; stored also without activation ordering

with groups = ceil(in / group), one group if the group size is -1.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class Gptq(Pieced):
    """GPTQ weights.

    Attributes
    ----------
    bits
        2 to 8.
    group
        Inputs that share a scale; -1 for all of them.
    indexed
        Whether `g_idx` is stored. AutoRound leaves it out where activations are not ordered.
    ordered
        Whether inputs were quantized in the order of their activations (`desc_act`), so that `g_idx` is needed.
    """

    bits: int = 4
    group: int = 128
    indexed: bool = True
    ordered: bool = False

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"gptq int{self.bits} " + ("per channel" if self.group <= 0 else f"g{self.group}")

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        groups = 1 if self.group <= 0 else ceil_div(columns, self.group)
        stored = (
            array("qweight", "int32", (*lead, ceil_div(columns * self.bits, 32), rows)),
            array("qzeros", "int32", (*lead, groups, ceil_div(rows * self.bits, 32))),
            array("scales", "fp16", (*lead, groups, rows)),
        )
        return (*stored, array("g_idx", "int32", (*lead, columns))) if self.indexed else stored
