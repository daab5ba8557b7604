"""Dion: momentum made orthonormal through a basis of lower rank."""

from __future__ import annotations

from willfit.training.optimizers.muon import is_hidden_matrix
from willfit.training.optimizers.records import Job, OptimizerMemory, Transient, counted, state


def dion(job: Job) -> OptimizerMemory:
    """Dion: a momentum and an orthonormal basis of `rank_fraction` of the smaller side; Adam or Lion for the rest.

    Options: `rank_fraction` (1), `rank_multiple_of` (1), `scalar` (`adamw` or `lion`).
    """
    matrices = [one for one in job.parameters if is_hidden_matrix(one)]
    others = [one for one in job.parameters if not is_hidden_matrix(one)]
    states = state(job, "momentum", parameters=matrices) + state(job, "exp_avg", parameters=others)
    if str(job.options.get("scalar", "adamw")) == "adamw":
        states += state(job, "exp_avg_sq", parameters=others)
    fraction, multiple = job.number("rank_fraction", 1.0), job.count("rank_multiple_of", 1)
    basis: dict[str, list[int]] = {}
    for one in matrices:
        rank = min(-(-int(fraction * min(one.shape[-2:])) // multiple) * multiple, min(one.shape[-2:]))
        entry = basis.setdefault(job.weights(one), [0, 0])
        entry[0] += one.elements // max(one.shape[-2:]) // min(one.shape[-2:]) * one.shape[-1] * rank
        entry[1] += one.copies
    for dtype, (count, tensors) in basis.items():
        states += counted("basis", dtype, count, tensors, words="elements")
    largest = max((job.size(one) for one in matrices), default=0)
    return OptimizerMemory(
        "Dion", "compiled", tuple(states),
        Transient(2 * largest, largest, 6 * largest, f"2 temporaries x {largest} B of the largest matrix"),
        reference="microsoft/dion dion.py: _init_opt_state_dion",
        notes=("its step is compiled and runs over several matrices at once: one to six of the largest are assumed",),
    )  # fmt: skip
