"""Lion: one moment, and the sign of what is done."""

from __future__ import annotations

from willfit.training.optimizers.passes import one_by_one
from willfit.training.optimizers.records import CONSTRUCTION, Job, OptimizerMemory, state


def lion(job: Job) -> OptimizerMemory:
    """lion-pytorch's Lion: a copy of the moment, and another one with the gradient added."""

    def loop(size: int) -> tuple[tuple[str, int], ...]:
        return (("clone", size), ("update", size), ("clone", 0), ("update", 0))

    return OptimizerMemory(
        "Lion", "for-loop", tuple(state(job, "exp_avg")),
        one_by_one(job.parameters, lambda parameter: loop(job.size(parameter))),
        reference="lion-pytorch lion_pytorch/lion_pytorch.py: update_fn, 0.2.3",
    )  # fmt: skip


def fused_lion(job: Job) -> OptimizerMemory:
    """DeepSpeed's FusedLion, or DeepSpeedCPULion with option `cpu`."""
    place = "host" if job.flag("cpu") else "device"
    return OptimizerMemory(
        "Lion (DeepSpeed)", "fused",
        tuple(state(job, "exp_avg", "fp32" if place == "host" else None, place=place, since=CONSTRUCTION)),  # type: ignore[arg-type]
        reference="deepspeed ops/lion/fused_lion.py, cpu_lion.py",
    )  # fmt: skip
