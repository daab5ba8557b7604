"""BAdam and LISA: one block of layers is trained at a time, or some drawn layers."""

from __future__ import annotations

from dataclasses import replace

from willfit.training.optimizers.adam import adamw
from willfit.training.optimizers.native import in_dtype
from willfit.training.optimizers.records import Job, OptimizerMemory, Transient, state
from willfit.training.parameters import Parameter

#: Layers that LISA trains at a time (`lisa_activated_layers`).
_ACTIVE = 2

#: BAdam works in float32 on the block.
_WIDE = 4


def badam(job: Job) -> OptimizerMemory:
    """BAdam: a float32 copy of the block of one layer with its moments, dropped when the next one has its turn.

    Options: `include_embedding`, `include_lm_head` (both off).
    """
    block, layers = _one_layer(job, 1)
    wide = in_dtype(job.only(block), "fp32")
    inner = adamw(wide)
    copied = [one for one in block if job.width(one) != _WIDE]
    states = list(inner.states)
    if copied:
        states += state(wide, "master", "fp32", copied)
    # A layer's gradients are made float32 one after the other; the narrow ones go as that is done.
    gradients = sum((_WIDE - job.width(one)) * one.elements for one in copied)
    total = sum(one.elements for one in job.parameters)
    step = inner.step
    return OptimizerMemory(
        "BAdam", inner.implementation, tuple(states),
        Transient(step.bytes + gradients, step.low + gradients, step.high + gradients,
                  f"{step.formula} + {gradients} B that float32 gradients take more"),
        gradients="one block", trained=sum(one.elements for one in block) / total if total else 1.0,
        reference="badam badam/block_optim.py: BlockOptimizer, 1.2.2",
        notes=(f"one of {layers} layers is trained at a time",),
    )  # fmt: skip


def lisa(job: Job) -> OptimizerMemory:
    """LISA: embedding, head and some layers, which are drawn anew every few steps.

    Option `lisa_activated_layers` (2).
    """
    active = job.count("lisa_activated_layers", _ACTIVE)
    block, layers = _one_layer(job, active)
    outer = [one for one in job.parameters if "{layer}" not in one.name]
    inner = adamw(job.only([*outer, *block]))
    total = sum(one.elements for one in job.parameters)
    return replace(
        inner, name="LISA", gradients="one block",
        trained=sum(one.elements for one in (*outer, *block)) / total if total else 1.0,
        reference="ms-swift swift/llm/train/callback.py: DynamicLayerActivationCallback, 3.0",
        notes=(f"{active} of {layers} layers are trained at a time; nothing drops the states of those whose turn is "
               "over: where the optimizer was given all layers, all have states in the end, which is not counted",),
    )  # fmt: skip


def _one_layer(job: Job, active: int) -> tuple[list[Parameter], int]:
    """Parameters of `active` layers, the largest a layer can be made of, and how many layers there are."""
    layered = [one for one in job.parameters if "{layer}" in one.name]
    layers = max((one.copies for one in layered if "{expert}" not in one.name), default=1)
    block = [replace(one, copies=min(one.copies, max(1, one.copies * active // layers))) for one in layered]
    named = [
        one for one in job.parameters
        if "{layer}" not in one.name
        and ((job.flag("include_embedding") and one.part == "embedding")
             or (job.flag("include_lm_head") and one.part == "head"))
    ]  # fmt: skip
    return [*named, *block], layers
