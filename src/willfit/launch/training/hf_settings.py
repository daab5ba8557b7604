"""From arguments of a script of the Hugging Face world to a training run's settings."""

from __future__ import annotations

from dataclasses import replace

from willfit.errors import BadInput
from willfit.launch.training import trainer_arguments as trainer
from willfit.launch.training.fsdp_config import truth
from willfit.launch.training.hf_adapter import adapter_of, quantization_of
from willfit.launch.training.hf_sharing import Asked, half_of, layout_of, precision_of, sharing_of
from willfit.launch.training.hf_values import any_flag, first, first_whole
from willfit.launch.training.keys import Keys
from willfit.launch.training.scripts import Script
from willfit.launch.training.sharing import Sharing
from willfit.launch.training.trl_settings import Objective, objective_of
from willfit.training.settings import (
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    OptimizerSettings,
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

#: Classes of GLUE's tasks that have not two.
_GLUE = {"mnli": 3, "stsb": 1}

#: Kernels that `liger_kernel_config` can leave out.
_LIGER = ("rope", "rms_norm", "swiglu", "cross_entropy")


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
    sharing = sharing_of(asked)
    half = half_of(keys, start, sharing)
    adapter, more = adapter_of(keys, script, half)
    quantization, quantized = quantization_of(keys, script, half)
    objective = _objective(asked, adapter is not None)
    sharing_notes = sharing.notes if sharing else ()
    layout = layout_of(keys, asked, sharing)
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
        precision=precision_of(asked, sharing, half),
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
        loader_workers=keys.whole("dataloader_num_workers", 0) or 0,
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
