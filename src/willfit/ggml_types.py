"""The tensor types of ggml, by which GGUF headers name how a tensor is stored: what dtypes are elsewhere.

A row of a tensor is cut into blocks, each with its own scales. Sizes: `ggml/src/ggml-common.h` and
`gguf-py/gguf/constants.py` of llama.cpp; the types that ik_llama.cpp adds: its `ggml-common.h` and `ggml.c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One tensor type.

    Attributes
    ----------
    name
        As llama.cpp prints it in upper case: `Q4_K`, `F16`, `IQ4_NL`.
    id
        The number that a GGUF header holds.
    block
        Elements of one block.
    bytes
        Bytes of one block, scales included.
    row
        Bytes before the blocks of each row: a scale of the whole row.
    """

    name: str
    id: int
    block: int
    bytes: int
    row: int = 0

    @property
    def bits_per_weight(self) -> float:
        """Stored bits of one element."""
        return self.bytes * 8 / self.block

    def stored(self, ne: Sequence[int]) -> int:
        """Bytes of a tensor of these dimensions, the contiguous one first."""
        if not ne:
            return self.bytes
        return prod(ne) // self.block * self.bytes + (prod(ne[1:]) * self.row if self.row else 0)


GGML_TYPES: dict[str, GgmlType] = {
    name: GgmlType(name, number, block, size)
    for name, number, block, size in (
        ("F32", 0, 1, 4),
        ("F16", 1, 1, 2),
        ("Q4_0", 2, 32, 18),
        ("Q4_1", 3, 32, 20),
        ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34),
        ("Q8_1", 9, 32, 40),
        ("Q2_K", 10, 256, 84),
        ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144),
        ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210),
        ("Q8_K", 15, 256, 292),
        ("IQ2_XXS", 16, 256, 66),
        ("IQ2_XS", 17, 256, 74),
        ("IQ3_XXS", 18, 256, 98),
        ("IQ1_S", 19, 256, 50),
        ("IQ4_NL", 20, 32, 18),
        ("IQ3_S", 21, 256, 110),
        ("IQ2_S", 22, 256, 82),
        ("IQ4_XS", 23, 256, 136),
        ("I8", 24, 1, 1),
        ("I16", 25, 1, 2),
        ("I32", 26, 1, 4),
        ("I64", 27, 1, 8),
        ("F64", 28, 1, 8),
        ("IQ1_M", 29, 256, 56),
        ("BF16", 30, 1, 2),
        ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66),
        ("MXFP4", 39, 32, 17),
        ("NVFP4", 40, 64, 36),
        ("Q1_0", 41, 128, 18),
        ("Q2_0", 42, 64, 18),
    )
}

#: Types that ik_llama.cpp alone has.
IK_TYPES: dict[str, GgmlType] = {
    name: GgmlType(name, number, block, size, row)
    for name, number, block, size, row in (
        ("Q6_0", 133, 32, 26, 0),
        ("IQ1_BN", 134, 64, 13, 2),
        ("IQ2_BN", 135, 64, 16, 4),
        ("IQ2_K", 137, 256, 76, 0),
        ("IQ3_K", 138, 256, 110, 0),
        ("IQ4_K", 139, 256, 144, 0),
        ("IQ5_K", 140, 256, 176, 0),
        ("IQ6_K", 141, 256, 212, 0),
        ("IQ4_KS", 144, 256, 136, 4),
        ("IQ2_KS", 145, 256, 70, 2),
        ("IQ4_KSS", 146, 256, 128, 4),
        ("Q8_KV", 151, 32, 32, 8),
        ("IQ5_KS", 152, 256, 168, 4),
        ("IQ2_KT", 153, 256, 68, 4),
        ("IQ3_KT", 154, 256, 100, 4),
        ("IQ4_KT", 155, 256, 128, 4),
        ("IQ3_KS", 156, 256, 102, 2),
        ("IQ2_KL", 157, 256, 86, 2),
        ("IQ1_KT", 158, 256, 56, 4),
        ("IQ1_S_R4", 219, 32, 6, 2),
        ("IQ1_M_R4", 229, 32, 7, 2),
    )
}


def _interleaved() -> dict[str, GgmlType]:
    """Types whose rows ik_llama.cpp interleaves for processors: as large as the plain ones, with own numbers."""
    plain = {**GGML_TYPES, **IK_TYPES}
    found = {}
    for name, number, rows in (
        ("Q4_0", 202, 8), ("Q5_0", 206, 4), ("Q8_0", 208, 8), ("Q2_K", 210, 4), ("Q3_K", 211, 4), ("Q4_K", 212, 4),
        ("Q5_K", 213, 4), ("Q6_K", 214, 4), ("IQ2_XXS", 216, 4), ("IQ2_XS", 217, 4), ("IQ3_XXS", 218, 4),
        ("IQ4_NL", 220, 4), ("IQ3_S", 221, 4), ("IQ2_S", 222, 4), ("IQ4_XS", 223, 8), ("BF16", 230, 16),
        ("Q6_0", 233, 4), ("IQ2_BN", 335, 4), ("IQ2_K", 337, 4), ("IQ3_K", 338, 4), ("IQ4_K", 339, 4),
        ("IQ5_K", 340, 4), ("IQ4_KS", 344, 4), ("IQ5_KS", 352, 4), ("MXFP4", 353, 8),
    ):  # fmt: skip
        kind = plain[name]
        found[f"{name}_R{rows}"] = GgmlType(f"{name}_R{rows}", number, kind.block, kind.bytes, kind.row)
    return found


INTERLEAVED_TYPES: dict[str, GgmlType] = _interleaved()
GGML_TYPES |= IK_TYPES | INTERLEAVED_TYPES

GGML_TYPES_BY_ID: dict[int, GgmlType] = {kind.id: kind for kind in GGML_TYPES.values()}
