"""The stand-ins, under the names of `cases.py`'s operations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from willfit.formats.awq import Awq
from willfit.formats.gptq import Gptq
from willfit.formats.packed import Hqq
from willfit.tracing.worker.stand_ins.bitsandbytes.eight_bits import Linear8bitLt
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit
from willfit.tracing.worker.stand_ins.bitsandbytes.optimizers import BitsAndBytes
from willfit.tracing.worker.stand_ins.liger import experts as grouped
from willfit.tracing.worker.stand_ins.liger.gated import Gated, rotary
from willfit.tracing.worker.stand_ins.liger.losses import FusedLinearCrossEntropy
from willfit.tracing.worker.stand_ins.liger.losses import cross_entropy as whole
from willfit.tracing.worker.stand_ins.liger.norms import LayerNorm, RMSNorm
from willfit.tracing.worker.stand_ins.packed import LAYERS
from willfit.tracing.worker.stand_ins.torchao.float8 import RECIPES, Float8Linear
from willfit.tracing.worker.stand_ins.torchao.optimizers import LowBitAdam


def linear4bit(case: dict[str, Any]) -> Any:
    module = Linear4bit(
        case["inputs"], case["outputs"], case["bias"], getattr(torch, case["compute"]), case["double"],
        case["quant_type"], getattr(torch, case["storage"]), getattr(torch, case["weights"]), "cpu",
    )  # fmt: skip
    return module, [*module.parameters(), *module.buffers()]


def _packed(case: dict[str, Any], method: str, library: str, stored: Any) -> Any:
    module = LAYERS[method, library](
        case["inputs"], case["outputs"], case["bias"], stored, getattr(torch, case["weights"]), "cpu"
    )
    return module, [*module.parameters(), *module.buffers()]


def auto_gptq(case: dict[str, Any]) -> Any:
    return _packed(case, "gptq", "auto_gptq", Gptq(case["bits"], case["group"]))


def autoawq(case: dict[str, Any]) -> Any:
    return _packed(case, "awq", "autoawq", Awq(case["bits"], case["group"]))


def hqq(case: dict[str, Any]) -> Any:
    return _packed(case, "hqq", "hqq", Hqq(case["bits"], case["group"]))


def linear8bit(case: dict[str, Any]) -> Any:
    module = Linear8bitLt(
        case["inputs"],
        case["outputs"],
        case["bias"],
        case["threshold"],
        getattr(torch, case["weights"]),
        "cpu",
    )
    return module, [*module.parameters(), *module.buffers()]


def bitsandbytes(case: dict[str, Any], parameters: list[torch.nn.Parameter]) -> Any:
    return BitsAndBytes(parameters, case)


def torchao(case: dict[str, Any], parameters: list[torch.nn.Parameter]) -> Any:
    return LowBitAdam(parameters, case["bits"])


def rms_norm(case: dict[str, Any]) -> Any:
    return lambda rows, weight: RMSNorm.apply(rows, weight, case["in_place"])


def layer_norm(case: dict[str, Any]) -> Any:
    return LayerNorm.apply


def swiglu(case: dict[str, Any]) -> Any:
    return lambda gate, up: Gated.apply(gate, up, "swiglu")


def geglu(case: dict[str, Any]) -> Any:
    return lambda gate, up: Gated.apply(gate, up, "geglu")


def rope(case: dict[str, Any]) -> Any:
    return rotary


def cross_entropy(case: dict[str, Any]) -> Any:
    return whole


def fused_linear(case: dict[str, Any]) -> Any:
    return FusedLinearCrossEntropy.apply


def experts(case: dict[str, Any]) -> Any:
    return lambda rows, gate_up, down, index, weights: grouped.forward(
        SimpleNamespace(gate_up_proj=gate_up, down_proj=down), rows, index, weights
    )


def float8(case: dict[str, Any]) -> Any:
    module = Float8Linear(
        case["inputs"], case["outputs"], case["bias"], dtype=getattr(torch, case["weights"])
    )
    module.recipe = RECIPES[case["recipe"]]
    return module, list(module.parameters())
