"""The libraries themselves in whole models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from willfit.tracing.question import Card, Train
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.recipes import training
from willfit.tracing.worker.stand_ins import quantized
from willfit.tracing.worker.tracer import Tracer


def with_liger(asked: Train) -> Tracer:
    """A run on the fake card with Liger's own functions."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = models.built(replace(asked, settings=replace(asked.settings, kernels=())))[0]
    _apply_liger_kernel_to_instance(model)
    tracer = Tracer("cuda:0", Card())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for category, name, tensor in models.place(model, tracer.device):
            tracer.adopt(tensor, category, name)
        with tracer:
            training.prepare(asked, model, tracer)
            training.run(asked, model, tracer, Alone(model, asked, tracer))
    return tracer


def with_bitsandbytes(asked: Train) -> Tracer:
    """A run on real tensors on the CPU with the package's own layers, and peft's for them."""
    import bitsandbytes
    from bitsandbytes.autograd._functions import MatMul8bitLt
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    settings = asked.settings.quantization
    assert settings is not None
    eight = settings.method == "int8"

    def quantize(model: Any, *_: Any) -> None:
        config = BitsAndBytesConfig(
            load_in_8bit=eight,
            load_in_4bit=not eight,
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=bool(settings.double_quant),
            bnb_4bit_quant_storage=settings.storage or "uint8",
        )
        replace_with_bnb_linear(model, get_keys_to_not_convert(model), config)
        setattr(model, f"is_loaded_in_{'8' if eight else '4'}bit", True)
        for module in model.modules():
            if isinstance(module, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)):
                module.weight.data = module.weight.data.to(torch.int8 if eight else torch.uint8)
        quantized.prepare(model, settings.upcast or "none")

    original, quantized.quantize = quantized.quantize, quantize
    model = models.built(asked)[0]
    quantized.quantize = original
    bitsandbytes.matmul = lambda rows, weight, bias=None, state=None: MatMul8bitLt.apply(
        rows, weight, None, bias, state
    )
    tracer = Tracer("cpu", Card())
    layers = [
        module
        for module in model.modules()
        if isinstance(module, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt))
    ]
    kept = [(module, module.weight) for module in layers]
    placed = models.place(model, tracer.device)
    held = [tensor for category, _, tensor in placed]
    for module, weight in kept:
        shape = (module.out_features, module.in_features)
        values = torch.zeros(shape, dtype=torch.bfloat16)
        held = [tensor for tensor in held if tensor is not module.weight]
        if eight:
            module.weight = bitsandbytes.nn.Int8Params(values, False, has_fp16_weights=False)._quantize("cpu")
            module.init_8bit_state()
            held += [module.weight, module.state.SCB]
            continue
        named = {
            name: getattr(weight, name)
            for name in ("compress_statistics", "quant_type", "quant_storage", "module")
        }
        module.weight = bitsandbytes.nn.Params4bit(values, False, **named)._quantize("cpu")
        module.support_avx512bf16_for_cpu = False
        state = module.weight.quant_state
        held += [module.weight, state.absmax, state.code]
        if state.nested:
            held += [state.state2.absmax, state.state2.code, state.offset]
    for tensor in held:
        tracer.adopt(tensor, "parameter", "")
    with tracer:
        training.prepare(asked, model, tracer)
        training.run(asked, model, tracer, Alone(model, asked, tracer))
    return tracer
