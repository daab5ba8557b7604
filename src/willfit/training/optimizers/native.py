"""PyTorch's own optimizers that work element by element: their three implementations, by version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from willfit.engines.versions import Version
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.optimizers.passes import Binding, larger, one_by_one, together
from willfit.training.optimizers.records import (
    NOTHING,
    Job,
    OptimizerMemory,
    StateBytes,
    Transient,
    state,
    steps_counter,
)
from willfit.training.parameters import Parameter

#: From here on parameters are told apart by device and dtype, and foreach is chosen by itself where all are plain
#: tensors on CUDA (torch 2.0, `optim/optimizer.py: _default_to_fused_or_foreach`).
FOREACH_BY_ITSELF: Version = (2, 0)

#: The newest torch that was read.
NEWEST: Version = (2, 13)

IMPLEMENTATIONS = ("foreach", "fused", "for-loop")

#: What a step binds for one tensor of so many bytes, with weight decay of the coupled kind or without any.
Loop = Callable[[int, bool], Sequence[Binding]]


class Lists(NamedTuple):
    """Lists of intermediates that live at once, from a version on: without and with coupled weight decay."""

    since: Version
    plain: int
    decayed: int


@dataclass(frozen=True, slots=True)
class Native:
    """One of torch's optimizers.

    Attributes
    ----------
    name
        Of the class.
    module
        Where it stands.
    kinds
        States of the parameter's shape and dtype.
    loop
        What the loop binds.
    lists
        Of foreach, oldest first; none where foreach runs the loop.
    fused_since
        Version from which there is a fused kernel for CUDA.
    decay
        Coupled weight decay that holds where nothing is said.
    counters, counted_since
        What is counted in a float32 tensor for each parameter, and the version from which it is.
    """

    name: str
    module: str
    kinds: tuple[str, ...]
    loop: Loop
    lists: tuple[Lists, ...]
    fused_since: Version | None = None
    decay: float = 0.0
    counters: tuple[str, ...] = ("step",)
    counted_since: Version = (1, 0)


def native(job: Job, rule: Native) -> OptimizerMemory:
    """States and transients of one of torch's optimizers.

    Parameters
    ----------
    job
        What it works on. Options: `weight_decay`, `capturable`, `no_decay_group` (norms and biases are a parameter
        group of their own, whose step is taken apart).
    rule
        The optimizer.

    Raises
    ------
    BadInput
        For an implementation that there is not.
    """
    version = job.versions.get("torch", NEWEST)
    implementation = chosen(job, version)
    if implementation == "fused" and (rule.fused_since is None or version < rule.fused_since):
        raise BadInput(f"torch's {rule.name} of this version has no fused kernel", "use foreach or for-loop")
    capturable = job.flag("capturable")
    states: list[StateBytes] = []
    for kind in rule.kinds:
        states += state(job, kind)
    if version >= rule.counted_since:
        place = "device" if implementation == "fused" or capturable else "host"
        for counter in rule.counters:
            states += steps_counter(job, place, counter)  # type: ignore[arg-type]
    decays = job.number("weight_decay", rule.decay) != 0
    return OptimizerMemory(
        rule.name,
        implementation,
        tuple(states),
        _transient(job, rule, implementation, decays, version),
        reference=f"torch {rule.module}, read in 1.13 to 2.13",
    )


def chosen(job: Job, version: Version) -> str:
    """The implementation that runs: as asked, or as torch chooses on CUDA.

    Parameters that are DTensors (FSDP2, tensor parallelism by DTensor) are no plain tensors: the loop runs for them
    unless another one is asked (torch `optim/optimizer.py: _foreach_supported_types`, 2.0 to 2.13).
    """
    if job.implementation is not None:
        if job.implementation not in IMPLEMENTATIONS:
            raise BadInput(
                f"no implementation {job.implementation!r} of an optimizer",
                f"known: {', '.join(IMPLEMENTATIONS)}",
            )
        return job.implementation
    if version < FOREACH_BY_ITSELF or job.pieces == "rows":
        return "for-loop"
    return "foreach"


def _transient(job: Job, rule: Native, implementation: str, decays: bool, version: Version) -> Transient:
    if implementation == "fused":
        return NOTHING
    found = [era for era in rule.lists if version >= era.since]

    def loop(parameter: Parameter) -> Sequence[Binding]:
        return rule.loop(job.size(parameter), decays)

    steps = []
    for group in groups(job):
        if implementation == "foreach" and found:
            steps.append(_lists(group, job, found[-1].decayed if decays else found[-1].plain))
        else:
            steps.append(one_by_one(group, loop))
    return larger(*steps) if steps else NOTHING


def _lists(group: Sequence[Parameter], job: Job, count: int) -> Transient:
    """Lists of intermediates: parameters of one dtype are stepped together, one dtype after the other.

    torch `optim/optimizer.py: _group_tensors_by_device_and_dtype`. Lists of the dtype before are dropped as those of
    the next one are bound.
    """
    sizes: dict[str, int] = {}
    for one in group:
        dtype = job.weights(one)
        sizes[dtype] = sizes.get(dtype, 0) + job.size(one) * one.copies
    if len(sizes) < 2:
        return together(group, job.size, count)
    wholes = [Parameter(dtype, (size,), "mlp", "other") for dtype, size in sizes.items()]
    return one_by_one(wholes, lambda whole: [(f"list {index}", whole.elements) for index in range(count)])


def groups(job: Job) -> list[Sequence[Parameter]]:
    """Parameter groups, whose steps follow each other: one, or norms and biases apart."""
    if not job.flag("no_decay_group"):
        return [job.parameters]
    apart = [one for one in job.parameters if one.kind in ("norm", "bias")]
    rest = [one for one in job.parameters if one.kind not in ("norm", "bias")]
    return [group for group in (rest, apart) if group]


def in_dtype(job: Job, dtype: str) -> Job:
    """The same job where parameters are kept in another dtype (masters)."""
    if dtype not in DTYPE_BYTES:
        raise BadInput(f"unknown dtype {dtype!r}", f"known: {', '.join(DTYPE_BYTES)}")
    return replace(job, weights=lambda parameter: dtype)
