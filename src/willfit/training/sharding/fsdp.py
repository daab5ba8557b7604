"""Fully sharded data parallel: each unit is gathered when it runs, and its gradient is scattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.layout import Ranks
from willfit.training.settings import LayoutSettings, PrecisionSettings
from willfit.training.sharding.base import Communication, Unit, Wrapping
from willfit.training.sharding.passing import gathered, scattered

#: Units that are gathered at once: the one that runs and the one that is fetched ahead (FSDP1: `limit_all_gathers`,
#: `BackwardPrefetch.BACKWARD_PRE`; FSDP2: implicit prefetch).
_IN_FLIGHT = 2


def fsdp(
    units: Sequence[Unit],
    layout: LayoutSettings,
    precision: PrecisionSettings,
    ranks: Ranks,
    second: bool,
    offloads: bool,
    wrapping: Wrapping,
    postponed: bool = False,
) -> Communication:
    """What FSDP leaves on a rank, and what it gathers (torch `distributed/fsdp/_runtime_utils.py`,
    `distributed/fsdp/_fully_shard/_fsdp_collectives.py`).

    The first and the last piece (embedding, and final norm with the head) are the root unit, unless they are wrapped
    apart: it stays gathered from the forward to the end of the backward pass, and so do its gradients, for no
    gradient leaves it before the last of its parameters has one.

    Parameters
    ----------
    units
        The model's pieces; embedding first, head last.
    layout, precision
        The run's.
    ranks
        Sizes of the run's groups.
    second
        FSDP2, which copies what it gathers into the parameters of the unit.
    offloads
        Shards lie on the host.
    wrapping
        What is a unit.
    postponed
        Gradients of several micro-batches are added up before they are scattered: each rank then keeps them whole
        (`fully_sharded_data_parallel.py: no_sync`, `_fully_shard/_fully_shard.py: set_requires_gradient_sync`).
    """
    sharded = layout.strategy not in ("no_shard",)
    shards = ranks.states if sharded else 1
    experts = ranks.experts if sharded else 1
    keeps_weights = layout.strategy in ("shard_grad_op", "no_shard") or layout.reshard is False
    weights = sum(_share(unit.bytes, unit, shards, experts) for unit in units)
    width = DTYPE_BYTES[precision.gradients or "fp32"]
    compute = DTYPE_BYTES[precision.compute or "fp32"]
    flat = _flat(units, compute, not wrapping.ends_apart) if wrapping.mixed and not second else units
    left = tuple(_share(unit.trained, unit, shards, experts) * width for unit in flat)
    if shards == 1:
        zeros = (0,) * len(units)
        trained = sum(unit.trained for unit in units)
        return Communication(weights, sum(left), trained, 0, zeros, zeros, left)
    forward, backward = gathered(units, wrapping, keeps_weights, second, layout.prefetch != 0)
    # Both take the dtype of the products where no other is asked for (`MixedPrecision`, `MixedPrecisionPolicy`).
    reduce = DTYPE_BYTES[precision.reduce or precision.compute or "fp32"]
    sent, joined = scattered(units, flat, wrapping, second, reduce, postponed)
    wide = [unit.gathered_bytes for unit in units]
    root = 0 if wrapping.ends_apart else wide[0] + wide[-1]
    found = Communication(
        weights=weights,
        gradients=sum(left),
        state_elements=sum(_share(unit.trained, unit, shards, experts) for unit in units),
        resident=0,
        forward=forward,
        backward=tuple(there + leaving for there, leaving in zip(backward, sent, strict=True)),
        left=left if wrapping.ends_apart else (left[0] + left[-1], *left[1:-1], 0),
        joined=tuple(there + size if size else 0 for there, size in zip(backward, joined, strict=True)),
        whole=_whole(flat, reduce if second else compute) if postponed else 0,
        formula=f"{root} B of the root unit + {_IN_FLIGHT} units of up to {max(wide[1:-1], default=0)} B gathered",
        reference="torch distributed/fsdp/_fully_shard/_fsdp_collectives.py: foreach_all_gather"
        if second
        else "torch distributed/fsdp/_runtime_utils.py: _unshard",
    )
    return on_host(found) if offloads else found


def on_host(found: Communication) -> Communication:
    """What is left on the device where shards lie on the host: weights, gradients and the step all go there.

    FSDP1's `CPUOffload(offload_params=True)` and FSDP2's `CPUOffloadPolicy` know no half measures.
    """
    moved = found.weights + found.gradients
    return replace(found, weights=0, gradients=0, left=(0,) * len(found.left), step=0, host=moved)


def _flat(units: Sequence[Unit], compute: int, rooted: bool) -> list[Unit]:
    """Units as flat parameters: if anything of one is trained, all of it gets a gradient, in the compute dtype."""
    ends = any(unit.trained for unit in (units[0], units[-1]))
    found = []
    for index, unit in enumerate(units):
        if ends if rooted and index in (0, len(units) - 1) else unit.trained:
            size = unit.gathered_bytes
            unit = replace(unit, trained=size // compute, gradient_bytes=size)
        found.append(unit)
    return found


def _whole(units: Sequence[Unit], width: int) -> int:
    """Gradients that no rank has scattered yet: as FSDP1's backward pass makes them, in the reduction's dtype of FSDP2
    (`_fsdp_param.py: to_accumulated_grad_if_needed`)."""
    return sum(unit.trained for unit in units) * width


def _share(size: int, unit: Unit, shards: int, experts: int) -> int:
    """A rank's part of something of a unit, whose experts fewer ranks share."""
    if not unit.experts or shards == experts:
        return ceil_div(size, shards)
    routed = size * unit.experts // unit.trained
    return ceil_div(size - routed, shards) + ceil_div(routed, experts)
