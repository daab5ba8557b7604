"""A pass over parameters of which some are projected: what all optimizers of that kind share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.optimizers.adafactor import factored, root_mean_squares
from willfit.training.optimizers.bitsandbytes import bitsandbytes
from willfit.training.optimizers.passes import Binding, one_by_one
from willfit.training.optimizers.projection import (
    WIDE,
    Projection,
    back,
    decomposition,
    kept,
    projection,
    renamed,
    targets,
)
from willfit.training.optimizers.records import (
    NOTHING,
    Job,
    StateBytes,
    Transient,
    counted,
    state,
)
from willfit.training.parameters import Parameter

#: What a decomposition on CUDA takes inside of the operation: a copy of the matrix in the other order of memory and the
#: other singular vectors before they are turned over, and cuSOLVER's workspace, whose size is not published.
_INSIDE_LIKELY, _INSIDE_MOST = 1, 3

#: What a step binds for a projected matrix, and what renewing its projector binds before.
Script = Callable[[Job, Parameter, Projection], Sequence[Binding]]

#: What a step binds for any other parameter.
Plain = Callable[[Job, Parameter], Sequence[Binding]]


def demand_whole(job: Job, name: str) -> None:
    """Refuse flat pieces, whose shapes are lost.

    Raises
    ------
    BadInput
        Where the parameters are such pieces.
    """
    if job.pieces == "flat":
        raise BadInput(
            f"{name} needs whole matrices, and this way of sharing hands it flat pieces",
            "use ddp, or no sharing",
        )


def split(
    job: Job, rank: int, kind: str, limited: bool = True
) -> tuple[list[Parameter], list[Parameter], list[Projection]]:
    """Projected matrices, the other parameters, and how the former are projected."""
    chosen = targets(job)
    # A step within the backward pass sees one parameter at a time, of which many are not projected.
    if not chosen and len(job.parameters) > 1:
        raise BadInput(
            f"no linear layer matches target_modules {job.options.get('target_modules')!r}",
            "write all-linear",
        )
    taken = {id(one) for one in chosen}
    rest = [one for one in job.parameters if id(one) not in taken]
    return chosen, rest, [projection(one, rank, kind, limited) for one in chosen]


def base_states(
    job: Job, base: str, chosen: list[Parameter], rest: list[Parameter], projected: list[Projection]
) -> list[StateBytes]:
    """What the optimizer underneath keeps of projected gradients and of other parameters."""
    thin = [replace(one, shape=how.low_shape) for one, how in zip(chosen, projected, strict=True)]
    all_of_them = job.only([*rest, *thin])
    if base == "adamw_8bit":
        return list(bitsandbytes(all_of_them).states)
    if base == "adafactor":
        return factored(all_of_them, "fp32") + root_mean_squares(job)
    return state(all_of_them, "exp_avg") + state(all_of_them, "exp_avg_sq")


def projectors(
    job: Job, chosen: list[Parameter], projected: list[Projection], widths: list[int]
) -> list[StateBytes]:
    """Projectors of decompositions, in the dtype that each has."""
    elements: dict[str, list[int]] = {}
    for one, how, width in zip(chosen, projected, widths, strict=True):
        count, dtype = kept(how, width)
        entry = elements.setdefault(dtype or job.weights(one), [0, 0])
        entry[0] += count * one.copies
        entry[1] += one.copies
    found: list[StateBytes] = []
    for dtype, (count, tensors) in elements.items():
        found += counted("projector", dtype, count, tensors, words="elements")
    return found


def norms(job: Job, chosen: list[Parameter]) -> list[StateBytes]:
    """The norm of the last update of each matrix."""
    return [found for one in chosen for found in counted("norm", job.weights(one), one.copies, one.copies)]


def merged(states: list[StateBytes]) -> list[StateBytes]:
    """States of one kind, dtype and place as one."""
    found: dict[tuple[str, str, str], StateBytes] = {}
    for one in states:
        key = one.kind, one.dtype, one.place
        before = found.get(key)
        if before is None:
            found[key] = one
            continue
        width = DTYPE_BYTES[one.dtype]
        total = before.bytes + one.bytes
        found[key] = replace(
            before,
            bytes=total,
            tensors=before.tensors + one.tensors,
            formula=f"{total // width} elements x {width} B of {one.kind} ({one.dtype})",
        )
    return list(found.values())


def adamw_plain(job: Job, parameter: Parameter) -> Sequence[Binding]:
    """A step of AdamW for a parameter that is not projected."""
    size = job.size(parameter)
    return (("grad", 0), ("denom", size), ("norm_grad", size))


def one_pass(
    job: Job, rest: list[Parameter], chosen: list[Parameter], projected: list[Projection],
    script: Script, renew: Script,
    plain: Plain = adamw_plain,
) -> Transient:  # fmt: skip
    """One step over all parameters; one after the other on its own where the step is part of the backward pass."""
    how = {id(one): found for one, found in zip(chosen, projected, strict=True)}

    def loop(parameter: Parameter) -> Sequence[Binding]:
        if id(parameter) not in how:
            return plain(job, parameter)
        found = how[id(parameter)]
        # The variable is the whole gradient at first, whatever it was for the tensor before.
        return [("grad", 0), *renew(job, parameter, found), *script(job, parameter, found)]

    if job.flag("layerwise"):
        single = [one_by_one([parameter], loop) for parameter in (*rest, *chosen)]
        return max(single, key=lambda one: one.bytes, default=NOTHING)
    return one_by_one([*rest, *chosen], loop)


def nothing(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    """No renewal of the projector."""
    return ()


def decomposed(base: str) -> Script:
    """Renewal by a decomposition of the gradient."""

    def renew(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
        width = job.width(parameter)
        if base == "adafactor":
            copy = 0 if width == WIDE else one.rows * one.columns * WIDE
            return [("grad", copy), *decomposition(one, WIDE)]
        return decomposition(one, width, weighs=base != "fira")

    return renew


def projected_gradient(one: Projection, width: int) -> list[Binding]:
    """The gradient takes few dimensions."""
    if one.side != "full":
        return [("grad", one.low * width)]
    return [("half", one.rank * one.columns * width), ("grad", one.low * width), ("half", 0)]


def adamw_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    """A step of AdamW on the projected gradient, and back."""
    width = job.width(parameter)
    low, size = one.low * width, one.rows * one.columns * width
    return [
        *projected_gradient(one, width), ("denom", low), ("norm_grad", low),
        *renamed(back(one, width), "scaled", "norm_grad", size),
    ]  # fmt: skip


def with_decomposition(update: Transient, chosen: list[Parameter], widths: list[int]) -> Transient:
    """The step in which projectors are renewed, with what a decomposition takes inside."""
    inside = max((one.elements // one.copies for one in chosen), default=0) * WIDE
    return Transient(
        update.bytes + _INSIDE_LIKELY * inside,
        update.low,
        update.high + _INSIDE_MOST * inside,
        f"{update.formula} + {_INSIDE_LIKELY * inside} B inside the decomposition",
    )
