"""Dtypes of a run by either of their names, and which of them FSDP casts to."""

from __future__ import annotations

import torch

from willfit.errors import BadInput
from willfit.quantities import dtype_name
from willfit.tracing.worker.recipes.model import DTYPES
from willfit.training.settings import PrecisionSettings


def dtype_of(name: str | None) -> torch.dtype:
    """The dtype of that name; float32 for none.

    Raises
    ------
    BadInput
        If shards are never of it.
    """
    found = DTYPES.get(dtype_name(name or "fp32"))
    if found is None:
        raise BadInput(f"shards of {name} are not traced", f"traced: {', '.join(DTYPES)}")
    return found


def computed(precision: PrecisionSettings) -> torch.dtype | None:
    """What gathered parameters are cast to; None where they stay as they are."""
    if precision.compute is None or precision.autocast:
        return None
    compute = dtype_of(precision.compute)
    held = {dtype_of(precision.weights), dtype_of(precision.trainable or precision.weights)}
    return None if held == {compute} else compute


def reduced(precision: PrecisionSettings) -> torch.dtype | None:
    """In what gradients are reduced; None for that in which they are made."""
    if precision.reduce is not None:
        return dtype_of(precision.reduce)
    return computed(precision)
