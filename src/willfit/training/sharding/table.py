"""Which scheme a layout names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.quantities import ceil_div
from willfit.training.layout import Ranks
from willfit.training.settings import TrainingSettings
from willfit.training.sharding.base import BLOCKS, Communication, Unit, Wrapping, alone
from willfit.training.sharding.ddp import ddp
from willfit.training.sharding.fsdp import fsdp
from willfit.training.sharding.zero import zero

#: torch, from which on FSDP2 holds what is summed up over replicas (`_fsdp_param_group.py: AllReduceState`).
_HOLDS_REDUCED = (2, 6)


def communication_of(
    units: Sequence[Unit],
    settings: TrainingSettings,
    ranks: Ranks,
    hidden: int,
    postpones: bool = False,
    wrapping: Wrapping = BLOCKS,
) -> Communication:
    """What the run's way of sharing makes of a model's units.

    Parameters
    ----------
    units
        The model's pieces, embedding first and head last.
    settings
        The run's, filled in.
    ranks
        Sizes of its groups.
    hidden
        Width of the model.
    postpones
        Gradients are shared in the last micro-batch of a step only.
    wrapping
        What FSDP takes as a unit.

    Raises
    ------
    BadInput
        If there is no such way.
    """
    layout, precision = settings.layout, settings.precision
    kind, shared = layout.data or "none", ranks.states
    if kind == "none" or (shared == 1 and kind in ("ddp", "distributed-optimizer")):
        return alone(units)
    if kind == "ddp":
        return ddp(units, layout)
    if kind in ("fsdp1", "fsdp2"):
        together = settings.gradient_accumulation if postpones else 1
        torch = settings.versions.get("torch")
        holds = torch is None or parse_version(torch) >= _HOLDS_REDUCED
        offloads = settings.offload.params
        return fsdp(units, layout, precision, ranks, kind == "fsdp2", offloads, wrapping, together, holds)
    if kind in ("zero1", "zero2", "zero3"):
        return zero(units, layout, precision, settings.offload, shared, int(kind[-1]), hidden)
    if kind == "distributed-optimizer":
        own = alone(units)
        experts = sum(unit.experts for unit in units)
        others = own.state_elements - experts
        return replace(own, state_elements=ceil_div(others, shared) + ceil_div(experts, ranks.experts))
    raise BadInput(
        f"there is no data-parallel scheme {kind!r}",
        "known: ddp, fsdp1, fsdp2, zero1, zero2, zero3, distributed-optimizer",
    )
