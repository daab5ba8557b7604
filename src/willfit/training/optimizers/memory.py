"""What an optimizer takes on one rank: the one function that others call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.optimizers.native import in_dtype
from willfit.training.optimizers.records import (
    CONSTRUCTION,
    NOTHING,
    Job,
    OptimizerMemory,
    StateBytes,
    Transient,
    state,
)
from willfit.training.optimizers.sharded import local
from willfit.training.optimizers.table import Rule, find
from willfit.training.parameters import Parameter

#: Dtype of a parameter: one for all, or by parameter.
Dtype = str | Callable[[Parameter], str]


def optimizer_memory(
    name: str,
    parameters: Sequence[Parameter],
    dtype: Dtype = "fp32",
    implementation: str | None = None,
    options: Mapping[str, object] | None = None,
    versions: Mapping[str, str] | None = None,
    *,
    sharding: str = "none",
    ranks: int = 1,
    expert_ranks: int | None = None,
    master: str | None = None,
    in_backward: bool = False,
    offload: Literal["host", "disk"] | None = None,
) -> OptimizerMemory:
    """States of an optimizer and what its step needs.

    Parameters
    ----------
    name
        As frameworks call it (`table.py`).
    parameters
        What is trained, as a rank holds it after tensor parallelism, in the model's order.
    dtype
        Of the parameters; states of many optimizers follow it.
    implementation
        `foreach`, `fused`, `for-loop`; None for the library's default.
    options
        By the libraries' names; see the rules.
    versions
        Of `torch`, `bitsandbytes`, `torchao`, `transformers`, as text. With `transformers`, its Trainer's choices hold.
    sharding, ranks, expert_ranks
        How data-parallel ranks share them (`sharded.KINDS`), and how many do.
    master
        Dtype of a separate copy of the weights that the optimizer works on in place of them; states follow it.
    in_backward
        The step is taken for each parameter as soon as its gradient is there.
    offload
        States and masters live on the host, or on disk, and the step runs there.

    Returns
    -------
    States, transients, and what they mean for gradients.

    Raises
    ------
    BadInput
        For unknown names, and for optimizers that cannot work on pieces.
    """
    named = find(name)
    seen, pieces = local(parameters, sharding, ranks, expert_ranks)
    job = Job(
        seen,
        _by_parameter(dtype),
        implementation or named.implementation,
        {**named.options, **(options or {})},
        {key: parse_version(text) for key, text in (versions or {}).items()},
        pieces,
    )
    masters: list[StateBytes] = []
    if master is not None:
        masters = state(job, "master", master, since=CONSTRUCTION)
        job = in_dtype(job, master)
    found = named.rule(job)
    if sharding == "zero3":
        # Stage 3 steps over one sub-group after the other (deepspeed `runtime/zero/stage3.py: _optimizer_step`).
        found = replace(found, step=_one_at_a_time(job, named.rule), update=None)
    if in_backward:
        found = replace(found, step=_one_at_a_time(job, named.rule), update=None, gradients="one parameter")
    found = replace(found, states=(*masters, *found.states))
    return _moved(found, offload) if offload else found


def _by_parameter(dtype: Dtype) -> Callable[[Parameter], str]:
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPE_BYTES:
        raise BadInput(f"unknown dtype {dtype!r}", f"known: {', '.join(DTYPE_BYTES)}")
    return lambda parameter: dtype


def _one_at_a_time(job: Job, rule: Rule) -> Transient:
    """The largest step of one parameter alone."""
    steps = [rule(job.only([replace(one, copies=1)])).worst for one in job.parameters]
    return max(steps, key=lambda one: one.bytes, default=NOTHING)


def _moved(found: OptimizerMemory, place: Literal["host", "disk"]) -> OptimizerMemory:
    states = tuple(replace(one, place=place, pinned=place == "host") for one in found.states)
    return replace(found, states=states, step=NOTHING, update=None)
