"""Unsloth's fused LoRA: one autograd function for q, k and v, one for the whole MLP, one for any other linear layer.

Parameters are PEFT's. What differs is what stays: the input in the dtype of activations, never in the adapter's, and no
product with A; of a whole MLP not even the input of its last matrix, which is made again from the outputs of the first
two. Unsloth: kernels/fast_lora.py: LoRA_MLP, LoRA_QKV, LoRA_W, kernels/utils.py: matmul_lora; models/llama.py:
patch_peft_model (2025.3.19). It fuses where dropout is 0 and neither DoRA nor biases are asked for, else PEFT's own
forward runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from willfit.training.adapters.forward import AdapterForward, Step, Value
from willfit.training.adapters.modules import Module
from willfit.training.settings import AdapterSettings

_MLP = ("gate_proj", "up_proj", "down_proj")


def fuses(settings: AdapterSettings) -> bool:
    """Whether Unsloth's functions run for these settings."""
    plain = settings.kind in ("lora", "qlora") and not settings.use_dora
    return plain and not settings.dropout and settings.bias == "none"


def fused(
    modules: Sequence[Module], ranks: Mapping[str, int], dtype: str, adapter: str
) -> dict[str, AdapterForward]:
    """What the forwards of adapted modules do, by the modules' names.

    Parameters
    ----------
    modules
        Those that are adapted.
    ranks
        Of each, by name.
    dtype, adapter
        Of activations, in which everything is computed, and of the adapter's parameters.
    """
    linear = [module for module in modules if module.kind == "linear"]
    names = {module.name for module in linear}
    found = {}
    for module in linear:
        before = module.name.removesuffix(module.leaf)
        whole = module.leaf == _MLP[-1] and all(before + leaf in names for leaf in _MLP)
        found[module.name] = _forward(module, ranks[module.name], dtype, adapter, whole)
    return found


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
