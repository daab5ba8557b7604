"""Fully sharded data parallel: each unit is gathered when it runs, and its gradient is scattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.layout import Ranks
from willfit.training.settings import LayoutSettings, PrecisionSettings
from willfit.training.sharding import flat_units, parameter_groups
from willfit.training.sharding.base import Communication, Unit, Wrapping

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
    micro_batches: int = 1,
    holds_reduced: bool = True,
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
    micro_batches
        How many are added up before gradients are scattered: each rank then keeps them whole
        (`fully_sharded_data_parallel.py: no_sync`, `_fully_shard/_fully_shard.py: set_requires_gradient_sync`).
    holds_reduced
        FSDP2 holds what it sums up over replicas in another dtype than the gradients' until the backward pass is over.
    """
    sharded = layout.strategy not in ("no_shard",)
    shards = ranks.states if sharded else 1
    experts = ranks.experts if sharded else 1
    keeps_weights = layout.strategy in ("shard_grad_op", "no_shard") or layout.reshard is False
    weights = sum(_share(unit.bytes, unit, shards, experts) for unit in units)
    width = DTYPE_BYTES[precision.gradients or "fp32"]
    compute = DTYPE_BYTES[precision.compute or "fp32"]
    flat = _flat(units, compute, not wrapping.ends_apart) if wrapping.mixed and not second else units
    shares = tuple(_share(unit.trained, unit, shards, experts) * width for unit in flat)
    if shards == 1:
        zeros = (0,) * len(units)
        trained = sum(unit.trained for unit in units)
        return Communication(weights, sum(shares), trained, 0, zeros, zeros, shares)
    # Both take the dtype of the products where no other is asked for (`MixedPrecision`, `MixedPrecisionPolicy`).
    reduce = DTYPE_BYTES[precision.reduce or precision.compute or "fp32"]
    kept = (0,) * len(units) if offloads else shares
    reduced = tuple(
        _share(unit.trained, unit, shards, experts) * reduce if reduce != width else 0 for unit in units
    )
    ahead = layout.prefetch != 0
    if second:
        forward, passes = parameter_groups.passes(
            units, wrapping, keeps_weights, ahead, compute, reduce, reduced, kept, micro_batches
        )
    else:
        forward, passes = flat_units.passes(
            units, flat, wrapping, keeps_weights, ahead, compute, reduce, kept, micro_batches
        )
    replicated = ranks.data * layout.cp * layout.ulysses > ranks.states
    wide = [unit.gathered_bytes for unit in units]
    root = 0 if wrapping.ends_apart else wide[0] + wide[-1]
    found = Communication(
        weights=weights,
        gradients=sum(shares),
        state_elements=sum(_share(unit.trained, unit, shards, experts) for unit in units),
        resident=0,
        forward=forward,
        backward=passes[-1].backward,
        left=passes[-1].left,
        lingering=reduced if second and holds_reduced and replicated else (),
        joined=passes[-1].joined,
        earlier=passes[:-1],
        formula=f"{root} B of the root unit + {_IN_FLIGHT} units of up to {max(wide[1:-1], default=0)} B gathered",
        reference="torch distributed/fsdp/_fully_shard/_fsdp_collectives.py: foreach_all_gather"
        if second
        else "torch distributed/fsdp/_runtime_utils.py: _unshard",
    )
    return on_host(found) if offloads else found


def adds_in_place(precision: PrecisionSettings) -> bool:
    """Whether autograd adds gradients that FSDP2 does not scatter yet to those before; else they wait in another dtype
    (`_fsdp_param.py: to_accumulated_grad_if_needed`)."""
    return precision.reduce in (None, precision.compute)


def on_host(found: Communication) -> Communication:
    """What is left on the device where shards lie on the host: weights, gradients and the step all go there.

    FSDP1's `CPUOffload(offload_params=True)` and FSDP2's `CPUOffloadPolicy` know no half measures.
    """
    moved = found.weights + found.gradients
    return replace(found, weights=0, gradients=0, step=0, host=moved)


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


def _share(size: int, unit: Unit, shards: int, experts: int) -> int:
    """A rank's part of something of a unit, whose experts fewer ranks share."""
    if not unit.experts or shards == experts:
        return ceil_div(size, shards)
    routed = size * unit.experts // unit.trained
    return ceil_div(size - routed, shards) + ceil_div(routed, experts)
