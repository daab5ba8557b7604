"""A model whose linear layers are stored in few bits, as transformers' quantizers and peft prepare it."""

from __future__ import annotations

from typing import Any

import torch

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.tracing.question import Train
from willfit.tracing.worker.dtypes import dtype as dtype_of
from willfit.tracing.worker.stand_ins import bitsandbytes
from willfit.tracing.worker.stand_ins.bitsandbytes.eight_bits import Int8Params, Linear8bitLt
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit, Params4bit
from willfit.training.settings import QuantizationSettings

#: `BitsAndBytesConfig.llm_int8_threshold` (transformers, utils/quantization_config.py).
THRESHOLD = 6.0
#: From these versions of bitsandbytes on: products keep no input; they read few rows' matrices packed.
KEEPS_NO_INPUT, READS_PACKED = (0, 43, 2), (0, 50)
#: Methods that are traced.
METHODS = ("nf4", "fp4", "int8")


def quantize(model: Any, asked: Train) -> None:
    """Replace a meta model's linear layers in place, and make of the rest what is asked (`upcast`).

    transformers: quantizers/base.py: get_keys_to_not_convert; integrations/bitsandbytes.py: replace_with_bnb_linear.
    peft: utils/other.py: prepare_model_for_kbit_training.

    Raises
    ------
    BadInput
        For a method that is not traced.
    """
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    settings = asked.settings.quantization
    assert settings is not None
    if settings.method not in METHODS:
        raise BadInput(
            f"a base in {settings.method} is not traced",
            f"traced: {', '.join(METHODS)}; `willfit train` knows the others",
        )
    bitsandbytes.install()
    left = [] if asked.habits.quantizes_head else get_keys_to_not_convert(model)
    left += list(model._keep_in_fp32_modules or ())
    replaced = 0
    for path, module in list(model.named_modules()):
        if not should_convert_module(path, left):
            continue
        if type(module) is torch.nn.Linear or isinstance(module, Conv1D):
            model.set_submodule(path, _stand_in(module, settings, asked).requires_grad_(False))
            replaced += 1
    if not replaced:
        raise BadInput("the model has no linear layer to quantize")
    bits = "8" if settings.method == "int8" else "4"
    setattr(model, f"is_loaded_in_{bits}bit", True)
    model.is_quantized = True
    prepare(model, settings.upcast or "none")


def _stand_in(module: Any, settings: QuantizationSettings, asked: Train) -> torch.nn.Module:
    inputs, outputs = (
        module.weight.shape
        if not isinstance(module, torch.nn.Linear)
        else (module.in_features, module.out_features)
    )
    bias, dtype = module.bias is not None, module.weight.dtype
    if settings.method == "int8":
        return Linear8bitLt(inputs, outputs, bias, THRESHOLD, dtype=dtype, device="meta")
    precision = asked.settings.precision
    named = asked.settings.versions.get("bitsandbytes")
    version = parse_version(named) if named else READS_PACKED
    storage = settings.storage or "uint8"
    return Linear4bit(
        inputs,
        outputs,
        bias,
        dtype_of(precision.compute) if precision.compute else dtype,
        bool(settings.double_quant),
        settings.method,
        torch.uint8 if storage == "uint8" else dtype_of(storage),
        dtype,
        "meta",
        keeps_input=asked.habits.keeps_quantized_input or version < KEEPS_NO_INPUT,
        unpacks=version < READS_PACKED,
    )


def prepare(model: torch.nn.Module, upcast: str) -> None:
    """Freeze the model and hold in float32 what is asked: `all` that is in 16 bits, `norms`, or `none`.

    `norms` are modules that are called so.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        packed = isinstance(parameter, (Params4bit, Int8Params))
        wide = upcast == "all" or (upcast == "norms" and "norm" in name.rpartition(".")[0].rpartition(".")[2])
        if wide and not packed and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.to(torch.float32)
