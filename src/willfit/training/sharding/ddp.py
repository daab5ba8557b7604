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
    reference = "torch csrc/distributed/c10d/reducer.cpp: initialize_buckets"
    if layout.bucket_view:
        # Buckets are made with the model. Autograd still makes each gradient anew, for none is left from the step
        # before (`zero_grad(set_to_none=True)`): it is copied into its bucket and then becomes a view of that.
        formula = f"{own.gradients} B of buckets that gradients are views of"
        zeros = (0,) * len(units)
        return replace(own, left=zeros, buffered=True, formula=formula, reference=reference)
    formula = f"{own.gradients} B of buckets that gradients are copied into"
    return replace(own, resident=own.gradients, formula=formula, reference=reference)
