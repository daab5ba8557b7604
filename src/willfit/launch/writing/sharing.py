"""Files that say how a run is shared over devices: accelerate's YAML, DeepSpeed's JSON, FSDP's JSON."""

from __future__ import annotations

import json
from typing import Any

from willfit.errors import BadInput
from willfit.launch.writing.yaml_text import Said, yaml_text
from willfit.training.settings import LayoutSettings, OffloadSettings, TrainingSettings

ACCELERATE, DEEPSPEED, FSDP = "accelerate.yaml", "deepspeed.json", "fsdp.json"

#: DeepSpeed's sizes in elements (`runtime/zero/config.py: DeepSpeedZeroConfig`).
_SIZES = {
    "reduce_bucket": "reduce_bucket_size", "allgather_bucket": "allgather_bucket_size",
    "prefetch_bucket": "stage3_prefetch_bucket_size", "max_live": "stage3_max_live_parameters",
    "max_reuse": "stage3_max_reuse_distance", "persistence": "stage3_param_persistence_threshold",
}  # fmt: skip

#: Fields of a layout that these files say; of others only defaults are written.
_SAID = {"data", "strategy", "reshard", "shards", "overlap", "contiguous", *_SIZES}


def zero_stage(settings: TrainingSettings) -> int | None:
    """The stage of ZeRO; None where states are not shared so."""
    data = settings.layout.data or ""
    return int(data[-1]) if data.startswith("zero") else None


def fsdp_version(settings: TrainingSettings) -> int | None:
    """Which FSDP it is; None where parameters are not shared so."""
    data = settings.layout.data or ""
    return int(data[-1]) if data.startswith("fsdp") else None


def require_sharing(layout: LayoutSettings, program: str) -> None:
    """Refuse layouts that no file of the Trainer's world says.

    Raises
    ------
    BadInput
        That names the first such setting.
    """
    usual = LayoutSettings()
    for name in LayoutSettings.__slots__:
        value = getattr(layout, name)
        if name not in _SAID and value != getattr(usual, name):
            raise BadInput(f"{program}: no command is written for {name} = {value}", "leave it out")
    if layout.data not in (None, "ddp", "fsdp1", "fsdp2", "zero1", "zero2", "zero3"):
        raise BadInput(f"{program}: no command is written for {layout.data}", "take --fsdp, --zero or --ddp")


def deepspeed_json(settings: TrainingSettings, ranks: int) -> str:
    """DeepSpeed's file, with the numbers that the Trainer would fill in.

    Parameters
    ----------
    ranks
        All processes.
    """
    stage = zero_stage(settings) or 0
    layout, offload = settings.layout, settings.offload
    zero: dict[str, Any] = {"stage": stage}
    for part, asked in (("offload_optimizer", offload.optimizer), ("offload_param", offload.params)):
        if asked:
            zero[part] = {"device": "nvme" if offload.nvme else "cpu"}
            zero[part] |= {} if offload.pinned is None else {"pin_memory": offload.pinned}
    for field, name in _SIZES.items():
        value = getattr(layout, field)
        if value is not None:
            zero[name] = value or "auto"
    for field, name in (("overlap", "overlap_comm"), ("contiguous", "contiguous_gradients")):
        if getattr(layout, field) is not None:
            zero[name] = getattr(layout, field)
    micro, accumulation = settings.micro_batch, settings.gradient_accumulation
    found: dict[str, Any] = {
        "train_batch_size": micro * accumulation * ranks,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": _half(settings) == "bf16"},
        "fp16": {"enabled": _half(settings) == "fp16"},
        "zero_optimization": zero,
    }
    if layout.shards:
        zero["mics_shard_size"] = layout.shards
    return json.dumps(found, indent=2) + "\n"


def _half(settings: TrainingSettings) -> str:
    """What the layers compute in; TRL's trainers in bfloat16 if nothing is said."""
    recipe = settings.precision.recipe or ""
    if settings.precision.compute is not None:
        return settings.precision.compute
    return "fp16" if "fp16" in recipe else "" if recipe == "fp32" else "bf16"


def fsdp_json(settings: TrainingSettings) -> str:
    """The Trainer's `fsdp_config`."""
    return json.dumps(_fsdp(settings, ""), indent=2) + "\n"


def _fsdp(settings: TrainingSettings, before: str) -> dict[str, Any]:
    layout, version = settings.layout, fsdp_version(settings)
    found: dict[str, Any] = {"version": version, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
    if version == 1:
        found["sharding_strategy"] = (layout.strategy or "full_shard").upper()
        found["use_orig_params"] = True
    elif layout.reshard is not None:
        found["reshard_after_forward"] = layout.reshard
    if settings.offload.params:
        found["offload_params"] = True
    return {before + name: value for name, value in found.items()}


def accelerate_yaml(settings: TrainingSettings, ranks: int, nodes: int) -> str:
    """The file for `accelerate launch --config_file`.

    Parameters
    ----------
    ranks, nodes
        All processes, and machines.
    """
    stage, second = zero_stage(settings), fsdp_version(settings)
    kind = (
        "DEEPSPEED"
        if stage is not None
        else "FSDP"
        if second is not None
        else "MULTI_GPU"
        if ranks > 1
        else "NO"
    )
    found: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": Said(kind, "how devices share the run"),
        "num_machines": nodes,
        "num_processes": Said(ranks, "one for each device"),
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": Said("no", "the trainer's own arguments say it"),
        "rdzv_backend": "static" if nodes == 1 else "c10d",
        "same_network": True,
        "use_cpu": False,
    }
    if stage is not None:
        found["deepspeed_config"] = _plugin(settings, stage, settings.offload)
    if second is not None:
        found["fsdp_config"] = _fsdp(settings, "fsdp_")
    return yaml_text(found)


def _plugin(settings: TrainingSettings, stage: int, offload: OffloadSettings) -> dict[str, Any]:
    """accelerate's own names (`utils/dataclasses.py: DeepSpeedPlugin`), which say no sizes."""
    device = "nvme" if offload.nvme else "cpu"
    return {
        "zero_stage": Said(stage, _ZERO[stage]),
        "offload_optimizer_device": device if offload.optimizer else "none",
        "offload_param_device": device if offload.params else "none",
        "zero3_init_flag": stage == 3,
        "zero3_save_16bit_model": stage == 3,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_clipping": 1.0,
    }


_ZERO = {
    1: "ranks share the optimizer's states",
    2: "ranks share the optimizer's states and gradients",
    3: "ranks share the optimizer's states, gradients and weights",
}


def sharing_reason(settings: TrainingSettings) -> str:
    """How the states are shared, in words."""
    stage = zero_stage(settings)
    if stage is not None:
        return _ZERO[stage]
    return (
        "ranks share weights, gradients and states"
        if fsdp_version(settings)
        else "each rank holds everything"
    )
