"""Integers of a few bits, packed, with a scale and perhaps a zero point per group.

- torchao `Int4WeightOnly`: 4-bit, scale and zero point in bf16 for each group of each row;
- HQQ: the weight reshaped to (groups, group), packed along the groups (two 4-bit rows a byte; ten 3-bit rows
  an int32), scale and zero point in the compute dtype (`hqq/core/bitpack.py`, `quantize.py`);
- optimum-quanto `qint4`/`qint2`: packed along the rows, scale and shift in the model's dtype;
- ModelOpt `W4A16_AWQ`: two rows a byte, a scale for each group and one for each input (`pre_quant_scale`);
- MLX: packed into uint32 along the inputs, scale and bias in the model's dtype;
- MLC: whole uint32 words for each group (ten 3-bit weights a word), a scale in the model's dtype
  (`mlc_llm/quantization/group_quantization.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class PackedInt(Pieced):
    """Packed integers with group scales.

    Attributes
    ----------
    label
        The first word of the name.
    bits
        Bits of a weight.
    group
        Inputs that share a scale; -1 for all of them.
    scale_dtype
        Dtype of the scales.
    zero_dtype
        Dtype of the zero points; empty if there are none.
    word
        Bits of a word into which whole rows are packed: 8 or 32.
    input_scale
        Dtype of a scale per input channel, applied to the activations; empty if there is none.
    static_input
        Whether one fp32 activation scale is stored, with a second fp32 scale of the weight (W4A8).
    """

    label: str
    bits: int
    group: int
    scale_dtype: str
    zero_dtype: str = ""
    word: int = 8
    input_scale: str = ""
    static_input: bool = False

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"{self.label} int{self.bits} " + ("per channel" if self.group <= 0 else f"g{self.group}")

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        groups = 1 if self.group <= 0 else ceil_div(columns, self.group)
        packed = ceil_div(columns * self.bits, self.word)
        stored = [
            array("weight_packed", f"uint{self.word}", (*lead, rows, packed)),
            array("weight_scale", self.scale_dtype, (*lead, rows, groups)),
        ]
        if self.zero_dtype:
            stored.append(array("weight_zero", self.zero_dtype, (*lead, rows, groups)))
        if self.input_scale:
            stored.append(array("pre_quant_scale", self.input_scale, (*lead, columns)))
        if self.static_input:
            stored += [array("input_scale", "fp32", lead), array("weight_scale_2", "fp32", lead)]
        return tuple(stored)


@dataclass(frozen=True, slots=True)
class GroupWords(Pieced):
    """Groups that each take whole uint32 words, with a scale: a part of a group takes a whole one.

    Attributes
    ----------
    label
        The first word of the name.
    bits
        Bits of a weight.
    group
        Inputs that share a scale.
    scale_dtype
        Dtype of the scales.
    """

    label: str
    bits: int
    group: int
    scale_dtype: str

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"{self.label} int{self.bits} g{self.group}"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        groups, words = ceil_div(columns, self.group), ceil_div(self.group, 32 // self.bits)
        return (
            array("q_weight", "uint32", (*lead, rows, groups * words)),
            array("q_scale", self.scale_dtype, (*lead, rows, groups)),
        )


@dataclass(frozen=True, slots=True)
class Hqq(Pieced):
    """HQQ weights (groups along the inputs, axis 1).

    Attributes
    ----------
    bits
        1, 2, 3, 4 or 8.
    group
        Elements that share a scale; -1 for a row.
    dtype
        Dtype of scales and zero points.
    """

    bits: int = 4
    group: int = 64
    dtype: str = "bf16"

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"hqq int{self.bits} " + ("per channel" if self.group <= 0 else f"g{self.group}")

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        group = matrix(shape)[2] if self.group <= 0 else self.group
        groups = ceil_div(prod(shape), group)
        if self.bits == 3:
            weight = array("W_q", "int32", (ceil_div(groups, 10), group))
        else:
            weight = array("W_q", "uint8", (ceil_div(groups * self.bits, 8), group))
        return weight, array("scale", self.dtype, (groups, 1)), array("zero", self.dtype, (groups, 1))
