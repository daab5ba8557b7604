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

#: ZeRO 3 steps over so many elements of a rank at a time (`sub_group_size`).
SUB_GROUP = 1_000_000_000


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
    # A buffer is made of the size that is set, however little is trained; with overlap stages 1 and 2 have two.
    bucket = width * _size(layout.reduce_bucket, REDUCE_BUCKET, hidden * hidden)
    partition = ceil_div(trained, ranks)
    accumulated = DTYPE_BYTES[precision.gradients or precision.compute or "bf16"]
    if stage == 3:
        return _third(units, layout, precision, offload, ranks, bucket, accumulated, hidden)
    buckets = bucket * (2 if layout.overlap is not False else 1)
    weights = frozen + trained * width
    gradients = width * trained if stage == 1 else partition * accumulated
    left = tuple(
        unit.gradient_bytes if stage == 1 else ceil_div(unit.trained, ranks) * accumulated for unit in units
    )
    largest = max((unit.largest for unit in units), default=0)
    if offload.optimizer:
        left, gradients = (0,) * len(units), 0
    return Communication(
        weights=weights,
        gradients=gradients,
        state_elements=partition,
        # Gradients go through a buffer of the largest parameter's size to the host.
        resident=largest * width if offload.optimizer else 0,
        forward=(0,) * len(units),
        backward=(buckets,) * len(units),
        left=left,
        master=0 if offload.optimizer else 4 * partition,
        step=0 if offload.optimizer else 4 * partition,
        before_step=0 if offload.optimizer else _flattened(partition, accumulated, min(largest, partition)),
        frees_gradients=True,
        formula=f"{buckets} B of buckets",
        reference="deepspeed runtime/zero/stage_1_and_2.py",
    )


def _flattened(elements: int, width: int, largest: int) -> int:
    """Bytes of gradients, their flat copy, and that in float32; or of gradients, and one in float64 for its norm.

    `runtime/zero/stage_1_and_2.py: step`, `stage3.py: _prepare_fp32_grad_for_sub_group`, `get_grad_norm_direct`.
    """
    copied = 2 * width + (4 if width < 4 else 0)
    return max(elements * copied, elements * width + 8 * largest)


def _third(
    units: Sequence[Unit],
    layout: LayoutSettings,
    precision: PrecisionSettings,
    offload: OffloadSettings,
    ranks: int,
    bucket: int,
    accumulated: int,
    hidden: int,
) -> Communication:
    total = sum(unit.gathered_bytes for unit in units)
    width = DTYPE_BYTES[precision.compute or "bf16"]
    live = min(total, _size(layout.max_live, MAX_LIVE, MAX_LIVE) * width)
    ahead = _size(layout.prefetch_bucket, PREFETCH_BUCKET, hidden * hidden * 9 // 10) * width
    fullest = max((unit.gathered_bytes for unit in units), default=0)
    gathered = min(total, max(live, fullest) + ahead)
    if ranks == 1 and not offload.params:
        # The partition is the whole, and parameters are views of it (`partition_parameters.py: NoGatherHandle`).
        gathered = 0
    weights = sum(ceil_div(unit.bytes, ranks) for unit in units)
    partition = sum(ceil_div(unit.trained, ranks) for unit in units)
    group = min(partition, SUB_GROUP)
    largest = ceil_div(max((unit.largest for unit in units), default=0), ranks)
    # Gradients have a buffer of their own from the beginning, in which they are added up.
    held = 0 if offload.optimizer else partition * accumulated
    flattened = _flattened(group, accumulated, min(largest, group)) - group * accumulated
    return Communication(
        weights=0 if offload.params else weights,
        gradients=held,
        buffered=True,
        state_elements=partition,
        resident=bucket,
        forward=(gathered,) * len(units),
        backward=(gathered,) * len(units),
        left=(0,) * len(units),
        master=0 if offload.optimizer else 4 * partition,
        step=0 if offload.optimizer else 4 * group,
        before_step=0 if offload.optimizer else flattened,
        host=weights if offload.params else 0,
        formula=f"{gathered} B of gathered parameters, {bucket} B of a bucket",
        reference="deepspeed runtime/zero/stage3.py, partitioned_param_coordinator.py",
    )


def _size(asked: int | None, default: int, automatic: int) -> int:
    if asked is None:
        return default
    return asked or automatic
