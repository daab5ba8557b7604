"""From arguments of a script of the Hugging Face world to a training run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.training import trainer_arguments as trainer
from willfit.launch.training import zero_config
from willfit.launch.training.accelerate_config import parallelism
from willfit.launch.training.fsdp_config import truth
from willfit.launch.training.hf_adapter import adapter_of, quantization_of
from willfit.launch.training.hf_values import any_flag, dtype, first, first_whole
from willfit.launch.training.keys import Keys
from willfit.launch.training.processes import Processes
from willfit.launch.training.scripts import Script
from willfit.launch.training.sharing import Sharing
from willfit.launch.training.trl_settings import Objective, objective_of
from willfit.training.settings import (
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

#: Names of the model, the batch, the accumulation and the length.
_MODELS = ("model_name_or_path", "model_name", "base_model", "actor_model_name_or_path", "sft_model_path")
_BATCHES = (
    "per_device_train_batch_size", "per_gpu_train_batch_size", "micro_batch_size", "per_device_batch_size",
    "batch_size_training", "samples_per_gpu",
)  # fmt: skip
_LENGTHS = (
    "max_seq_length", "max_seq_len", "model_max_length", "max_length", "block_size", "cutoff_len", "context_length",
    "seq_length", "seq_len", "max_source_length",
)  # fmt: skip
_FLASH = ("use_flash_attn", "use_flash_attention_2", "use_flash_attention", "use_flash_attn_2", "flash_attn")

#: The Trainer takes FSDP2 if nothing is said since this version (`training_args.py: _process_fsdp_args`).
_SECOND_FSDP = (5, 10)

#: Classes of GLUE's tasks that have not two.
_GLUE = {"mnli": 3, "stsb": 1}

#: Kernels that `liger_kernel_config` can leave out.
_LIGER = ("rope", "rms_norm", "swiglu", "cross_entropy")


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


def settings_of(asked: Asked) -> tuple[str, TrainingSettings, list[str]]:
    """The model, the settings that the arguments say, and notes.

    Raises
    ------
    BadInput
        If no model is named, or the arguments contradict each other.
    """
    keys, script, start = asked.keys, asked.script, asked.start
    model = _model(keys)
    if any_flag(keys, ("use_cpu", "no_cuda")):
        raise BadInput(f"{keys.program} trains without a GPU", "leave --use_cpu out")
    sharing = _sharing(asked)
    half = _half(keys, start, sharing)
    adapter, more = adapter_of(keys, script, half)
    quantization, quantized = quantization_of(keys, script, half)
    objective = _objective(asked, adapter is not None)
    sharing_notes = sharing.notes if sharing else ()
    layout = _layout(keys, asked, sharing)
    micro = first_whole(keys, _BATCHES) or (sharing.micro_batch if sharing else None)
    micro = micro or (keys.whole("batch_size") if asked.trainer else None) or 8
    settings = TrainingSettings(
        framework=script.framework,
        version=asked.version,
        versions=asked.versions,
        objective=objective.name,
        micro_batch=micro,
        seq_len=objective.seq_len,
        gradient_accumulation=_accumulation(keys, micro, sharing),
        packed=script.packed or bool(keys.flag("packing")) or keys.get("batching_strategy") == "packing",
        padding_free=bool(keys.flag("padding_free")),
        padded=True if keys.flag("pad_to_max_length") else None,
        adapter=adapter,
        quantization=quantization,
        precision=_precision(asked, sharing, half),
        optimizer=_optimizer(keys, sharing),
        checkpointing=_checkpointing(keys, sharing),
        loss=_loss(keys),
        layout=LayoutSettings(**layout),
        offload=OffloadSettings(**(sharing.offload if sharing else {})),
        rollout=objective.rollout,
        attention=_attention(keys, script),
        kernels=_kernels(keys),
        compile=bool(keys.flag("torch_compile") or keys.word("torchdynamo"))
        or bool(sharing and sharing.compile),
        use_cache=bool(keys.flag("use_cache")),
        classes=_classes(keys, objective.name),
        reference_model=objective.reference,
        precompute_reference=objective.precomputed,
        expandable_segments=asked.expandable,
        empties_cache=keys.whole("torch_empty_cache_steps", 0) or 0,
    )
    return model, settings, [*more, *quantized, *objective.notes, *sharing_notes]


def _model(keys: Keys) -> str:
    model = first(keys, _MODELS)
    if model is None:
        # A model with new weights (`run_clm.py --config_name`).
        model = keys.word("config_name") or keys.word("model_type")
    keys.see("config_name", "model_type", "tokenizer_name")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{keys.program}: no model is named", "write --model_name_or_path MODEL")
    if model.startswith(("$", "<")):
        raise BadInput(f"{keys.program}: the model is {model[:40]}, which is not set here", "write its name")
    return model


def _sharing(asked: Asked) -> Sharing | None:
    """How the model is shared: by DeepSpeed's file, by the Trainer's FSDP, or by the launcher."""
    keys = asked.keys
    file = keys.get("deepspeed") or keys.get("deepspeed_config")
    inside = keys.under("deepspeed")
    stage = keys.whole("zero_stage", 0)
    if file is not None or inside:
        return zero_config.read(_nested(inside) if inside else file, keys.program, "")
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
    return Sharing(layout, offload, {}, checkpointing=checkpointing is None or truth(checkpointing))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Names with dots as mappings inside each other."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        inside = found
        for part in outer:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return found


def _half(keys: Keys, start: Processes, sharing: Sharing | None) -> str | None:
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


def _precision(asked: Asked, sharing: Sharing | None, half: str | None) -> PrecisionSettings:
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
    pure = bool(keys.flag("pure_bf16"))
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
        said["compute"] = half
    return PrecisionSettings(
        weights=weights, autocast=False if pure else None, float8=asked.start.float8, **said
    )


def _accumulation(keys: Keys, micro: int, sharing: Sharing | None) -> int:
    said = keys.whole("gradient_accumulation_steps")
    batch = keys.whole("batch_size")
    if said is None and keys.get("micro_batch_size") is not None and batch:
        said = max(1, batch // micro)
    return said or (sharing.accumulation if sharing else None) or 1


def _objective(asked: Asked, adapted: bool) -> Objective:
    keys, script = asked.keys, asked.script
    if asked.trainer is not None:
        return objective_of(keys, asked.trainer, asked.version, adapted)
    length = first_whole(keys, _LENGTHS)
    source, target = keys.whole("source_max_len"), first_whole(keys, ("target_max_len", "max_target_length"))
    if source and target and keys.get("bits") is not None:
        length = source + target
    prompt = keys.whole("max_prompt_seq_len"), keys.whole("max_answer_seq_len")
    if length is None and prompt[0] and prompt[1]:
        length = prompt[0] + prompt[1]
    return Objective(script.objective or "sft", length)


def _optimizer(keys: Keys, sharing: Sharing | None) -> OptimizerSettings:
    name = keys.word("optim") or keys.word("optimizer")
    targets = keys.words("optim_target_modules")
    found = trainer.optimizer(name, keys.get("optim_args") or keys.under("optim_args"))
    if keys.flag("use_8bit_optimizer"):
        found = replace(found, name="adamw_8bit")
    if targets:
        found = replace(found, options={**found.options, "target": targets})
    if keys.flag("adafactor"):
        found = OptimizerSettings("adafactor")
    return sharing.optimizer if sharing and sharing.optimizer else found


def _checkpointing(keys: Keys, sharing: Sharing | None) -> CheckpointingSettings:
    found = trainer.checkpointing(keys)
    reentrant = any_flag(keys, ("use_reentrant", "gradient_checkpointing_use_reentrant"))
    if found.kind is None and keys.flag("use_gradient_checkpointing"):
        found = replace(found, kind="full")
    if reentrant is not None and found.reentrant is None and found.kind != "none":
        found = replace(found, reentrant=reentrant)
    if sharing and sharing.checkpointing:
        # torch's `checkpoint_wrapper`, which does not reenter autograd.
        found = replace(found, kind="full", reentrant=False)
    if keys.flag("activation_offloading") or (sharing and sharing.activation_offload):
        found = replace(found, offload=True)
    return found


def _layout(keys: Keys, asked: Asked, sharing: Sharing | None) -> dict[str, Any]:
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


def _attention(keys: Keys, script: Script) -> str | None:
    said = keys.word("attn_implementation") or keys.word("attn_impl")
    flash = any_flag(keys, _FLASH)
    if said is None and flash:
        said = "flash_attention_2"
    if said is None and keys.flag("use_fast_kernels"):
        said = "sdpa"
    said = said or script.attention
    if said is not None and "/" in said:
        # Kernels of the Hub (`kernels-community/vllm-flash-attn3`).
        return "flash_attention_3" if "attn3" in said else "flash_attention_2" if "flash" in said else said
    return said


def _kernels(keys: Keys) -> tuple[str, ...]:
    found = []
    liger = any_flag(keys, ("use_liger_kernel", "use_liger", "use_liger_loss"))
    config = trainer.mapping(keys, "liger_kernel_config")
    if liger and config:
        found += [name for name in _LIGER if truth(config.get(name, name != "cross_entropy"))]
    elif liger:
        found.append("liger")
    if keys.flag("use_unsloth"):
        found.append("unsloth")
    return tuple(found)


def _loss(keys: Keys) -> LossSettings:
    """Liger's loss with the head in it, where its other kernels are told apart."""
    config = trainer.mapping(keys, "liger_kernel_config")
    fused = config and truth(config.get("fused_linear_cross_entropy", True))
    return LossSettings("liger") if fused and keys.flag("use_liger_kernel") else LossSettings()


def _classes(keys: Keys, objective: str) -> int:
    task = (keys.word("task_name") or "").lower()
    count = keys.whole("classes")
    return _GLUE.get(task, count or 2) if objective == "classification" else 0
