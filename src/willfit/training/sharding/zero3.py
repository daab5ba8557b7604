"""DeepSpeed's ZeRO, stage 3: parameters in partitions too, gathered ahead and kept while they are used again soon."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.settings import LayoutSettings, OffloadSettings, PrecisionSettings
from willfit.training.sharding.base import Communication, Unit
from willfit.training.sharding.flat_gradients import flattened

#: DeepSpeed's own defaults in elements (`deepspeed/runtime/zero/config.py`).
PREFETCH_BUCKET = 50_000_000
MAX_LIVE = MAX_REUSE = SUB_GROUP = 1_000_000_000


def zero3(
    units: Sequence[Unit],
    layout: LayoutSettings,
    precision: PrecisionSettings,
    offload: OffloadSettings,
    ranks: int,
    bucket: int,
    hidden: int,
) -> Communication:
    """What stage 3 leaves on a rank (`runtime/zero/stage3.py`, `partitioned_param_coordinator.py`, 0.18).

    Parameters
    ----------
    units, layout, precision, offload, ranks, hidden
        As for `zero`.
    bucket
        Elements of the bucket of gradients.
    """
    width = DTYPE_BYTES[precision.compute or "bf16"]
    trained = sum(unit.trained for unit in units)
    partition = ceil_div(trained, ranks)
    forward, backward = _gathered(units, layout, width, hidden)
    if ranks == 1 and not offload.params:
        # The partition is the whole, and parameters are views of it (`partition_parameters.py: NoGatherHandle`).
        forward = backward = (0,) * len(units)
    # The bucket is made with the optimizer and stays. Its gradients are put in the order of ranks to be scattered,
    # in a copy (`comm/coalesced_collectives.py: reduce_scatter_coalesced`), perhaps of a wider dtype first.
    standing, sent = bucket * width, _scattered(units, bucket)
    element = width
    if precision.reduce is not None and DTYPE_BYTES[precision.reduce] > width:
        element = 2 * DTYPE_BYTES[precision.reduce]
    # ZeRO++: after their first use parameters lie in partitions of a smaller group as well.
    second = sum(unit.gathered_bytes for unit in units) // layout.secondary if layout.secondary else 0
    accumulated = DTYPE_BYTES[precision.gradients or precision.compute or "bf16"]
    gradients = 0 if offload.optimizer else partition * accumulated
    weights = 0 if offload.params else sum(ceil_div(unit.bytes, ranks) for unit in units)
    group = min(partition, SUB_GROUP)
    largest = ceil_div(max((unit.largest for unit in units), default=0), ranks)
    flat = flattened(group, accumulated, min(largest, group)) - group * accumulated
    return Communication(
        weights=weights,
        gradients=gradients,
        state_elements=partition,
        resident=standing + (0 if offload.params else second),
        forward=forward,
        backward=tuple(size + count * element for size, count in zip(backward, sent, strict=True)),
        left=(0,) * len(units),
        master=0 if offload.optimizer else 4 * partition,
        step=0 if offload.optimizer else 4 * group,
        before_step=0 if offload.optimizer else flat,
        # `grad_partitions_flat_buffer` is made with the optimizer.
        buffered=True,
        formula=f"at most {max(forward, default=0)} B of gathered parameters and "
        f"{max(sent, default=0) * element} B of gradients to be scattered",
        reference="deepspeed runtime/zero/partitioned_param_coordinator.py: fetch_sub_module, __params_to_release",
    )


def _scattered(units: Sequence[Unit], bucket: int) -> tuple[int, ...]:
    """Elements of the copy that is scattered while a piece runs backward: when the bucket has filled, and at the end.

    A gradient that is larger than the bucket is scattered alone, without a copy (`__add_grad_to_ipg_bucket`).
    """
    found, before = [], 0
    whole = sum(unit.trained for unit in units)
    for unit in reversed(units):
        filled = before > 0 and before + unit.trained > bucket
        found.append(min(bucket, whole) if filled else 0)
        before += unit.trained
    found[-1] = min(bucket, whole)
    return tuple(reversed(found))


def _gathered(
    units: Sequence[Unit], layout: LayoutSettings, width: int, hidden: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes of gathered parameters while each piece runs, forward and backward.

    A piece stays gathered behind its forward pass if fewer than `max_reuse` elements are used before it is used again:
    what lies above it, forward and back. Others are freed. The next ones are fetched ahead, parameter by parameter
    until the bucket is exceeded, but not beyond `max_live`.
    """
    sizes = [unit.gathered_bytes for unit in units]
    reuse = _size(layout.max_reuse, MAX_REUSE) * width
    live = _size(layout.max_live, MAX_LIVE) * width
    bucket = _size(layout.prefetch_bucket, PREFETCH_BUCKET, hidden * hidden * 9 // 10) * width
    stays, above = [], 0
    for size in reversed(sizes):
        stays.append(2 * above < reuse)
        above += size
    stays.reverse()

    def ahead(following: Sequence[int], held: int) -> int:
        room = min(bucket, live - held)
        if room <= 0 or not following:
            return 0
        overshoot = max(units[index].largest for index in following[:2]) * width
        return min(room + overshoot, sum(sizes[index] for index in following))

    forward, backward, kept = [], [], 0
    for index, size in enumerate(sizes):
        held = kept + size
        forward.append(held + ahead(range(index + 1, len(sizes)), held))
        missing = [one for one in range(index - 1, -1, -1) if not stays[one]]
        backward.append(held + ahead(missing, held))
        kept += size if stays[index] else 0
    return tuple(forward), tuple(backward)


def _size(asked: int | None, default: int, automatic: int | None = None) -> int:
    """A size of DeepSpeed's: as asked, its default, or what 0 stands for."""
    if asked is None:
        return default
    return asked if asked or automatic is None else automatic
