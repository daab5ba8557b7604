"""From the keys of a torchtune config to a training run's settings, and to its model."""

from __future__ import annotations

from typing import Any

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.flags import did_you_mean
from willfit.launch.training.keys import Keys
from willfit.launch.training.optimizer_classes import of_class
from willfit.launch.training.torchtune_configs import NEWEST, builders, model_of
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

#: `torchtune/training/precision.py: PRECISION_STR_TO_DTYPE`.
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}

#: The names that PEFT gives to torchtune's modules.
_MODULES = {"output_proj": "o_proj"}
_MLP = ("gate_proj", "down_proj", "up_proj")

#: What builders of adapted models take for granted (`torchtune/models/*/_model_builders.py`, 0.1 to 0.7).
_RANK, _ALPHA = 8, 16

#: FSDP's second version in all recipes for several devices.
_FSDP2_SINCE = (0, 3)

#: Losses that take the head's output in pieces, and into how many if nothing is said.
_LOSSES = {
    "CrossEntropyLoss": "hf",
    "CEWithChunkedOutputLoss": "chunked",
    "ForwardKLWithChunkedOutputLoss": "chunked",
    "LinearCrossEntropyLoss": "chunked-head",
    "LigerLinearCrossEntropy": "liger",
}
_CHUNKS = 8

#: The keys of a recipe that name its model.
_MODEL_KEYS = ("model", "policy_model")

#: Builders that take sizes (`torchtune/models/*/_component_builders.py`), and the type of a config that says the same.
_SIZED = {
    "llama2": "llama", "llama3": "llama", "llama3_1": "llama", "llama3_2": "llama", "mistral": "mistral",
    "qwen2": "qwen2", "phi3": "phi3", "llama2_classifier": "llama", "mistral_classifier": "mistral",
}  # fmt: skip
_SIZES = {
    "vocab_size": "vocab_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads", "embed_dim": "hidden_size",
    "max_seq_len": "max_position_embeddings",
}  # fmt: skip


def _builder(keys: Keys) -> tuple[str, str]:
    """The key that names the model, and its builder."""
    name = next((name for name in _MODEL_KEYS if keys.has(name)), "model")
    path = keys.word(f"{name}._component_")
    if not path:
        raise BadInput(
            f"{keys.program}: the config names no model", "write model._component_=torchtune.models...."
        )
    return name, path.rpartition(".")[2]


def model_of_keys(keys: Keys) -> tuple[str, dict[str, Any] | None]:
    """The model that a config's builder makes, and its config where the builder takes sizes.

    Raises
    ------
    BadInput
        If no model is named, or the builder is not known.
    """
    where, builder = _builder(keys)
    plain = builder.removeprefix("q").removeprefix("lora_") if "lora_" in builder[:6] else builder
    model = model_of(plain)
    if model is not None:
        return model, None
    if plain not in _SIZED or not keys.has(f"{where}.num_layers"):
        raise BadInput(f"torchtune has no model {builder[:60]}", did_you_mean(plain, builders()))
    config: dict[str, Any] = {"model_type": _SIZED[plain]}
    for size, field in _SIZES.items():
        value = keys.whole(f"{where}.{size}")
        if value is not None:
            config[field] = value
    missing = [size for size, field in _SIZES.items() if field not in config and size != "num_kv_heads"]
    if missing:
        raise BadInput(f"{keys.program}: {builder} needs {', '.join(missing)}")
    width = keys.whole(f"{where}.intermediate_dim") or _scaled(config["hidden_size"])
    config["intermediate_size"] = width
    config["tie_word_embeddings"] = plain == "llama3_2" or bool(keys.flag(f"{where}.tie_word_embeddings"))
    return f"{plain} of {config['num_hidden_layers']} layers", config


def _scaled(width: int, multiple: int = 256) -> int:
    """The MLP's width if none is said (`torchtune/models/llama2/_model_utils.py: scale_hidden_dim_for_mlp`)."""
    scaled = 4 * int(2 * width / 3)
    return multiple * -(-scaled // multiple)


def settings_of(
    keys: Keys, objective: str, distributed: bool, version: str | None
) -> tuple[TrainingSettings, list[str]]:
    """The settings that a config says, and notes.

    Parameters
    ----------
    keys
        The config.
    objective, distributed
        As the recipe has them.
    version
        Version of torchtune; None for the newest.
    """
    notes: list[str] = []
    said: dict[str, Any] = {"framework": "torchtune", "version": version, "objective": objective}
    accumulation = keys.whole("gradient_accumulation_steps")
    if accumulation is not None:
        said["gradient_accumulation"] = accumulation
    batch = keys.whole("batch_size")
    if objective == "ppo":
        batch = keys.whole("ppo_batch_size") or batch
        batch = max(1, (batch or 1) // (accumulation or 1))
        notes.append("the reward and value models, of the policy's size, are not counted")
        keys.see("reward_and_value_model", "batch_size")
    if batch is not None:
        said["micro_batch"] = batch
    said["seq_len"] = keys.whole("tokenizer.max_seq_len") or keys.whole("dataset.max_seq_len")
    said["packed"] = bool(keys.flag("dataset.packed") or keys.flag("dataloader.packed"))
    if objective in ("ppo", "grpo"):
        said["rollout"] = _rollout(keys, said["seq_len"])
        if objective == "grpo":
            keys.see("batch_size")
    adapter, quantization = _adapter(keys)
    return (
        TrainingSettings(
            **said,
            adapter=adapter,
            quantization=quantization,
            precision=_precision(keys),
            optimizer=_optimizer(keys),
            checkpointing=_checkpointing(keys),
            loss=_loss(keys),
            layout=_layout(keys, distributed, version),
            offload=_offload(keys),
            compile=_compiled(keys),
        ),
        [*notes, *_further(keys)],
    )


def _rollout(keys: Keys, prompt: int | None) -> RolloutSettings:
    said: dict[str, Any] = {"engine": "transformers", "generations": keys.whole("grpo_samples") or 1}
    if keys.has("orchestration.num_inference_workers"):
        said |= {"engine": "vllm", "colocated": False}
        keys.see("orchestration")
    return RolloutSettings(**said, prompt_len=prompt, completion_len=keys.whole("max_generated_tokens"))


def _adapter(keys: Keys) -> tuple[AdapterSettings | None, QuantizationSettings | None]:
    where, builder = _builder(keys)
    quantized = builder.startswith("qlora_") or bool(keys.flag(f"{where}.quantize_base"))
    if "lora_" not in builder[:6]:
        return None, None
    targets = [_MODULES.get(name, name) for name in keys.words(f"{where}.lora_attn_modules")]
    if keys.flag(f"{where}.apply_lora_to_mlp"):
        targets += _MLP
    if keys.flag(f"{where}.apply_lora_to_output"):
        targets.append("lm_head")
    alpha = keys.number(f"{where}.lora_alpha")
    adapter = AdapterSettings(
        rank=keys.whole(f"{where}.lora_rank") or _RANK,
        alpha=_ALPHA if alpha is None else alpha,
        dropout=keys.number(f"{where}.lora_dropout") or 0.0,
        targets=tuple(targets),
        use_dora=bool(keys.flag(f"{where}.use_dora")),
    )
    # torchao's NF4Tensor always quantizes its scales, too (`torchao/dtypes/nf4tensor.py`).
    return adapter, QuantizationSettings("nf4", double_quant=True) if quantized else None


def _precision(keys: Keys) -> PrecisionSettings:
    text = keys.word("dtype", _DTYPES)
    float8 = None
    if keys.flag("enable_fp8_training"):
        float8 = keys.word("fp8_recipe_name", ("tensorwise", "rowwise", "rowwise_with_gw_hp")) or "tensorwise"
    else:
        keys.see("fp8_recipe_name")
    return PrecisionSettings(weights=_DTYPES[text] if text else None, float8=float8)


def _optimizer(keys: Keys) -> OptimizerSettings:
    options = keys.under("optimizer")
    path = options.pop("_component_", None)
    in_backward = bool(keys.flag("optimizer_in_bwd"))
    if path is None:
        return OptimizerSettings(in_backward=in_backward)
    if not isinstance(path, str):
        raise keys.wrong("optimizer._component_", "the path of a class")
    found = of_class(path, options)
    return OptimizerSettings(found.name, found.implementation, found.momentum, in_backward)


def _checkpointing(keys: Keys) -> CheckpointingSettings:
    offload = bool(keys.flag("enable_activation_offloading"))
    mode = keys.word("ac_mode", ("none", "full", "selective"))
    option = keys.get("ac_option")
    if mode == "selective" and option == "op":
        return CheckpointingSettings("selective-op", offload=offload)
    if mode == "selective":
        every = keys.whole("ac_option", 0)
        return CheckpointingSettings("full", every=every or 1, offload=offload)
    on = keys.flag("enable_activation_checkpointing")
    if on or mode == "full":
        return CheckpointingSettings("full", offload=offload)
    return CheckpointingSettings(None if on is None else "none", offload=offload)


def _loss(keys: Keys) -> LossSettings:
    path = keys.word("loss._component_")
    distilled = keys.word("kd_loss._component_")
    name = (distilled or path or "").rpartition(".")[2]
    chunks = keys.whole("loss.num_output_chunks")
    kind = _LOSSES.get(name)
    if kind in ("chunked", "chunked-head"):
        return LossSettings(kind, chunks=chunks or _CHUNKS)
    return LossSettings(kind)


def _layout(keys: Keys, distributed: bool, version: str | None) -> LayoutSettings:
    if not distributed:
        return LayoutSettings(data="none")
    second = parse_version(version or NEWEST) >= _FSDP2_SINCE
    own = keys.words("custom_sharded_layers") or keys.flag("memory_efficient_fsdp_wrap")
    replicas = keys.whole("data_parallel_replicate_dim", -1)
    shards = keys.whole("data_parallel_shard_dim", -1)
    keys.see("tensor_parallel_plan")
    return LayoutSettings(
        data="fsdp2" if second else "fsdp1",
        strategy="hybrid_shard" if replicas is not None and replicas > 1 else None,
        dp=replicas * shards if replicas and shards and replicas > 0 and shards > 0 else None,
        shards=shards if shards is not None and shards > 0 else None,
        tp=keys.whole("tensor_parallel_dim") or 1,
        cp=keys.whole("context_parallel_dim") or 1,
        # Embedding and head are units of their own beside the blocks.
        wrap="block" if own else None,
        reshard=keys.flag("fsdp_reshard_after_forward"),
    )


def _offload(keys: Keys) -> OffloadSettings:
    if keys.flag("fsdp_cpu_offload") or keys.flag("fsdp.cpu_offload"):
        return OffloadSettings(params=True, gradients=True, optimizer=True)
    if (keys.word("optimizer._component_") or "").endswith("CPUOffloadOptimizer"):
        # torchao: states lie on the host, gradients are moved there if it is said.
        return OffloadSettings(optimizer=True, gradients=bool(keys.flag("optimizer.offload_gradients")))
    return OffloadSettings()


def _compiled(keys: Keys) -> bool:
    if "compile" in keys.values:
        return bool(keys.flag("compile"))
    parts = keys.under("compile")
    return parts.get("model") is True


def _further(keys: Keys) -> list[str]:
    """What can change memory and is not counted, in words."""
    notes = []
    if keys.has("teacher_model"):
        notes.append(f"the teacher ({keys.word('teacher_model._component_')}) is not counted")
        keys.see("teacher_model")
    quantizer = keys.word("quantizer._component_")
    if quantizer:
        notes.append(f"fake quantization ({quantizer}) is not counted")
        keys.see("quantizer")
    trainable = [name for name in ("decoder", "encoder", "fusion") if keys.has(f"model.{name}_trainable")]
    if trainable:
        said = ", ".join(f"{name} {keys.get(f'model.{name}_trainable')}" for name in trainable)
        notes.append(f"which of decoder, encoder and fusion layers are trained ({said}) is not counted")
    return notes
