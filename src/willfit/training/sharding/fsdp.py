"""Fully sharded data parallel: each unit is gathered when it runs, and its gradient is scattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.layout import Ranks
from willfit.training.settings import LayoutSettings, PrecisionSettings
from willfit.training.sharding.base import Communication, Unit

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
    postponed: bool = False,
    mixed: bool = False,
) -> Communication:
    """What FSDP leaves on a rank, and what it gathers (torch `distributed/fsdp/_runtime_utils.py`,
    `distributed/fsdp/_fully_shard/_fsdp_collectives.py`).

    The first and the last unit (embedding, and final norm with the head) are the root unit: it stays gathered from the
    forward to the end of the backward pass.

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
    postponed
        Gradients of several micro-batches are added up before they are scattered: each rank then keeps them whole
        (`fully_sharded_data_parallel.py: no_sync`, `_fully_shard/_fully_shard.py: set_requires_gradient_sync`).
    mixed
        FSDP1's units hold trained parameters beside frozen ones. A unit is one flat parameter, whose gradient has room
        for all of it (`fully_sharded_data_parallel.py`: "constraints when freezing parameters").
    """
    sharded = layout.strategy not in ("no_shard",)
    shards = ranks.states if sharded else 1
    experts = ranks.experts if sharded else 1
    keeps_weights = layout.strategy in ("shard_grad_op", "no_shard") or layout.reshard is False
    weights = sum(_share(unit.bytes, unit, shards, experts) for unit in units)
    width = DTYPE_BYTES[precision.gradients or "fp32"]
    compute = DTYPE_BYTES[precision.compute or "fp32"]
    flat = [_flat(unit, compute) if mixed else unit for unit in units]
    left = tuple(_share(unit.trained, unit, shards, experts) * width for unit in flat)
    if shards == 1:
        zeros = (0,) * len(units)
        trained = sum(unit.trained for unit in units)
        return Communication(weights, sum(left), trained, 0, zeros, zeros, left)
    root = units[0].gathered_bytes + units[-1].gathered_bytes
    inner = [unit.gathered_bytes for unit in units[1:-1]]
    forward, backward = [root], [root]
    for index, size in enumerate(inner):
        ahead = inner[index + 1] if index + 1 < len(inner) else 0
        behind = inner[index - 1] if index else 0
        if keeps_weights:
            forward.append(root + sum(inner[: index + 1]) + ahead)
            backward.append(root + sum(inner[: index + 1]))
        else:
            forward.append(root + size + (ahead if layout.prefetch != 0 else 0))
            backward.append(root + size + (behind if layout.prefetch != 0 else 0))
    forward.append(root + (sum(inner) if keeps_weights else 0))
    backward.append(root + (sum(inner) if keeps_weights else 0))
    reduce = DTYPE_BYTES[precision.reduce or precision.gradients or "fp32"]
    # A unit's gradient is copied into the buffer that is scattered while the next unit's backward pass runs.
    for index in range(len(units) - 1):
        later = flat[index + 1]
        sent = later.trained * reduce if index + 1 < len(units) - 1 else 0
        backward[index] += sent + flat[index].gradient_bytes - units[index].gradient_bytes
    wide = [unit.gathered_bytes for unit in units]
    found = Communication(
        weights=weights,
        gradients=sum(left),
        state_elements=sum(_share(unit.trained, unit, shards, experts) for unit in units),
        resident=0,
        forward=tuple(forward),
        backward=tuple(backward),
        left=left,
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


def _flat(unit: Unit, compute: int) -> Unit:
    """A unit as one flat parameter: if anything of it is trained, all of it gets a gradient, in the compute dtype."""
    if not unit.trained:
        return unit
    return replace(unit, trained=unit.gathered_bytes // compute, gradient_bytes=unit.gathered_bytes)


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
