"""Sizes of FSDP's units by the pieces of the model."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.sharding.base import Unit, Wrapping


def sizes_of(units: Sequence[Unit], wrapping: Wrapping) -> tuple[int, list[int]]:
    """Bytes of the gathered root unit, and of the units of the pieces; 0 where a piece lies in the root unit.

    Parameters
    ----------
    units
        The model's pieces, embedding first and head last.
    wrapping
        What is a unit.
    """
    sizes = [unit.gathered_bytes for unit in units]
    if wrapping.ends_apart:
        return 0, sizes
    return sizes[0] + sizes[-1], [0, *sizes[1:-1], 0]


def rooted(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes by pieces where those of head and embedding come at the embedding, which is the last to run back."""
    return sizes[0] + sizes[-1], *sizes[1:-1], 0
