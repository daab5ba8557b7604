"""4-bit floating point with small groups: MXFP4 and NVFP4.

MXFP4 (OCP Microscaling 1.0): two E2M1 numbers a byte and one E8M0 scale for 32 inputs. gpt-oss stores
`<name>_blocks` uint8 (experts, out, in / 32, 16) and `<name>_scales` uint8 (experts, out, in / 32);
compressed-tensors and ModelOpt store (out, in / 2) and (out, in / 32).

NVFP4 (ModelOpt, compressed-tensors): two E2M1 numbers a byte, one E4M3 scale for 16 inputs, one fp32 scale
for the tensor, and a second fp32 for the activations where they are quantized too.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class Mxfp4(Pieced):
    """MXFP4 weights; `blocks` names the layout of gpt-oss, otherwise that of compressed-tensors."""

    blocks: bool = False

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return "mxfp4"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        groups = ceil_div(columns, 32)
        if self.blocks:
            return (
                array("blocks", "uint8", (*lead, rows, groups, 16)),
                array("scales", "uint8", (*lead, rows, groups)),
            )
        return (
            array("weight_packed", "uint8", (*lead, rows, ceil_div(columns, 2))),
            array("weight_scale", "uint8", (*lead, rows, groups)),
        )


@dataclass(frozen=True, slots=True)
class Nvfp4(Pieced):
    """NVFP4 weights.

    Attributes
    ----------
    input_scale
        Whether a static activation scale is stored.
    group
        Inputs that share a scale.
    weight_suffix, global_suffix, input_suffix
        Names of the arrays: ModelOpt's by default.
    """

    input_scale: bool = True
    group: int = 16
    weight_suffix: str = "weight"
    global_suffix: str = "weight_scale_2"
    input_suffix: str = "input_scale"

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return "nvfp4" if self.input_scale else "nvfp4 w4a16"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        stored = [
            array(self.weight_suffix, "uint8", (*lead, rows, ceil_div(columns, 2))),
            array("weight_scale", "fp8_e4m3", (*lead, rows, ceil_div(columns, self.group))),
            array(self.global_suffix, "fp32", lead),
        ]
        if self.input_scale:
            stored.append(array(self.input_suffix, "fp32", lead))
        return tuple(stored)
