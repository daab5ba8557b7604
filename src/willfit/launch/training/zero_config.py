"""DeepSpeed's settings, from a JSON file, a mapping, or a file that a training program brings along.

Names are those of `deepspeed/runtime/zero/config.py: DeepSpeedZeroConfig`. `auto` leaves a size to transformers
(`integrations/deepspeed.py: HfTrainerDeepSpeedConfig.trainer_config_finalize`), which is 0 in the settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.launch.config_files import read_json_settings
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.sharing import Sharing
from willfit.training.settings import OptimizerSettings

_FILE = Path(__file__).parents[1] / "data" / "zero_configs.jsonl"

#: Fields of `LayoutSettings`, and what DeepSpeed calls these sizes (elements).
_SIZES = {
    "reduce_bucket": ("reduce_bucket_size",),
    "allgather_bucket": ("allgather_bucket_size",),
    "prefetch_bucket": ("stage3_prefetch_bucket_size", "prefetch_bucket_size"),
    "max_live": ("stage3_max_live_parameters", "max_live_parameters"),
    "max_reuse": ("stage3_max_reuse_distance", "max_reuse_distance"),
    "persistence": ("stage3_param_persistence_threshold", "param_persistence_threshold"),
}
_STAGES = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}
_DEVICES = ("none", "cpu", "nvme")
_DTYPES = ("fp32", "fp16", "bf16")

#: Names that change nothing of a step's memory, or are read by the Trainer (`runtime/constants.py`).
_QUIET = (
    "train_batch_size", "gradient_clipping", "steps_per_print", "wall_clock_breakdown", "dump_state", "scheduler",
    "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "tensorboard", "wandb", "csv_monitor", "comet",
    "comms_logger", "flops_profiler", "checkpoint", "prescale_gradients", "gradient_predivide_factor", "timers",
    "sparse_gradients", "memory_breakdown", "disable_allgather", "dataloader_drop_last", "aio", "elasticity",
    "data_efficiency", "curriculum_learning", "monitor_config", "seed", "bf16", "fp16", "compression_training",
    "use_data_before_expert_parallelism", "nebula",
    "compile", "seq_parallel_communication_data_type",
)  # fmt: skip

#: Those inside `zero_optimization`: how parts are saved, ordered and reduced.
_QUIET_INSIDE = frozenset({
    "stage3_gather_16bit_weights_on_model_save", "gather_16bit_weights_on_model_save",
    "stage3_gather_fp16_weights_on_model_save", "round_robin_gradients", "elastic_checkpoint",
    "load_from_fp32_weights", "ignore_unused_parameters", "legacy_stage1", "reduce_scatter", "allgather_partitions",
    "memory_efficient_linear", "use_multi_rank_bucket_allreduce", "pipeline_loading_checkpoint",
    "override_module_apply", "log_trace_cache_warnings", "enable_sanity_checks", "nvme_path", "pipeline_read",
    "pipeline_write", "pipeline", "fast_init", "cpuadam_cores_perc", "profile", "contiguous_memory_optimization",
    "synchronize_checkpoint_boundary", "number_checkpoints", "sub_group_size", "cpu_offload_params",
})  # fmt: skip

#: Defaults of names that can change memory, so that nothing is said of them (`runtime/zero/config.py`).
_AS_THEY_ARE = {
    "zero_optimization.offload_optimizer.ratio": 1.0,
    "zero_optimization.offload_optimizer.buffer_count": 4,
    "zero_optimization.offload_param.buffer_count": 5,
    "amp.opt_level": "auto",
}


def read(value: Any, program: str, folder: str) -> Sharing:
    """Read DeepSpeed's settings.

    Parameters
    ----------
    value
        A path, a name, a JSON text or a mapping.
    program
        How to call the training program in an error.
    folder
        Whose own files are known by name: `llamafactory`, `axolotl` or `swift`.

    Raises
    ------
    BadInput
        If the file is not there, or a value is of the wrong kind.
    """
    if isinstance(value, Mapping):
        return _zero(value, program, ())
    text = str(value)
    if text.strip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{program}: deepspeed is not JSON: {error}") from error
        return _zero(found, program, ())
    path = path_of(text)
    settings = read_json_settings(path) if path.suffix == ".json" or path.is_file() else None
    if settings is not None:
        return _zero(settings, program, ())
    name = path.name.removesuffix(".json").removeprefix("default-").replace("-", "_")
    known = _known().get(f"{folder}/{name}")
    if known is None:
        raise BadInput(f"{program}: {text[:80]} (deepspeed) is not here", "give the path of a file that is")
    notes = (f"{text[:80]} is not here: read as {program}'s own file of that name",) if path.suffix else ()
    return _zero(known, program, notes)


def _zero(settings: Mapping[str, Any], program: str, notes: tuple[str, ...]) -> Sharing:
    keys = Keys(f"{program}: deepspeed", settings)
    where = "zero_optimization."
    stage = _stage(keys)
    layout: dict[str, Any] = {"data": _STAGES[stage]}
    for field, names in _SIZES.items():
        for name in names:
            value = keys.get(where + name)
            if value is not None and field not in layout:
                layout[field] = 0 if value == "auto" else keys.whole(where + name, 0)
    overlap = keys.get(where + "overlap_comm")
    if isinstance(overlap, bool):
        layout["overlap"] = overlap
    contiguous = keys.get(where + "contiguous_gradients")
    if contiguous is False:
        layout["contiguous"] = False
    for name, field in (("zero_hpz_partition_size", "secondary"), ("mics_shard_size", "shards")):
        shards = keys.whole(where + name, -1)
        if shards and shards > 1:
            layout[field] = shards
    for name, field in (("tensor_parallel.autotp_size", "tp"), ("sequence_parallel_size", "ulysses")):
        ranks = keys.whole(name, 0)
        if ranks and ranks > 1:
            layout[field] = ranks
    found = Sharing(
        layout,
        _offload(keys, stage),
        _precision(keys),
        micro_batch=_number(keys, "train_micro_batch_size_per_gpu"),
        accumulation=_number(keys, "gradient_accumulation_steps"),
        optimizer=_optimizer(keys),
        compile=keys.get("compile.enabled") is True or keys.get("compile.deepcompile") is True,
    )
    # What is left now was not looked at.
    return found._replace(notes=(*notes, *_not_counted(keys)))


def _stage(keys: Keys) -> int:
    if isinstance(keys.get("zero_optimization"), bool):
        # Before stages had numbers, true was the first (`runtime/zero/config.py: read_zero_config_deprecated`).
        return int(keys.get("zero_optimization"))
    stage = keys.whole("zero_optimization.stage", 0) or 0
    if stage not in _STAGES:
        raise BadInput(f"{keys.program} has no stage {stage}", "known: 0, 1, 2, 3")
    return stage


def _number(keys: Keys, name: str) -> int | None:
    return None if keys.get(name) in (None, "auto") else keys.whole(name)


def _offload(keys: Keys, stage: int) -> dict[str, Any]:
    """What lies on the host; `cpu_offload` is what it was called before there were devices."""
    where = "zero_optimization."
    offload: dict[str, Any] = {}
    for part, field, old in (
        ("offload_optimizer", "optimizer", "cpu_offload"),
        ("offload_param", "params", "cpu_offload_params"),
    ):
        if keys.get(f"{where}{part}.device") in (None, "none"):
            keys.see(f"{where}{part}")
        device = keys.word(f"{where}{part}.device", _DEVICES) or (
            "cpu" if keys.get(where + old) is True else ""
        )
        if device in ("cpu", "nvme"):
            offload[field] = True
            offload |= {"nvme": True} if device == "nvme" else {}
            pinned = keys.flag(f"{where}{part}.pin_memory")
            pinned = keys.flag(where + "cpu_offload_use_pin_memory") if pinned is None else pinned
            offload |= {} if pinned is None else {"pinned": pinned}
    if offload.get("optimizer") and stage >= 2:
        offload["gradients"] = True
    return offload


def _precision(keys: Keys) -> dict[str, Any]:
    """Dtypes: those of the layers, of gradients between micro-batches, and of the reduction."""
    precision: dict[str, Any] = {}
    for name in ("bf16", "fp16"):
        if keys.get(f"{name}.enabled") is True:
            precision["compute"] = name
    if keys.get("bf16.enabled") is False and keys.get("fp16.enabled") is False:
        precision["compute"] = "fp32"
    for name, field in (("data_types.grad_accum_dtype", "gradients"), ("communication_data_type", "reduce")):
        dtype = keys.word(name, _DTYPES)
        if dtype is not None:
            precision[field] = dtype
    return precision


def _optimizer(keys: Keys) -> OptimizerSettings | None:
    """The optimizer of DeepSpeed's own (`runtime/engine.py: _configure_basic_optimizer`): fused on the device."""
    name = keys.word("optimizer.type")
    keys.see("optimizer")
    if name is None:
        return None
    named = {"adam": "adamw", "adamw": "adamw"}.get(name.lower(), name.lower())
    return OptimizerSettings(named, implementation="fused" if named == "adamw" else None)


def _not_counted(keys: Keys) -> list[str]:
    """Notes on names that nothing looked at, and that can change memory."""
    keys.see(*_QUIET)
    changed = []
    for key in keys.unread():
        value = keys.values[key]
        if value in (False, "auto", "none", 0) or key.rpartition(".")[2] in _QUIET_INSIDE:
            continue
        if key in _AS_THEY_ARE and value == _AS_THEY_ARE[key]:
            continue
        changed.append(f"deepspeed's {key[:60]}: {str(value)[:30]} is not counted")
    return changed


@cache
def _known() -> dict[str, dict[str, Any]]:
    found = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        found[values.pop("name")] = values
    return found
