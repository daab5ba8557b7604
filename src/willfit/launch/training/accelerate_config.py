"""`accelerate launch`: its flags, and the YAML or JSON file of `--config_file`.

Flags as accelerate 0.24 to 1.14 has them (`commands/launch.py`, `data/accelerate_flags.txt`), keys of the file as
`commands/config/config_args.py: ClusterConfig`. A flag wins over the file (`_validate_launch_command`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.launch.config_files import read_json_settings, read_settings
from willfit.launch.flags import flag_table
from willfit.launch.training import zero_config
from willfit.launch.training.fsdp_config import of_fsdp, truth
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.launcher_flags import launcher_flags
from willfit.launch.training.processes import Processes
from willfit.launch.training.sharing import Sharing

PROGRAM = "accelerate launch"

_SHIPPED = Path(__file__).parents[1] / "data" / "accelerate_configs.jsonl"

#: Keys of the file that are not flags, and what is inside of them without the key in front
#: (`_validate_launch_command`).
_SECTIONS = {
    "fsdp_config": "fsdp_", "fp8_config": "fp8_", "dynamo_config": "dynamo_", "deepspeed_config": "",
    "megatron_lm_config": "", "parallelism_config": "", "ipex_config": "", "mpirun_config": "",
}  # fmt: skip
_QUIET_KEYS = frozenset({
    "compute_environment", "command_file", "commands", "tpu_name", "tpu_zone", "tpu_env", "tpu_vm",
    "tpu_use_cluster", "tpu_use_sudo", "downcast_bf16", "debug", "use_cpu", "fp16", "machine_rank",
})  # fmt: skip

#: `DistributedType`, and the flag that it stands for.
_TYPES = {
    "NO": "", "MULTI_GPU": "multi_gpu", "MULTI_NPU": "multi_gpu", "MULTI_XPU": "multi_gpu", "MULTI_MLU": "multi_gpu",
    "MULTI_MUSA": "multi_gpu", "MULTI_SDAA": "multi_gpu", "MULTI_HPU": "multi_gpu", "MULTI_CPU": "cpu", "TP": "",
    "DEEPSPEED": "use_deepspeed", "FSDP": "use_fsdp", "MEGATRON_LM": "use_megatron_lm", "XLA": "tpu", "TPU": "tpu",
}  # fmt: skip
_KINDS = ("cpu", "multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")

#: `parallelism_config_*` and the field of `LayoutSettings`.
_RANKS = {"tp_size": "tp", "cp_size": "cp", "sp_size": "ulysses", "dp_shard_size": "shards"}

#: `megatron_lm_*` that are ranks.
_MEGATRON = {
    "tp_degree": "tp", "pp_degree": "pp", "context_parallel_size": "cp", "expert_model_parallel_size": "ep",
    "expert_tensor_parallel_size": "etp",
}  # fmt: skip

#: `compile` of these backends changes nothing that is kept (`DynamoBackend`).
_PLAIN_BACKENDS = ("no", "eager", "")


def processes(words: Sequence[str]) -> Processes:
    """What `accelerate launch` starts, from the words behind it.

    Raises
    ------
    BadInput
        For a flag or key that it does not have, a file that is not there, or a wrong value.
    """
    flags, rest = launcher_flags(words, flag_table("accelerate_flags.txt"), PROGRAM)
    return started(flags, rest)


def started(flags: Mapping[str, Any], rest: list[str]) -> Processes:
    """What `accelerate launch` starts.

    Parameters
    ----------
    flags
        Its flags by name, with underscores.
    rest
        The script and what is behind it.

    Raises
    ------
    BadInput
        For a key that its file does not have, a file that is not there, or a wrong value.
    """
    named = flags.get("config_file")
    file, notes = read_file(str(named)) if named is not None else ({}, [])
    keys = Keys(PROGRAM if named is None else f"{PROGRAM}: {named}", {**file, **flags})
    kind = _kind(flags, keys)
    devices = keys.whole("num_processes", -1)
    if devices is not None and devices < 1:
        raise keys.wrong("num_processes", "a whole number of at least 1")
    if kind == "" and "num_processes" not in flags and keys.get("distributed_type") is not None:
        # One process, whatever the file's number is (`simple_launcher`).
        devices = 1
    if devices is None and (ids := keys.get("gpu_ids")) not in (None, "all"):
        devices = len(str(ids).split(","))
    if kind in ("cpu", "tpu") or truth(keys.get("use_cpu")):
        raise BadInput(f"{keys.program} trains without a GPU", "leave --cpu or --tpu out")
    precision = keys.word("mixed_precision", ("no", "fp16", "bf16", "fp8", "False", "None"))
    sharing = _sharing(kind, keys)
    backend = (keys.word("dynamo_backend") or "no").lower()
    sharing = sharing._replace(compile=backend not in _PLAIN_BACKENDS)
    said = None if precision in (None, "no", "False", "None") else precision
    keys.see("num_machines", "multi_gpu", "gpu_ids", *_QUIET_KEYS, *_KINDS)
    return Processes(
        devices,
        rest,
        None if sharing == Sharing({}, {}, {}) else sharing,
        said,
        (*notes, *_not_counted(keys, kind)),
        float8=_float8(keys, said),
    )


def read_file(name: str) -> tuple[dict[str, Any], list[str]]:
    """The settings of an accelerate config, with its sections' keys as flags, and notes.

    Parameters
    ----------
    name
        A path. Where nothing is there, a file of that name that TRL or the alignment handbook bring along.

    Raises
    ------
    BadInput
        If the file is not there, or has a key that accelerate would refuse.
    """
    path = path_of(name)
    found = read_json_settings(path) if path.suffix == ".json" else read_settings(path)
    notes: list[str] = []
    if found is None:
        found = _shipped().get(path.stem)
        if found is None:
            raise BadInput(
                f"{PROGRAM}: {name[:80]} (--config_file) is not here", "give the path of a file that is"
            )
        if path.suffix:
            notes.append(f"{name[:80]} is not here: read as TRL's own file of that name")
    settings: dict[str, Any] = {}
    for key, value in found.items():
        if key not in _SECTIONS:
            settings[key] = value
            continue
        if value is not None and not isinstance(value, Mapping):
            raise BadInput(f"{PROGRAM}: {name[:80]}: {key} does not hold names and values")
        before = _SECTIONS[key]
        settings |= {
            inner if inner.startswith(before) else before + inner: one for inner, one in (value or {}).items()
        }
    return settings, notes


def _kind(flags: Mapping[str, Any], keys: Keys) -> str:
    """Which of the ways to train it is; empty for one process."""
    said = [name for name in _KINDS if truth(flags.get(name))]
    if len(said) > 1:
        raise BadInput(f"{PROGRAM}: --{said[0]} and --{said[1]} exclude each other", "give one of them")
    kind = keys.word("distributed_type")
    if kind is not None and kind.upper() not in _TYPES:
        raise BadInput(
            f"{keys.program}: there is no distributed_type {kind[:40]}", f"known: {', '.join(_TYPES)}"
        )
    return said[0] if said else _TYPES[(kind or "NO").upper()]


def _sharing(kind: str, keys: Keys) -> Sharing:
    if kind == "use_deepspeed":
        found = _deepspeed(keys)
    elif kind == "use_fsdp":
        names = [name for name in keys.values if name.startswith("fsdp_")]
        config = {name.removeprefix("fsdp_"): keys.get(name) for name in names}
        found = of_fsdp([], config, keys.program)
    elif kind == "use_megatron_lm":
        found = _megatron(keys)
    else:
        found = Sharing({}, {}, {})
    ranks = {}
    for name, field in _RANKS.items():
        size = keys.whole(f"parallelism_config_{name}")
        if size is not None and size > 1:
            ranks[field] = size
    if keys.has("parallelism_config_dp_replicate_size"):
        keys.see("parallelism_config_dp_replicate_size")
    return found._replace(layout=found.layout | ranks)


def _deepspeed(keys: Keys) -> Sharing:
    """DeepSpeed by a file of its own, or by accelerate's names (`utils/dataclasses.py: DeepSpeedPlugin`)."""
    file = keys.get("deepspeed_config_file")
    if file:
        return zero_config.read(file, PROGRAM, "")
    optimization: dict[str, Any] = {"stage": 2 if (stage := keys.whole("zero_stage", 0)) is None else stage}
    for part in ("offload_optimizer", "offload_param"):
        device = keys.word(f"{part}_device", ("none", "cpu", "nvme", "None"))
        if device in ("cpu", "nvme"):
            optimization[part] = {"device": device}
    accumulation = keys.get("gradient_accumulation_steps")
    return zero_config.read(
        {"zero_optimization": optimization, "gradient_accumulation_steps": accumulation}, PROGRAM, ""
    )


def _megatron(keys: Keys) -> Sharing:
    """`MegatronLMPlugin`: its ranks, and what it recomputes."""
    layout: dict[str, Any] = {}
    for name, field in _MEGATRON.items():
        size = keys.whole(f"megatron_lm_{name}")
        if size is not None and size > 1:
            layout[field] = size
    layout["sp"] = truth(keys.get("megatron_lm_sequence_parallelism"))
    if truth(keys.get("megatron_lm_use_distributed_optimizer")):
        layout["data"] = "distributed-optimizer"
    count = keys.whole("megatron_lm_num_micro_batches")
    recomputed = truth(keys.get("megatron_lm_recompute_activations"))
    notes = ("recomputed activations of Megatron-LM are not counted",) if recomputed else ()
    return Sharing(layout, {}, {}, notes, accumulation=count)


def _float8(keys: Keys, precision: str | None) -> str | None:
    """`--mixed_precision fp8`: products by torchao, Transformer Engine or MS-AMP."""
    backend = (keys.word("fp8_backend") or "").upper()
    if precision != "fp8":
        return None
    return {"TE": "te-delayed", "AO": "tensorwise", "": "te-delayed"}.get(backend, backend.lower())


def _not_counted(keys: Keys, kind: str) -> list[str]:
    """Notes on what can change memory and was not looked at; sections of another kind of training count nothing."""
    table = flag_table("accelerate_flags.txt")
    apart = {"use_fsdp": "fsdp_", "use_megatron_lm": "megatron_lm_"}
    notes = []
    for name in keys.unread():
        flag = table.flags.get("--" + name.replace("_", "-"))
        if any(name.startswith(before) for one, before in apart.items() if one != kind):
            continue
        if kind != "use_deepspeed" and ("offload_" in name or "zero" in name or "deepspeed" in name):
            continue
        if (flag is None or not flag.quiet) and keys.values[name] not in (
            False,
            "no",
            "none",
            [],
            {},
            "",
            "false",
        ):
            notes.append(f"{name[:60]}: {str(keys.values[name])[:40]} of accelerate is not counted")
    return notes


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    found = {}
    for line in _SHIPPED.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name in values.pop("names"):
            found[name] = values
    return found
