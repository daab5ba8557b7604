"""Fused LoRA: one autograd function for q, k and v, one for the whole MLP, one for the output of attention.

Parameters are PEFT's. What differs is what stays: the input in the dtype of activations, never in the adapter's, and no
product with A; of a whole MLP not even the input of its last matrix, which is made again from the outputs of the first
two. Unsloth: kernels/fast_lora.py: LoRA_MLP, LoRA_QKV, LoRA_W, kernels/utils.py: matmul_lora; models/llama.py:
patch_peft_model (2025.3.19). It fuses where dropout is 0 and neither DoRA nor biases are asked for, else PEFT's own
forward runs.

fms-acceleration took these functions and changed them: they know dropout, keep what it left of the input and no mask,
and run where the base is quantized alone; those of an MLP fail in their backward pass, so that PEFT's are meant here
(fms_acceleration_foak: framework_plugin_fast_kernels.py: augmentation, fused_ops/unsloth_lora, 0.4.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from willfit.training.adapters.forward import AdapterForward, Step, Value
from willfit.training.adapters.modules import Module
from willfit.training.settings import AdapterSettings

_QKV, _ALONE = ("q_proj", "k_proj", "v_proj"), "o_proj"
_MLP = ("gate_proj", "up_proj", "down_proj")


def fuses(settings: AdapterSettings) -> bool:
    """Whether Unsloth's functions run for these settings."""
    return _plain(settings) and not settings.dropout


def foak_fuses(settings: AdapterSettings, quantized: bool) -> bool:
    """Whether fms-acceleration's functions run for these settings, on a base that is quantized or not."""
    return _plain(settings) and quantized


def _plain(settings: AdapterSettings) -> bool:
    return settings.kind in ("lora", "qlora") and not settings.use_dora and settings.bias == "none"


def fused(
    modules: Sequence[Module], ranks: Mapping[str, int], dtype: str, adapter: str
) -> dict[str, AdapterForward]:
    """What the forwards of adapted modules do, by the names of those that are fused.

    Parameters
    ----------
    modules
        Those that are adapted.
    ranks
        Of each, by name.
    dtype, adapter
        Of activations, in which everything is computed, and of the adapter's parameters.
    """
    plain = [module for module in modules if not module.biased]
    chosen = _whole(plain, _QKV) + _whole(plain, (_ALONE,)) + _whole(plain, _MLP)
    return {
        module.name: _forward(module, ranks[module.name], dtype, adapter, module.leaf == _MLP[-1])
        for module in chosen
    }


def foak_fused(
    modules: Sequence[Module], ranks: Mapping[str, int], dtype: str, adapter: str, drops: bool
) -> dict[str, AdapterForward]:
    """The same of fms-acceleration's functions.

    Parameters
    ----------
    modules, ranks, dtype, adapter
        See `fused`.
    drops
        Whether there is dropout.
    """
    return {
        module.name: _foak_forward(module, ranks[module.name], dtype, adapter, drops)
        for module in _whole(modules, _QKV) + _whole(modules, (_ALONE,))
    }


def _whole(modules: Sequence[Module], leaves: Sequence[str]) -> list[Module]:
    """Linear layers called so, where all that stand beside each other are among the modules."""
    linear = [module for module in modules if module.kind == "linear"]
    names = {module.name for module in linear}
    return [
        module
        for module in linear
        if module.leaf in leaves
        and all(module.name.removesuffix(module.leaf) + leaf in names for leaf in leaves)
    ]


def _forward(module: Module, rank: int, dtype: str, adapter: str, remade: bool) -> AdapterForward:
    """The module's product, and that with both factors, which is added to it in place (`addmm_`)."""
    x = Value("x", per_token=module.inputs, dtype=dtype)
    first = Value("lora_A.weight", fixed=rank * module.inputs, dtype=adapter)
    second = Value("lora_B.weight", fixed=module.outputs * rank, dtype=adapter)
    y = Value("y", per_token=module.outputs, dtype=dtype)
    low = Value("low", per_token=rank, dtype=dtype)
    # Factors are cast for the time of each pass.
    copies = Value("factors", fixed=rank * (module.inputs + module.outputs), dtype=dtype)
    again = (Value("product", per_token=module.inputs, dtype=dtype),) if remade else ()
    steps = (
        Step("base", ("x",), y, gradients=("x",)),
        Step(
            "linear", ("x", first.name, second.name), Value("delta", fixed=1, dtype=dtype),
            saves=() if remade else ("x",), extras=(low, copies), gradients=("x", first.name, second.name),
            backward=(low, copies, *again),
        ),
        Step("add", ("y", "delta"), Value("sum", per_token=module.outputs, dtype=dtype), gradients=("y", "delta"),
             in_place=True),
    )  # fmt: skip
    return AdapterForward(steps, "sum", x, (first, second), frozenset((first.name, second.name)))


def _foak_forward(module: Module, rank: int, dtype: str, adapter: str, drops: bool) -> AdapterForward:
    """The module's product, and that with both factors, which is made apart and then added."""
    x = Value("x", per_token=module.inputs, dtype=dtype)
    first = Value("lora_A.weight", fixed=rank * module.inputs, dtype=adapter)
    second = Value("lora_B.weight", fixed=module.outputs * rank, dtype=adapter)
    y = Value("y", per_token=module.outputs, dtype=dtype)
    low = Value("low", per_token=rank, dtype=dtype)
    product = Value("product", per_token=module.outputs, dtype=dtype)
    through = Value("through", per_token=module.inputs, dtype=dtype)
    mask = Value("mask", per_token=module.inputs, dtype="bool")
    steps = [Step("base", ("x",), y, gradients=("x",))]
    given, backward = "x", [low, through, through]
    if drops:
        given, backward = "dropped", [mask, *backward]
        steps.append(
            Step("dropout", ("x",), Value("dropped", per_token=module.inputs, dtype=dtype), extras=(mask,))
        )
    steps += [
        Step(
            "linear", (given, first.name, second.name), Value("delta", fixed=1, dtype=dtype),
            saves=("x", given) if drops else ("x",), extras=(low, product), gradients=("x", first.name, second.name),
            backward=tuple(backward),
        ),
        Step("add", ("y", "delta"), Value("sum", per_token=module.outputs, dtype=dtype), gradients=("y", "delta"),
             in_place=True),
    ]  # fmt: skip
    return AdapterForward(tuple(steps), "sum", x, (first, second), frozenset((first.name, second.name)))
