"""How a run of the Hugging Face world is shared over devices, and in which dtypes it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.training import trainer_arguments as trainer
from willfit.launch.training import zero_config
from willfit.launch.training.accelerate_config import parallelism
from willfit.launch.training.fsdp_config import truth
from willfit.launch.training.hf_values import any_flag, dtype
from willfit.launch.training.keys import Keys, nested
from willfit.launch.training.processes import Processes
from willfit.launch.training.scripts import Script
from willfit.launch.training.sharing import Sharing
from willfit.training.settings import PrecisionSettings

#: The Trainer takes FSDP2 if nothing is said since this version (`training_args.py: _process_fsdp_args`).
_SECOND_FSDP = (5, 10)


class Asked(NamedTuple):
    """What was asked.

    Attributes
    ----------
    keys
        Arguments, with those of files and the script's defaults.
    script
        What it does by itself.
    trainer
        TRL's trainer; None for other scripts.
    start
        The launcher in front.
    version
        Of the framework; None for the newest.
    versions
        Of what it stands on, where that is known.
    expandable
        Whether the allocator's segments can grow.
    """

    keys: Keys
    script: Script
    trainer: str | None
    start: Processes
    version: str | None
    versions: Mapping[str, str]
    expandable: bool | None = None


def sharing_of(asked: Asked) -> Sharing | None:
    """How the model is shared: by DeepSpeed's file, by the Trainer's FSDP, or by the launcher."""
    keys = asked.keys
    file = keys.get("deepspeed") or keys.get("deepspeed_config")
    inside = keys.under("deepspeed")
    stage = keys.whole("zero_stage", 0)
    if file is not None or inside:
        return zero_config.read(nested(inside) if inside else file, keys.program, "")
    if stage is not None:
        return zero_config.read(_of_stage(keys, stage), keys.program, "")
    if keys.flag("enable_fsdp"):
        return _cookbook(keys)
    second = None
    if asked.script.framework == "transformers" and asked.version is not None:
        second = 2 if parse_version(asked.version) >= _SECOND_FSDP else 1
    elif asked.script.framework in ("transformers", "trl"):
        second = 2
    return trainer.fsdp(keys, second) or asked.start.sharing


def _of_stage(keys: Keys, stage: int) -> dict[str, Any]:
    """What scripts with `--zero_stage` make of it (DeepSpeed-Chat `utils/ds_utils.py: get_train_ds_config`)."""
    device = {"device": "cpu" if keys.flag("offload") else "none"}
    sizes = {
        "stage3_param_persistence_threshold": 10_000,
        "stage3_max_live_parameters": 30_000_000,
        "stage3_prefetch_bucket_size": 30_000_000,
    }
    zero = {"stage": stage, "overlap_comm": True, "offload_param": device, "offload_optimizer": device}
    return {"zero_optimization": zero | (sizes if stage == 3 else {}), "optimizer": {"type": "AdamW"}}


def _cookbook(keys: Keys) -> Sharing:
    """`finetuning.py --enable_fsdp` (llama-cookbook `configs/fsdp.py`): blocks are checkpointed."""
    hybrid = keys.flag("hybrid_shard") or keys.get("fsdp_config.hsdp")
    layout = {"data": "fsdp1", "strategy": "hybrid_shard" if hybrid else "full_shard"}
    on_host = truth(keys.get("fsdp_config.fsdp_cpu_offload")) or truth(keys.get("fsdp_cpu_offload"))
    offload = {"params": True, "gradients": True, "optimizer": True} if on_host else {}
    checkpointing = keys.get("fsdp_config.fsdp_activation_checkpointing")
    mixed = keys.flag("mixed_precision") is not False and keys.flag("fsdp_config.pure_bf16") is not True
    half = {"compute": "fp16" if keys.flag("use_fp16") else "bf16"} if mixed else {}
    return Sharing(layout, offload, half, checkpointing=checkpointing is None or truth(checkpointing))


def half_of(keys: Keys, start: Processes, sharing: Sharing | None) -> str | None:
    """The 16-bit dtype of layers: of the script's arguments, of DeepSpeed's file, else of the launcher."""
    said = [name for name in ("bf16", "fp16") if keys.flag(name)]
    if len(said) > 1:
        raise BadInput(f"{keys.program}: bf16 and fp16 exclude each other", "give one of them")
    explicit = sharing.precision.get("compute") if sharing else None
    if said and explicit in ("bf16", "fp16") and explicit != said[0]:
        raise BadInput(
            f"{keys.program}: {said[0]} is asked for, and {explicit} in DeepSpeed's file",
            f'write "{said[0]}": {{"enabled": "auto"}} there',
        )
    if said or explicit == "fp32":
        return said[0] if said else None
    launched = start.mixed_precision if start.mixed_precision in ("bf16", "fp16") else None
    return explicit or launched or ("bf16" if start.mixed_precision == "fp8" else None)


def precision_of(asked: Asked, sharing: Sharing | None, half: str | None) -> PrecisionSettings:
    """Dtypes of the model as it is loaded, and of its layers.

    DeepSpeed casts a model to the 16-bit dtype that it computes in, whatever it was loaded in
    (`runtime/engine.py: _configure_distributed_model`).
    """
    keys, script = asked.keys, asked.script
    weights = dtype(keys, "torch_dtype") or dtype(keys, "dtype")
    inside = trainer.mapping(keys, "model_init_kwargs") if asked.trainer else {}
    for name in ("dtype", "torch_dtype"):
        if inside.get(name) is not None:
            weights = dtype(Keys(f"{keys.program}: model_init_kwargs", inside), name)
    pure = bool(any_flag(keys, ("pure_bf16", "fsdp_config.pure_bf16")))
    if script.weights in ("bf16", "fp16"):
        weights = weights or script.weights
    elif script.weights == "half":
        weights = weights or ("bf16" if half == "bf16" else "fp32")
    elif script.weights == "compute":
        weights = weights or half or "fp32"
    elif script.weights == "storage":
        storage = dtype(keys, "bnb_4bit_quant_storage_dtype")
        weights = weights or (storage if storage in ("bf16", "fp16", "fp32") else "fp32")
    if script.framework == "deepspeed":
        half, weights = (weights if weights in ("bf16", "fp16") else half), None
    elif pure:
        half, weights = "bf16", "bf16"
    said: dict[str, Any] = dict(sharing.precision) if sharing else {}
    shared = str((sharing.layout.get("data") if sharing else "") or "")
    if shared.startswith("zero") and half:
        weights = None
    if said.get("compute") is None:
        # TRL's trainers compute in bfloat16 unless they are told not to.
        plain = keys.flag("bf16") is False and weights == "fp32"
        said["compute"] = half or ("fp32" if plain else None)
    return PrecisionSettings(
        weights=weights, autocast=False if pure else None, float8=asked.start.float8, **said
    )


def layout_of(keys: Keys, asked: Asked, sharing: Sharing | None) -> dict[str, Any]:
    """Fields of `LayoutSettings`: what shares the model, and what the script's own arguments say."""
    layout: dict[str, Any] = dict(sharing.layout) if sharing else {}
    bucket = keys.whole("ddp_bucket_cap_mb")
    if bucket is not None:
        layout["bucket_bytes"] = bucket * 2**20
    tp = keys.whole("tp_size", 0)
    if tp and tp > 1:
        layout["tp"] = tp
    said = keys.get("device_map")
    inside = Keys(f"{keys.program}: parallelism_config", trainer.mapping(keys, "parallelism_config"))
    layout |= parallelism(inside, "")
    if not sharing and asked.start.alone and (said == "auto" or (said is None and asked.script.spread)):
        layout["device_map"] = True
    return layout
