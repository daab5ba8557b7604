"""Parameters as one rank holds them: what optimizers, gradients and shards are counted over."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from willfit.architectures.model import Kind, Part


@dataclass(frozen=True, slots=True)
class Parameter:
    """`copies` parameters of one shape on a rank, before data-parallel ranks share them.

    Attributes
    ----------
    name
        Name in the model, with `{layer}` and `{expert}` for the indices.
    shape
        Shape on the rank (tensor parallelism has divided it).
    part, kind
        As of the architecture's tensor.
    copies
        How many of them the rank holds.
    """

    name: str
    shape: tuple[int, ...]
    part: Part
    kind: Kind
    copies: int = 1

    @property
    def elements(self) -> int:
        """Elements of all copies."""
        return prod(self.shape) * self.copies
