"""DistributedDataParallel: gradients are reduced in buckets, which are copies of them unless they are views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.training.settings import LayoutSettings
from willfit.training.sharding.base import Communication, Unit, alone


def ddp(units: Sequence[Unit], layout: LayoutSettings) -> Communication:
    """What DDP adds to a rank (torch `torch/csrc/distributed/c10d/reducer.cpp: initialize_buckets`).

    Parameters
    ----------
    units
        The model's.
    layout
        `bucket_view` decides whether gradients lie in the buckets.
    """
    own = alone(units)
    if layout.bucket_view:
        return own
    return replace(
        own,
        resident=own.gradients,
        formula=f"{own.gradients} B of buckets that gradients are copied into",
        reference="torch csrc/distributed/c10d/reducer.cpp: initialize_buckets",
    )
