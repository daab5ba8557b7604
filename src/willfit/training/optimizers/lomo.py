"""LOMO and AdaLomo: a parameter is updated as soon as its gradient is there, which is then dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.training.optimizers.adafactor import factored
from willfit.training.optimizers.passes import Binding, Script, larger, one_by_one
from willfit.training.optimizers.records import CONSTRUCTION, NOTHING, Job, OptimizerMemory, Transient
from willfit.training.parameters import Parameter

#: Both work on float32 copies of a tensor.
_WIDE = 4


def lomo(job: Job) -> OptimizerMemory:
    """LOMO: no states; float32 copies of the gradient and of the parameter."""

    def loop(parameter: Parameter) -> Sequence[Binding]:
        copy = _copy(job, parameter)
        return (("grad_fp32", copy), ("p_fp32", copy))

    return OptimizerMemory(
        "LOMO", "in backward", (), _each(job, loop), gradients="one parameter",
        reference="lomo-optim lomo_optim/lomo.py: fuse_update, 0.1.1",
    )  # fmt: skip


def adalomo(job: Job) -> OptimizerMemory:
    """AdaLomo: Adafactor's sums, made with the optimizer itself, also for parameters that are not trained."""
    states = tuple(replace(one, since=CONSTRUCTION) for one in factored(job, "fp32"))

    def loop(parameter: Parameter) -> Sequence[Binding]:
        size, copy = parameter.elements // parameter.copies * _WIDE, _copy(job, parameter)
        return (
            ("grad_fp32", copy), ("square", size), ("update", size), ("square", 0), ("update", size), ("p_fp32", copy),
        )  # fmt: skip

    return OptimizerMemory(
        "AdaLomo", "in backward", states, _each(job, loop), gradients="one parameter",
        reference="lomo-optim lomo_optim/adalomo.py: fuse_update, 0.1.1",
    )  # fmt: skip


def _copy(job: Job, parameter: Parameter) -> int:
    """Bytes of a float32 copy of a tensor; none if it is float32."""
    return 0 if job.width(parameter) == _WIDE else parameter.elements // parameter.copies * _WIDE


def _each(job: Job, loop: Script) -> Transient:
    """The largest of steps that are each on their own."""
    steps = [one_by_one([replace(parameter, copies=1)], loop) for parameter in job.parameters]
    return larger(*steps) if steps else NOTHING
