"""From a model and the devices that run it to a plan of work, whatever asks: a case, an estimate or a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.hardware.device import Device
from willfit.speed.counting import work_of
from willfit.speed.habits import Habits, habits_of
from willfit.speed.rates import rates_of
from willfit.speed.serving import Plan, Stage
from willfit.speed.work import Work


def plan_of(
    subject: Subject,
    devices: Sequence[Device],
    engine: str,
    version: str,
    tensor: int = 1,
    pipeline: int = 1,
    experts: int = 1,
    data: int = 1,
    cache_bytes: float | None = None,
    dtype: str | None = None,
    chunk: int = 0,
) -> Plan | None:
    """How an engine runs a model on devices that are alike in each stage; None if a device's figures are not known.

    Parameters
    ----------
    devices
        Those of one replica: `tensor` for each of `pipeline` stages, of which the first of each stage stands for all.
    engine, version
        Who runs it.
    tensor, pipeline, experts, data
        Degrees of parallelism; `data` replicas share the experts.
    cache_bytes, dtype
        Of a cached element, and of what is not quantized; None for the checkpoint's.
    chunk
        Tokens of a prompt that are run at once; 0 for what the engine does.
    """
    work = work_of(subject, tensor, experts, dtype, cache_bytes)
    return plan_from(work, devices, habits_of(engine, version), pipeline, experts, data, chunk)


def plan_from(
    work: Work,
    devices: Sequence[Device],
    habits: Habits,
    pipeline: int = 1,
    experts: int = 1,
    data: int = 1,
    chunk: int = 0,
) -> Plan | None:
    """`plan_of` where what a rank does is counted already: many devices and engines share it."""
    stages = []
    for stage in range(pipeline):
        rates = rates_of(devices[min(stage * work.ranks, len(devices) - 1)], habits)
        if rates is None:
            return None
        stages.append(Stage(rates, 1 / pipeline, 1 / pipeline))
    plan = Plan(work, tuple(stages), expert_ranks=experts, data_ranks=data, chunk=chunk or habits.chunk)
    return with_habits(plan, habits)


def with_habits(plan: Plan, habits: Habits) -> Plan:
    """The plan with what its engine does to the cache, and how far its graphs serve."""
    repeats = constant("speed.paged_repeats").value if habits.paged_kernel else 0.0
    if habits.repeats:
        # Read once and written for each query head, then read for each instead of once.
        repeats += 2.0
    return replace(plan, captured_tokens=habits.captured_tokens, copies=float(habits.copies), repeats=repeats)
