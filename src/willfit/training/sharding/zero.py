"""DeepSpeed's ZeRO: optimizer states, gradients and parameters in partitions, and the buckets between them."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.settings import LayoutSettings, OffloadSettings, PrecisionSettings
from willfit.training.sharding.base import Communication, Unit

#: DeepSpeed's own defaults in elements (`deepspeed/runtime/zero/config.py`).
REDUCE_BUCKET = ALLGATHER_BUCKET = 500_000_000
PREFETCH_BUCKET = 50_000_000
MAX_LIVE = MAX_REUSE = 1_000_000_000
PERSISTENCE = 100_000


def zero(
    units: Sequence[Unit],
    layout: LayoutSettings,
    precision: PrecisionSettings,
    offload: OffloadSettings,
    ranks: int,
    stage: int,
    hidden: int,
) -> Communication:
    """What a ZeRO stage leaves on a rank (`runtime/zero/stage_1_and_2.py`, `runtime/zero/stage3.py`).

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
    trained = sum(unit.trained for unit in units)
    frozen = sum(unit.bytes for unit in units) - trained * DTYPE_BYTES[precision.weights or "bf16"]
    bucket = _size(layout.reduce_bucket, REDUCE_BUCKET, hidden * hidden)
    # Contiguous gradients are copied into the bucket; with overlap there are two.
    buckets = min(bucket, trained) * width * (2 if layout.overlap is not False else 1)
    partition = ceil_div(trained, ranks)
    gradient = width * trained
    accumulated = precision.gradients or precision.compute or "bf16"
    if stage == 3:
        return _third(units, layout, precision, offload, ranks, buckets, partition, accumulated, hidden)
    weights = frozen + trained * width
    if stage == 1:
        left = tuple(unit.gradient_bytes for unit in units)
        gradients = gradient
    else:
        left = tuple(ceil_div(unit.trained, ranks) * DTYPE_BYTES[accumulated] for unit in units)
        gradients = partition * DTYPE_BYTES[accumulated]
    if offload.optimizer:
        left, gradients = (0,) * len(units), 0
    zeros = (0,) * len(units)
    # The step works on a float32 copy of the partition's gradient, and gathers what it updated.
    step = 0 if offload.optimizer else partition * 4
    return Communication(
        weights=weights,
        gradients=gradients,
        state_elements=partition,
        resident=0,
        forward=zeros,
        backward=(buckets,) * len(units),
        left=left,
        master=0 if offload.optimizer else 4 * partition,
        step=step,
        formula=f"{buckets} B of buckets of {bucket} elements",
        reference="deepspeed runtime/zero/stage_1_and_2.py",
    )


def _third(
    units: Sequence[Unit],
    layout: LayoutSettings,
    precision: PrecisionSettings,
    offload: OffloadSettings,
    ranks: int,
    buckets: int,
    partition: int,
    accumulated: str,
    hidden: int,
) -> Communication:
    total = sum(unit.gathered_bytes for unit in units)
    width = DTYPE_BYTES[precision.compute or "bf16"]
    live = min(total, _size(layout.max_live, MAX_LIVE, MAX_LIVE) * width)
    ahead = _size(layout.prefetch_bucket, PREFETCH_BUCKET, hidden * hidden * 9 // 10) * width
    largest = max((unit.gathered_bytes for unit in units), default=0)
    gathered = min(total, max(live, largest) + ahead)
    held = sum(ceil_div(unit.bytes, ranks) for unit in units)
    stays = 0 if offload.optimizer else partition * DTYPE_BYTES[accumulated]
    left = tuple(
        0 if offload.optimizer else ceil_div(unit.trained, ranks) * DTYPE_BYTES[accumulated] for unit in units
    )
    return Communication(
        weights=0 if offload.params else held,
        gradients=stays,
        state_elements=partition,
        resident=0,
        forward=(gathered,) * len(units),
        backward=(gathered + buckets,) * len(units),
        left=left,
        master=0 if offload.optimizer else 4 * partition,
        step=0 if offload.optimizer else 4 * min(partition, 1_000_000_000),
        host=held if offload.params else 0,
        formula=f"{gathered} B of gathered parameters + {buckets} B of buckets",
        reference="deepspeed runtime/zero/partitioned_param_coordinator.py",
    )


def _size(asked: int | None, default: int, automatic: int) -> int:
    if asked is None:
        return default
    return asked or automatic
