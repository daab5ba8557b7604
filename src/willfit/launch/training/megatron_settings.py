"""From Megatron-LM's flags to a training run's settings."""

from __future__ import annotations

from typing import Any

from willfit.errors import BadInput
from willfit.launch.training.keys import Keys
from willfit.training.settings import (
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    RolloutSettings,
    TrainingSettings,
)  # fmt: skip

PROGRAM = "Megatron-LM"

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp8": "float8"}

#: `--fp8-recipe` (`megatron/core/fp8_utils.py`); without it Transformer Engine scales by earlier steps.
_FP8 = {"delayed": "te-delayed", "tensorwise": "te-current", "blockwise": "te-blockwise", "mxfp8": "mxfp8"}

#: `--data-parallel-sharding-strategy` of Megatron-FSDP.
_SHARDING = {
    "no_shard": "ddp", "optim": "zero1", "optim_grads": "zero2", "optim_grads_params": "zero3",
}  # fmt: skip

_ATTENTION = {"flash": "flash_attention_2", "fused": "te", "unfused": "eager", "local": "eager", "auto": None}

#: Dropout if nothing is said, of attention and of what layers add (`arguments.py: _add_network_size_args`).
_DROPOUT = 0.1


def settings_of(
    keys: Keys, devices: int | None, layers: int | None, version: str | None, expandable: bool | None
) -> tuple[TrainingSettings, list[str]]:
    """The settings that the flags say, and notes.

    Parameters
    ----------
    keys
        The flags.
    devices
        All processes; None if not known.
    layers
        Of the model; None if not known.
    version
        Version of Megatron Core.
    expandable
        Whether the allocator's segments can grow, as the variables say.

    Raises
    ------
    BadInput
        If the ranks do not divide the devices, or the micro-batch is missing.
    """
    notes: list[str] = []
    micro = keys.whole("micro_batch_size") or keys.whole("batch_size")
    if micro is None:
        raise BadInput(f"{PROGRAM}: --micro-batch-size is required")
    layout = _layout(keys, devices, layers, notes)
    total = keys.whole("global_batch_size")
    accumulation = 1
    if total is not None and layout.dp:
        if total % (micro * layout.dp):
            raise BadInput(
                f"{PROGRAM}: --global-batch-size {total} cannot be divided by {micro} x {layout.dp} data-parallel ranks"
            )
        accumulation = total // (micro * layout.dp)
    # Dropout is on unless it is turned off.
    rates = {key: keys.number(key) for key in ("attention_dropout", "hidden_dropout")}
    masks = [
        f"{key} {_DROPOUT if rate is None else rate}" for key, rate in rates.items() if rate is None or rate
    ]
    if masks:
        notes.append(f"masks of dropout ({', '.join(masks)}) are not counted")
    rl = keys.flag("perform_rl_step")
    return (
        TrainingSettings(
            framework="megatron",
            version=version,
            objective="grpo" if rl else "sft" if keys.flag("sft") else "pretrain",
            micro_batch=micro,
            seq_len=keys.whole("seq_length") or keys.whole("encoder_seq_length"),
            gradient_accumulation=accumulation,
            packed=True,
            precision=_precision(keys, notes),
            optimizer=_optimizer(keys),
            checkpointing=_checkpointing(keys, notes),
            loss=_loss(keys),
            layout=layout,
            offload=_offload(keys, notes),
            rollout=RolloutSettings(generations=keys.whole("grpo_group_size") or 2) if rl else None,
            attention=_attention(keys),
            expandable_segments=expandable,
            empties_cache=1 if keys.whole("empty_unused_memory_level", 0) else 0,
        ),
        notes,
    )


def _precision(keys: Keys, notes: list[str]) -> PrecisionSettings:
    half = "bfloat16" if keys.flag("bf16") else "float16" if keys.flag("fp16") else None
    named = keys.word("params_dtype")
    said: dict[str, Any] = {"weights": half or (named and named.removeprefix("torch.")) or "float32"}
    if keys.flag("use_precision_aware_optimizer"):
        for key, field in (
            ("main_grads_dtype", "gradients"),
            ("main_params_dtype", "master"),
            ("exp_avg_dtype", "states"),
        ):
            text = keys.word(key, _DTYPES)
            if text:
                said[field] = _DTYPES[text]
        second = keys.word("exp_avg_sq_dtype", _DTYPES)
        if second and _DTYPES[second] != said.get("states", "float32"):
            notes.append(f"exp_avg_sq_dtype {second} is counted as exp_avg_dtype")
    elif keys.word("main_grads_dtype") == "bf16":
        said["gradients"] = "bfloat16"
    keys.see("exp_avg_dtype", "exp_avg_sq_dtype", "main_params_dtype", "main_grads_dtype")
    if keys.flag("accumulate_allreduce_grads_in_fp32"):
        said["gradients"] = "float32"
    if keys.flag("grad_reduce_in_bf16"):
        said |= {"gradients": "bfloat16", "reduce": "bfloat16"}
    if keys.word("fp8_format") or keys.word("fp8"):
        recipe = keys.word("fp8_recipe") or "delayed"
        said["float8"] = _FP8.get(recipe, recipe)
        said["float8_weights"] = keys.flag("fp8_param_gather") or keys.flag("fp8_param") or None
    if keys.flag("fp4_format") or keys.has("fp4"):
        said["float8"] = "nvfp4"
        keys.see("fp4", "fp4_recipe", "fp4_format")
    keys.see("fp8_margin", "fp8_interval", "fp8_amax_history_len", "fp8_amax_compute_algo", "fp8_recipe")
    return PrecisionSettings(**said)


def _optimizer(keys: Keys) -> OptimizerSettings:
    name = keys.word("optimizer") or "adam"
    named = {"adam": "adamw", "dist_muon": "muon", "adaptive_muon": "muon"}.get(name, name)
    return OptimizerSettings(named, momentum=name == "sgd")


def _offload(keys: Keys, notes: list[str]) -> OffloadSettings:
    on = bool(keys.flag("optimizer_cpu_offload"))
    share = keys.number("optimizer_offload_fraction")
    if on and share is not None and share < 1:
        notes.append(f"a share of {share} of the optimizer on the host is counted as all of it")
    keys.see("use_torch_optimizer_for_cpu_offload", "overlap_cpu_optimizer_d2h_h2d")
    return OffloadSettings(optimizer=on)


def _checkpointing(keys: Keys, notes: list[str]) -> CheckpointingSettings:
    kind = keys.word("recompute_granularity", ("full", "selective"))
    if keys.flag("recompute_activations"):
        kind = "selective"
    modules = tuple(one for word in keys.words("recompute_modules") for one in word.split())
    if keys.flag("checkpoint_activations"):
        kind = "full"
    if keys.flag("moe_layer_recompute"):
        kind, modules = "selective", (*modules, "moe")
    offload = bool(keys.flag("cpu_offloading"))
    if keys.flag("fine_grained_activation_offloading"):
        notes.append(
            f"activations of {', '.join(keys.words('offload_modules')) or 'modules'} on the host are not counted there"
        )
    keys.see("cpu_offloading_num_layers", "no_cpu_offloading_activations")
    count = keys.whole("recompute_num_layers")
    method = keys.word("recompute_method", ("uniform", "block"))
    if kind == "full":
        if method == "block":
            return CheckpointingSettings("full", layers=count or 1, offload=offload)
        return CheckpointingSettings("full", every=count or 1, together=(count or 1) > 1, offload=offload)
    if kind == "selective":
        if not modules or modules == ("core_attn",):
            return CheckpointingSettings("selective-core-attn", offload=offload)
        return CheckpointingSettings("selective-modules", modules=modules, offload=offload)
    return CheckpointingSettings("none", offload=offload)


def _loss(keys: Keys) -> LossSettings:
    if keys.flag("cross_entropy_loss_fusion"):
        keys.see("cross_entropy_fusion_impl")
        return LossSettings("fused")
    return LossSettings("vocab-parallel")


def _attention(keys: Keys) -> str | None:
    kernels = keys.word("transformer_impl")
    keys.see("tp_comm_overlap")
    backend = keys.word("attention_backend", _ATTENTION)
    if backend:
        return _ATTENTION[backend]
    if keys.flag("use_flash_attn"):
        return "flash_attention_2"
    return "eager" if kernels == "local" else None


def _layout(keys: Keys, devices: int | None, layers: int | None, notes: list[str]) -> LayoutSettings:
    tp = keys.whole("tensor_model_parallel_size") or keys.whole("model_parallel_size") or 1
    pp = keys.whole("pipeline_model_parallel_size") or 1
    cp = keys.whole("context_parallel_size") or 1
    ep = keys.whole("expert_model_parallel_size") or 1
    dp = None
    if devices is not None:
        if devices % (tp * pp * cp):
            raise BadInput(
                f"{PROGRAM}: {devices} processes cannot be shared by tensor x pipeline x context = {tp * pp * cp} ranks"
            )
        dp = devices // (tp * pp * cp)
    virtual = keys.whole("num_virtual_stages_per_pipeline_rank")
    each = keys.whole("num_layers_per_virtual_pipeline_stage")
    if virtual is None and each is not None and layers is not None:
        virtual = max(1, layers // (pp * each))
    stages = _stages(keys, pp, layers)
    return LayoutSettings(
        data=_data(keys),
        dp=dp,
        shards=_shards(keys, dp),
        tp=tp,
        sp=bool(keys.flag("sequence_parallel")) and tp > 1,
        pp=pp,
        cp=cp,
        ep=ep,
        etp=keys.whole("expert_tensor_parallel_size"),
        schedule=None if pp == 1 else "interleaved" if (virtual or 1) > 1 else "1f1b",
        virtual_stages=virtual or 1,
        stages=stages,
        reshard=False if keys.flag("torch_fsdp2_no_reshard_after_forward") else None,
        bucket_bytes=_bucket(keys),
    )


def _bucket(keys: Keys) -> int | None:
    """Bytes of a bucket of gradients, which Megatron counts in elements of four bytes."""
    elements = keys.whole("ddp_bucket_size")
    keys.see("ddp_num_buckets", "ddp_pad_buckets_for_high_nccl_busbw")
    return None if elements is None else elements * 4


def _shards(keys: Keys, dp: int | None) -> int | None:
    groups = keys.whole("num_distributed_optimizer_instances")
    return dp // groups if groups and groups > 1 and dp else None


def _data(keys: Keys) -> str:
    if keys.flag("use_torch_fsdp2"):
        return "fsdp2"
    sharding = keys.word("data_parallel_sharding_strategy", _SHARDING)
    if keys.flag("use_megatron_fsdp") or keys.flag("use_custom_fsdp"):
        keys.see("use_distributed_optimizer")
        return _SHARDING[sharding or "no_shard"]
    return "distributed-optimizer" if keys.flag("use_distributed_optimizer") else "ddp"


def _stages(keys: Keys, pp: int, layers: int | None) -> tuple[int, ...]:
    """Layers of each pipeline stage where the first or the last has others than the rest."""
    first = keys.whole("decoder_first_pipeline_num_layers") or keys.whole(
        "num_layers_in_first_pipeline_stage"
    )
    last = keys.whole("decoder_last_pipeline_num_layers") or keys.whole("num_layers_in_last_pipeline_stage")
    account = (
        bool(keys.flag("account_for_embedding_in_pipeline_split")),
        bool(keys.flag("account_for_loss_in_pipeline_split")),
    )
    if layers is None:
        return ()
    if pp > 1 and any(account):
        each = (layers + sum(account)) // pp
        first, last = each - account[0], each - account[1]
    if pp == 1 or (first is None and last is None):
        return ()
    fixed = [count for count in (first, last) if count is not None]
    between = pp - len(fixed)
    left = layers - sum(fixed)
    if left < 0 or (between == 0 and left) or (between and left % between):
        raise BadInput(f"{PROGRAM}: {layers} layers cannot be shared by {pp} stages with {fixed} at the ends")
    middle = [left // between] * between if between else []
    return (*([first] if first is not None else []), *middle, *([last] if last is not None else []))
