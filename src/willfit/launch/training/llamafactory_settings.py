"""From LLaMA-Factory's keys to a training run's settings."""

from __future__ import annotations

from dataclasses import replace

from willfit.errors import BadInput
from willfit.launch.training import trainer_arguments as trainer
from willfit.launch.training import zero_config
from willfit.launch.training.keys import Keys, nested
from willfit.launch.training.processes import Processes
from willfit.launch.training.sharing import Sharing
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)  # fmt: skip

_STAGES = {
    "pt": "pretrain",
    "sft": "sft",
    "rm": "reward",
    "ppo": "ppo",
    "dpo": "dpo",
    "kto": "kto",
    "orpo": "orpo",
}

#: `TrainingArguments.per_device_train_batch_size`.
_BATCH = 8

_ATTENTION = {"auto": None, "disabled": "eager", "off": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2",
              "fa3": "flash_attention_3", "true": "flash_attention_2", "false": None}  # fmt: skip

#: `finetuning_args.py`: ranks and gaps if nothing is said.
_RANKS = {"galore": 16, "apollo": 16}


def settings_of(
    keys: Keys, start: Processes, version: str | None, expandable: bool | None
) -> tuple[str, TrainingSettings, list[str]]:
    """The model, the settings that the keys say, and notes.

    Parameters
    ----------
    keys
        A file with what the command changes, or flags.
    start
        The launcher in front.
    version
        Version of LLaMA-Factory.
    expandable
        Whether the allocator's segments can grow.

    Raises
    ------
    BadInput
        If no model is named, or the keys contradict each other.
    """
    model = keys.word("model_name_or_path")
    if not model:
        raise BadInput(f"{keys.program}: model_name_or_path is required", "write model_name_or_path: MODEL")
    stage = keys.word("stage", _STAGES) or "sft"
    objective = _STAGES[stage]
    preference = keys.word("pref_loss") or keys.word("dpo_loss")
    if objective == "dpo" and preference in ("orpo", "simpo"):
        objective = preference
    if objective == "dpo" and preference == "kto_pair":
        objective = "dpo"
    sharing = _sharing(keys, start)
    notes = list(sharing.notes) if sharing else []
    method = keys.word("finetuning_type", ("lora", "oft", "freeze", "full", "none")) or "lora"
    quantization, more = _quantization(keys, method, start)
    notes += more
    adapter, trained = _adapter(keys, method)
    packing = keys.flag("packing")
    neat = bool(keys.flag("neat_packing"))
    settings = TrainingSettings(
        framework="llamafactory",
        version=version,
        objective=objective,
        micro_batch=keys.whole("per_device_train_batch_size")
        or keys.whole("per_gpu_train_batch_size")
        or _BATCH,
        seq_len=keys.whole("cutoff_len"),
        gradient_accumulation=keys.whole("gradient_accumulation_steps") or 1,
        # Pretraining packs unless it is told not to (`parser.py`).
        packed=bool(packing) or neat or (packing is None and stage == "pt"),
        adapter=adapter,
        quantization=quantization,
        precision=_precision(keys, start, sharing),
        optimizer=_optimizer(keys),
        checkpointing=_checkpointing(keys, sharing),
        layout=LayoutSettings(**({"bucket_bytes": _bucket(keys)} | (sharing.layout if sharing else {}))),
        offload=OffloadSettings(**(sharing.offload if sharing else {})),
        trained=trained,
        attention=_ATTENTION.get((keys.word("flash_attn") or "auto").lower()),
        kernels=_kernels(keys),
        compile=bool(keys.flag("torch_compile")),
        reference_model=True if keys.word("ref_model") else None,
        expandable_segments=expandable,
        empties_cache=keys.whole("torch_empty_cache_steps", 0) or 0,
        loader_workers=keys.whole("dataloader_num_workers", 0) or 0,
    )
    return model, settings, [*notes, *_further(keys, stage)]


def _sharing(keys: Keys, start: Processes) -> Sharing | None:
    value = keys.get("deepspeed")
    inside = keys.under("deepspeed")
    if value or inside:
        return zero_config.read(value or nested(inside), keys.program, "llamafactory")
    return trainer.fsdp(keys) or start.sharing


def _bucket(keys: Keys) -> int | None:
    megabytes = keys.whole("ddp_bucket_cap_mb")
    return None if megabytes is None else megabytes * 2**20


def _half(keys: Keys, start: Processes) -> str | None:
    if keys.flag("bf16") or keys.flag("pure_bf16"):
        return "bfloat16"
    if keys.flag("fp16"):
        return "float16"
    return {"bf16": "bfloat16", "fp16": "float16"}.get(start.mixed_precision or "")


def _precision(keys: Keys, start: Processes, sharing: Sharing | None) -> PrecisionSettings:
    half = _half(keys, start)
    pure = bool(keys.flag("pure_bf16"))
    float8 = "tensorwise" if keys.flag("fp8") else None
    if pure:
        return PrecisionSettings(
            weights="bfloat16", compute="bfloat16", trainable="bfloat16", autocast=False, float8=float8
        )
    return PrecisionSettings(compute=half, autocast=True if half else None, float8=float8)


def _quantization(keys: Keys, method: str, start: Processes) -> tuple[QuantizationSettings | None, list[str]]:
    bits = keys.whole("quantization_bit")
    kind = keys.word("quantization_type", ("nf4", "fp4")) or "nf4"
    double = keys.flag("double_quantization")
    by = (keys.word("quantization_method") or "bnb").lower()
    keys.see("quantization_device_map")
    if bits is None:
        return None, []
    if method not in ("lora", "oft"):
        raise BadInput(
            f"{keys.program}: quantization_bit is for LoRA or OFT only",
            "leave it out, or write finetuning_type: lora",
        )
    if by in ("bnb", "bitsandbytes"):
        if bits == 8:
            return QuantizationSettings("int8"), []
        if bits != 4:
            raise BadInput(f"{keys.program}: quantization_bit is {bits}, bitsandbytes has 4 and 8")
        return QuantizationSettings(kind, double_quant=double is not False, storage=_half(keys, start)), []
    if by == "hqq":
        return QuantizationSettings("hqq"), [f"{bits} bits of HQQ are counted as its default"]
    return QuantizationSettings("int8"), [f"{by} is counted as LLM.int8"]


def _adapter(keys: Keys, method: str) -> tuple[AdapterSettings | None, tuple[str, ...]]:
    modules = keys.words("additional_target")
    if method == "lora":
        rank = keys.whole("lora_rank") or 8
        alpha = keys.number("lora_alpha")
        targets = keys.words("lora_target")
        return AdapterSettings(
            rank=rank,
            alpha=2.0 * rank if alpha is None else alpha,
            dropout=keys.number("lora_dropout") or 0.0,
            targets=("all-linear",) if targets in ((), ("all",)) else targets,
            modules_to_save=modules,
            use_dora=bool(keys.flag("use_dora")),
            use_rslora=bool(keys.flag("use_rslora")),
        ), ()
    if method == "oft":
        targets = keys.words("oft_target")
        block = keys.whole("oft_block_size", 0)
        return AdapterSettings(
            kind="oft",
            rank=keys.whole("oft_rank", 0) or 0,
            dropout=keys.number("module_dropout") or 0.0,
            targets=("all-linear",) if targets in ((), ("all",)) else targets,
            modules_to_save=modules,
            options={"oft_block_size": 32 if block is None else block},
        ), ()
    if method == "freeze":
        count = keys.whole("freeze_trainable_layers", -(10**4))
        count = 2 if count is None else count
        names = [name for name in keys.words("freeze_trainable_modules") if name != "all"]
        layers = f"layers.-{count}:" if count > 0 else f"layers.:{-count}"
        return None, (
            *(f"{layers}.{name}" for name in names),
            *(() if names else (layers,)),
            *keys.words("freeze_extra_modules"),
        )
    return None, ()


def _optimizer(keys: Keys) -> OptimizerSettings:
    found = trainer.optimizer(keys.word("optim"), keys.get("optim_args"))
    keys.see("optim_target_modules")
    for name in ("galore", "apollo"):
        if keys.flag(f"use_{name}"):
            options: dict[str, object] = {}
            gap = keys.whole(f"{name}_update_interval")
            target = keys.words(f"{name}_target")
            options |= {"update_proj_gap": gap} if gap else {}
            options |= {"target": target} if target and target != ("all",) else {}
            base = "" if found.name is None else found.name.removeprefix("paged_")
            return OptimizerSettings(
                f"{name}_{base or 'adamw'}",
                in_backward=bool(keys.flag(f"{name}_layerwise")),
                rank=keys.whole(f"{name}_rank") or _RANKS[name],
                options=options,
            )
        keys.see(
            f"{name}_rank",
            f"{name}_layerwise",
            f"{name}_target",
            f"{name}_update_interval",
            f"{name}_proj_type",
        )
    if keys.flag("use_badam"):
        mode = keys.word("badam_mode", ("layer", "ratio")) or "layer"
        ratio = keys.number("badam_update_ratio")
        keys.see("badam_start_block", "badam_mask_mode")
        return OptimizerSettings(
            "badam", options={"mode": mode, "update_ratio": 0.05 if ratio is None else ratio}
        )
    if keys.flag("use_muon"):
        return OptimizerSettings("muon")
    if keys.flag("use_adam_mini"):
        return OptimizerSettings("adam_mini")
    return found


def _checkpointing(keys: Keys, sharing: Sharing | None) -> CheckpointingSettings:
    keys.see("gradient_checkpointing", "gradient_checkpointing_kwargs")
    off = keys.flag("disable_gradient_checkpointing")
    reentrant = keys.flag("use_reentrant_gc")
    if off:
        return CheckpointingSettings("none")
    found = CheckpointingSettings(None if off is None else "full", reentrant=reentrant)
    if keys.flag("use_unsloth_gc"):
        # Layers' inputs go to the host (`model_utils/checkpointing.py: get_unsloth_gradient_checkpointing_func`).
        return replace(found, kind="full", offload=True)
    return found


def _kernels(keys: Keys) -> tuple[str, ...]:
    names = []
    if keys.flag("enable_liger_kernel") or keys.flag("use_liger_kernel"):
        names.append("liger")
    if keys.flag("use_unsloth"):
        names.append("unsloth")
    return tuple(names)


def _further(keys: Keys, stage: str) -> list[str]:
    """What can change memory and is not counted, in words."""
    notes = []
    if stage == "ppo":
        notes.append("the value head and the reward model are not counted")
        keys.see(
            "reward_model", "reward_model_type", "reward_model_adapters", "reward_model_quantization_bit"
        )
    keys.see("use_cache", "use_kv_cache", "max_length")
    if keys.flag("resize_vocab"):
        notes.append("a vocabulary that is resized is counted at its size before")
    return notes
