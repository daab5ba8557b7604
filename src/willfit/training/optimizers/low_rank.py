"""Optimizers that project gradients to few dimensions: GaLore and its kin, APOLLO, Fira, Flora."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.optimizers.adafactor import factored, root_mean_squares, transformers_loop
from willfit.training.optimizers.bitsandbytes import bitsandbytes
from willfit.training.optimizers.passes import Binding, one_by_one
from willfit.training.optimizers.projection import (
    WIDE,
    Projection,
    back,
    decomposition,
    drawn,
    kept,
    projection,
    renamed,
    targets,
)
from willfit.training.optimizers.records import (
    NOTHING,
    Job,
    OptimizerMemory,
    StateBytes,
    Transient,
    counted,
    state,
)
from willfit.training.parameters import Parameter

#: Of the Trainer (`trainer_optimizer.py: _get_galore_optimizer`).
_RANK = 128

#: What a decomposition on CUDA takes inside of the operation: a copy of the matrix in the other order of memory and the
#: other singular vectors before they are turned over, and cuSOLVER's workspace, whose size is not published.
_INSIDE_LIKELY, _INSIDE_MOST = 1, 3

#: Elements that share a scale in a quantized projector (Q-GaLore's scripts).
_QUANTIZED_GROUP = 256

#: One step at an update of the projection, or between two.
Rest = Callable[[Job, Parameter, Projection], Sequence[Binding]]


def galore(job: Job) -> OptimizerMemory:
    """GaLore's AdamW, Adafactor and 8-bit AdamW.

    Parameters
    ----------
    job
        What it works on. Options: `rank` (128), `proj_type` (`std`), `target_modules` (see `projection.targets`),
        `base` (`adamw`, `adafactor`, `adamw_8bit`), `layerwise`, `quantized_projector` (Q-GaLore: stored as uint8
        whatever its bits are).
    """
    _whole(job, "GaLore")
    base = str(job.options.get("base", "adamw"))
    chosen, rest, projected = _split(job, job.count("rank", _RANK), str(job.options.get("proj_type", "std")))
    # Adafactor makes the gradient float32 before it is projected.
    widths = [WIDE if base == "adafactor" else job.width(one) for one in chosen]
    states = _base_states(job, base, chosen, rest, projected)
    if job.flag("quantized_projector"):
        states += _quantized(job, chosen, projected)
    else:
        states += _projectors(job, chosen, projected, widths)
    script = {"adamw": _adamw_rest, "adafactor": _adafactor_rest, "adamw_8bit": _narrow_rest}[base]
    step = _pass(job, rest, chosen, projected, script, _nothing)
    update = _pass(job, rest, chosen, projected, script, _decomposed(base))
    layerwise = job.flag("layerwise")
    return OptimizerMemory(
        f"GaLore {base}, rank {job.count('rank', _RANK)}",
        "for-loop",
        tuple(states),
        step,
        _with_decomposition(update, chosen, widths),
        gradients="one parameter" if layerwise else "all",
        reference="galore-torch galore_torch/galore_projector.py, adamw.py, adafactor.py, adamw8bit.py, 1.0",
        notes=(
            "the workspace of a singular value decomposition on the device is not published: "
            "up to three float32 copies of the largest matrix beyond what is counted",
        ),
    )


def apollo(job: Job) -> OptimizerMemory:
    """APOLLO, and APOLLO-Mini (`scale_type` tensor, rank 1).

    Options: `rank`, `proj` (`random` or `svd`), `proj_type`, `target_modules`, `layerwise`.
    """
    _whole(job, "APOLLO")
    decomposes = str(job.options.get("proj", "random")) == "svd"
    kind = str(job.options.get("proj_type", "std"))
    chosen, rest, projected = _split(job, job.count("rank", _RANK), kind, decomposes)
    widths = [job.width(one) for one in chosen]
    states = _base_states(job, "adamw", chosen, rest, projected)
    if decomposes:
        states += _projectors(job, chosen, projected, widths)
    else:
        for one, how in zip(chosen, projected, strict=True):
            states += counted(
                "projector", job.weights(one), how.matrix * one.copies, one.copies, words="elements"
            )
    states += _norms(job, chosen)
    renew = _decomposed("adamw") if decomposes else _drawn
    step = _pass(job, rest, chosen, projected, _apollo_rest, _nothing)
    update = _pass(job, rest, chosen, projected, _apollo_rest, renew)
    return OptimizerMemory(
        f"APOLLO, rank {job.count('rank', _RANK)}",
        "for-loop",
        tuple(_merged(states)),
        step,
        _with_decomposition(update, chosen, widths) if decomposes else update,
        gradients="one parameter" if job.flag("layerwise") else "all",
        reference="apollo-torch apollo_torch/apollo.py, random_projector.py, 1.0.3",
    )


def fira(job: Job) -> OptimizerMemory:
    """Fira: GaLore's states, and what the projection leaves out is scaled and added."""
    _whole(job, "Fira")
    chosen, rest, projected = _split(job, job.count("rank", _RANK), str(job.options.get("proj_type", "std")))
    widths = [job.width(one) for one in chosen]
    states = _base_states(job, "adamw", chosen, rest, projected) + _projectors(job, chosen, projected, widths)
    states += _norms(job, chosen)
    step = _pass(job, rest, chosen, projected, _fira_rest, _nothing)
    update = _pass(job, rest, chosen, projected, _fira_rest, _decomposed("fira"))
    return OptimizerMemory(
        f"Fira, rank {job.count('rank', _RANK)}", "for-loop", tuple(_merged(states)), step,
        _with_decomposition(update, chosen, widths),
        reference="Fira optimizer_torch/fira_adamw.py: step",
    )  # fmt: skip


def flora(job: Job) -> OptimizerMemory:
    """Flora: Adafactor with a first moment of `rank` rows or columns; projections are drawn anew from seeds.

    Matrices more than four times as long as wide, and those narrower than the rank, keep the whole moment.
    """
    rank = job.count("rank", _RANK)
    states = factored(job, "fp32")
    narrow = sum(
        rank * max(one.shape) * one.copies
        for one in job.parameters
        if len(one.shape) == 2 and min(one.shape) >= rank and max(one.shape) <= 4 * min(one.shape)
    )
    wide = sum(
        one.elements
        for one in job.parameters
        if not (len(one.shape) == 2 and min(one.shape) >= rank and max(one.shape) <= 4 * min(one.shape))
    )
    states += counted(
        "momentum", "fp32", narrow + wide, sum(one.copies for one in job.parameters), words="elements"
    )
    largest = max((one.elements // one.copies for one in job.parameters), default=0) * WIDE
    copies = 2 if job.parameters and job.width(job.parameters[0]) != WIDE else 0
    most = (copies + 5) * largest
    return OptimizerMemory(
        f"Flora, rank {rank}", "for-loop", tuple(states),
        Transient(most, (copies + 2) * largest, most, f"{copies + 5} float32 copies x {largest} B of a tensor"),
        reference="flora-opt flora_opt/optimizers/torch/flora.py: flora_step_",
    )  # fmt: skip


def _norms(job: Job, chosen: list[Parameter]) -> list[StateBytes]:
    """The norm of the last update of each matrix."""
    return [found for one in chosen for found in counted("norm", job.weights(one), one.copies, one.copies)]


def _whole(job: Job, name: str) -> None:
    if job.pieces == "flat":
        raise BadInput(
            f"{name} needs whole matrices, and this way of sharing hands it flat pieces",
            "use ddp, or no sharing",
        )


def _split(
    job: Job, rank: int, kind: str, limited: bool = True
) -> tuple[list[Parameter], list[Parameter], list[Projection]]:
    """Projected matrices, the other parameters, and how the former are projected."""
    chosen = targets(job)
    if not chosen:
        raise BadInput(
            f"no linear layer matches target_modules {job.options.get('target_modules')!r}",
            "write all-linear",
        )
    taken = {id(one) for one in chosen}
    rest = [one for one in job.parameters if id(one) not in taken]
    return chosen, rest, [projection(one, rank, kind, limited) for one in chosen]


def _base_states(
    job: Job, base: str, chosen: list[Parameter], rest: list[Parameter], projected: list[Projection]
) -> list[StateBytes]:
    thin = [replace(one, shape=how.low_shape) for one, how in zip(chosen, projected, strict=True)]
    all_of_them = job.only([*rest, *thin])
    if base == "adamw_8bit":
        return list(bitsandbytes(all_of_them).states)
    if base == "adafactor":
        return factored(all_of_them, "fp32") + root_mean_squares(job)
    return state(all_of_them, "exp_avg") + state(all_of_them, "exp_avg_sq")


def _projectors(
    job: Job, chosen: list[Parameter], projected: list[Projection], widths: list[int]
) -> list[StateBytes]:
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


def _quantized(job: Job, chosen: list[Parameter], projected: list[Projection]) -> list[StateBytes]:
    group = job.count("quant_group_size", _QUANTIZED_GROUP)
    codes = sum(how.matrix * one.copies for one, how in zip(chosen, projected, strict=True))
    groups = sum(ceil_div(how.matrix, group) * one.copies for one, how in zip(chosen, projected, strict=True))
    tensors = sum(one.copies for one in chosen)
    dtype = job.weights(chosen[0])
    return counted("projector", "uint8", codes, tensors, words="elements") + counted(
        "projector scale", dtype, 2 * groups, 2 * tensors, words="scales and zeros"
    )


def _pass(
    job: Job, rest: list[Parameter], chosen: list[Parameter], projected: list[Projection],
    script: Rest, renew: Callable[[Job, Parameter, Projection], Sequence[Binding]],
) -> Transient:  # fmt: skip
    """One step over all parameters; one after the other on its own where the step is part of the backward pass."""
    how = {id(one): found for one, found in zip(chosen, projected, strict=True)}

    def plain(parameter: Parameter) -> Sequence[Binding]:
        if script is _adafactor_rest:
            return transformers_loop(job, parameter)
        size = job.size(parameter) if script is not _narrow_rest else 0
        return (("grad", 0), ("denom", size), ("norm_grad", size))

    def loop(parameter: Parameter) -> Sequence[Binding]:
        if id(parameter) not in how:
            return plain(parameter)
        found = how[id(parameter)]
        # The variable is the whole gradient at first, whatever it was for the tensor before.
        return [("grad", 0), *renew(job, parameter, found), *script(job, parameter, found)]

    if job.flag("layerwise"):
        single = [one_by_one([parameter], loop) for parameter in (*rest, *chosen)]
        return max(single, key=lambda one: one.bytes, default=NOTHING)
    return one_by_one([*rest, *chosen], loop)


def _nothing(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    return ()


def _decomposed(base: str) -> Callable[[Job, Parameter, Projection], Sequence[Binding]]:
    def renew(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
        width = job.width(parameter)
        if base == "adafactor":
            copy = 0 if width == WIDE else one.rows * one.columns * WIDE
            return [("grad", copy), *decomposition(one, WIDE)]
        return decomposition(one, width, weighs=base != "fira")

    return renew


def _drawn(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    return drawn(one, job.width(parameter))


def _with_decomposition(update: Transient, chosen: list[Parameter], widths: list[int]) -> Transient:
    inside = max(one.elements // one.copies for one in chosen) * WIDE
    return Transient(
        update.bytes + _INSIDE_LIKELY * inside,
        update.low,
        update.high + _INSIDE_MOST * inside,
        f"{update.formula} + {_INSIDE_LIKELY * inside} B inside the decomposition",
    )


def _adamw_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    width = job.width(parameter)
    low, size = one.low * width, one.rows * one.columns * width
    return [
        *_projected_gradient(one, width), ("denom", low), ("norm_grad", low),
        *renamed(back(one, width), "scaled", "norm_grad", size),
    ]  # fmt: skip


def _projected_gradient(one: Projection, width: int) -> list[Binding]:
    if one.side != "full":
        return [("grad", one.low * width)]
    return [("half", one.rank * one.columns * width), ("grad", one.low * width), ("half", 0)]


def _adafactor_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    low, size = one.low * WIDE, one.rows * one.columns * WIDE
    copy = 0 if job.width(parameter) == WIDE else size
    return [
        ("grad", copy), *_projected_gradient(one, WIDE), ("p_data_fp32", copy),
        ("square", low), ("update", low), ("square", 0), ("update", low),
        *renamed(back(one, WIDE), "scaled", "update", size), ("negative", size), ("negative", 0),
    ]  # fmt: skip


def _narrow_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    # galore-torch `adamw8bit.py: step`: the weight is put aside, and the update takes its place; the whole gradient is
    # dropped for the projected one.
    width = job.width(parameter)
    low, size = one.low * width, one.rows * one.columns * width
    return [
        ("grad", low), ("saved", size), ("clone", low), ("saved", 0), *back(one, width), ("clone", 0), ("scaled", 0),
        ("grad", 0),
    ]  # fmt: skip


def _apollo_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    width = job.width(parameter)
    low, size = one.low * width, one.rows * one.columns * width
    by_channel = str(job.options.get("scale_type", "channel")) == "channel"
    factor = max(one.rows, one.columns) * width if by_channel else 0
    return [
        *_projected_gradient(one, width), ("denom", low), ("norm_grad", low), ("factor", factor),
        ("scaled_grad", size), ("scaled_grad", size), ("norm_grad", 0),
    ]  # fmt: skip


def _fira_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    width = job.width(parameter)
    low, size = one.low * width, one.rows * one.columns * width
    return [
        *_projected_gradient(one, width), ("denom", low), ("norm_grad", low),
        *renamed(back(one, width), "scaled", "subgrad", size), ("difference", size), ("scaling_grad", size),
        ("difference", 0), ("scaling_grad", size), *back(one, width), ("norm_grad", size), ("scaled", 0),
    ]  # fmt: skip


def _merged(states: list[StateBytes]) -> list[StateBytes]:
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
