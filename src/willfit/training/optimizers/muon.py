"""Muon: one moment for matrices between embedding and head, whose update is made orthogonal; Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from willfit.errors import BadInput
from willfit.training.optimizers.passes import Binding, one_by_one
from willfit.training.optimizers.records import Job, OptimizerMemory, Transient, state
from willfit.training.parameters import Parameter

#: The iteration runs in bfloat16 (`zeropower_via_newtonschulz5`).
_ITERATION_WIDTH = 2

#: Iterations; from the second on each holds what the one before left.
_ITERATIONS = 2


def is_hidden_matrix(parameter: Parameter) -> bool:
    """Whether Muon takes a parameter: matrices, but neither embedding nor head."""
    return (
        len(parameter.shape) >= 2 and parameter.part not in ("embedding", "head") and parameter.kind != "conv"
    )


def muon(job: Job) -> OptimizerMemory:
    """Muon with Adam for what it does not take.

    Parameters
    ----------
    job
        What it works on. Option `variant`: `moonlight` (LLaMA-Factory, ms-swift, axolotl: one class for both),
        `keller` (the author's; DeepSpeed's is like it), `torch` (2.9 and later; Adam beside it is yours).

    Raises
    ------
    BadInput
        For an unknown variant.
    """
    name = str(job.options.get("variant", "moonlight"))
    if name not in _VARIANTS:
        raise BadInput(f"no variant {name!r} of Muon", f"known: {', '.join(_VARIANTS)}")
    matrices = [one for one in job.parameters if is_hidden_matrix(one)]
    others = [one for one in job.parameters if not is_hidden_matrix(one)]
    states = state(job, "momentum", parameters=matrices)
    for kind in ("exp_avg", "exp_avg_sq"):
        states += state(job, kind, parameters=others)
    step, reference = _VARIANTS[name]
    chosen = {id(one) for one in matrices}

    def loop(parameter: Parameter) -> Sequence[Binding]:
        return step(job, parameter, id(parameter) in chosen)

    transient = one_by_one([*matrices, *others], loop)
    notes = []
    if job.pieces == "rows":
        # The whole matrix is put together for the iteration; the rank's own moment is a piece of it.
        notes.append(
            "sharded matrices are gathered for the iteration, whose buffers then have the whole size"
        )
        high = transient.high * max(1, job.count("gathered_from", 1))
        transient = Transient(transient.bytes, transient.low, high, transient.formula)
    if job.pieces == "flat":
        notes.append("flat pieces have no shape: the iteration's buffers are not counted")
    return OptimizerMemory(
        f"Muon ({name})", "for-loop", tuple(states), transient, reference=reference, notes=tuple(notes)
    )


def _matrix(parameter: Parameter) -> tuple[int, int]:
    """Elements of a matrix, or of a stack of them, and of the square of its smaller side."""
    rows, columns = parameter.shape[-2], parameter.shape[-1]
    each = parameter.elements // parameter.copies
    stack = each // (rows * columns)
    return each, stack * min(rows, columns) ** 2


def _torch(job: Job, parameter: Parameter, hidden: bool) -> Sequence[Binding]:
    if not hidden:
        size = job.size(parameter)
        return (("sqrt", size), ("denom", size), ("sqrt", 0))
    each, square = _matrix(parameter)
    size, small = each * _ITERATION_WIDTH, square * _ITERATION_WIDTH
    copied = job.width(parameter) != _ITERATION_WIDTH
    found: list[Binding] = [("update", job.size(parameter)), ("ortho", size if copied else 0)]
    for _ in range(_ITERATIONS):
        found += [("gram", small), ("gram_update", small), ("ortho", size)]
    return [*found, ("gram", 0), ("gram_update", 0), ("ortho", 0), ("update", size)]


def _orthogonal(job: Job, parameter: Parameter) -> list[Binding]:
    """The iteration written out, each operation for itself."""
    each, square = _matrix(parameter)
    size, small = each * _ITERATION_WIDTH, square * _ITERATION_WIDTH
    copied = job.width(parameter) != _ITERATION_WIDTH
    found: list[Binding] = [("X", size if copied else 0), ("X", size)]
    for _ in range(_ITERATIONS):
        found += [
            ("A", small), ("bA", small), ("cA", small), ("cAA", small), ("cA", 0), ("B", small), ("bA", 0), ("cAA", 0),
            ("aX", size), ("BX", size), ("X", size), ("aX", 0), ("BX", 0),
        ]  # fmt: skip
    return [*found, ("A", 0), ("B", 0), ("X", 0)]


def _moonlight(job: Job, parameter: Parameter, hidden: bool) -> Sequence[Binding]:
    size = job.size(parameter)
    if not hidden:
        return (
            ("square", size),
            ("square", 0),
            ("sqrt", size),
            ("sum", size),
            ("sqrt", 0),
            ("g", size),
            ("sum", 0),
        )
    each, _ = _matrix(parameter)
    return [("g", size), *_orthogonal(job, parameter), ("u", each * _ITERATION_WIDTH)]


def _keller(job: Job, parameter: Parameter, hidden: bool) -> Sequence[Binding]:
    size = job.size(parameter)
    if not hidden:
        return (
            ("square", size), ("square", 0), ("buf1c", size), ("buf2c", size), ("sqrt", size), ("sum", size),
            ("sqrt", 0), ("quotient", size), ("sum", 0), ("buf1c", 0), ("buf2c", 0), ("quotient", 0), ("update", size),
        )  # fmt: skip
    each, _ = _matrix(parameter)
    return [*_orthogonal(job, parameter), ("update", each * _ITERATION_WIDTH)]


_VARIANTS: dict[str, tuple[Callable[[Job, Parameter, bool], Sequence[Binding]], str]] = {
    "moonlight": (_moonlight, "Moonlight examples/toy_train.py: Muon.step"),
    "keller": (_keller, "muon-optimizer muon.py: muon_update, 0.1.0"),
    "torch": (_torch, "torch optim/_muon.py, 2.9 to 2.13"),
}
