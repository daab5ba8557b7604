"""Adam and its kin: torch's, the fused ones of apex, Transformer Engine and DeepSpeed, those of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.optimizers.native import Lists, Native, native
from willfit.training.optimizers.passes import Binding, one_by_one
from willfit.training.optimizers.records import (
    CONSTRUCTION,
    Job,
    OptimizerMemory,
    state,
    steps_counter,
)
from willfit.training.parameters import Parameter

_MOMENTS = ("exp_avg", "exp_avg_sq")


def _adam_loop(size: int, decays: bool) -> Sequence[Binding]:
    # torch `optim/adam.py: _single_tensor_adam`: sqrt, quotient, and eps in place.
    return (("grad", size if decays else 0), ("sqrt", size), ("denom", size), ("sqrt", 0))


def _radam_loop(size: int, decays: bool) -> Sequence[Binding]:
    # torch `optim/radam.py: _single_tensor_radam`, once the variance is rectified (from the sixth step on): a number
    # by a tensor is its reciprocal times the number.
    return (
        ("grad", size if decays else 0), ("bias_corrected", size), ("scaled", size), ("sqrt", size),
        ("reciprocal", size), ("rate", size), ("reciprocal", 0), ("sqrt", 0), ("product", size), ("scaled", 0),
        ("rate", 0), ("product", 0),
    )  # fmt: skip


def _adamax_loop(size: int, decays: bool) -> Sequence[Binding]:
    return (("grad", size if decays else 0), ("abs", size), ("abs", 0))


def _old_adamax_loop(size: int, decays: bool) -> Sequence[Binding]:
    # torch up to 2.2, `optim/adamax.py`: both candidates are concatenated before the larger one is taken.
    return (
        ("grad", size if decays else 0), ("abs", size), ("norm_buf", 2 * size), ("abs", 0), ("larger", size),
        ("larger", 0),
    )  # fmt: skip


#: From this version on Adamax takes the maximum without a concatenation.
_ADAMAX_IN_PLACE = (2, 3)

_ADAM_LISTS = (Lists((1, 13), 2, 2), Lists((2, 0), 2, 3), Lists((2, 1), 1, 1))

ADAM = Native("Adam", "optim/adam.py", _MOMENTS, _adam_loop, _ADAM_LISTS, (2, 0))
NADAM = Native(
    "NAdam", "optim/nadam.py", _MOMENTS, _adam_loop,
    (Lists((1, 13), 2, 2), Lists((2, 0), 2, 3), Lists((2, 1), 1, 2)), counters=("step", "mu_product"),
)  # fmt: skip
RADAM = Native(
    "RAdam", "optim/radam.py", _MOMENTS, _radam_loop,
    (Lists((1, 13), 3, 3), Lists((2, 0), 3, 4), Lists((2, 1), 1, 1)),
)  # fmt: skip
ADAMAX = Native("Adamax", "optim/adamax.py", ("exp_avg", "exp_inf"), _adamax_loop, (Lists((2, 3), 1, 1),))
OLD_ADAMAX = Native("Adamax", "optim/adamax.py", ("exp_avg", "exp_inf"), _old_adamax_loop, ())


def adam(job: Job) -> OptimizerMemory:
    """torch's Adam; `amsgrad` adds a state."""
    kinds = (*_MOMENTS, "max_exp_avg_sq") if job.flag("amsgrad") else _MOMENTS
    return native(job, replace(ADAM, kinds=kinds))


def adamw(job: Job) -> OptimizerMemory:
    """torch's AdamW: Adam whose decay is not part of the gradient."""
    return adam(replace(job, options={**job.options, "weight_decay": 0}))


def nadam(job: Job) -> OptimizerMemory:
    """torch's NAdam."""
    return native(job, NADAM)


def radam(job: Job) -> OptimizerMemory:
    """torch's RAdam."""
    return native(job, RADAM)


def adamax(job: Job) -> OptimizerMemory:
    """torch's Adamax."""
    old = job.versions.get("torch", _ADAMAX_IN_PLACE) < _ADAMAX_IN_PLACE
    return native(job, OLD_ADAMAX if old else ADAMAX)


def transformers_adamw(job: Job) -> OptimizerMemory:
    """AdamW as transformers had it up to 4.50 (`adamw_hf`): a loop with one intermediate of a tensor."""
    states = state(job, "exp_avg") + state(job, "exp_avg_sq")
    step = one_by_one(job.parameters, lambda parameter: (("denom", job.size(parameter)),))
    return OptimizerMemory(
        "AdamW (transformers)",
        "for-loop",
        tuple(states),
        step,
        reference="transformers optimization.py: AdamW, 4.36",
    )


def lora_fa(job: Job) -> OptimizerMemory:
    """PEFT's LoRA-FA: two moments of each B. A's gradient is solved for, so that the step makes B's anew in float32.

    The loop holds the projected gradient and the root of the second moment (`LoraFAOptimizer.step`).
    """
    states = state(job, "exp_avg") + state(job, "exp_avg_sq")

    def loop(parameter: Parameter) -> Sequence[Binding]:
        size = job.size(parameter)
        return (("projected", size), ("scaled", size), ("projected", 0), ("denom", size))

    return OptimizerMemory(
        "LoRA-FA", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        reference="peft optimizers/lorafa.py: LoraFAOptimizer.step, 0.21.2",
    )  # fmt: skip


def any_precision(job: Job) -> OptimizerMemory:
    """torchdistx's AnyPrecisionAdamW, with the dtypes that the Trainer gives it (float32 moments)."""
    first = str(job.options.get("momentum_dtype", "fp32"))
    second = str(job.options.get("variance_dtype", "fp32"))
    states = state(job, "exp_avg", _known(first)) + state(job, "exp_avg_sq", _known(second))
    if job.flag("use_kahan_summation"):
        kept = str(job.options.get("compensation_buffer_dtype", "bf16"))
        states += state(job, "compensation", _known(kept))
    width = DTYPE_BYTES[_known(second)]

    def loop(parameter: Parameter) -> Sequence[Binding]:
        size = parameter.elements // parameter.copies * width
        return (("sqrt", size), ("centered_variance", size), ("sqrt", 0))

    return OptimizerMemory(
        "AnyPrecisionAdamW", "for-loop", tuple(states), one_by_one(job.parameters, loop),
        reference="torchdistx optimizers/anyprecision_optimizer.py; transformers trainer_optimizer.py: "
        "_get_adamw_anyprecision",
    )  # fmt: skip


def fused(job: Job) -> OptimizerMemory:
    """The fused Adam of apex and Transformer Engine (Megatron-LM, NeMo): float32 moments whatever the parameter is.

    Options: `exp_avg_dtype`, `exp_avg_sq_dtype` (Transformer Engine: fp16, bf16 or fp8 with a scale for each tensor),
    `store_param_remainders` (masters are the 16 bits that a bf16 parameter lacks), `master_weights`.
    """
    states = []
    for kind in _MOMENTS:
        dtype = _known(str(job.options.get(f"{kind}_dtype", "fp32")))
        states += state(job, kind, dtype)
        if dtype in ("fp16", "uint8", "fp8_e4m3"):
            states += steps_counter(job, "device", f"{kind} scale")
    if job.flag("master_weights"):
        remainders = job.flag("store_param_remainders")
        states += state(job, "master", "int16" if remainders else "fp32")
    return OptimizerMemory(
        "FusedAdam", "fused", tuple(states),
        reference="apex optimizers/fused_adam.py: step; Transformer Engine pytorch/optimizers/fused_adam.py",
    )  # fmt: skip


def deepspeed_adam(job: Job) -> OptimizerMemory:
    """DeepSpeed's FusedAdam: states follow the parameter, which is a float32 master under ZeRO."""
    states = state(job, "exp_avg", since=CONSTRUCTION) + state(job, "exp_avg_sq", since=CONSTRUCTION)
    return OptimizerMemory(
        "FusedAdam (DeepSpeed)", "fused", tuple(states),
        reference="deepspeed ops/adam/fused_adam.py: step; runtime/zero: initialize_optimizer_states",
    )  # fmt: skip


def cpu_adam(job: Job) -> OptimizerMemory:
    """DeepSpeedCPUAdam: float32 states in the host's memory (`fp32_optimizer_states`, on by default)."""
    dtype = "fp32" if job.flag("fp32_optimizer_states", True) else None
    states = state(job, "exp_avg", dtype, place="host", since=CONSTRUCTION)
    states += state(job, "exp_avg_sq", dtype, place="host", since=CONSTRUCTION)
    return OptimizerMemory(
        "DeepSpeedCPUAdam", "fused", tuple(states), reference="deepspeed ops/adam/cpu_adam.py: step"
    )


def lamb(job: Job) -> OptimizerMemory:
    """DeepSpeed's FusedLamb and apex's: two moments, float32 in apex."""
    return OptimizerMemory(
        "FusedLamb", "fused", tuple(state(job, "exp_avg", "fp32") + state(job, "exp_avg_sq", "fp32")),
        reference="apex optimizers/fused_lamb.py; deepspeed ops/lamb/fused_lamb.py",
    )  # fmt: skip


def adopt(job: Job) -> OptimizerMemory:
    """ADOPT as axolotl brings it: foreach holds the root and the normed gradient of all parameters at once."""
    rule = Native("ADOPT", "ADOPT", _MOMENTS, _adopt_loop, (Lists((1, 13), 2, 3),))
    found = native(job, rule)
    return OptimizerMemory(
        found.name, found.implementation, found.states, found.step,
        reference="axolotl utils/optimizers/adopt.py: _multi_tensor_adopt, 0.19",
    )  # fmt: skip


def _adopt_loop(size: int, decays: bool) -> Sequence[Binding]:
    return (
        ("grad", size if decays else 0), ("sqrt", size), ("denom", size), ("sqrt", 0), ("normed", size),
    )  # fmt: skip


def _known(dtype: str) -> str:
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "fp8": "fp8_e4m3"}
    found = names.get(dtype, dtype)
    if found not in DTYPE_BYTES:
        raise BadInput(f"unknown dtype of a state: {dtype!r}", "write fp32, bf16, fp16 or fp8_e4m3")
    return found
