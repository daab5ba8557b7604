"""Optimizers that project gradients to few dimensions: GaLore and its kin, APOLLO, Fira, Flora."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.errors import BadInput
from willfit.quantities import ceil_div
from willfit.training.optimizers.adafactor import factored, transformers_loop
from willfit.training.optimizers.passes import Binding
from willfit.training.optimizers.projected import (
    Plain,
    Script,
    adamw_plain,
    adamw_rest,
    base_states,
    decomposed,
    demand_whole,
    merged,
    norms,
    nothing,
    one_pass,
    projected_gradient,
    projectors,
    split,
    with_decomposition,
)
from willfit.training.optimizers.projection import WIDE, Projection, back, drawn, renamed
from willfit.training.optimizers.records import Job, OptimizerMemory, StateBytes, Transient, counted
from willfit.training.parameters import Parameter

#: Of the Trainer (`trainer_optimizer.py: _get_galore_optimizer`).
_RANK = 128

#: Elements that share a scale in a quantized projector (Q-GaLore's scripts).
_QUANTIZED_GROUP = 256


def galore(job: Job) -> OptimizerMemory:
    """GaLore's AdamW, Adafactor and 8-bit AdamW.

    Parameters
    ----------
    job
        What it works on. Options: `rank` (128), `proj_type` (`std`), `target_modules` (see `projection.targets`),
        `base` (`adamw`, `adafactor`, `adamw_8bit`), `layerwise`, `quantized_projector` (Q-GaLore: stored as uint8
        whatever its bits are).
    """
    demand_whole(job, "GaLore")
    base = str(job.options.get("base", "adamw"))
    if base not in _BASES:
        raise BadInput(f"no GaLore over {base!r}", f"known: {', '.join(_BASES)}")
    chosen, rest, projected = split(job, job.count("rank", _RANK), str(job.options.get("proj_type", "std")))
    # Adafactor makes the gradient float32 before it is projected.
    widths = [WIDE if base == "adafactor" else job.width(one) for one in chosen]
    states = base_states(job, base, chosen, rest, projected)
    if job.flag("quantized_projector"):
        states += _quantized(job, chosen, projected)
    else:
        states += projectors(job, chosen, projected, widths)
    script, plain = _BASES[base]
    step = one_pass(job, rest, chosen, projected, script, nothing, plain)
    update = one_pass(job, rest, chosen, projected, script, decomposed(base), plain)
    layerwise = job.flag("layerwise")
    return OptimizerMemory(
        f"GaLore {base}, rank {job.count('rank', _RANK)}",
        "for-loop",
        tuple(states),
        step,
        with_decomposition(update, chosen, widths),
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
    demand_whole(job, "APOLLO")
    decomposes = str(job.options.get("proj", "random")) == "svd"
    kind = str(job.options.get("proj_type", "std"))
    chosen, rest, projected = split(job, job.count("rank", _RANK), kind, decomposes)
    widths = [job.width(one) for one in chosen]
    states = base_states(job, "adamw", chosen, rest, projected)
    if decomposes:
        states += projectors(job, chosen, projected, widths)
    else:
        for one, how in zip(chosen, projected, strict=True):
            states += counted(
                "projector", job.weights(one), how.matrix * one.copies, one.copies, words="elements"
            )
    states += norms(job, chosen)
    renew = decomposed("adamw") if decomposes else _drawn
    step = one_pass(job, rest, chosen, projected, _apollo_rest, nothing)
    update = one_pass(job, rest, chosen, projected, _apollo_rest, renew)
    return OptimizerMemory(
        f"APOLLO, rank {job.count('rank', _RANK)}",
        "for-loop",
        tuple(merged(states)),
        step,
        with_decomposition(update, chosen, widths) if decomposes else update,
        gradients="one parameter" if job.flag("layerwise") else "all",
        reference="apollo-torch apollo_torch/apollo.py, random_projector.py, 1.0.3",
    )


def fira(job: Job) -> OptimizerMemory:
    """Fira: GaLore's states, and what the projection leaves out is scaled and added."""
    demand_whole(job, "Fira")
    chosen, rest, projected = split(job, job.count("rank", _RANK), str(job.options.get("proj_type", "std")))
    widths = [job.width(one) for one in chosen]
    states = base_states(job, "adamw", chosen, rest, projected) + projectors(job, chosen, projected, widths)
    states += norms(job, chosen)
    step = one_pass(job, rest, chosen, projected, _fira_rest, nothing)
    update = one_pass(job, rest, chosen, projected, _fira_rest, decomposed("fira"))
    return OptimizerMemory(
        f"Fira, rank {job.count('rank', _RANK)}", "for-loop", tuple(merged(states)), step,
        with_decomposition(update, chosen, widths),
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


def _quantized(job: Job, chosen: list[Parameter], projected: list[Projection]) -> list[StateBytes]:
    group = job.count("quant_group_size", _QUANTIZED_GROUP)
    codes = sum(how.matrix * one.copies for one, how in zip(chosen, projected, strict=True))
    groups = sum(ceil_div(how.matrix, group) * one.copies for one, how in zip(chosen, projected, strict=True))
    tensors = sum(one.copies for one in chosen)
    dtype = job.weights(chosen[0])
    return counted("projector", "uint8", codes, tensors, words="elements") + counted(
        "projector scale", dtype, 2 * groups, 2 * tensors, words="scales and zeros"
    )


def _drawn(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    return drawn(one, job.width(parameter))


def _adafactor_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    low, size = one.low * WIDE, one.rows * one.columns * WIDE
    copy = 0 if job.width(parameter) == WIDE else size
    return [
        ("grad", copy), *projected_gradient(one, WIDE), ("p_data_fp32", copy),
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
        *projected_gradient(one, width), ("denom", low), ("norm_grad", low), ("factor", factor),
        ("scaled_grad", size), ("scaled_grad", size), ("norm_grad", 0),
    ]  # fmt: skip


def _fira_rest(job: Job, parameter: Parameter, one: Projection) -> Sequence[Binding]:
    width = job.width(parameter)
    low, size = one.low * width, one.rows * one.columns * width
    return [
        *projected_gradient(one, width), ("denom", low), ("norm_grad", low),
        *renamed(back(one, width), "scaled", "subgrad", size), ("difference", size), ("scaling_grad", size),
        ("difference", 0), ("scaling_grad", size), *back(one, width), ("norm_grad", size), ("scaled", 0),
    ]  # fmt: skip


def _kernel(job: Job, parameter: Parameter) -> Sequence[Binding]:
    """A parameter that is not projected: one kernel steps it."""
    return (("grad", 0),)


#: How GaLore steps over projected and over other parameters.
_BASES: dict[str, tuple[Script, Plain]] = {
    "adamw": (adamw_rest, adamw_plain),
    "adafactor": (_adafactor_rest, transformers_loop),
    "adamw_8bit": (_narrow_rest, _kernel),
}
