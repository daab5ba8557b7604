"""DeepSpeed's ZeRO, stages 1 and 2: optimizer states and gradients in partitions, and the buckets between them."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.settings import LayoutSettings, OffloadSettings, PrecisionSettings
from willfit.training.sharding.base import Communication, Unit
from willfit.training.sharding.flat_gradients import flattened
from willfit.training.sharding.zero3 import zero3

#: DeepSpeed's own default in elements (`deepspeed/runtime/zero/config.py`).
REDUCE_BUCKET = 500_000_000


def zero(
    units: Sequence[Unit],
    layout: LayoutSettings,
    precision: PrecisionSettings,
    offload: OffloadSettings,
    ranks: int,
    stage: int,
    hidden: int,
) -> Communication:
    """What a ZeRO stage leaves on a rank (`runtime/zero/stage_1_and_2.py`, `runtime/zero/stage3.py`, 0.18).

    Parameters
    ----------
    units
        The model's pieces.
    layout, precision, offload
        The run's; a size of 0 is HF's `auto`.
    ranks
        Over which states are partitioned.
    stage
        1, 2 or 3.
    hidden
        Width of the model, from which `auto` makes sizes.
    """
    width = DTYPE_BYTES[precision.compute or "bf16"]
    bucket = 0
    if layout.contiguous is not False:
        bucket = REDUCE_BUCKET if layout.reduce_bucket is None else layout.reduce_bucket or hidden * hidden
    if stage == 3:
        return zero3(units, layout, precision, offload, ranks, bucket, hidden)
    trained = sum(unit.trained for unit in units)
    frozen = sum(unit.bytes for unit in units) - trained * DTYPE_BYTES[precision.weights or "bf16"]
    # Made whole when the backward pass begins, however little is trained; a second one if communication overlaps
    # (`backward_prologue`). It does not unless asked for (`config.py: overlap_comm_valid`).
    buckets = bucket * width * (2 if layout.overlap else 1)
    if precision.reduce is not None and DTYPE_BYTES[precision.reduce] > width:
        # What is sent is cast to a wider dtype first.
        buckets += min(bucket, trained) * DTYPE_BYTES[precision.reduce]
    partition = ceil_div(trained, ranks)
    accumulated = DTYPE_BYTES[precision.gradients or precision.compute or "bf16"]
    gradients = width * trained if stage == 1 else partition * accumulated
    left = tuple(
        unit.gradient_bytes if stage == 1 else ceil_div(unit.trained, ranks) * accumulated for unit in units
    )
    largest, resident = max((unit.largest for unit in units), default=0), 0
    if offload.optimizer:
        left, gradients = (0,) * len(units), 0
        # Gradients pass through a buffer of the largest parameter (`temp_grad_buffer_for_gpu_offload`).
        resident = min(largest, trained) * width
    return Communication(
        weights=frozen + trained * width,
        gradients=gradients,
        state_elements=partition,
        resident=resident,
        forward=(0,) * len(units),
        backward=(buckets,) * len(units),
        left=left,
        master=0 if offload.optimizer else 4 * partition,
        # The step works on a float32 copy of the partition's gradient, and gathers what it updated.
        step=0 if offload.optimizer else 4 * partition,
        before_step=0 if offload.optimizer else flattened(partition, accumulated, min(largest, partition)),
        frees_gradients=True,
        formula=f"{buckets} B of buckets of {bucket} elements",
        reference="deepspeed runtime/zero/stage_1_and_2.py: backward_prologue, step",
    )
