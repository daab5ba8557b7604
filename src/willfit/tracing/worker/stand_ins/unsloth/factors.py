"""What fused adapters do with a matrix and its two factors, in the two ways in which they were written.

unsloth: kernels/utils.py: matmul_lora; kernels/fast_lora.py: backward (2024.8, 2025.3.19);
fms_acceleration_foak: fused_ops/unsloth_lora/utils.py: matmul_lora, bnb/fast_lora.py (0.4.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from willfit.tracing.worker.stand_ins.unsloth.weights import Shared, is_packed, unpacked

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Projection:
    """An adapted layer: the layer itself, its adapter's scale, and the adapter's dropout where it runs inside."""

    base: Any
    scale: float
    dropout: Any = None


class Apart:
    """Products are made apart and then added (Unsloth before 2025.3, foak)."""

    def product(self, rows: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """With the matrix, which goes before the factors' product is made."""
        return torch.matmul(rows, whole)

    def matrix(self, base: Any) -> torch.Tensor:
        """For a product that adapters add to."""
        return unpacked(base)

    def add_low_rank(self, output: torch.Tensor, rows: torch.Tensor, pair: Pair, scale: float) -> None:
        """Add the product with both factors, `pair` as inputs by rank and rank by outputs."""
        first, second = pair
        output += (rows @ first.to(rows.dtype)) @ (scale * second.to(rows.dtype))

    def narrowed(self, pair: Pair, dtype: torch.dtype) -> Pair:
        """Factors as the gradient reads them: autocast casts them with each product."""
        first, second = pair
        return first.t(), second.t()

    def begun(self, pairs: list[Pair]) -> list[Pair | None]:
        """Tensors for gradients of factors, where they are made before any is computed."""
        return [None] * len(pairs)

    def of_factors(
        self, rows: torch.Tensor, gradient: torch.Tensor, pair: Pair, scale: float, begun: Pair | None
    ) -> Pair:
        """Gradients of both, laid out as they lie in memory."""
        del begun
        first, second = pair
        of_first = rows.t() @ (gradient @ second.t())
        of_second = (first.t() @ rows.t()) @ gradient
        of_first *= scale
        of_second *= scale
        return of_first.t(), of_second.t()

    def add_through(self, of_rows: torch.Tensor, gradient: torch.Tensor, base: Any) -> None:
        """Add what passes through a matrix to the gradient of rows."""
        whole = unpacked(base)
        of_rows += gradient @ whole.t()

    def add_through_factors(
        self,
        of_rows: torch.Tensor,
        gradient: torch.Tensor,
        pair: Pair,
        scale: float,
        dropped: torch.Tensor | None,
    ) -> None:
        """Add what passes through both factors; what was dropped passes nothing."""
        first, second = pair
        dtype = of_rows.dtype
        if dropped is None:
            of_rows += gradient @ second.to(dtype).t() @ (scale * first.to(dtype).t())
            return
        of_rows += (dropped != 0) * (gradient @ second.to(dtype).t() @ (scale * first.to(dtype).t()))


class InPlace(Apart):
    """Products are added by the kernel that makes them, and matrices lie in a buffer (Unsloth from 2025.3)."""

    def __init__(self) -> None:
        self.shared = Shared()

    def matrix(self, base: Any) -> torch.Tensor:
        """In the buffer."""
        return unpacked(base, self.shared)

    def add_low_rank(self, output: torch.Tensor, rows: torch.Tensor, pair: Pair, scale: float) -> None:
        """See `Apart`."""
        first, second = pair
        low = torch.matmul(rows, first.to(rows.dtype))
        output.addmm_(low, second.to(rows.dtype), alpha=scale)

    def narrowed(self, pair: Pair, dtype: torch.dtype) -> Pair:
        """Copies, for the whole of the gradient."""
        first, second = pair
        return first.to(dtype).t(), second.to(dtype).t()

    def begun(self, pairs: list[Pair]) -> list[Pair | None]:
        """All of them."""
        return [(torch.empty_like(first), torch.empty_like(second)) for first, second in pairs]

    def of_factors(
        self, rows: torch.Tensor, gradient: torch.Tensor, pair: Pair, scale: float, begun: Pair | None
    ) -> Pair:
        """See `Apart`."""
        assert begun is not None
        (first, second), (of_first, of_second) = pair, begun
        of_first.addmm_(rows.t(), gradient @ second.t(), alpha=scale, beta=0)
        of_second.addmm_(first.t() @ rows.t(), gradient, alpha=scale, beta=0)
        return of_first.t(), of_second.t()

    def add_through(self, of_rows: torch.Tensor, gradient: torch.Tensor, base: Any) -> None:
        """See `Apart`."""
        whole = unpacked(base)
        of_rows.addmm_(gradient, whole.t())

    def add_through_factors(
        self,
        of_rows: torch.Tensor,
        gradient: torch.Tensor,
        pair: Pair,
        scale: float,
        dropped: torch.Tensor | None,
    ) -> None:
        """See `Apart`."""
        first, second = pair
        of_rows.addmm_(gradient @ second.t(), first.t(), alpha=scale)


def adapted(
    way: Apart, rows: torch.Tensor, projection: Projection, pair: Pair, whole: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The product of an adapted layer, and what its factors were given (`matmul_lora`).

    Parameters
    ----------
    way
        How it is written.
    rows
        In two dimensions.
    projection, pair
        The layer, and its factors as they lie in memory.
    whole
        The matrix where the caller holds it.
    """
    if whole is None:
        made = way.matrix(projection.base)
        output = way.product(rows, made)
        del made
    else:
        output = way.product(rows, whole)
    given = rows if projection.dropout is None else projection.dropout(rows)
    way.add_low_rank(output, given, (pair[0].t(), pair[1].t()), projection.scale)
    return output, given


def of_rows_through(way: Apart, gradient: torch.Tensor, base: Any, rows: torch.Tensor | None) -> torch.Tensor:
    """The gradient of rows through a matrix, written over them where they are given."""
    whole = unpacked(base)
    return torch.matmul(gradient, whole.t(), out=rows) if rows is not None else gradient @ whole.t()


def held_matrices(projections: tuple[Projection, ...]) -> list[torch.Tensor | None]:
    """Matrices that foak's functions for GPTQ unpack before the first product and hold until the last."""
    return [unpacked(one.base) if hasattr(one.base, "unpacked") else None for one in projections]


__all__ = [
    "Apart", "InPlace", "Pair", "Projection", "adapted", "held_matrices", "is_packed", "of_rows_through",
]  # fmt: skip
