"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.optimizers.passes import Binding, one_by_one
from willfit.training.optimizers.records import Job, OptimizerMemory, Transient, counted, state
from willfit.training.parameters import Parameter

#: Longer sides get no preconditioner (`soap.py`, `max_precond_dim`).
_LONGEST = 10_000

#: Preconditioners and bases are float32.
_WIDE = 4

#: Bytes of an index.
_INDEX = 8


def soap(job: Job) -> OptimizerMemory:
    """SOAP as its authors published it: two moments, and for each side a preconditioner and its basis.

    Option `max_precond_dim`. Vectors are left to Adam.
    """
    longest = job.count("max_precond_dim", _LONGEST)
    squares = tensors = 0
    for parameter in job.parameters:
        for side in _sides(parameter, longest):
            squares += side * side * parameter.copies
            tensors += parameter.copies
    states = state(job, "exp_avg") + state(job, "exp_avg_sq")
    states += counted("preconditioner", "fp32", squares, tensors, words="elements")
    states += counted("eigenbasis", "fp32", squares, tensors, words="elements")

    def loop(parameter: Parameter) -> Sequence[Binding]:
        return _step(job, parameter, longest, False)

    def renewing(parameter: Parameter) -> Sequence[Binding]:
        return _step(job, parameter, longest, True)

    update = one_by_one(job.parameters, renewing)
    largest = max((max(_sides(one, longest), default=0) for one in job.parameters), default=0)
    inside = largest * largest * _WIDE
    return OptimizerMemory(
        "SOAP", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        Transient(update.bytes, update.low, update.high + inside, update.formula),
        reference="SOAP soap.py: step, update_preconditioner, get_orthogonal_matrix_QR",
        notes=("the QR decomposition works in place on a copy that is counted; its workspace is not",),
    )  # fmt: skip


def _sides(parameter: Parameter, longest: int) -> list[int]:
    """Sides of a matrix that get a preconditioner."""
    return [side for side in parameter.shape if side <= longest] if len(parameter.shape) > 1 else []


def _step(job: Job, parameter: Parameter, longest: int, renews: bool) -> list[Binding]:
    size = job.size(parameter)
    sides = _sides(parameter, longest)
    turned = [("turned", size)] * len(sides)
    past = [("exp_avg of before", 0), ("exp_avg_sq of before", 0)]
    if not sides:
        return [
            ("grad_projected", 0), *past, ("square", size), ("square", 0), ("denom", size), ("quotient", size),
            ("quotient", 0), ("norm_grad", size),
        ]  # fmt: skip
    found: list[Binding] = [
        *turned, ("turned", 0), ("grad_projected", size), *past, ("square", size), ("square", 0), ("denom", size),
        ("quotient", size), *turned, ("turned", 0), ("norm_grad", size), ("quotient", 0),
    ]  # fmt: skip
    # The moment is turned back and, after the bases have moved, forth again; the loop still holds the one before.
    found += [*turned, ("turned", 0), ("exp_avg of before", size)]
    for side in sides:
        found.append(("outer", side * side * _WIDE))
    if renews:
        found += [*_qr(sides, size), ("exp_avg_sq of before", size)]
    return [*found, *turned, ("turned", 0), ("outer", 0)]


def _qr(sides: Sequence[int], size: int) -> list[Binding]:
    """`get_orthogonal_matrix_QR`: one power iteration for each side; the bases before live until all are made."""
    found: list[Binding] = []
    for index, side in enumerate(sides):
        square, numbers = side * side * _WIDE, side * _WIDE
        found += [
            ("o", 0), ("product", square), ("estimate", square), ("product", 0), ("est_eig", numbers), ("estimate", 0),
            ("sorted", numbers), ("sort_idx", side * _INDEX), ("sorted", 0), ("sorted moment", size), ("o", square),
            ("power_iter", square), (f"Q{index}", square), ("R", square),
        ]  # fmt: skip
    found += [(name, 0) for name in ("est_eig", "sort_idx", "o", "power_iter", "R")]
    return [*found, *((f"Q{index}", 0) for index in range(len(sides))), ("sorted moment", 0)]
