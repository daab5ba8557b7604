"""Adam-mini: a first moment, and one second moment for each head, row or tensor."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import ceil_div
from willfit.training.optimizers.passes import Binding, one_by_one
from willfit.training.optimizers.records import Job, OptimizerMemory, counted, state
from willfit.training.parameters import Parameter

#: What names say of a parameter (`adam_mini.py: __init__`).
_BIAS = ("bias",)
_HEADS = ("k_proj", "q_proj", "wq", "wk", "query", "key")
_ROWS = (
    "embed", "embd", "wte", "lm_head", "output", "final_layer", "v_proj", "wv", "value", "feed_forward", "linear",
    "mlp", "o_proj", "wo", "attn.proj",
)  # fmt: skip

#: Hidden size and heads that the library takes if nothing is said.
_DIM, _HEADS_DEFAULT = 2048, 32


def adam_mini(job: Job) -> OptimizerMemory:
    """Adam-mini (1.1.1): names decide how a parameter is cut.

    Options: `dim`, `n_heads` (of the model; a head's block is `dim` x `dim` / `n_heads` elements).
    """
    head = max(1, job.count("dim", _DIM) ** 2 // job.count("n_heads", _HEADS_DEFAULT))
    states = state(job, "exp_avg")
    means: dict[str, list[int]] = {}
    for parameter in job.parameters:
        entry = means.setdefault(job.weights(parameter), [0, 0])
        entry[0] += _values(parameter, head) * parameter.copies
        entry[1] += parameter.copies
    for dtype, (count, tensors) in means.items():
        states += counted("second moment", dtype, count, tensors)

    def loop(parameter: Parameter) -> Sequence[Binding]:
        size, values = job.size(parameter), _values(parameter, head) * job.width(parameter)
        if _has(parameter, _BIAS):
            return (("sqrt", size), ("h", size), ("sqrt", 0))
        return (
            ("square", size), ("tmp_lr", values), ("square", 0), ("h", values), ("stepsize", values), ("update", size),
            ("negative", size), ("negative", 0),
        )  # fmt: skip

    return OptimizerMemory(
        "Adam-mini", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        reference="adam-mini adam_mini/adam_mini.py: step, 1.1.1",
    )  # fmt: skip


def _has(parameter: Parameter, names: Sequence[str]) -> bool:
    return any(name in parameter.name.lower() for name in names)


def _values(parameter: Parameter, head: int) -> int:
    """Second moments of one copy."""
    each = parameter.elements // parameter.copies
    if _has(parameter, _BIAS):
        return each
    if _has(parameter, _HEADS):
        return ceil_div(each, head)
    if _has(parameter, _ROWS):
        return parameter.shape[0]
    return 1
