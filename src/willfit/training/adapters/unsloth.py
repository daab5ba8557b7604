"""Unsloth's fused LoRA: one autograd function for q, k and v, one for the whole MLP, one for any other linear layer.

Parameters are PEFT's. What differs is what stays: the input in its own dtype, never in the adapter's, and no product
with A. Unsloth: kernels/fast_lora.py, kernels/utils.py: matmul_lora; models/llama.py: patch_peft_model (2025.3.19). It
fuses where dropout is 0 and neither DoRA nor biases are asked for, else PEFT's own forward runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.training.adapters.forward import Value
from willfit.training.adapters.modules import Module
from willfit.training.settings import AdapterSettings

_QKV = ("q_proj", "k_proj", "v_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class FusedLora:
    """Adapted modules of a layer that run as one function.

    Attributes
    ----------
    modules
        Their names, in order.
    saves
        What stays beside the input: nothing, or the outputs of gate and up.
    forward, backward
        What is made for the time of a pass beside results and a dequantized weight.
    input_gradient_in_place
        The input's gradient is written over the input.
    """

    modules: tuple[str, ...]
    saves: tuple[Value, ...]
    forward: tuple[Value, ...]
    backward: tuple[Value, ...]
    input_gradient_in_place: bool


def fuses(settings: AdapterSettings) -> bool:
    """Whether Unsloth's functions run for these settings."""
    return not settings.dropout and settings.bias == "none" and not settings.use_dora


def fused(modules: Sequence[Module], rank: int, dtype: str) -> tuple[FusedLora, ...]:
    """Adapted modules of one layer, put together as Unsloth does.

    Parameters
    ----------
    modules
        Those of a layer that are adapted.
    rank
        Of all of them.
    dtype
        Of activations, in which everything is computed.
    """
    by_leaf = {module.leaf: module for module in modules if module.kind == "linear"}
    groups: list[FusedLora] = []
    done: set[str] = set()
    for leaves in (_QKV, _MLP):
        if all(leaf in by_leaf for leaf in leaves):
            members = [by_leaf[leaf] for leaf in leaves]
            groups.append(_group(members, rank, dtype, mlp=leaves is _MLP))
            done |= set(leaves)
    groups.extend(_group([module], rank, dtype) for leaf, module in by_leaf.items() if leaf not in done)
    return tuple(groups)


def _group(members: list[Module], rank: int, dtype: str, mlp: bool = False) -> FusedLora:
    factors = sum(rank * (module.inputs + module.outputs) for module in members)
    one = max(rank * (module.inputs + module.outputs) for module in members)
    low = Value("xA", per_token=rank, dtype=dtype)
    copies = Value("factors", fixed=factors, dtype=dtype)
    gradients = Value("factor_gradients", fixed=factors, dtype=dtype)
    saves: tuple[Value, ...] = ()
    forward: tuple[Value, ...] = (low, Value("factors", fixed=one, dtype=dtype))
    backward: tuple[Value, ...] = (copies, gradients, low)
    if mlp:
        width = members[0].outputs
        saves = (
            Value("gate", per_token=width, dtype=dtype),
            Value("up", per_token=width, dtype=dtype),
        )
        forward += (Value("product", per_token=width, dtype=dtype),)
        backward += (Value("product_gradient", per_token=width, dtype=dtype),)
    return FusedLora(tuple(module.name for module in members), saves, forward, backward, len(members) > 1)
