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
    projections = len(sides)

    def projected(name: str) -> list[Binding]:
        """Multiplied with the basis of each side in turn."""
        return [(name, size)] * projections

    found: list[Binding] = [
        *projected("grad_projected"), ("square", size), ("square", 0), ("denom", size), ("quotient", size),
        *projected("norm_grad"), ("quotient", 0),
    ]  # fmt: skip
    if not projections:
        found = [("grad_projected", 0), ("square", size), ("square", 0), ("denom", size), ("norm_grad", size)]
        return found
    # The moment is turned back and, after the bases have moved, forth again; the loop still holds the one before.
    found += [("back", size)] * projections + [("exp_avg of before", size), ("back", 0)]
    for side in sides:
        found += [("outer", side * side * _WIDE), ("outer", 0)]
    if renews:
        found += _qr(sides, size)
    found += [("forth", size)] * projections + [("forth", 0)]
    return found


def _qr(sides: Sequence[int], size: int) -> list[Binding]:
    """`get_orthogonal_matrix_QR`: one power iteration for each side; the bases before live until all are made."""
    found: list[Binding] = []
    for index, side in enumerate(sides):
        square = side * side * _WIDE
        found += [
            ("product", square), ("estimate", square), ("product", 0), ("est_eig", side * _WIDE), ("estimate", 0),
            ("sorted moment", size), ("o", square), ("power_iter", square), (f"Q{index}", square), ("R", square),
        ]  # fmt: skip
    found += [(name, 0) for name in ("est_eig", "o", "power_iter", "R")]
    return [*found, *((f"Q{index}", 0) for index in range(len(sides))), ("sorted moment", 0)]
