"""Which dtypes FSDP casts to."""

from __future__ import annotations

import torch

from willfit.tracing.worker.dtypes import dtype
from willfit.training.settings import PrecisionSettings


def computed(precision: PrecisionSettings) -> torch.dtype | None:
    """What gathered parameters are cast to; None where they stay as they are."""
    if precision.compute is None or precision.autocast:
        return None
    compute = dtype(precision.compute)
    held = {dtype(precision.weights), dtype(precision.trainable or precision.weights)}
    return None if held == {compute} else compute


def reduced(precision: PrecisionSettings) -> torch.dtype | None:
    """In what gradients are reduced; None for that in which they are made."""
    if precision.reduce is not None:
        return dtype(precision.reduce)
    return computed(precision)
