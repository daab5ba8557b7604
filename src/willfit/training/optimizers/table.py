"""Optimizers by the names that frameworks give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.training.optimizers.adafactor import came, torch_adafactor, transformers_adafactor
from willfit.training.optimizers.adam import (
    adam,
    adamax,
    adamw,
    adopt,
    any_precision,
    cpu_adam,
    deepspeed_adam,
    fused,
    lamb,
    lora_fa,
    nadam,
    radam,
    transformers_adamw,
)
from willfit.training.optimizers.adam_mini import adam_mini
from willfit.training.optimizers.averaged import grokadamw, optimi, prodigy, schedule_free
from willfit.training.optimizers.bitsandbytes import bitsandbytes
from willfit.training.optimizers.blocks import badam, lisa
from willfit.training.optimizers.dion import dion
from willfit.training.optimizers.lion import fused_lion, lion
from willfit.training.optimizers.lomo import adalomo, lomo
from willfit.training.optimizers.low_rank import apollo, fira, flora, galore
from willfit.training.optimizers.muon import muon
from willfit.training.optimizers.records import Job, OptimizerMemory
from willfit.training.optimizers.sgd import adadelta, adagrad, rmsprop, sgd
from willfit.training.optimizers.shampoo import shampoo
from willfit.training.optimizers.soap import soap
from willfit.training.optimizers.torchao import cpu_offload, flash, sinkgd, torchao

Rule = Callable[[Job], OptimizerMemory]


class Named(NamedTuple):
    """What a name stands for: a rule, options that it fixes, and an implementation."""

    rule: Rule
    options: Mapping[str, object] = {}
    implementation: str | None = None


_AO4, _AO8 = Named(torchao, {"bits": "4"}), Named(torchao, {"bits": "8"})


def _bnb(update: str, bits: int, paged: bool = False) -> Named:
    return Named(bitsandbytes, {"update": update, "optim_bits": bits, "paged": paged})


#: transformers' `OptimizerNames` (`training_args.py`, 4.28 to 5.23).
_TRAINER = {
    "adamw_hf": Named(transformers_adamw),
    "adamw_torch": Named(adamw),
    "adamw_torch_fused": Named(adamw, {}, "fused"),
    "adamw_torch_xla": Named(adamw, {}, "for-loop"),
    "adamw_torch_npu_fused": Named(adamw, {}, "fused"),
    "adamw_apex_fused": Named(fused),
    "adafactor": Named(transformers_adafactor),
    "adamw_anyprecision": Named(any_precision),
    "adamw_torch_4bit": _AO4,
    "adamw_torch_8bit": _AO8,
    "sgd": Named(sgd),
    "adagrad": Named(adagrad),
    "rmsprop": Named(rmsprop),
    "adamw_bnb_8bit": _bnb("adam", 8),
    "adamw_8bit": _bnb("adam", 8),
    "paged_adamw_32bit": _bnb("adam", 32, True),
    "paged_adamw_8bit": _bnb("adam", 8, True),
    "ademamix": _bnb("ademamix", 32),
    "ademamix_8bit": _bnb("ademamix", 8),
    "paged_ademamix_32bit": _bnb("ademamix", 32, True),
    "paged_ademamix_8bit": _bnb("ademamix", 8, True),
    "lion_8bit": _bnb("lion", 8),
    "lion_32bit": _bnb("lion", 32),
    "paged_lion_32bit": _bnb("lion", 32, True),
    "paged_lion_8bit": _bnb("lion", 8, True),
    # The Trainer takes "rmsprop_bnb" for 32 bits, and pages none of them.
    "rmsprop_bnb": _bnb("rmsprop", 32),
    "rmsprop_bnb_8bit": _bnb("rmsprop", 8),
    "rmsprop_bnb_32bit": _bnb("rmsprop", 32),
    "galore_adamw": Named(galore),
    "galore_adamw_8bit": Named(galore, {"base": "adamw_8bit"}),
    "galore_adafactor": Named(galore, {"base": "adafactor"}),
    "galore_adamw_layerwise": Named(galore, {"layerwise": True}),
    "galore_adamw_8bit_layerwise": Named(galore, {"base": "adamw_8bit", "layerwise": True}),
    "galore_adafactor_layerwise": Named(galore, {"base": "adafactor", "layerwise": True}),
    "lomo": Named(lomo),
    "adalomo": Named(adalomo),
    "grokadamw": Named(grokadamw),
    "schedule_free_radam": Named(schedule_free, {"base": "radam"}),
    "schedule_free_adamw": Named(schedule_free, {"base": "adamw"}),
    "schedule_free_sgd": Named(schedule_free, {"base": "sgd"}),
    "apollo_adamw": Named(apollo),
    "apollo_adamw_layerwise": Named(apollo, {"layerwise": True}),
    "stable_adamw": Named(optimi, {"stable": True}),
}

#: axolotl's own (`utils/schemas/enums.py: CustomSupportedOptimizers`).
_AXOLOTL = {
    "optimi_adamw": Named(optimi, {"triton": False}),
    "ao_adamw_4bit": _AO4,
    "ao_adamw_8bit": _AO8,
    "ao_adamw_fp8": Named(torchao, {"bits": "fp8"}),
    "adopt_adamw": Named(adopt),
    "adamc": Named(adamw, {}, "foreach"),
    "came_pytorch": Named(came),
    "muon": Named(muon),
    "dion": Named(dion),
    "sinkgd": Named(sinkgd),
    "flash_adamw": Named(flash),
    "flash_adam": Named(flash),
    "flash_sgd": Named(flash, {"moments": 1}),
    "flash_sgdw": Named(flash, {"moments": 1}),
    "flash_lion": Named(flash, {"moments": 1}),
    "q_galore_adamw8bit": Named(galore, {"base": "adamw_8bit", "quantized_projector": True}),
}

#: DeepSpeed's (`runtime/config.py`), Megatron-LM's, torchao's and bitsandbytes' classes as recipes write them.
_CLASSES = {
    "deepspeed_adam": Named(deepspeed_adam),
    "deepspeed_cpu_adam": Named(cpu_adam),
    "deepspeed_lion": Named(fused_lion),
    "deepspeed_cpu_lion": Named(fused_lion, {"cpu": True}),
    "fused_adam": Named(fused),
    "fused_lamb": Named(lamb),
    "torchao_cpu_offload": Named(cpu_offload),
    "paged_adamw": _bnb("adam", 32, True),
    "adamw_32bit": _bnb("adam", 32),
    "sgd_8bit": _bnb("sgd", 8),
    "adagrad_8bit": _bnb("adagrad", 8),
    "lamb_8bit": _bnb("lamb", 8),
    "lars_8bit": _bnb("lars", 8),
}

#: Optimizers by their own names.
_PLAIN = {
    "adam": Named(adam),
    "adamw": Named(adamw),
    "adamw_foreach": Named(adamw, {}, "foreach"),
    "adamw_fused": Named(adamw, {}, "fused"),
    "adamw_for_loop": Named(adamw, {}, "for-loop"),
    "nadam": Named(nadam),
    "radam": Named(radam),
    "adamax": Named(adamax),
    "adadelta": Named(adadelta),
    "sgd_momentum": Named(sgd, {"momentum": 0.9}),
    "lion": Named(lion),
    "torch_adafactor": Named(torch_adafactor),
    "torch_muon": Named(muon, {"variant": "torch"}),
    "muonclip": Named(muon),
    "came": Named(came),
    "galore": Named(galore),
    "galore_8bit": Named(galore, {"base": "adamw_8bit"}),
    "galore_adamw_8bit_per_layer": Named(galore, {"base": "adamw_8bit", "layerwise": True}),
    "q_galore": Named(galore, {"base": "adamw_8bit", "quantized_projector": True}),
    "apollo": Named(apollo),
    "apollo_mini": Named(apollo, {"scale_type": "tensor", "rank": 1}),
    "fira": Named(fira),
    "flora": Named(flora),
    "soap": Named(soap),
    "shampoo": Named(shampoo),
    "distributed_shampoo": Named(shampoo),
    "adam_mini": Named(adam_mini),
    "badam": Named(badam),
    "lisa": Named(lisa),
    "prodigy": Named(prodigy),
    "lora_fa": Named(lora_fa),
    "adopt": Named(adopt),
}

NAMES: Mapping[str, Named] = {**_PLAIN, **_CLASSES, **_AXOLOTL, **_TRAINER}

#: Other spellings of a name, once case, dots and dashes are gone.
_SPELLINGS = {
    "torch_optim_adamw": "adamw",
    "torch_optim_adam": "adam",
    "torch_optim_sgd": "sgd",
    "torch_optim_adafactor": "torch_adafactor",
    "torch_optim_muon": "torch_muon",
    "bitsandbytes_optim_pagedadamw": "paged_adamw",
    "bitsandbytes_optim_pagedadamw32bit": "paged_adamw_32bit",
    "bitsandbytes_optim_pagedadamw8bit": "paged_adamw_8bit",
    "bitsandbytes_optim_adamw8bit": "adamw_8bit",
    "torchao_optim_adamw8bit": "adamw_torch_8bit",
    "torchao_optim_adamw4bit": "adamw_torch_4bit",
    "torchao_optim_adamwfp8": "ao_adamw_fp8",
    "torchao_optim_cpuoffloadoptimizer": "torchao_cpu_offload",
    "pagedadamw": "paged_adamw",
    "pagedadamw8bit": "paged_adamw_8bit",
    "adamw8bit": "adamw_8bit",
    "adam8bit": "adamw_8bit",
    "fusedadam": "fused_adam",
    "deepspeedcpuadam": "deepspeed_cpu_adam",
    "cpuadam": "deepspeed_cpu_adam",
    "cpu_adam": "deepspeed_cpu_adam",
    "adammini": "adam_mini",
    "lorafa": "lora_fa",
    "ada_lomo": "adalomo",
    "q_galore_adamw_8bit": "q_galore",
    "schedulefree_adamw": "schedule_free_adamw",
    "stableadamw": "stable_adamw",
}


def find(name: str) -> Named:
    """What a name stands for.

    Raises
    ------
    BadInput
        For an unknown name, with those most like it.
    """
    key = name.strip().lower().replace("-", "_").replace(".", "_").replace(" ", "_")
    found = NAMES.get(key) or NAMES.get(_SPELLINGS.get(key, ""))
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(key, NAMES, 3, 0.5) or ["adamw", "adamw_8bit", "adafactor"]
        raise BadInput(f"unknown optimizer {name!r}", f"the closest names: {', '.join(near)}")
    return found
