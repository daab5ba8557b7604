"""A model whose linear layers are stored in few bits, as transformers' quantizers and peft prepare it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.formats.recipes.select import Uniform
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.quantities import dtype_name
from willfit.tracing.worker.dtypes import dtype as dtype_of
from willfit.tracing.worker.stand_ins import bitsandbytes, packed
from willfit.tracing.worker.stand_ins.bitsandbytes.eight_bits import Int8Params, Linear8bitLt
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit, Params4bit
from willfit.training.packing import LIBRARIES, method_of, packing
from willfit.training.run import Habits
from willfit.training.settings import QuantizationSettings

#: `BitsAndBytesConfig.llm_int8_threshold` (transformers, utils/quantization_config.py).
THRESHOLD = 6.0
#: From these versions of bitsandbytes on: products keep no input; they read few rows' matrices packed.
KEEPS_NO_INPUT, READS_PACKED = (0, 43, 2), (0, 50)
#: Methods that are traced.
METHODS = ("nf4", "fp4", "int8", *LIBRARIES)

_NONE = Habits()


def quantize(
    model: Any,
    settings: QuantizationSettings,
    compute: torch.dtype | None = None,
    versions: Mapping[str, str] | None = None,
    habits: Habits = _NONE,
    stored: Mapping[str, Any] | None = None,
) -> None:
    """Replace a meta model's linear layers in place, freeze it, and make of the rest what is asked (`upcast`).

    transformers: quantizers/base.py: get_keys_to_not_convert; integrations/bitsandbytes.py: replace_with_bnb_linear.

    Parameters
    ----------
    compute
        Dtype of products with 4-bit matrices; None for that of the weights.
    versions
        Of `bitsandbytes`; the newest that is known if it is not among them.
    habits
        Whether the head is quantized too, and products keep their input.
    stored
        The checkpoint's own `quantization_config`, which says bits and groups if it is of the method.

    Raises
    ------
    BadInput
        For a method that is not traced.
    """
    method = method_of(settings.method)
    if method is None and settings.method not in METHODS:
        raise BadInput(
            f"a base in {settings.method} is not traced",
            f"traced: {', '.join(METHODS)}; `willfit train` knows the others",
        )
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    layers = None
    if method is None:
        bitsandbytes.install()
    else:
        versions = versions or {}
        packed.install(versions.get("peft"))
        layers = _packed_layers(model, settings.method, versions, stored)
    left = [] if habits.quantizes_head else get_keys_to_not_convert(model)
    left += list(model._keep_in_fp32_modules or ())
    named = (versions or {}).get("bitsandbytes")
    version = parse_version(named) if named else READS_PACKED
    keeps_input = habits.keeps_quantized_input or version < KEEPS_NO_INPUT
    replaced = 0
    for path, module in list(model.named_modules()):
        plain = type(module) is torch.nn.Linear
        if not (plain or isinstance(module, Conv1D)) or not should_convert_module(path, left):
            continue
        inputs, outputs = (module.in_features, module.out_features) if plain else module.weight.shape
        bias, dtype = module.bias is not None, module.weight.dtype
        made: torch.nn.Module
        if layers is not None:
            made = layers(inputs, outputs, bias, dtype)
        elif settings.method == "int8":
            made = Linear8bitLt(inputs, outputs, bias, THRESHOLD, dtype, "meta")
        else:
            made = Linear4bit(
                inputs, outputs, bias, compute or dtype, bool(settings.double_quant), settings.method,
                torch.uint8 if settings.storage in (None, "uint8") else dtype_of(settings.storage), dtype, "meta",
                keeps_input, version < READS_PACKED,
            )  # fmt: skip
        model.set_submodule(path, made.requires_grad_(False))
        replaced += 1
    if not replaced:
        raise BadInput("the model has no linear layer to quantize")
    if method is None:
        setattr(model, "is_loaded_in_8bit" if settings.method == "int8" else "is_loaded_in_4bit", True)
    else:
        model.quantization_method = method
    model.is_quantized = True
    prepare(model, settings.upcast or "none")


def _packed_layers(
    model: Any, name: str, versions: Mapping[str, str], own: Mapping[str, Any] | None
) -> Callable[[int, int, bool, torch.dtype], torch.nn.Module]:
    """What makes layers in GPTQ, AWQ or HQQ, in groups that divide the model's widths."""
    method, how = method_of(name), packing(name, versions)
    assert method is not None
    assert how is not None
    kind = packed.LAYERS[method, how.library]
    fields = model.config.to_dict()
    dtype = dtype_name(str(model.dtype).removeprefix("torch."))
    if own is not None and own.get("quant_method") == name:
        rule = recipe_for(Config({**fields, "quantization_config": own}, "the config"), dtype).rule
    else:
        rule = recipe_named(name, dtype, build(Config(fields, "the config"))).rule
    if not isinstance(rule, Uniform):
        raise BadInput(f"a base in {method} whose layers differ is not traced", "`willfit train` knows it")
    form = rule.format
    return lambda inputs, outputs, bias, weights: kind(inputs, outputs, bias, form, weights)


def as_stored(config: Mapping[str, Any]) -> QuantizationSettings | None:
    """How a checkpoint in GPTQ, AWQ or HQQ is loaded, though nobody asks for it; None for any other."""
    method = (config.get("quantization_config") or {}).get("quant_method")
    return QuantizationSettings(method, upcast="none") if method in LIBRARIES else None


def prepare(model: torch.nn.Module, upcast: str) -> None:
    """Freeze the model, and hold in float32 what is asked: `all` that is in 16 bits, `norms`, or `none`.

    `all` is peft's `prepare_model_for_kbit_training` (utils/other.py); `norms` are modules that are called so.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        packed = isinstance(parameter, (Params4bit, Int8Params))
        wide = upcast == "all" or (upcast == "norms" and "norm" in name.rpartition(".")[0].rpartition(".")[2])
        if wide and not packed and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.to(torch.float32)
