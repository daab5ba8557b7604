"""One whole byte (or more) per weight, and scales beside it: FP8, INT8, MXFP8.

Layouts, all with the weight as (out, in) unless said otherwise:

- per tensor: one scale (Transformers `FP8Linear` without a block size, ModelOpt `FP8`);
- per channel: `(out, 1)` (FBGEMM `FbgemmFp8Linear` in fp32, compressed-tensors in the model's dtype);
- per group: `(out, ceil(in / group))` (MXFP8: groups of 32 with an E8M0 scale);
- per block: `(ceil(out / rows), ceil(in / columns))` (DeepSeek-V3 `weight_scale_inv`, 128 x 128 in fp32).

Static activation quantization stores one more scale per tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div

Granularity = Literal["tensor", "channel", "group", "block"]


@dataclass(frozen=True, slots=True)
class Scaled(Pieced):
    """A plain weight with scales.

    Attributes
    ----------
    label
        The first word of the name: `fp8`, `int8`, `mxfp8`.
    dtype
        Dtype of the weight.
    granularity
        What one scale covers.
    block
        Rows and columns of a block; a group is a block of one row.
    scale_dtype, scale_suffix
        Dtype and name of the scales.
    zero_dtype
        Dtype of zero points of the same shape; empty if symmetric.
    input_dtype, input_suffix
        Dtype and name of a static activation scale; empty if activations are scaled at run time.
    """

    label: str
    dtype: str
    granularity: Granularity
    block: tuple[int, int] = (1, 1)
    scale_dtype: str = "fp32"
    scale_suffix: str = "weight_scale"
    zero_dtype: str = ""
    input_dtype: str = ""
    input_suffix: str = "input_scale"

    @property
    def name(self) -> str:
        """See `Format.name`."""
        if self.granularity == "block":
            return f"{self.label} block {self.block[0]}x{self.block[1]}"
        if self.granularity == "group":
            return f"{self.label} g{self.block[1]}"
        return f"{self.label} per {self.granularity}"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        if self.granularity == "tensor":
            scales = lead
        elif self.granularity == "channel":
            scales = (*lead, rows, 1)
        else:
            scales = (*lead, ceil_div(rows, self.block[0]), ceil_div(columns, self.block[1]))
        stored = [array("weight", self.dtype, shape), array(self.scale_suffix, self.scale_dtype, scales)]
        if self.zero_dtype:
            stored.append(array("weight_zero_point", self.zero_dtype, scales))
        if self.input_dtype:
            stored.append(array(self.input_suffix, self.input_dtype, lead))
        return tuple(stored)


def fp8_block(rows: int = 128, columns: int = 128, scale_dtype: str = "fp32") -> Scaled:
    """Block-scaled FP8 as DeepSeek-V3 and Transformers' `finegrained_fp8` store it."""
    return Scaled("fp8", "fp8_e4m3", "block", (rows, columns), scale_dtype, "weight_scale_inv")


def mxfp8() -> Scaled:
    """OCP MXFP8: E4M3 numbers with one E8M0 scale for 32 inputs."""
    return Scaled("mxfp8", "fp8_e4m3", "group", (1, 32), "uint8")
