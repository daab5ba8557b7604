"""Codebooks and trellises: AQLM, EXL2, EXL3, BitNet.

- AQLM (`aqlm.QuantizedLinear`): `codes` (out / out_group, in / in_group, codebooks) of 1 or 2 bytes,
  `codebooks` fp16 (codebooks, 2**bits, out_group, in_group), `scales` fp16 (out / out_group, 1, 1, 1);
- EXL2: rows of mixed bit widths that a measurement chooses; only the average over the model is known;
- EXL3 (`LinearEXL3`): `trellis` int16 (in / 16, out / 16, 16 * bits), `suh` fp16 (in), `svh` fp16 (out), both
  axes padded to a multiple of 128. A fractional average mixes whole bit widths over tensors;
- BitNet (`BitLinear` of Transformers): four ternary weights a byte along the output axis, one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from willfit.formats.base import Piece, Pieced, array, matrix
from willfit.quantities import ceil_div, round_up


@dataclass(frozen=True, slots=True)
class Aqlm(Pieced):
    """AQLM weights: `codebooks` x `bits`, each code standing for `in_group` inputs of `out_group` outputs."""

    codebooks: int = 1
    bits: int = 16
    in_group: int = 8
    out_group: int = 1
    dtype: str = "fp16"

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"aqlm {self.codebooks}x{self.bits}"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        outs = ceil_div(rows, self.out_group)
        code = "int8" if self.bits <= 8 else "int16"
        table = (*lead, self.codebooks, 2**self.bits, self.out_group, self.in_group)
        return (
            array("codes", code, (*lead, outs, ceil_div(columns, self.in_group), self.codebooks)),
            array("codebooks", self.dtype, table),
            array("scales", self.dtype, (*lead, outs, 1, 1, 1)),
        )


@dataclass(frozen=True, slots=True)
class Exl2(Pieced):
    """EXL2 weights at an average number of bits, scales and permutation included."""

    bits: float

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"exl2 {self.bits:g} bpw"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        return (array("q_weight", "uint8", (round(prod(shape) * self.bits / 8),)),)


@dataclass(frozen=True, slots=True)
class Exl3(Pieced):
    """EXL3 weights; the average of `bits` may be fractional."""

    bits: float

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"exl3 {self.bits:g} bpw"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        rows, columns = round_up(rows, 128), round_up(columns, 128)
        words = prod(lead) * rows * columns * self.bits / 16
        return (
            array("trellis", "int16", (round(words),)),
            array("suh", "fp16", (*lead, columns)),
            array("svh", "fp16", (*lead, rows)),
        )


@dataclass(frozen=True, slots=True)
class BitNet(Pieced):
    """Ternary weights packed four to a byte."""

    dtype: str = "bf16"

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return "bitnet"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        lead, rows, columns = matrix(shape)
        return (
            array("weight", "uint8", (*lead, ceil_div(rows, 4), columns)),
            array("weight_scale", self.dtype, (*lead, 1)),
        )
