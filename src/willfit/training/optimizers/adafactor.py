"""Adafactor: sums over rows and columns in place of the second moment; and CAME, which doubles them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from willfit.quantities import DTYPE_BYTES
from willfit.training.optimizers.passes import Binding, one_by_one, together
from willfit.training.optimizers.records import (
    Job,
    OptimizerMemory,
    StateBytes,
    counted,
    state,
    steps_counter,
)
from willfit.training.parameters import Parameter

#: Bytes of float32, in which these work.
_WIDE = 4


def factors(parameters: Sequence[Parameter]) -> tuple[int, int, int]:
    """Elements of the rows' sums, of the columns' sums, and of what stays whole, over all parameters.

    A tensor of more than two dimensions is a stack of matrices.
    """
    rows = columns = whole = 0
    for parameter in parameters:
        shape = parameter.shape
        if len(shape) < 2:
            whole += parameter.elements
        else:
            rows += prod(shape[:-1]) * parameter.copies
            columns += prod(shape[:-2]) * shape[-1] * parameter.copies
    return rows, columns, whole


def factored(job: Job, dtype: str | None, times: int = 1) -> list[StateBytes]:
    """The factored second moment; in the parameter's dtype if none is given."""
    states: list[StateBytes] = []
    dtypes = dict.fromkeys(job.weights(parameter) for parameter in job.parameters)
    for kept in dtypes:
        mine = [parameter for parameter in job.parameters if job.weights(parameter) == kept]
        rows, columns, whole = factors(mine)
        matrices = sum(parameter.copies for parameter in mine if len(parameter.shape) > 1)
        vectors = sum(parameter.copies for parameter in mine if len(parameter.shape) < 2)
        states += counted("exp_avg_sq_row", dtype or kept, rows * times, matrices * times, words="rows")
        states += counted("exp_avg_sq_col", dtype or kept, columns * times, matrices * times, words="columns")
        states += counted("exp_avg_sq", dtype or kept, whole, vectors, words="elements")
    return states


def transformers_adafactor(job: Job) -> OptimizerMemory:
    """Adafactor of transformers and fairseq: float32 states, float32 copies of one tensor at a time.

    Option `beta1`: a first moment as well.
    """
    states = factored(job, "fp32") + root_mean_squares(job)
    if job.options.get("beta1") is not None:
        states += state(job, "exp_avg", "fp32")

    def loop(parameter: Parameter) -> Sequence[Binding]:
        return transformers_loop(job, parameter)

    return OptimizerMemory(
        "Adafactor (transformers)", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        reference="transformers optimization.py: Adafactor.step, 4.36 to 5.23",
    )  # fmt: skip


def transformers_loop(job: Job, parameter: Parameter) -> Sequence[Binding]:
    """What its step binds for a tensor; with a first moment the update is another name of that."""
    size = parameter.elements // parameter.copies * _WIDE
    copy = 0 if job.width(parameter) == _WIDE else size
    update = [("square", size), ("update", size), ("square", 0), ("update", size)]
    last = [("update", 0)] if job.options.get("beta1") is not None else []
    return [("grad", copy), ("p_data_fp32", copy), *update, *last, ("negative", size), ("negative", 0)]


def root_mean_squares(job: Job) -> list[StateBytes]:
    """The size of each parameter as one number, which the step leaves in its state."""
    tensors = sum(parameter.copies for parameter in job.parameters)
    return counted("RMS", "fp32", tensors, tensors, words="tensors")


def torch_adafactor(job: Job) -> OptimizerMemory:
    """torch.optim.Adafactor (2.5 and later): states in the gradient's dtype; the loop unless foreach is asked."""
    states = factored(job, None) + steps_counter(job, "host")

    def loop(parameter: Parameter) -> Sequence[Binding]:
        size, width = job.size(parameter), job.width(parameter)
        if len(parameter.shape) < 2:
            return (("grad_squared", size), ("var_estimate", size))
        stack = prod(parameter.shape[:-2])
        rows, columns = prod(parameter.shape[:-1]) * width, stack * parameter.shape[-1] * width
        return (("row_mean", rows), ("col_mean", columns), ("var_estimate", size))

    foreach = job.implementation == "foreach"
    step = together(job.parameters, job.size, 1) if foreach else one_by_one(job.parameters, loop)
    return OptimizerMemory(
        "Adafactor (torch)", "foreach" if foreach else "for-loop", tuple(states), step,
        reference="torch optim/_adafactor.py, 2.5 to 2.13",
    )  # fmt: skip


def came(job: Job) -> OptimizerMemory:
    """CAME: Adafactor's sums twice, and a first moment; all in float32."""
    states = factored(job, "fp32", times=2) + state(job, "exp_avg", "fp32")
    for one in job.parameters:
        states += counted("RMS", job.weights(one), one.copies, one.copies, words="tensors")

    def loop(parameter: Parameter) -> Sequence[Binding]:
        size = parameter.elements // parameter.copies * DTYPE_BYTES["fp32"]
        copy = 0 if job.width(parameter) == _WIDE else size
        return (
            ("grad", copy), ("square", size), ("update", size), ("square", 0), ("update", size), ("difference", size),
            ("power", size), ("difference", 0), ("res", size), ("power", 0), ("res_approx", size), ("update", 0),
            ("negative", size), ("negative", 0),
        )  # fmt: skip

    return OptimizerMemory(
        "CAME", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        reference="came-pytorch came_pytorch/CAME.py: step, 0.1.3",
    )  # fmt: skip
