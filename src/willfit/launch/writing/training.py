"""Writing the command of a training run: TRL's and transformers' scripts behind torchrun, accelerate or deepspeed."""

from __future__ import annotations

import re
from importlib import import_module

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.flags import FlagTable
from willfit.launch.training.hugging_face import table_of
from willfit.launch.writing.arguments import arguments
from willfit.launch.writing.rows import flag_of_version, require_written, term_bytes
from willfit.launch.writing.sharing import (
    ACCELERATE,
    DEEPSPEED,
    FSDP,
    accelerate_yaml,
    deepspeed_json,
    fsdp_json,
    fsdp_version,
    require_sharing,
    sharing_reason,
    zero_stage,
)
from willfit.launch.writing.tasks import Task, task_of
from willfit.launch.writing.written import Flag, Order, Written
from willfit.quantities import format_bytes
from willfit.training.settings import (
    TrainingSettings,
)

#: The modules of the frameworks whose scripts are started.
_MODULES = {"trl": "trl", "transformers": "hugging_face"}

LAUNCHERS = ("torchrun", "accelerate", "deepspeed")

_WRITTEN = {
    "framework", "version", "objective", "micro_batch", "seq_len", "gradient_accumulation", "packed", "adapter",
    "quantization", "precision", "optimizer", "checkpointing", "layout", "offload", "rollout", "attention", "kernels",
    "compile",
}  # fmt: skip


def write(order: Order, launcher: str, nodes: int = 1) -> Written:
    """The command of a training run.

    Parameters
    ----------
    launcher
        One of `LAUNCHERS`.
    nodes
        Machines with an equal share of the devices.

    Raises
    ------
    BadInput
        For settings that the launcher or the script cannot be told.
    """
    if launcher not in LAUNCHERS:
        raise BadInput(f"there is no launcher {launcher[:40]!r}", f"known: {', '.join(LAUNCHERS)}")
    settings: TrainingSettings = order.settings
    task, ranks = task_of(settings.objective), len(order.machine.devices)
    require_written(settings, TrainingSettings(), _WRITTEN, launcher)
    require_sharing(settings.layout, launcher)
    start, flags, files = _started(launcher, settings, task, ranks, nodes, order)
    flags += _work(order, settings, task)
    flags += arguments(settings)
    notes = [f"put your own data set in place of {task.data}"]
    if task.script == "run_clm.py":
        notes.append("run_clm.py is one of transformers' examples (examples/pytorch/language-modeling)")
    if nodes > 1:
        notes.append("start it on every machine; MASTER_ADDR is the first one's address")
    version = settings.version or newest_of(task.framework)
    if parse_version(version) < task.since:
        raise BadInput(
            f"{task.framework} {version} has no module {task.script} with these arguments",
            f"{'.'.join(map(str, task.since))} has",
        )
    return Written(
        task.framework,
        version,
        start,
        _checked(flags, table_of(task.framework), version, task.framework),
        files=files,
        notes=tuple(notes),
    )


def newest_of(framework: str) -> str:
    """The newest version of a framework that was read."""
    newest: str = import_module(f"willfit.training.frameworks.{_MODULES[framework]}").NEWEST
    return newest


def _checked(flags: list[Flag], table: FlagTable, version: str, framework: str) -> tuple[Flag, ...]:
    """The arguments, all of which the version has.

    Raises
    ------
    BadInput
        If it lacks one.
    """
    for flag in flags:
        flag_of_version(table, version, [flag.words[0].replace("_", "-")], framework)
    return tuple(flags)


def _started(
    launcher: str, settings: TrainingSettings, task: Task, ranks: int, nodes: int, order: Order
) -> tuple[tuple[str, ...], list[Flag], dict[str, str]]:
    """The launcher with its script, the first flags behind it, and the files."""
    each = ranks // nodes
    stage, second = zero_stage(settings), fsdp_version(settings)
    module = not task.script.endswith(".py")
    script = (task.script,)
    model = Flag(("--model_name_or_path", order.model), _weights(order))
    flags, files = [model], {}
    if launcher == "accelerate":
        files[ACCELERATE] = accelerate_yaml(settings, ranks, nodes)
        marked = ("-m",) if module else ()
        return ("accelerate", "launch", "--config_file", ACCELERATE, *marked, *script), flags, files
    if stage is not None:
        files[DEEPSPEED] = deepspeed_json(settings, ranks)
        flags.append(Flag(("--deepspeed", DEEPSPEED), sharing_reason(settings)))
    if launcher == "deepspeed":
        if stage is None:
            raise BadInput("deepspeed shares a run by ZeRO", "name a stage: --zero 3")
        marked = ("--module",) if module else ()
        machines = ("--num_nodes", str(nodes)) if nodes > 1 else ()
        return ("deepspeed", *machines, "--num_gpus", str(each), *marked, *script), flags, files
    if second is not None:
        files[FSDP] = fsdp_json(settings)
        words = [settings.layout.strategy or "full_shard", "auto_wrap"]
        words += ["offload"] if settings.offload.params else []
        flags.append(Flag(("--fsdp", " ".join(words)), sharing_reason(settings)))
        flags.append(Flag(("--fsdp_config", FSDP), f"FSDP{second}, and what is wrapped"))
    marked = ("-m",) if module else ()
    several = (
        ("--nnodes", str(nodes), "--rdzv_backend", "c10d", "--rdzv_endpoint", "MASTER_ADDR:29500")
        if nodes > 1
        else ()
    )
    return ("torchrun", *several, "--nproc_per_node", str(each), *marked, *script), flags, files


def _weights(order: Order) -> str:
    held = {name: term_bytes(order.estimate, name) for name in ("weights", "gradients", "optimizer_state")}
    said = ", ".join(
        f"{format_bytes(size)} of {name.replace('_', ' ')}" for name, size in held.items() if size
    )
    return f"the model: {said} on a device" if said else "the model"


def _work(order: Order, settings: TrainingSettings, task: Task) -> list[Flag]:
    flags = [Flag(("--dataset_name", task.data), "the data")]
    if task.script == "run_clm.py":
        flags.append(Flag(("--dataset_config_name", "wikitext-2-raw-v1"), "which part of it"))
        flags.append(Flag(("--do_train",), "the script evaluates alone without it"))
    if order.revision is not None:
        flags.append(Flag(("--model_revision", order.revision), "the revision asked for"))
    name = re.sub(r"[^\w.-]+", "-", order.subject.model.rstrip("/").rpartition("/")[2]) or "model"
    flags.append(Flag(("--output_dir", f"{name}-{settings.objective}"), "where it is saved"))
    micro = settings.micro_batch
    kept = term_bytes(order.estimate, "activations")
    batch = "sequences of a device at once" + (f": {format_bytes(kept)} of activations" if kept else "")
    flags.append(Flag(("--per_device_train_batch_size", str(micro)), batch))
    if settings.gradient_accumulation > 1:
        count = str(settings.gradient_accumulation)
        flags.append(Flag(("--gradient_accumulation_steps", count), f"{count} micro-batches before a step"))
    if settings.seq_len is not None and task.length:
        flags.append(Flag((task.length, str(settings.seq_len)), "the longest sequence asked for"))
    if settings.packed and task.framework == "trl":
        flags.append(Flag(("--packing", "true"), "sequences are packed to the full length"))
    return flags
