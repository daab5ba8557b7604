"""Tensors in the types of ggml: how GGUF files store numbers.

A tensor is stored in rows of `ne0` elements; a row is cut into blocks (`willfit.ggml_types`), so the first dimension
must be a multiple of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.errors import BadInput
from willfit.formats.base import Piece, Pieced
from willfit.ggml_types import GGML_TYPES


def ggml_bytes(type_name: str, ne: Sequence[int]) -> int:
    """Bytes of a tensor's data, without the padding that separates tensors in a file.

    Parameters
    ----------
    type_name
        A key of `GGML_TYPES`, in any case.
    ne
        Dimensions in ggml's order: the contiguous one first.

    Raises
    ------
    BadInput
        If no type is called that, or a row is not a whole number of blocks.
    """
    kind = GGML_TYPES.get(type_name.upper())
    if kind is None:
        raise BadInput(f"unknown ggml type {type_name!r}", f"known: {', '.join(GGML_TYPES)}")
    if not ne or ne[0] % kind.block:
        raise BadInput(
            f"a {kind.name} tensor of dimensions {tuple(ne)} is not a whole number of blocks of {kind.block}"
        )
    return kind.stored(ne)


@dataclass(frozen=True, slots=True)
class Ggml(Pieced):
    """A ggml type as a format.

    Attributes
    ----------
    type
        A key of `GGML_TYPES`.
    """

    type: str

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return self.type

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`.

        Raises
        ------
        BadInput
            If a row is not a whole number of blocks.
        """
        return (Piece("weight", self.type, shape, ggml_bytes(self.type, shape[::-1] or (1,))),)
