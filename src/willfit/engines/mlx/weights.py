"""Weights as mlx-lm holds them: without encoders and draft modules, each array in pages of its own."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Subject
from willfit.formats.base import Piece
from willfit.formats.plain import Plain
from willfit.formats.weights import WeightLine
from willfit.quantities import round_up

#: Arrays above a page take whole ones (`backend/metal/allocator.cpp: malloc`); pages of Apple silicon.
_PAGE = 16384

#: Encoders' parts of a model.
_TOWERS = ("vision", "audio")


@dataclass(frozen=True, slots=True)
class Held:
    """Weights in memory.

    Attributes
    ----------
    bytes
        Of all arrays, in whole pages.
    stored
        Of the same tensors in their files.
    left_out
        Of tensors that are not loaded.
    ratios
        Elements of stored arrays for each weight, by part of the model.
    """

    bytes: int
    stored: int
    left_out: int
    ratios: dict[str, float]


def held(subject: Subject, towers: bool, expands: bool) -> Held:
    """What of a subject is held.

    Parameters
    ----------
    towers
        Whether encoders of images and sound are loaded: mlx-vlm does, mlx-lm's `sanitize` drops them.
    expands
        Whether weights in fp8 are turned into 16 bits while they are loaded (`sanitize` of the DeepSeek family).
    """
    size = stored = left = 0
    elements: dict[str, int] = {}
    logical: dict[str, int] = {}
    for line in subject.lines:
        part = line.tensor.part
        if part == "mtp" or (part in _TOWERS and not towers):
            left += line.bytes
            continue
        kept = _expanded(line, subject.architecture.dtype) if expands else line
        stored += kept.bytes
        size += _paged(kept)
        if line.tensor.kind in ("linear", "embedding"):
            pieces = sum(map(_elements, kept.format.pieces(kept.tensor.shape)))
            elements[part] = elements.get(part, 0) + pieces * kept.tensor.copies * kept.times
            logical[part] = logical.get(part, 0) + kept.tensor.elements * kept.times
    ratios = {part: elements[part] / logical[part] for part in elements}
    # A head that shares the embedding reads its table.
    ratios.setdefault("head", ratios.get("embedding", 1.0))
    return Held(size, stored, left, ratios)


def _elements(piece: Piece) -> int:
    """Elements of an array; what is packed is in words of 32 bits."""
    packed = piece.suffix.startswith("weight") and "scale" not in piece.suffix
    return piece.bytes // 4 if packed and piece.dtype in ("uint8", "fp8_e4m3") else piece.elements


def _expanded(line: WeightLine, dtype: str) -> WeightLine:
    if not line.format.name.startswith("fp8"):
        return line
    plain = Plain(dtype)
    size = plain.bytes(line.tensor.shape) * line.tensor.copies * line.times
    return WeightLine(line.tensor, line.times, plain, size)


def _paged(line: WeightLine) -> int:
    """Bytes in whole pages. Experts that are stored one by one are stacked to one array."""
    pieces = line.format.pieces(line.tensor.shape)
    if not pieces or sum(piece.bytes for piece in pieces) * line.tensor.copies * line.times != line.bytes:
        return line.bytes
    return line.times * sum(_pages(piece.bytes * line.tensor.copies) for piece in pieces)


def _pages(size: int) -> int:
    return round_up(size, _PAGE) if size > _PAGE else size
