"""From axolotl's keys to a training run's settings."""

from __future__ import annotations

from typing import Any

from willfit.errors import BadInput
from willfit.launch.training import trainer_arguments as trainer
from willfit.launch.training import zero_config
from willfit.launch.training.fsdp_config import truth
from willfit.launch.training.keys import Keys
from willfit.launch.training.processes import Processes
from willfit.launch.training.sharing import Sharing
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    QuantizationSettings,
    RolloutSettings,
    TrainingSettings,
)  # fmt: skip

#: `rl`, and what it compares.
_OBJECTIVES = {
    "dpo": "dpo",
    "ipo": "dpo",
    "kto": "kto",
    "orpo": "orpo",
    "simpo": "simpo",
    "grpo": "grpo",
    "gdpo": "grpo",
}

#: Older keys that choose how attention is computed.
_ATTENTION = {
    "flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "xformers_attention": "xformers",
    "flex_attention": "flex_attention", "eager_attention": "eager", "sage_attention": "sage",
    "s2_attention": "flash_attention_2",
}  # fmt: skip

#: `liger_*` keys, in the words of the settings.
_LIGER = {
    "liger_rope": "rope", "liger_rms_norm": "rms_norm", "liger_layer_norm": "layer_norm", "liger_swiglu": "swiglu",
    "liger_glu_activation": "swiglu", "liger_cross_entropy": "cross_entropy",
}  # fmt: skip
_LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel",
                 "unsloth_lora_mlp", "unsloth_lora_qkv", "unsloth_lora_o")  # fmt: skip


def settings_of(
    keys: Keys, start: Processes, version: str | None, expandable: bool | None
) -> tuple[str, TrainingSettings, int | None, list[str]]:
    """The model, the settings that the keys say, how many devices they take, and notes.

    Parameters
    ----------
    keys
        A file with what the command changes.
    start
        The launcher in front.
    version
        Version of axolotl.
    expandable
        Whether the allocator's segments can grow, as the variables say.

    Raises
    ------
    BadInput
        If no model is named, or a value is of the wrong kind.
    """
    model = keys.word("base_model")
    if not model:
        raise BadInput(f"{keys.program}: base_model is required", "write base_model: MODEL")
    keys.see("base_model_config", "revision_of_model", "plugins", "world_size")
    sharing = _sharing(keys, start)
    notes = list(sharing.notes) if sharing else []
    objective = _objective(keys)
    packed = bool(keys.flag("sample_packing"))
    flattened = keys.get("batch_flattening")
    layout, devices = _layout(keys, sharing, start.devices)
    adapter, quantization = _adapter(keys), _quantization(keys)
    accumulation = keys.whole("gradient_accumulation_steps")
    micro = keys.whole("micro_batch_size") or 1
    total = keys.whole("batch_size")
    if accumulation is None and total is not None:
        accumulation = max(1, total // micro)
    settings = TrainingSettings(
        framework="axolotl",
        version=version,
        objective=objective,
        micro_batch=micro,
        seq_len=keys.whole("sequence_len"),
        gradient_accumulation=accumulation or 1,
        packed=packed,
        padding_free=bool(flattened) and flattened != "auto",
        padded=_padded(keys, packed),
        adapter=adapter,
        quantization=quantization,
        precision=_precision(keys),
        optimizer=_optimizer(keys),
        checkpointing=_checkpointing(keys, sharing),
        loss=_loss(keys),
        layout=LayoutSettings(**layout),
        offload=OffloadSettings(**(sharing.offload if sharing else {})),
        rollout=_rollout(keys) if objective == "grpo" else None,
        trained=keys.words("unfrozen_parameters"),
        attention=_attention(keys),
        kernels=_kernels(keys),
        compile=truth(keys.get("torch_compile")),
        classes=keys.whole("num_labels") or 0,
        precompute_reference=bool(keys.flag("precompute_ref_log_probs")),
        expandable_segments=expandable,
        empties_cache=_empties(keys),
        loader_workers=keys.whole("dataloader_num_workers", 0) or 0,
    )
    return model, settings, devices, notes


def _sharing(keys: Keys, start: Processes) -> Sharing | None:
    value = keys.get("deepspeed")
    if value:
        return zero_config.read(value, keys.program, "axolotl")
    return trainer.fsdp(keys) or start.sharing


def _objective(keys: Keys) -> str:
    text = keys.word("rl")
    if text and text != "False":
        return _OBJECTIVES.get(text, "dpo")
    if keys.flag("reward_model") or keys.flag("process_reward_model"):
        return "reward"
    if keys.get("pretraining_dataset") or keys.under("pretraining_dataset"):
        return "pretrain"
    return "classification" if keys.whole("num_labels") else "sft"


def _padded(keys: Keys, packed: bool) -> bool | None:
    """Whether sequences are filled up to `sequence_len`; packing does so unless it is told not to."""
    said = keys.flag("pad_to_sequence_len")
    keys.see("pad_to_multiple_of")
    return said if said is not None and not packed else None


def _precision(keys: Keys) -> PrecisionSettings:
    float8 = "tensorwise" if keys.flag("fp8") else None
    half = next(
        (dtype for names, dtype in ((("bf16", "bfloat16"), "bfloat16"), (("fp16", "float16"), "float16"))
         if any(_on(keys.get(name)) for name in names)), None,
    )  # fmt: skip
    keys.see("fp16", "float16", "float32", "bf16", "bfloat16")
    if half is None:
        said = any(name in keys.values for name in ("bf16", "fp16", "bfloat16", "float16", "float32"))
        return PrecisionSettings(weights="float32" if said else None, float8=float8)
    # The model is loaded in it (`utils/config/__init__.py: resolve_dtype`); but for `full` layers run under autocast.
    full = keys.get("bf16") == "full"
    return PrecisionSettings(weights=half, compute=half, autocast=not full, float8=float8)


def _on(value: Any) -> bool:
    return value in ("auto", "full") or truth(value)


def _quantization(keys: Keys) -> QuantizationSettings | None:
    keys.see("qlora_sharded_model_loading", "embeddings_skip_upcast")
    if keys.flag("load_in_8bit"):
        return QuantizationSettings("int8")
    if not keys.flag("load_in_4bit"):
        return QuantizationSettings("gptq") if keys.flag("gptq") else None
    options = trainer.mapping(keys, "bnb_config_kwargs")
    kind = str(options.get("bnb_4bit_quant_type", "nf4"))
    # `loaders/model.py`: values are packed in bfloat16, constants quantized too.
    double = options.get("bnb_4bit_use_double_quant", True) is not False
    return QuantizationSettings(
        kind,
        double_quant=double,
        storage="bfloat16",
    )


def _adapter(keys: Keys) -> AdapterSettings | None:
    kind = keys.word("adapter")
    rank = keys.whole("lora_r") or keys.whole("lora_rank")
    alpha, dropout = keys.number("lora_alpha"), keys.number("lora_dropout")
    targets, linear = keys.words("lora_target_modules"), keys.flag("lora_target_linear")
    modules = keys.words("lora_modules_to_save")
    dora, rslora = keys.flag("peft_use_dora"), keys.flag("peft_use_rslora")
    keys.see("lora_fan_in_fan_out", "lora_model_dir")
    if kind in (None, "", "None"):
        return None
    if kind not in ("lora", "qlora"):
        return AdapterSettings(kind=kind.replace("-", "_"), rank=rank or 8)
    if rank is None:
        raise BadInput(f"{keys.program}: adapter {kind} needs lora_r", "write lora_r: 16")
    return AdapterSettings(
        rank=rank,
        alpha=alpha,
        dropout=dropout or 0.0,
        targets=("all-linear",) if linear else targets,
        modules_to_save=modules,
        use_dora=bool(dora),
        use_rslora=bool(rslora),
    )


def _optimizer(keys: Keys) -> OptimizerSettings:
    arguments = (
        trainer.mapping(keys, "optim_args")
        if not isinstance(keys.get("optim_args"), str)
        else keys.get("optim_args")
    )
    keys.see("optim_target_modules")
    found = trainer.optimizer(keys.word("optimizer"), arguments)
    rank = keys.whole("qgalore_rank")
    if rank and found.name and "galore" in found.name:
        return OptimizerSettings(found.name, found.implementation, rank=rank, options=found.options)
    return found


def _checkpointing(keys: Keys, sharing: Sharing | None) -> CheckpointingSettings:
    value = keys.get("gradient_checkpointing")
    inside = trainer.mapping(keys, "gradient_checkpointing_kwargs")
    reentrant = inside.get("use_reentrant")
    reentrant = reentrant if isinstance(reentrant, bool) else None
    offloading = keys.get("activation_offloading")
    moved = value in ("unsloth", "offload", "offload_disk") or bool(offloading)
    on = value in ("unsloth", "offload", "offload_disk") or truth(value)
    on = on or bool(sharing and sharing.checkpointing)
    if not on and not moved:
        return CheckpointingSettings("none" if value is not None else None)
    if keys.flag("selective_checkpointing") or keys.has("selective_checkpointing.ops"):
        keys.see("selective_checkpointing")
        return CheckpointingSettings("selective-op", reentrant=reentrant, offload=moved)
    if not on:
        return CheckpointingSettings("none", offload=True)
    return CheckpointingSettings("full", reentrant=reentrant, offload=moved)


def _loss(keys: Keys) -> LossSettings:
    plugins = " ".join(keys.words("plugins")).lower()
    if keys.flag("cut_cross_entropy") or (
        "cutcrossentropy" in plugins and keys.get("cut_cross_entropy") is not False
    ):
        return LossSettings("cut")
    if keys.flag("liger_fused_linear_cross_entropy"):
        return LossSettings("liger")
    if keys.flag("chunked_cross_entropy"):
        return LossSettings("chunked", chunks=keys.whole("chunked_cross_entropy_num_chunks"))
    keys.see("chunked_cross_entropy_num_chunks")
    if keys.flag("flash_attn_cross_entropy") or keys.flag("unsloth_cross_entropy_loss"):
        return LossSettings("fused")
    return LossSettings()


def _kernels(keys: Keys) -> tuple[str, ...]:
    names = [word for key, word in _LIGER.items() if keys.flag(key)]
    fused = [keys.flag(key) for key in _LORA_KERNELS]
    names += ["lora"] if any(fused) else []
    names += ["rms_norm"] if keys.flag("unsloth_rms_norm") or keys.flag("flash_attn_rms_norm") else []
    names += ["rope"] if keys.flag("unsloth_rope") else []
    keys.see("liger_use_token_scaling", "liger_rms_norm_gated")
    return tuple(dict.fromkeys(names))


def _attention(keys: Keys) -> str | None:
    said = keys.word("attn_implementation")
    older = [kernel for key, kernel in _ATTENTION.items() if keys.flag(key)]
    if said:
        return "flash_attention_3" if "flash-attn3" in said else said
    return older[0] if older else None


def _rollout(keys: Keys) -> RolloutSettings:
    vllm = keys.flag("trl.use_vllm")
    share = keys.number("trl.vllm_gpu_memory_utilization") or keys.number("vllm.gpu_memory_utilization")
    mode = keys.word("trl.vllm_mode")
    found = RolloutSettings(
        engine="vllm" if vllm else "transformers",
        colocated=not vllm or mode == "colocate",
        memory_utilization=share,
        tp=keys.whole("vllm.tensor_parallel_size") or 1,
        generations=keys.whole("trl.num_generations") or 8,
        prompt_len=keys.whole("max_prompt_len"),
        completion_len=keys.whole("trl.max_completion_length"),
    )
    keys.see("trl", "vllm")
    return found


def _layout(keys: Keys, sharing: Sharing | None, devices: int | None) -> tuple[dict[str, Any], int | None]:
    layout: dict[str, Any] = dict(sharing.layout) if sharing else {}
    tp = keys.whole("tensor_parallel_size") or 1
    cp = keys.whole("context_parallel_size") or keys.whole("sequence_parallel_degree") or 1
    shards, replicas = keys.whole("dp_shard_size"), keys.whole("dp_replicate_size")
    ep = keys.whole("expert_parallel_size") or 1
    layout |= {"tp": tp} if tp > 1 else {}
    # Ring attention over the ranks that share a sequence.
    layout |= {"cp": cp} if cp > 1 else {}
    layout |= {"ep": ep} if ep > 1 else {}
    if replicas and replicas > 1 and shards:
        layout |= {"shards": shards, "strategy": "hybrid_shard"}
    bucket = keys.whole("ddp_bucket_cap_mb")
    layout |= {} if bucket is None else {"bucket_bytes": bucket * 2**20}
    keys.see("heads_k_stride", "ring_attn_func", "device_map")
    if devices is None and shards:
        devices = shards * (replicas or 1) * tp * cp
    return layout, devices


def _empties(keys: Keys) -> int:
    steps = (
        keys.whole("torch_empty_cache_steps", 0)
        or keys.whole("gc_collect_steps", -1)
        or keys.whole("gc_steps", -1)
        or 0
    )
    return max(0, steps)
