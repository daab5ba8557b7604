"""From torchtitan's keys to a training run's settings, and to its model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.launch.flags import did_you_mean
from willfit.launch.training.keys import Keys
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)  # fmt: skip

_DATA = Path(__file__).parents[1] / "data"

#: Names of torch's pipeline schedules (`torch/distributed/pipelining/schedules.py: get_schedule_class`).
_SCHEDULES = {
    "1f1b": "1f1b", "gpipe": "gpipe", "interleaved1f1b": "interleaved", "loopedbfs": "gpipe",
    "interleavedzerobubble": "zero-bubble", "zbvzerobubble": "zb-v", "dualpipev": "dualpipe",
}  # fmt: skip
_ONE_STAGE = ("1f1b", "gpipe")

#: What says how a pipeline is cut, and nothing without one.
_STAGES = (
    "pipeline_parallel_first_stage_less_layers", "pipeline_parallel_last_stage_less_layers",
    "pipeline_parallel_layers_per_stage", "pipeline_parallel_microbatch_size", "module_fqns_per_model_part",
)  # fmt: skip

#: Suffixes of flavors that choose how attention is computed, not which model it is.
_KERNELS = {"_flex_attn": "flex_attention", "_flex": "flex_attention", "_varlen_attn": "flash_attention_2",
            "_varlen": "flash_attention_2", "_irope": "flex_attention"}  # fmt: skip
_BACKENDS = {
    "flex": "flex_attention",
    "varlen": "flash_attention_2",
    "sdpa": "sdpa",
    "flex_flash": "flex_attention",
}

#: Sequences of a rank if nothing is said (`config_manager.py`, `job_config.py`, `configs.py`, 0.0 to 0.3).
_BATCH = 8

#: Chunks of `ChunkedLossWrapper.Config` (`torchtitan/components/loss.py`, 0.3).
_CHUNKS = 8

#: LoRA's targets of torchtitan, in PEFT's names.
_MODULES = {"wq": ("q_proj",), "wk": ("k_proj",), "wv": ("v_proj",), "wkv": ("k_proj", "v_proj"), "wo": ("o_proj",),
            "w1": ("gate_proj",), "w2": ("down_proj",), "w3": ("up_proj",)}  # fmt: skip


@cache
def models() -> dict[tuple[str, str], str]:
    """Checkpoints, or configs as JSON, by module and flavor (`torchtitan/models/*/__init__.py`)."""
    lines = (_DATA / "torchtitan_models.txt").read_text(encoding="utf-8").splitlines()
    return {
        (words[0], words[1]): words[2] for words in (line.split(" ", 2) for line in lines) if words[0] != "#"
    }


#: Experiments that train the models of other modules: `simple_fsdp.llama3`.
_EXPERIMENTS = ("simple_fsdp.", "compiler_toolkit.", "autoparallel.")


def module_of(keys: Keys) -> str:
    """The module that has the model."""
    name = keys.word("model.name") or "llama3"
    return next((name.removeprefix(start) for start in _EXPERIMENTS if name.startswith(start)), name)


def model_of_keys(keys: Keys) -> tuple[str, dict[str, Any] | None]:
    """The model that module and flavor name, and its config where no checkpoint has its sizes.

    Raises
    ------
    BadInput
        If torchtitan has no such model, or it is not known here.
    """
    name, flavor = module_of(keys), keys.word("model.flavor") or "debugmodel"
    for suffix in _KERNELS:
        flavor = flavor.removesuffix(suffix)
    found = models().get((name, flavor))
    if found is None:
        of = [one for module, one in models() if module == name]
        if not of:
            raise BadInput(
                f"torchtitan: model.name {name[:40]} is not known",
                did_you_mean(name, {m for m, _ in models()}),
            )
        raise BadInput(f"torchtitan: flavor {flavor[:40]} of {name} is not known", f"known: {', '.join(of)}")
    return (f"{name} {flavor}", json.loads(found)) if found.startswith("{") else (found, None)


def settings_of(
    keys: Keys, devices: int | None, version: str | None, expandable: bool | None
) -> tuple[TrainingSettings, list[str]]:
    """The settings that the keys say, and notes.

    Parameters
    ----------
    keys
        Config and flags together.
    devices
        All processes; None if not known.
    version
        Version of torchtitan.
    expandable
        Whether the allocator's segments can grow, as the variables say.
    """
    layout, notes = _layout(keys, devices)
    batch = keys.whole("training.local_batch_size") or keys.whole("training.batch_size") or _BATCH
    accumulation = 1
    total = keys.whole("training.global_batch_size", -1)
    if total is not None and total > 0 and layout.dp:
        accumulation = max(1, total // (batch * layout.dp))
    micro = batch
    if layout.pp > 1:
        parts = keys.whole("experimental.pipeline_parallel_microbatches", -1)
        size = keys.whole("parallelism.pipeline_parallel_microbatch_size")
        # Before 0.1 a batch was cut into as many as there are ranks, since then into single sequences.
        old = "experimental.pipeline_parallel_degree" in keys.values
        parts = (parts if parts is not None and parts > 0 else layout.pp) if old else batch // (size or 1)
        micro, accumulation = max(1, batch // max(1, parts)), accumulation * max(1, parts)
    adapter = _adapter(keys)
    if module_of(keys) != (keys.word("model.name") or "llama3"):
        notes.append(f"{keys.word('model.name')} is an experiment: counted as FSDP2 of {module_of(keys)}")
    config = TrainingSettings(
        framework="torchtitan",
        version=version,
        objective="pretrain",
        seq_len=keys.whole("training.seq_len"),
        micro_batch=micro,
        gradient_accumulation=accumulation,
        packed=True,
        adapter=adapter,
        precision=_precision(keys),
        optimizer=_optimizer(keys),
        checkpointing=_checkpointing(keys),
        loss=_loss(keys),
        layout=layout,
        offload=_offload(keys),
        attention=_attention(keys),
        compile=_compiled(keys),
        expandable_segments=expandable,
    )
    return config, notes


def _precision(keys: Keys) -> PrecisionSettings:
    return PrecisionSettings(
        weights=keys.word("training.dtype", ("bfloat16", "float32")),
        compute=keys.word("training.mixed_precision_param", ("bfloat16", "float32")),
        reduce=keys.word("training.mixed_precision_reduce", ("float32",)),
        float8=_float8(keys),
    )


def _float8(keys: Keys) -> str | None:
    converters = " ".join(keys.words("model.converters")).lower()
    recipe = None
    for name in ("float8.recipe_name", "quantize.linear.float8.recipe_name", "model.converter.recipe_name"):
        recipe = recipe or keys.word(name)
    mx = keys.word("mx.recipe_name") or keys.word("quantize.linear.mx.recipe_name")
    if "nvfp4" in converters:
        return "nvfp4"
    if "mxfp8" in converters or ".mx" in converters or "mx" in converters.split():
        return "mxfp8" if mx is None or "fp8" in mx else mx
    if "float8" in converters or keys.flag("float8.enable_float8_linear"):
        return recipe or "tensorwise"
    return None


def _adapter(keys: Keys) -> AdapterSettings | None:
    if not any("lora" in name.lower() for name in keys.words("model.converters")):
        return None
    targets = [
        name for one in keys.words("model.converter.target_modules") for name in _MODULES.get(one, (one,))
    ]
    return AdapterSettings(
        rank=keys.whole("model.converter.rank") or 8,
        alpha=keys.number("model.converter.alpha"),
        targets=tuple(targets),
    )


def _optimizer(keys: Keys) -> OptimizerSettings:
    name = keys.word("optimizer.name")
    kind = keys.word("optimizer.implementation", ("for-loop", "foreach", "fused", "fused_opt_states_bf16"))
    if kind is None and keys.flag("optimizer.fused"):
        kind = "fused"
    options = {}
    if kind == "fused_opt_states_bf16":
        kind, options = "fused", {"states": "bfloat16"}
    in_backward = bool(keys.flag("optimizer.early_step_in_backward"))
    named = {"adamw": "adamw", "adam": "adamw"}.get((name or "").lower())
    named = named or ("muon" if name and "muon" in name.lower() else name and name.lower())
    return OptimizerSettings(named or None, kind, in_backward=in_backward, options=options)


def _checkpointing(keys: Keys) -> CheckpointingSettings:
    mode = keys.word("activation_checkpoint.mode", ("none", "full", "selective", "memory_budget"))
    option = keys.word("activation_checkpoint.selective_ac_option")
    if mode == "selective":
        if option is not None and option.isdecimal():
            return CheckpointingSettings("full", every=max(1, int(option)))
        # Without an option it is every second layer up to 0.2; the version tells.
        return CheckpointingSettings("selective-op" if option == "op" else None)
    if mode == "memory_budget":
        return CheckpointingSettings(None)
    return CheckpointingSettings(mode)


def _loss(keys: Keys) -> LossSettings:
    name = keys.word("loss")
    if name == "ChunkedLossWrapper":
        return LossSettings("chunked-head", chunks=_CHUNKS)
    return LossSettings("hf") if name else LossSettings()


def _offload(keys: Keys) -> OffloadSettings:
    if keys.flag("training.enable_cpu_offload"):
        return OffloadSettings(params=True, gradients=True, optimizer=True)
    return OffloadSettings()


def _attention(keys: Keys) -> str | None:
    backend = keys.word("model.attn_backend")
    if backend:
        return _BACKENDS.get(backend, backend)
    flavor = keys.word("model.flavor") or ""
    return next((kernel for suffix, kernel in _KERNELS.items() if flavor.endswith(suffix)), None)


def _compiled(keys: Keys) -> bool:
    components = keys.words("compile.components")
    if keys.flag("training.compile"):
        return True
    return bool(keys.flag("compile.enable")) and (not components or "model" in components)


def _degree(keys: Keys, *names: str, least: int = 1) -> int | None:
    """The first of some keys that is given: a number of ranks."""
    return next((value for value in (keys.whole(name, least) for name in names) if value is not None), None)


def _layout(keys: Keys, devices: int | None) -> tuple[LayoutSettings, list[str]]:
    tp = _degree(keys, "parallelism.tensor_parallel_degree", "training.tensor_parallel_degree") or 1
    pp = _degree(keys, "parallelism.pipeline_parallel_degree", "experimental.pipeline_parallel_degree") or 1
    cp = _degree(keys, "parallelism.context_parallel_degree", "experimental.context_parallel_degree") or 1
    replicas = (
        _degree(keys, "parallelism.data_parallel_replicate_degree", "training.data_parallel_replicate_degree")
        or 1
    )
    shards = _degree(
        keys, "parallelism.data_parallel_shard_degree", "training.data_parallel_shard_degree",
        "training.data_parallel_degree", least=-1,
    )  # fmt: skip
    if keys.word("training.data_parallel_type", ("fsdp", "ddp")) == "ddp":
        replicas, shards = shards or -1, 1
    others = tp * pp * cp
    if devices is not None:
        if devices % others:
            raise BadInput(
                f"torchtitan: {devices} devices cannot be shared by tensor x pipeline x context = {others} ranks"
            )
        left = devices // others
        if replicas == -1:
            replicas = left // (shards or 1)
        if shards is None or shards == -1:
            shards = max(1, left // replicas)
        if replicas * shards != left:
            raise BadInput(
                f"torchtitan: replicate {replicas} x shard {shards} x tensor {tp} x pipeline {pp} x context {cp}"
                f" ranks are not {devices} devices"
            )
    sharded = shards is None or shards != 1 or cp > 1
    data = "fsdp2" if sharded else ("ddp" if replicas > 1 else "none")
    reshard = keys.word("parallelism.fsdp_reshard_after_forward", ("default", "always", "never"))
    text = keys.word("parallelism.pipeline_parallel_schedule") or keys.word(
        "experimental.pipeline_parallel_schedule"
    )
    schedule, notes = None, []
    if pp > 1 and text:
        schedule = _SCHEDULES.get(text.lower())
        if schedule is None:
            notes.append(f"the pipeline schedule {text[:40]} is not known: taken for 1F1B")
    loops = schedule is not None and text is not None and text.lower() not in _ONE_STAGE
    if pp == 1:
        keys.see(*(f"parallelism.{name}" for name in _STAGES), "experimental.pipeline_parallel_microbatches")
    keys.see("parallelism.enable_async_tensor_parallel", "experimental.enable_async_tensor_parallel",
             "compile.enable_async_tensor_parallel", "compile.backend", "parallelism.spmd_backend",
             "training.enable_loss_parallel", "parallelism.enable_fsdp_symm_mem")  # fmt: skip
    sequence = keys.flag("parallelism.enable_sequence_parallel")
    ep = keys.whole("parallelism.expert_parallel_degree") or 1
    layout = LayoutSettings(
        data=data,
        dp=replicas * shards if shards is not None and shards > 0 and replicas > 0 else None,
        shards=shards if replicas > 1 and shards is not None and shards > 1 else None,
        strategy="hybrid_shard" if replicas > 1 and sharded else None,
        tp=tp,
        sp=tp > 1 and sequence is not False,
        pp=pp,
        cp=cp,
        ep=ep,
        etp=keys.whole("parallelism.expert_tensor_parallel_degree") if ep > 1 else None,
        schedule=schedule,
        # A rank of a looped schedule has two stages if nothing else is said (`pipeline_parallel.py`).
        virtual_stages=2 if loops else 1,
        reshard={"always": True, "never": False}.get(reshard or ""),
    )
    keys.see("parallelism.expert_tensor_parallel_degree")
    return layout, notes
