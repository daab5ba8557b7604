"""Which modules of a model get these operations.

unsloth: models/llama.py: patch_peft_model, LlamaDecoderLayer_fast_forward, LlamaAttention_fast_forward, and the like in
mistral.py, qwen2.py, qwen3.py; fms_acceleration_foak: framework_plugin_fast_kernels.py, models/utils.py, llama.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins.unsloth.factors import Apart, InPlace, Projection, is_packed
from willfit.tracing.worker.stand_ins.unsloth.lora import GatedMLP, Projected
from willfit.tracing.worker.stand_ins.unsloth.norms import RMSNorm, rotary

#: Types of models whose layers are replaced here, and those that foak has rules for besides.
MODELS = ("llama", "mistral", "qwen2", "qwen3")
FOAK_MODELS = ("llama", "mistral", "granite")
_QKV, _MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
#: From this version on sums are made in place, and matrices unpacked into one buffer (kernels/utils.py).
IN_PLACE = (2025, 3)


def apply(
    model: Any, kernels: Collection[str], foak: bool, version: tuple[int, ...] | None, autocast: bool
) -> None:
    """Replace a model's modules in place.

    Parameters
    ----------
    model
        With its adapters, if it has some.
    kernels
        Of `rms_norm`, `rope`, `lora`.
    foak
        As fms-acceleration does, else as Unsloth.
    version
        Of Unsloth; the newest known if None.
    autocast
        Whether the forward pass runs under it.

    Raises
    ------
    BadInput
        For a model whose layers are not traced so, and where the original fails.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind, known = inner.config.model_type, FOAK_MODELS if foak else MODELS
    if kind not in known:
        raise BadInput(
            f"{'foak' if foak else 'Unsloth'}'s kernels of {kind} are not traced",
            f"traced: {', '.join(known)}",
        )
    base = getattr(inner, inner.base_model_prefix, inner)
    if "rms_norm" in kernels:
        _bind(base.norm, _norm)
    if "rope" in kernels:
        code: Any = sys.modules[type(inner).__module__]
        code.apply_rotary_pos_emb = rotary
    way = Apart() if foak or (version is not None and version < IN_PLACE) else InPlace()
    for layer in base.layers:
        if "rms_norm" in kernels:
            for path in _NORMS:
                found = _submodule(layer, path)
                if found is not None:
                    _bind(found, _norm)
        if not {"lora", "foak_lora"}.isdisjoint(kernels):
            _fuse(layer, way, foak, autocast)


def _fuse(layer: Any, way: Apart, foak: bool, autocast: bool) -> None:
    """Fuse a layer's adapters; where one cannot be, peft's own forward stays."""
    attention, mlp = layer.self_attn, layer.mlp
    for names in (_QKV, ("o_proj",)):
        layers = [getattr(attention, name) for name in names]
        if all(_fusible(one, foak) for one in layers):
            _check(layers, way, autocast)
            _share(layers, way, foak)
    layers = [getattr(mlp, name, None) for name in _MLP]
    if not all(one is not None and _fusible(one, foak) for one in layers):
        return
    if foak:
        # It multiplies the gradient of the MLP's output by a mask of its inner width (`LoRA_MLP.backward`).
        raise BadInput("foak's fused MLP fails in its backward pass", "adapt attention alone")
    _check(layers, way, autocast)
    projections = tuple(_projection(one, None) for one in layers)

    def forward(self: Any, rows: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = GatedMLP.apply(rows, way, projections, "swiglu", *_all_factors(layers))
        return output

    _bind(mlp, forward)


def _fusible(layer: Any, foak: bool) -> bool:
    """Whether a layer has LoRA's factors, and for foak a packed base, for Unsloth neither dropout, DoRA nor a bias."""
    if not hasattr(layer, "lora_A") or not layer.active_adapters:
        return False
    if foak:
        return is_packed(layer.base_layer)
    name = layer.active_adapters[0]
    plain = isinstance(layer.lora_dropout[name], torch.nn.Identity)
    return plain and layer.base_layer.bias is None and not layer.lora_magnitude_vector


def _check(layers: list[Any], way: Apart, autocast: bool) -> None:
    """Products of gradients with factors that nothing casts must have one dtype."""
    first = _factors(layers[0])[0]
    base = layers[0].base_layer
    compute = torch.float16  # what foak unpacks GPTQ's matrices to (`dequant248`)
    if not hasattr(base, "unpacked"):
        compute = getattr(base, "compute_dtype", None) or base.weight.dtype
    if type(way) is Apart and not autocast and first.dtype is not compute:
        raise BadInput(
            "fused adapters in another dtype than activations need mixed precision", "--compute bf16"
        )


def _factors(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    name = layer.active_adapters[0]
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def _all_factors(layers: list[Any]) -> list[torch.Tensor]:
    return [factor for one in layers for factor in _factors(one)]


def _projection(layer: Any, dropout: Any) -> Projection:
    return Projection(layer.base_layer, layer.scaling[layer.active_adapters[0]], dropout)


def _share(layers: list[Any], way: Apart, foak: bool) -> None:
    """Let the first layer that is called make the outputs of all, which are then taken one by one."""
    waiting: dict[int, torch.Tensor] = {}
    drops = [one.lora_dropout[one.active_adapters[0]] if foak else None for one in layers]
    projections = tuple(map(_projection, layers, drops))

    def forward_of(index: int) -> Callable[..., torch.Tensor]:
        def forward(self: Any, rows: torch.Tensor) -> torch.Tensor:
            if not waiting:
                waiting.update(enumerate(Projected.apply(rows, way, projections, *_all_factors(layers))))
            return waiting.pop(index)

        return forward

    for index, layer in enumerate(layers):
        _bind(layer, forward_of(index))


def _bind(module: torch.nn.Module, forward: Callable[..., Any]) -> None:
    module.forward = forward.__get__(module)


def _norm(module: Any, rows: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = RMSNorm.apply(rows, module.weight, False)
    return output


def _submodule(layer: torch.nn.Module, path: str) -> Any:
    try:
        return layer.get_submodule(path)
    except AttributeError:
        return None
