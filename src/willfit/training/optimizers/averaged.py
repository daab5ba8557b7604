"""Optimizers that keep another point beside the weights: schedule-free ones, Prodigy; and optimi's, GrokAdamW."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.optimizers.passes import Binding, one_by_one, together
from willfit.training.optimizers.records import NOTHING, Job, OptimizerMemory, counted, state
from willfit.training.parameters import Parameter

#: 16-bit weights get a sum of what rounding lost (optimi, `kahan_sum`).
_NARROW = 2


def schedule_free(job: Job) -> OptimizerMemory:
    """Schedule-free AdamW, RAdam and SGD: a second point, and for the first two a running square.

    Option `base`: `adamw`, `radam` or `sgd`. Foreach is the default (`schedulefree`, hasattr(torch, "_foreach_mul_")).
    """
    base = str(job.options.get("base", "adamw"))
    states = state(job, "z")
    implementation = "for-loop" if job.implementation == "for-loop" else "foreach"
    step = NOTHING
    if base != "sgd":
        states += state(job, "exp_avg_sq")
        if implementation == "foreach":
            step = together(job.parameters, job.size, 1)
        else:
            step = one_by_one(job.parameters, lambda one: (("denom", job.size(one)),))
    return OptimizerMemory(
        f"schedule-free {base}", implementation, tuple(states), step,
        reference="schedulefree adamw_schedulefree.py, radam_schedulefree.py, sgd_schedulefree.py: step, 1.4.1",
    )  # fmt: skip


def prodigy(job: Job) -> OptimizerMemory:
    """Prodigy: two moments, a sum of gradients, and the weights that it began with.

    Option `slice_p`: only every n-th element of the latter two.
    """
    states = state(job, "exp_avg") + state(job, "exp_avg_sq")
    every = max(1, job.count("slice_p", 1))
    for kind in ("s", "p0"):
        kept: dict[str, list[int]] = {}
        for one in job.parameters:
            entry = kept.setdefault(job.weights(one), [0, 0])
            entry[0] += -(-(one.elements // one.copies) // every) * one.copies
            entry[1] += one.copies
        for dtype, (count, tensors) in kept.items():
            states += counted(kind, dtype, count, tensors, words="elements")
    return OptimizerMemory(
        "Prodigy", "for-loop", tuple(states), one_by_one(job.parameters, lambda one: (("denom", job.size(one)),)),
        reference="prodigyopt prodigy.py: step, 1.1.2",
    )  # fmt: skip


def optimi(job: Job) -> OptimizerMemory:
    """optimi's AdamW and StableAdamW, with a compensation for what 16-bit weights lose in rounding.

    Options: `stable`, `kahan_sum` (on for 16-bit weights), `triton` (the default on CUDA unless foreach is set; its
    kernels need nothing more).
    """
    stable = job.flag("stable")
    states = state(job, "exp_avg") + state(job, "exp_avg_sq")
    if job.flag("kahan_sum", True):
        states += state(
            job, "kahan_comp", parameters=[one for one in job.parameters if job.width(one) == _NARROW]
        )
    tensors: dict[str, int] = {}
    if stable:
        for one in job.parameters:
            tensors[job.weights(one)] = tensors.get(job.weights(one), 0) + one.copies
        for dtype, count in tensors.items():
            states += counted("eps_sq", dtype, count, count)
    implementation = job.implementation or ("triton" if job.flag("triton", True) else "for-loop")

    def loop(one: Parameter) -> Sequence[Binding]:
        size = job.size(one)
        rms = (("square", size), ("largest", size), ("largest", 0), ("square", 0)) if stable else ()
        return (*rms, ("sqrt", size), ("sqrt", 0))

    step = NOTHING
    if implementation == "for-loop":
        step = one_by_one(job.parameters, loop)
    elif implementation == "foreach" and stable:
        step = together(job.parameters, job.size, 1)
    return OptimizerMemory(
        "StableAdamW" if stable else "AdamW (optimi)", implementation, tuple(states), step,
        reference="torch-optimi optimi/stableadamw.py, adamw.py, 0.3.3",
    )  # fmt: skip


def grokadamw(job: Job) -> OptimizerMemory:
    """GrokAdamW: three states on the host; those of one tensor come to the device for its step."""
    states = []
    for kind in ("exp_avg", "exp_avg_sq", "grok_ema"):
        states += state(job, kind, place="host")

    def loop(one: Parameter) -> Sequence[Binding]:
        size = job.size(one)
        return (
            ("exp_avg", size), ("exp_avg_sq", size), ("grok_ema", size), ("amplified", size), ("grok_grad", size),
            ("amplified", 0), ("sqrt", size), ("sqrt", 0),
        )  # fmt: skip

    return OptimizerMemory(
        "GrokAdamW", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        reference="grokadamw grokadamw.py: _update_group, 0.1.2",
    )  # fmt: skip
