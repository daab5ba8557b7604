"""From ms-swift's flags to a training run's settings."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.launch.config_files import read_json_settings
from willfit.launch.flags import did_you_mean
from willfit.launch.training import trainer_arguments as trainer
from willfit.launch.training import zero_config
from willfit.launch.training.keys import Keys, path_of
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

_DATA = Path(__file__).parents[1] / "data"

_RLHF = {"dpo": "dpo", "orpo": "orpo", "simpo": "simpo", "kto": "kto", "cpo": "orpo", "rm": "reward", "ppo": "ppo",
         "grpo": "grpo", "gkd": "sft"}  # fmt: skip

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "bfloat16": "bfloat16", "float16": "float16",
           "float32": "float32"}  # fmt: skip

_ATTENTION = {"flash_attn": "flash_attention_2", "flash_attention_2": "flash_attention_2", "sdpa": "sdpa",
              "eager": "eager", "flash_attention_3": "flash_attention_3",
              "flex_attention": "flex_attention"}  # fmt: skip

#: Micro-batches of a step if nothing is said: as many as make 16 sequences (`swift/trainers/arguments.py`).
_SEQUENCES = 16

#: `swift/arguments/tuner_args.py`, alike in 1.7 to 4.6.
_RANK, _ALPHA, _DROPOUT = 8, 32.0, 0.05


@cache
def models() -> dict[str, str]:
    """Models by the `--model_type` of versions 1 and 2."""
    lines = (_DATA / "swift_models.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def model_of_keys(keys: Keys) -> str:
    """The model that a command names.

    Raises
    ------
    BadInput
        If none is named, or a type is not known.
    """
    for name in ("model", "model_id_or_path", "load", "mcore_model"):
        found = keys.word(name)
        if found:
            keys.see("model_type")
            return found
    kind = keys.word("model_type")
    if kind is None:
        raise BadInput(f"{keys.program}: no model is named", "write --model MODEL")
    if kind not in models():
        raise BadInput(f"{keys.program}: model_type {kind[:60]} is not known", did_you_mean(kind, models()))
    return models()[kind]


def settings_of(
    keys: Keys, method: str, start: Processes, alone: bool, version: str | None, expandable: bool | None
) -> tuple[TrainingSettings, list[str]]:
    """The settings that the flags say, and notes.

    Parameters
    ----------
    keys
        The flags.
    method
        `sft`, `pt` or `rlhf`.
    start
        The launcher in front, with the number of processes.
    alone
        One process has all devices that it sees: layers are spread over them.
    version
        Version of ms-swift.
    expandable
        Whether the allocator's segments can grow, as the variables say.
    """
    sharing, devices = _sharing(keys, start), start.devices
    notes = list(sharing.notes) if sharing else []
    objective = _objective(keys, method)
    micro = keys.whole("per_device_train_batch_size") or keys.whole("batch_size") or 1
    accumulation = keys.whole("gradient_accumulation_steps")
    if accumulation is None:
        accumulation = max(1, math.ceil(_SEQUENCES / micro / (devices or 1)))
    packed = bool(keys.flag("packing"))
    layout, more = _layout(keys, sharing, devices, alone)
    kernels = ("liger",) if keys.flag("use_liger_kernel") or keys.flag("use_liger") else ()
    if keys.word("tuner_backend") == "unsloth":
        kernels = (*kernels, "unsloth")
    settings = TrainingSettings(
        framework="ms-swift",
        version=version,
        objective=objective,
        micro_batch=micro,
        seq_len=_length(keys),
        gradient_accumulation=accumulation,
        packed=packed,
        padding_free=bool(keys.flag("padding_free")) or packed,
        adapter=_adapter(keys),
        quantization=_quantization(keys),
        precision=_precision(keys),
        optimizer=_optimizer(keys),
        checkpointing=_checkpointing(keys, sharing),
        loss=LossSettings(),
        layout=LayoutSettings(**layout),
        offload=OffloadSettings(**(sharing.offload if sharing else {})),
        rollout=rollout_of(keys) if objective == "grpo" or generates(keys) else None,
        trained=keys.words("trainable_parameters"),
        attention=_attention(keys),
        kernels=kernels,
        compile=bool(keys.flag("torch_compile")),
        classes=keys.whole("num_labels") or 0,
        reference_model=True if keys.word("ref_model") or keys.word("ref_model_id_or_path") else None,
        expandable_segments=expandable,
        empties_cache=keys.whole("torch_empty_cache_steps", 0) or 0,
        loader_workers=keys.whole("dataloader_num_workers", 0) or 0,
    )
    return settings, [*notes, *more, *further(keys)]


def _objective(keys: Keys, method: str) -> str:
    kind = keys.word("rlhf_type", (*_RLHF,))
    task = keys.word("task_type")
    if method == "rlhf":
        return _RLHF[kind or "dpo"]
    if method == "pt":
        return "pretrain"
    return {"seq_cls": "classification", "embedding": "embedding", "reranker": "classification"}.get(
        task or "", "sft"
    )


def _length(keys: Keys) -> int | None:
    length = keys.whole("max_length", -1)
    return None if length is None or length < 1 else length


def _sharing(keys: Keys, start: Processes) -> Sharing | None:
    value = keys.get("deepspeed") or keys.get("deepspeed_config_path")
    keys.see("deepspeed_config_path")
    if value:
        found = zero_config.read(value, "ms-swift", "swift")
        shards = keys.whole("zero_hpz_partition_size")
        tp = keys.whole("deepspeed_autotp_size")
        layout = (
            found.layout
            | ({"shards": shards} if shards and shards > 1 else {})
            | ({"tp": tp} if tp and tp > 1 else {})
        )
        return found._replace(layout=layout)
    named = keys.words("fsdp")
    if named == ("fsdp2",):
        # `swift/config/fsdp2.json`: it also checkpoints by itself.
        keys.see("fsdp_config")
        layout = {"data": "fsdp2", "strategy": "full_shard", "reshard": True}
        return Sharing(layout, {}, {}, checkpointing=True)
    if len(named) == 1 and named[0].endswith(".json"):
        settings = read_json_settings(path_of(named[0]))
        if settings is None:
            raise BadInput(
                f"{keys.program}: {named[0][:80]} (fsdp) is not here", "give the path of a file that is"
            )
        inside = Keys(keys.program, {name: settings.get(name) for name in ("fsdp", "fsdp_config")})
        return trainer.fsdp(inside)
    return trainer.fsdp(keys) or start.sharing


def _layout(
    keys: Keys, sharing: Sharing | None, devices: int | None, alone: bool
) -> tuple[dict[str, Any], list[str]]:
    layout: dict[str, Any] = dict(sharing.layout) if sharing else {}
    ulysses = keys.whole("sequence_parallel_size") or 1
    layout |= {"ulysses": ulysses} if ulysses > 1 else {}
    bucket = keys.whole("ddp_bucket_cap_mb")
    layout |= {} if bucket is None else {"bucket_bytes": bucket * 2**20}
    keys.see("device_map")
    if not sharing and (alone or keys.get("device_map") == "auto"):
        # One process: transformers' `device_map: auto` spreads the layers.
        return {**layout, "data": "none", "device_map": devices != 1}, []
    return layout, []


def _precision(keys: Keys) -> PrecisionSettings:
    text = keys.word("torch_dtype") or keys.word("dtype")
    half = _DTYPES.get((text or "").lower())
    if keys.flag("bf16"):
        compute: str | None = "bfloat16"
    elif keys.flag("fp16"):
        compute = "float16"
    else:
        compute = half
    autocast = True if compute in ("bfloat16", "float16") else None
    adapter = keys.word("lora_dtype")
    trainable = _DTYPES.get((adapter or "").lower())
    return PrecisionSettings(weights=half, compute=compute, trainable=trainable, autocast=autocast)


def _quantization(keys: Keys) -> QuantizationSettings | None:
    bits = keys.word("quant_bits") or keys.word("quantization_bit")
    method = keys.word("quant_method")
    kind = keys.word("bnb_4bit_quant_type", ("nf4", "fp4")) or "nf4"
    double = keys.flag("bnb_4bit_use_double_quant")
    storage = keys.word("bnb_4bit_quant_storage")
    keys.see("bnb_4bit_compute_dtype", "bnb_4bit_comp_dtype")
    if method in ("awq", "gptq", "hqq", "fp8"):
        return QuantizationSettings(method)
    if bits in (None, "0", "None"):
        return None
    if bits == "8":
        return QuantizationSettings("int8")
    if bits != "4":
        raise BadInput(f"{keys.program}: quant_bits {bits} is not known for bitsandbytes", "known: 4, 8")
    return QuantizationSettings(kind, double_quant=double is not False, storage=storage)


def _adapter(keys: Keys) -> AdapterSettings | None:
    kind = keys.word("tuner_type") or keys.word("train_type") or keys.word("sft_type") or "lora"
    return adapter_of(keys, kind)


def adapter_of(keys: Keys, kind: str) -> AdapterSettings | None:
    """The adapter of a kind, with the flags that say more of it."""
    rank = keys.whole("lora_rank") or _RANK
    alpha, dropout = keys.number("lora_alpha"), keys.number("lora_dropout")
    old = keys.number("lora_dropout_p")
    targets = keys.words("target_modules") or keys.words("lora_target_modules")
    targets = tuple(part for word in targets for part in word.split())
    modules = keys.words("modules_to_save") or keys.words("lora_modules_to_save")
    dora, rslora = keys.flag("use_dora"), keys.flag("use_rslora")
    bias = keys.word("lora_bias") or keys.word("lora_bias_trainable") or "none"
    if kind == "full":
        return None
    if targets in (("ALL",), ("all-linear",)):
        targets = ("all-linear",)
    elif targets in (("DEFAULT",), ("AUTO",), ("auto",)):
        targets = ()
    kinds = {
        "longlora": "lora",
        "lora_llm": "lora",
        "llamapro": "full",
        "adapter": "bottleneck",
        "fourierft": "fourierft",
    }
    named = kinds.get(kind, kind)
    if named == "adalora":
        rank = keys.whole("adalora_init_r") or 12
    if named == "vera":
        rank = keys.whole("vera_rank") or 256
    dropout = old if dropout is None else dropout
    return AdapterSettings(
        kind=named,
        rank=rank,
        alpha=_ALPHA if alpha is None else alpha,
        dropout=_DROPOUT if dropout is None else dropout,
        targets=targets,
        modules_to_save=modules,
        use_dora=bool(dora),
        use_rslora=bool(rslora),
        bias=bias,
    )


def _optimizer(keys: Keys) -> OptimizerSettings:
    found = trainer.optimizer(keys.word("optim"), keys.get("optim_args"))
    own = keys.word("optimizer")
    if keys.flag("use_galore") or own == "galore":
        rank, gap = keys.whole("galore_rank") or 128, keys.whole("galore_update_proj_gap") or 50
        name = f"galore_{found.name or 'adamw'}"
        if keys.flag("galore_quantization"):
            name = "q_galore" if keys.flag("galore_proj_quant") else "galore_adamw_8bit"
        # One optimizer for each parameter, but all step behind the backward pass (`GaloreOptimizerWrapper`).
        keys.see("galore_target_modules", "galore_with_embedding", "galore_optim_per_parameter")
        return OptimizerSettings(name, rank=rank, options={"update_proj_gap": gap})
    if own in ("muon", "muonclip"):
        return OptimizerSettings("muon")
    layers = keys.whole("lisa_activated_layers", 0)
    if layers:
        return OptimizerSettings("lisa", options={"lisa_activated_layers": layers})
    return found


def _checkpointing(keys: Keys, sharing: Sharing | None) -> CheckpointingSettings:
    keys.see("vit_gradient_checkpointing", "vit_use_gc")
    moved = bool(sharing and sharing.activation_offload)
    if sharing and sharing.checkpointing:
        return CheckpointingSettings("full", offload=moved)
    return replace(trainer.checkpointing(keys), offload=moved)


def _attention(keys: Keys) -> str | None:
    text = keys.word("attn_impl")
    if text:
        return _ATTENTION.get(text, text)
    flash = (
        keys.flag("use_flash_attn")
        if str(keys.get("use_flash_attn")).lower() not in ("none", "auto")
        else None
    )
    return "flash_attention_2" if flash else None


def generates(keys: Keys) -> bool:
    """Whether distillation lets the student generate (`--rlhf_type gkd`)."""
    return keys.word("rlhf_type") == "gkd"


def rollout_of(keys: Keys) -> RolloutSettings:
    """The engine that generates, by the flags of GRPO (`swift/arguments/rlhf_args.py`)."""
    vllm = keys.flag("use_vllm")
    mode = keys.word("vllm_mode")
    server = bool(keys.words("vllm_server_host") or keys.words("vllm_server_base_url"))
    found = RolloutSettings(
        engine="vllm" if vllm else "transformers",
        colocated=mode == "colocate" or (mode is None and not server),
        memory_utilization=keys.number("vllm_gpu_memory_utilization") if vllm else None,
        tp=keys.whole("vllm_tensor_parallel_size") or 1,
        sleep_level=keys.whole("sleep_level", 0) or 0,
        generations=keys.whole("num_generations") or 8,
        prompt_len=keys.whole("max_prompt_length"),
        completion_len=keys.whole("max_completion_length"),
    )
    keys.see("vllm_max_model_len", "vllm_max_num_seqs", "beta", "num_iterations", "steps_per_generation",
             "generation_batch_size", "vllm_gpu_memory_utilization", "vllm_enforce_eager")  # fmt: skip
    return found


def further(keys: Keys) -> list[str]:
    """What can change memory and is not counted, in words."""
    notes = []
    frozen = [name for name in ("freeze_llm", "freeze_vit", "freeze_aligner") if keys.get(name) is not None]
    if frozen:
        said = ", ".join(f"{name} {str(keys.get(name)).lower()}" for name in frozen)
        notes.append(f"which parts of a multimodal model are trained ({said}) is not counted")
    ratio = keys.number("freeze_parameters_ratio")
    if ratio:
        notes.append(f"freeze_parameters_ratio {ratio} is not counted: all parameters are trained")
    teacher = keys.word("teacher_model")
    if teacher:
        notes.append(f"the teacher ({teacher[:60]}) is not counted")
    for name in ("offload_model", "offload_optimizer"):
        if keys.flag(name):
            notes.append(f"{name}: what lies on the host while the engine generates is not counted there")
    keys.see("beta", "router_aux_loss_coef", "max_pixels")
    return notes
