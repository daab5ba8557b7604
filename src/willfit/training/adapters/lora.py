"""LoRA and what is built on it: DoRA, rsLoRA, LoRA-FA, MiCA, BD-LoRA, QA-LoRA, AdaLoRA; experts in one parameter.

PEFT: tuners/lora/layer.py, dora.py, variants.py; tuners/adalora/layer.py; optimizers/lorafa.py (0.5.0 to 0.21.2).
"""

from __future__ import annotations

from typing import Any

from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held

#: Experts' factors were on the other sides before (ParamWrapper.update_layer).
_SWAPS_EXPERTS = (0, 19)
#: First version with _LoraFactorsProxy.
_FOLDS_EXPERTS = (0, 21)
#: First version whose layers for GPTQ cast their input under autocast as well.
_CASTS_FOR_GPTQ = (0, 16)


def _frozen_factor(ask: Ask) -> str | None:
    """LoRA-FA freezes A (its optimizer does), MiCA freezes B."""
    if ask.options.get("lora_fa"):
        return "lora_A"
    return "lora_B" if ask.options.get("init_lora_weights") == "mica" else None


def _pools(ask: Ask) -> bool:
    """QA-LoRA sums groups of inputs; PEFT knows it for GPTQ layers alone."""
    return bool(ask.options.get("use_qalora")) and ask.quantized


def _trains_rank_number(ask: Ask) -> bool:
    """From 0.21 casting the adapter to float32 makes a parameter anew, which is trained (cast_adapter_dtype)."""
    return ask.peft[:2] >= (0, 21) and not ask.quantized and ask.model_dtype in ("bfloat16", "float16")


def _shapes(ask: Ask, module: Module) -> dict[str, tuple[int, ...]]:
    rank = ask.rank_of(module)
    if module.kind == "embedding":
        return {"lora_embedding_A": (rank, module.inputs), "lora_embedding_B": (module.outputs, rank)}
    if module.kind == "experts":
        # ParamWrapper: one factor for all experts, rank times experts wide
        inputs, outputs = module.inputs, module.outputs
        if ask.peft[:2] < _SWAPS_EXPERTS:
            inputs, outputs = outputs, inputs
        return {
            "lora_A.weight": (rank * module.stacked, inputs),
            "lora_B.weight": (outputs, rank * module.stacked),
        }
    if module.kind == "weight":  # a two-dimensional parameter: one "expert", (out, in)
        return {"lora_A.weight": (rank, module.inputs), "lora_B.weight": (module.outputs, rank)}
    first, second = (rank, module.inputs), (module.outputs, rank)
    if _pools(ask):
        group = ask.integer("qalora_group_size")
        if module.inputs % group:
            raise BadInput(
                f"qalora_group_size {group} does not divide the {module.inputs} inputs of {module.name}"
            )
        first = (rank, module.inputs // group)
    blocks: Any = ask.options.get("use_bdlora")
    if blocks:
        number = int(blocks["nblocks"])
        if any(name in module.name for name in blocks.get("target_modules_bd_a") or ()):
            first = (rank, module.inputs // number)
        elif any(name in module.name for name in blocks.get("target_modules_bd_b") or ()):
            second = (module.outputs, rank // number)
    return {"lora_A.weight": first, "lora_B.weight": second}


def lora_added(ask: Ask, module: Module) -> Added:
    """A and B, DoRA's magnitudes, B's bias."""
    shapes = _shapes(ask, module)
    frozen = _frozen_factor(ask)
    held = tuple(
        Held(name, shape, "adapter") for name, shape in shapes.items() if frozen and name.startswith(frozen)
    )
    trained = {name: shape for name, shape in shapes.items() if not (frozen and name.startswith(frozen))}
    if ask.options.get("lora_bias") and module.kind != "embedding":
        trained["lora_B.bias"] = (module.outputs,)
    if ask.options.get("use_dora"):
        if module.kind in ("experts", "weight"):
            raise BadInput("DoRA does not wrap parameters: leave the fused experts out of its targets")
        trained["lora_magnitude_vector.weight"] = (module.outputs,)
    return Added(trained, held)


def lora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """x to A's dtype, dropout, A, B, scaled and added; the sum is wider than y where A is."""
    rank = ask.rank_of(module)
    shapes = _shapes(ask, module)
    frozen = _frozen_factor(ask)

    def factor(name: str, shape: tuple[int, ...]) -> Value:
        size = shape[0] * shape[1]
        return to.frozen(name, size) if frozen and name.startswith(frozen) else to.trained(name, size)

    first, second = (factor(name, shape) for name, shape in shapes.items())
    if module.kind in ("experts", "weight"):
        return _delta_on_parameter(ask, module, to, first, second)
    result = to.base(to.x)
    if module.kind == "embedding":
        picked = to.copy(first, per_token=rank)
        result = to.add(result, to.scale(to.linear(picked, second, module.outputs)))
        return to.finish(to.cast(result, to.autocast or to.model))
    if ask.options.get("use_dora"):
        return _dora(ask, module, to, result, first, second)
    # Layers of quantized modules leave casts to autocast where it is on, and cast what they add where it is not
    # (tuners/lora/bnb.py, awq.py, hqq.py, aqlm.py: forward, 0.8 to 0.21.2). GPTQ's did until 0.15, and since then
    # cast their input always, and the sum.
    casts = ask.gptq and ask.peft[:2] >= _CASTS_FOR_GPTQ
    leaves = to.alike and to.autocast is not None and not casts
    x = to.x if leaves else to.hold(to.cast(to.x, to.adapter))
    dropped = to.dropout(x, ask.dropout)
    if _pools(ask):
        dropped = to.scale(to.reduce(dropped, per_token=module.inputs // ask.integer("qalora_group_size")))
    low = to.linear(dropped, first, rank)
    added = to.scale(to.linear(low, second, module.outputs))
    if to.alike and not casts:
        return to.finish(to.add(result, added if leaves else to.cast(added, to.model)))
    return to.finish(to.cast(to.add(result, added), to.autocast or to.model))


def _delta_on_parameter(
    ask: Ask, module: Module, to: Recorder, first: Value, second: Value
) -> AdapterForward:
    """Before its module runs, the parameter becomes W + scaled BA: weights of all experts at once.

    From 0.21 one batched product folds both into W; before, BA was made and scaled in the adapter's dtype, and its
    copy in W's dtype stayed until the module returned (ParamWrapper._activate_lora).
    """
    size = module.inputs * module.outputs * module.stacked
    own = to.frozen("W", size, to.model)
    if ask.peft[:2] >= _FOLDS_EXPERTS and module.stacked > 1:
        left, right = to.cast(second, to.model), to.cast(first, to.model)
        weight = to.folded(left, right, size)
    else:
        delta = to.hold(to.cast(to.scale(to.product(second, first, size)), to.model))
        weight = to.add(own, delta)
    return to.finish(to.base(to.x, to.hold(weight)))


def _dora(
    ask: Ask, module: Module, to: Recorder, result: Value, first: Value, second: Value
) -> AdapterForward:
    """DoRA: the product BA (by an identity of in x in), W + BA and its norm are made in each forward.

    Only the norm is needed after; none of the three is kept, because the norm counts as a constant.
    """
    rank, inputs, outputs = ask.rank_of(module), module.inputs, module.outputs
    size = inputs * outputs
    magnitude = to.trained("lora_magnitude_vector.weight", outputs)
    own = to.weight()
    x = to.hold(to.cast(to.x, to.adapter))
    dropped = to.dropout(x, ask.dropout)
    eye = to.constant(inputs * inputs)
    low = to.linear(eye, first, inputs * rank)
    delta = to.hold(to.detach(to.cast(to.linear(low, second, size), dropped.dtype)))
    wide = to.hold(to.cast(own, dropped.dtype))
    total = to.add(wide, to.scale(delta))
    norm = to.reduce(total, fixed=outputs)
    factor = to.hold(to.multiply(magnitude, norm))
    lora = to.linear(to.linear(dropped, first, rank), second, outputs)
    if dropped is not x:
        result_base = to.linear(dropped, wide, outputs)
    else:
        result_base = to.add(result, to.frozen("bias", outputs, to.model)) if module.biased else result
    left = to.multiply(to.scale(factor), result_base)
    right = to.scale(to.multiply(factor, lora))
    result = to.add(result, to.add(left, right))
    return to.finish(to.cast(result, to.autocast or to.model))


def adalora_added(ask: Ask, module: Module) -> Added:
    """A, B and the singular values E at the initial rank; `ranknum`, one element, is meant to be a constant."""
    rank = ask.rank_of(module, "init_r", "none")
    trained: dict[str, tuple[int, ...]] = {
        "lora_A": (rank, module.inputs), "lora_E": (rank, 1), "lora_B": (module.outputs, rank),
    }  # fmt: skip
    if _trains_rank_number(ask):
        return Added(trained | {"ranknum": (1,)})
    return Added(trained, (Held("ranknum", (1,), "adapter"),))


def adalora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """As LoRA with A times E; y is added to in place."""
    rank = ask.rank_of(module, "init_r", "none")
    first = to.trained("lora_A", rank * module.inputs)
    values = to.trained("lora_E", rank)
    second = to.trained("lora_B", module.outputs * rank)
    number = to.trained("ranknum", 1) if _trains_rank_number(ask) else to.frozen("ranknum", 1)
    result = to.base(to.x)
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.linear(to.dropout(x, ask.dropout), to.multiply(first, values), rank)
    scaled = to.scale(to.linear(low, second, module.outputs))
    divisor = to.hold(to.shift(number))
    return to.finish(to.add_into(result, to.divide(scaled, divisor)))


LORA = Method(
    "lora",
    {
        "r": 8, "lora_bias": False, "use_dora": False, "use_rslora": False, "use_qalora": False,
        "qalora_group_size": 16, "use_bdlora": None, "init_lora_weights": True, "rank_pattern": None,
        "lora_fa": False,
    },
    lora_added, lora_forward, kinds=("linear", "conv1d", "embedding", "experts", "weight"),
)  # fmt: skip
ADALORA = Method(
    "adalora", {"r": 8, "init_r": 12, "target_r": 8}, adalora_added, adalora_forward,
    kinds=LINEAR_AND_CONV1D, targets="adalora",
)  # fmt: skip
METHODS = (LORA, ADALORA)
