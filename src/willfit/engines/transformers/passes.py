"""One forward pass, as the rules of what it holds see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.quantities import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass.

    Attributes
    ----------
    batch
        Sequences.
    queries
        New tokens of each; an integer or an array.
    length
        Tokens of each that are attended to, new ones included.
    dtype
        Compute dtype.
    attention
        `eager`, `sdpa`, `flash_attention_2` or `flex_attention`.
    ranks
        Tensor-parallel ranks.
    expanded
        Bytes of a quantized matrix that a kernel expands for a product with this many rows.
    unsummed
        Bytes of each output of a quantized product that are held until they make the output.
    chunked
        A later part of a prompt, which attends to more than itself.
    copies_experts
        Each row's experts are copied for it: a step of decoding with experts that are not quantized.
    """

    batch: Any
    queries: Any
    length: Any
    dtype: str
    attention: str
    ranks: int = 1
    expanded: int = 0
    unsummed: int = 0
    chunked: bool = False
    copies_experts: bool = False

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def tokens(self) -> Any:
        """New tokens of all sequences."""
        return self.batch * self.queries
