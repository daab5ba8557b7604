"""Numbers stored one by one, without scales: fp32, bf16, int8, ..."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.formats.base import Piece, Pieced, array


@dataclass(frozen=True, slots=True)
class Plain(Pieced):
    """A dtype of `willfit.quantities.DTYPE_BYTES`."""

    dtype: str

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return self.dtype

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        return (array("weight", self.dtype, shape),)
