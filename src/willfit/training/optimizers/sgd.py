"""SGD and torch's optimizers with one running square: RMSprop, Adagrad, Adadelta."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.optimizers.native import Lists, Native, native
from willfit.training.optimizers.passes import Binding
from willfit.training.optimizers.records import Job, OptimizerMemory


def _sgd_loop(size: int, decays: bool) -> Sequence[Binding]:
    return (("grad", size if decays else 0),)


def _nesterov_loop(size: int, decays: bool) -> Sequence[Binding]:
    return (("grad", size if decays else 0), ("grad", size))


def _root_loop(size: int, decays: bool) -> Sequence[Binding]:
    return (("grad", size if decays else 0), ("root", size))


def _adadelta_loop(size: int, decays: bool) -> Sequence[Binding]:
    return (("grad", size if decays else 0), ("std", size), ("delta", size))


#: From this version on these count their steps in tensors.
_COUNTED = (2, 4)


def sgd(job: Job) -> OptimizerMemory:
    """torch's SGD: nothing, or a buffer of momentum.

    Without decay the foreach step needs nothing, with Nesterov momentum neither: that is added to the gradients.
    """
    momentum = job.number("momentum", 0) != 0
    nesterov = momentum and job.flag("nesterov")
    return native(
        job,
        Native(
            "SGD", "optim/sgd.py", ("momentum_buffer",) if momentum else (),
            _nesterov_loop if nesterov else _sgd_loop, (Lists((1, 13), 0, 1),), (2, 3), counters=(),
        ),
    )  # fmt: skip


def rmsprop(job: Job) -> OptimizerMemory:
    """torch's RMSprop: a running square, with `momentum` and `centered` one state more each."""
    kinds = ["square_avg"]
    if job.number("momentum", 0) != 0:
        kinds.append("momentum_buffer")
    if job.flag("centered"):
        kinds.append("grad_avg")
    lists = (Lists((1, 13), 1, 1), Lists((2, 0), 1, 2))
    return native(
        job, Native("RMSprop", "optim/rmsprop.py", tuple(kinds), _root_loop, lists, counted_since=_COUNTED)
    )


def adagrad(job: Job) -> OptimizerMemory:
    """torch's Adagrad: a sum of squares, made with the optimizer itself."""
    lists = (Lists((1, 13), 3, 3), Lists((2, 0), 3, 4), Lists((2, 1), 2, 2))
    return native(job, Native("Adagrad", "optim/adagrad.py", ("sum",), _root_loop, lists))


def adadelta(job: Job) -> OptimizerMemory:
    """torch's Adadelta."""
    lists = (Lists((1, 13), 2, 2), Lists((2, 0), 2, 3))
    kinds = ("square_avg", "acc_delta")
    return native(
        job, Native("Adadelta", "optim/adadelta.py", kinds, _adadelta_loop, lists, counted_since=_COUNTED)
    )
