"""Launchers in front of a training script: torchrun, accelerate, deepspeed, or Python alone."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import basename
from typing import Any, NamedTuple

from willfit.errors import BadInput
from willfit.launch.config_files import read_settings
from willfit.launch.training.keys import path_of
from willfit.launch.training.starting import started
from willfit.launch.training.trainer_arguments import of_fsdp
from willfit.launch.training.zero_config import Zero, read

#: Flags of `accelerate launch` that stand alone (`accelerate/commands/launch.py`).
_ALONE = frozenset({
    "cpu", "multi_gpu", "tpu", "ipex", "quiet", "use_deepspeed", "use_fsdp", "use_megatron_lm", "use_xpu",
    "same_network", "module", "m", "no_python", "debug", "tpu_use_cluster", "tpu_no_cluster", "use_fp8",
    "enable_cpu_affinity", "use_parallelism_config", "use_mps_device",
})  # fmt: skip


class Processes(NamedTuple):
    """What a launcher starts.

    Attributes
    ----------
    devices
        All processes, one for each device; None if the launcher starts one for each device that there is.
    rest
        The script or module, and what is behind it.
    sharing
        How the launcher's own settings share the model: DeepSpeed or FSDP; None if they say nothing.
    mixed_precision
        `bf16`, `fp16`, ... of accelerate; None if nothing is said.
    notes
        What was assumed.
    """

    devices: int | None
    rest: list[str]
    sharing: Zero | None = None
    mixed_precision: str | None = None
    notes: tuple[str, ...] = ()


def processes_of(words: Sequence[str]) -> Processes:
    """What stands in front of a training script.

    Raises
    ------
    BadInput
        If a launcher's file is not there, or a number of processes is none.
    """
    name = basename(words[0])
    if name == "accelerate" and list(words[1:2]) == ["launch"]:
        return _accelerate(list(words[2:]))
    if name == "deepspeed":
        return _deepspeed(list(words[1:]))
    found = started(words)
    return Processes(found.devices, found.rest)


def _flags(words: list[str], alone: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    """The launcher's flags, up to the first word that is none, and the rest."""
    said: dict[str, str] = {}
    index = 0
    while index < len(words) and words[index].startswith("-"):
        name, equals, value = words[index].lstrip("-").partition("=")
        name = name.replace("-", "_")
        index += 1
        if name in alone and not equals:
            said[name] = "true"
            if name in ("m", "module"):
                break
            continue
        if not equals:
            if index >= len(words):
                raise BadInput(f"{words[index - 1]} needs a value")
            value = words[index]
            index += 1
        said[name] = value
    return said, words[index:]


def _accelerate(words: list[str]) -> Processes:
    said, rest = _flags(words, _ALONE)
    config: dict[str, Any] = {}
    notes: list[str] = []
    if "config_file" in said:
        path = path_of(said["config_file"])
        found = read_settings(path)
        if found is None:
            notes.append(
                f"{said['config_file'][:80]} (--config_file) is not here, so what it sets is not counted"
            )
        config = found or {}
    for name in ("fsdp_config", "deepspeed_config"):
        if not isinstance(config.get(name, {}), dict):
            raise BadInput(f"{said['config_file'][:80]}: {name} does not hold names and values")
    count = said.get("num_processes", config.get("num_processes"))
    devices = None if count is None else _count("accelerate launch", "num_processes", count)
    precision = said.get("mixed_precision", config.get("mixed_precision"))
    kind = str(config.get("distributed_type", "")).upper()
    sharing = None
    if "use_deepspeed" in said or kind == "DEEPSPEED" or "deepspeed_config_file" in said:
        sharing = _plugin({**config.get("deepspeed_config", {}), **said})
    elif "use_fsdp" in said or kind == "FSDP":
        inside = {
            **config.get("fsdp_config", {}),
            **{name: value for name, value in said.items() if "fsdp" in name},
        }
        sharing = of_fsdp(
            [], {name.removeprefix("fsdp_"): value for name, value in inside.items()}, "accelerate launch"
        )
    if kind == "NO" and devices is None:
        devices = 1
    named = None if precision in (None, False, "no") else str(precision)
    return Processes(devices, rest, sharing, named, tuple(notes))


def _plugin(said: dict[str, Any]) -> Zero:
    """DeepSpeed by accelerate's own names (`accelerate/utils/dataclasses.py: DeepSpeedPlugin`)."""
    if said.get("deepspeed_config_file"):
        return read(said["deepspeed_config_file"], "accelerate", "llamafactory")
    stage = said.get("zero_stage", 2)
    config: dict[str, Any] = {"stage": int(stage) if str(stage).isdecimal() else stage}
    for name, part in (
        ("offload_optimizer_device", "offload_optimizer"),
        ("offload_param_device", "offload_param"),
    ):
        if said.get(name) not in (None, "none"):
            config[part] = {"device": said[name]}
    return read({"zero_optimization": config}, "accelerate", "llamafactory")


def _deepspeed(words: list[str]) -> Processes:
    alone = frozenset({"module", "no_python", "no_local_rank", "no_ssh_check", "no_ssh", "force_multi", "m"})
    said, rest = _flags(words, alone)
    each = said.get("num_gpus")
    nodes = _count("deepspeed", "--num_nodes", said.get("num_nodes", 1))
    devices = None if each is None or int(each if each.isdecimal() else 0) < 1 else int(each) * nodes
    included = said.get("include", "")
    if included and devices is None:
        # `localhost:0,1@other:0`: slots by host.
        devices = (
            sum(len(host.partition(":")[2].split(",")) for host in included.split("@") if ":" in host) or None
        )
    return Processes(devices, rest)


def _count(program: str, name: str, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or not 0 < int(text[:9]) < 10**6:
        raise BadInput(f"{program}: {name} is {text[:40]!r}, expected a whole number of at least 1")
    return int(text)
