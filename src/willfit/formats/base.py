"""The interface of a number format: which arrays a tensor becomes, and how many bytes they take.

A linear weight has shape (out, in) and fused experts (experts, out, in). A format that packs rows takes
the last two axes as one matrix and repeats it over the axes before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol

from willfit.quantities import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """One stored array of a tensor.

    Attributes
    ----------
    suffix
        What takes the place of `weight` at the end of the tensor's name: `weight`, `qweight`, `scales`.
    dtype
        A name of `willfit.quantities.DTYPE_BYTES`, or a ggml type.
    shape
        Shape as stored.
    bytes
        Bytes of the array.
    """

    suffix: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """Stored elements, packed ones counted as stored."""
        return prod(self.shape)


class Format(Protocol):
    """What every format answers. Formats are frozen and hashable, so that sizes can be cached."""

    @property
    def name(self) -> str:
        """What a reader would call it: `bf16`, `fp8 block 128x128`, `awq int4 g128`."""
        ...

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """The arrays that a tensor of this logical shape is stored as."""
        ...

    def bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of all pieces together."""
        ...


class Pieced:
    """A format whose bytes are the sum over its pieces."""

    __slots__ = ()

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        raise NotImplementedError

    def bytes(self, shape: tuple[int, ...]) -> int:
        """See `Format.bytes`."""
        return sum(piece.bytes for piece in self.pieces(shape))


def array(suffix: str, dtype: str, shape: tuple[int, ...]) -> Piece:
    """A piece of a plain dtype."""
    return Piece(suffix, dtype, shape, prod(shape) * DTYPE_BYTES[dtype])


def matrix(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Split a shape into (axes before the matrix, rows, columns); a vector is one row."""
    rows = shape[-2] if len(shape) > 1 else 1
    columns = shape[-1] if shape else 1
    return shape[:-2], rows, columns
