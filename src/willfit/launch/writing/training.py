"""Writing the command of a training run: TRL's and transformers' scripts behind torchrun, accelerate or deepspeed."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from importlib import import_module
from typing import NamedTuple

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.flags import FlagTable
from willfit.launch.training.hugging_face import table_of
from willfit.launch.training.trl_settings import LONGER_COMPLETION as COMPLETION
from willfit.launch.training.trl_settings import PROMPT
from willfit.launch.writing.rows import flag_of_version, require_written, term_bytes, text_of
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
from willfit.launch.writing.written import Flag, Order, Written
from willfit.quantities import format_bytes
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    OptimizerSettings,
    PrecisionSettings,
    RolloutSettings,
    TrainingSettings,
)

#: The modules of the frameworks whose scripts are started.
_MODULES = {"trl": "trl", "transformers": "hugging_face"}

LAUNCHERS = ("torchrun", "accelerate", "deepspeed")


class Task(NamedTuple):
    """A script that trains for an objective.

    Attributes
    ----------
    framework
        Whose it is: `trl`, or `transformers`.
    script
        A module of TRL's, or a file of transformers' examples.
    data
        A data set of the Hub that it takes, to be replaced by one's own.
    length
        The argument with the longest sequence; empty where a prompt and an answer make it.
    since
        First version that has the script with these arguments.
    """

    framework: str
    script: str
    data: str
    length: str
    since: tuple[int, ...] = (0,)


TASKS: dict[str, Task] = {
    "sft": Task("trl", "trl.scripts.sft", "trl-lib/Capybara", "--max_length", (0, 16)),
    "dpo": Task("trl", "trl.scripts.dpo", "trl-lib/ultrafeedback_binarized", "--max_length", (0, 14)),
    "kto": Task("trl", "trl.scripts.kto", "trl-lib/kto-mix-14k", "--max_length", (0, 14)),
    "reward": Task("trl", "trl.scripts.reward", "trl-lib/ultrafeedback_binarized", "--max_length", (0, 24)),
    "grpo": Task("trl", "trl.scripts.grpo", "trl-lib/DeepMath-103K", "", (0, 19)),
    "pretrain": Task("transformers", "run_clm.py", "Salesforce/wikitext", "--block_size"),
}

#: `optim` for optimizers with a kernel that is said (`training_args.py: OptimizerNames`).
_OPTIMIZERS = {
    ("adamw", "foreach"): "adamw_torch", ("adamw", "fused"): "adamw_torch_fused", ("lion_32bit", None): "lion",
}  # fmt: skip

#: dtypes of the model and of its layers, by recipe: arguments that say them.
_RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "fp32": (("--dtype", "float32"), ("--bf16", "false")),
    "amp-bf16": (("--dtype", "float32"), ("--bf16", "true")),
    "amp-fp16": (("--dtype", "float32"), ("--bf16", "false"), ("--fp16", "true")),
    "pure-bf16": (("--dtype", "bfloat16"), ("--bf16", "true")),
    "deepspeed-bf16": (("--bf16", "true"),),
    "deepspeed-fp16": (("--bf16", "false"), ("--fp16", "true")),
    "fsdp-mixed": (("--dtype", "float32"), ("--bf16", "true")),
}

_WRITTEN = {
    "framework", "version", "objective", "micro_batch", "seq_len", "gradient_accumulation", "packed", "adapter",
    "quantization", "precision", "optimizer", "checkpointing", "layout", "offload", "rollout", "attention", "kernels",
    "compile",
}  # fmt: skip


def task_of(objective: str) -> Task:
    """The script of an objective.

    Raises
    ------
    BadInput
        If there is none whose command is written.
    """
    if objective not in TASKS:
        raise BadInput(f"no command is written for --objective {objective}", f"known: {', '.join(TASKS)}")
    return TASKS[objective]


def settled(settings: TrainingSettings) -> TrainingSettings:
    """The settings with what the script of the objective does by itself."""
    task = task_of(settings.objective)
    packed = settings.packed or task.script == "run_clm.py"
    found = replace(settings, framework=task.framework, packed=packed)
    return _with_answers(found) if settings.objective == "grpo" else found


def _with_answers(settings: TrainingSettings) -> TrainingSettings:
    """GRPO's sequences: a prompt of the length that is assumed where nothing says it, and an answer.

    Raises
    ------
    BadInput
        If no room is left for an answer.
    """
    rollout = settings.rollout or RolloutSettings(engine="transformers")
    answer = rollout.completion_len or (settings.seq_len - PROMPT if settings.seq_len else COMPLETION)
    if answer < 1:
        raise BadInput(
            f"--seq-len {settings.seq_len} has no room for an answer behind a prompt of {PROMPT} tokens",
            f"take more than {PROMPT}",
        )
    return replace(
        settings, seq_len=PROMPT + answer, rollout=replace(rollout, prompt_len=None, completion_len=answer)
    )


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
    flags += _precision(settings.precision)
    flags += _adapter(settings.adapter) + _quantization(settings)
    flags += _rollout(settings)
    flags += _kernels(settings)
    flags += _checkpointing(settings.checkpointing)
    flags += _optimizer(settings.optimizer)
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


def _rollout(settings: TrainingSettings) -> list[Flag]:
    """What generates for GRPO: the model itself, or vLLM."""
    asked = settings.rollout
    if asked is None:
        return []
    if settings.objective != "grpo" or asked.engine not in ("transformers", "vllm"):
        raise BadInput(
            f"no arguments are written for --rollout {asked.engine} with --objective {settings.objective}",
            "take --rollout vllm with --objective grpo",
        )
    flags = [
        Flag(("--reward_funcs", "accuracy_reward"), "what answers are worth"),
        Flag(("--num_generations", str(asked.generations)), "answers to a prompt"),
        Flag(
            ("--max_completion_length", str(asked.completion_len)),
            f"tokens of an answer, behind a prompt of {PROMPT}",
        ),
    ]
    if asked.engine == "transformers":
        return flags
    where = "on the trainer's devices" if asked.colocated else "in a server of its own"
    flags.append(Flag(("--use_vllm", "true"), "vLLM generates"))
    flags.append(Flag(("--vllm_mode", "colocate" if asked.colocated else "server"), where))
    if asked.memory_utilization is not None:
        share = text_of(asked.memory_utilization)
        flags.append(Flag(("--vllm_gpu_memory_utilization", share), "its share of a device"))
    if asked.tp > 1:
        flags.append(Flag(("--vllm_tensor_parallel_size", str(asked.tp)), "devices that share its layers"))
    if asked.sleep_level:
        flags.append(
            Flag(("--vllm_enable_sleep_mode", "true"), "it drops its weights while the trainer works")
        )
    return flags


def _precision(asked: PrecisionSettings) -> list[Flag]:
    if asked == PrecisionSettings():
        return []
    words = _RECIPES.get(asked.recipe or "")
    if words is None or asked != PrecisionSettings(recipe=asked.recipe):
        raise BadInput(
            f"no arguments are written for the dtypes of {asked.recipe or 'this run'}",
            f"known: {', '.join(_RECIPES)}",
        )
    return [Flag(one, f"dtypes of {asked.recipe}") for one in words]


def _adapter(asked: AdapterSettings | None) -> list[Flag]:
    """LoRA as TRL's `ModelConfig` has it, with its dropout, which is not 0 if nothing is said."""
    if asked is None:
        return []
    plain = AdapterSettings(
        "lora", asked.rank, asked.alpha, asked.dropout, asked.targets, asked.modules_to_save, asked.use_dora,
        asked.use_rslora,
    )  # fmt: skip
    if asked != plain:
        changed = next(
            one.name for one in fields(asked) if getattr(asked, one.name) != getattr(plain, one.name)
        )
        raise BadInput(
            f"no arguments are written for {changed} = {getattr(asked, changed)} of adapters",
            "take --method lora",
        )
    flags = [Flag(("--use_peft",), "an adapter is trained, and the model stays as it is")]
    if asked.rank is not None:
        flags.append(Flag(("--lora_r", str(asked.rank)), "the adapter's rank"))
    if asked.alpha is not None:
        flags.append(Flag(("--lora_alpha", text_of(asked.alpha)), "its scale, which takes no memory"))
    dropout = asked.dropout or 0.0
    flags.append(
        Flag(("--lora_dropout", text_of(dropout)), "a copy of each input is kept for dropout above 0")
    )
    if asked.targets:
        flags.append(Flag(("--lora_target_modules", *asked.targets), "the modules that are adapted"))
    if asked.modules_to_save:
        flags.append(
            Flag(("--lora_modules_to_save", *asked.modules_to_save), "modules that are trained whole")
        )
    flags += [Flag(("--use_dora",), "magnitudes are trained apart")] if asked.use_dora else []
    flags += [Flag(("--use_rslora",), "scaled by the root of the rank")] if asked.use_rslora else []
    return flags


def _quantization(settings: TrainingSettings) -> list[Flag]:
    asked = settings.quantization
    if asked is None:
        return []
    if asked.storage is not None or asked.upcast is not None or asked.method not in ("nf4", "fp4", "int8"):
        raise BadInput(f"no arguments are written for a base in {asked.method}", "take nf4, fp4 or int8")
    if asked.method == "int8":
        return [Flag(("--load_in_8bit",), "the frozen base in 8 bits")]
    flags = [
        Flag(("--load_in_4bit",), "the frozen base in 4 bits"),
        Flag(("--bnb_4bit_quant_type", asked.method), "the kind of 4 bits"),
    ]
    if asked.double_quant:
        flags.append(Flag(("--use_bnb_nested_quant",), "the constants of its blocks are quantized too"))
    return flags


def _kernels(settings: TrainingSettings) -> list[Flag]:
    flags = []
    if settings.attention is not None:
        flags.append(Flag(("--attn_implementation", settings.attention), "which attention keeps what"))
    if settings.kernels == ("liger",):
        flags.append(
            Flag(("--use_liger_kernel", "true"), "fused kernels, whose loss never makes whole logits")
        )
    elif settings.kernels:
        names = ", ".join(settings.kernels)
        raise BadInput(f"no arguments are written for the kernels {names}", "take --kernels liger")
    if settings.compile:
        flags.append(Flag(("--torch_compile", "true"), "layers run under torch.compile"))
    return flags


def _checkpointing(asked: CheckpointingSettings) -> list[Flag]:
    plain = CheckpointingSettings(asked.kind, reentrant=asked.reentrant, offload=asked.offload)
    if asked.kind not in (None, "none", "full") or asked != plain:
        raise BadInput(f"no arguments are written for checkpoints of kind {asked.kind}", "take full or none")
    flags = []
    if asked.kind is not None:
        on = "true" if asked.kind == "full" else "false"
        reason = (
            "of each layer the input alone is kept" if asked.kind == "full" else "all activations are kept"
        )
        flags.append(Flag(("--gradient_checkpointing", on), reason))
    if asked.reentrant is not None:
        said = '{"use_reentrant": ' + ("true" if asked.reentrant else "false") + "}"
        flags.append(Flag(("--gradient_checkpointing_kwargs", said), "which of torch's two ways"))
    if asked.offload:
        flags.append(Flag(("--activation_offloading", "true"), "kept activations are moved to the host"))
    return flags


def _optimizer(asked: OptimizerSettings) -> list[Flag]:
    if asked.name is None and asked.implementation is None:
        return []
    plain = OptimizerSettings(asked.name, asked.implementation, rank=asked.rank)
    name = _OPTIMIZERS.get((asked.name or "adamw", asked.implementation))
    if name is None and asked.implementation is None and asked.name != "adamw":
        name = asked.name
    if asked != plain or (name is None and asked.implementation is not None):
        raise BadInput(
            f"no arguments are written for the optimizer {asked.name} as it is asked", "take its defaults"
        )
    flags = [Flag(("--optim", name), "the optimizer, and how torch runs it")] if name is not None else []
    if asked.rank is not None and name is not None and name.startswith(("galore", "apollo")):
        flags.append(Flag(("--optim_args", f"rank={asked.rank}"), "the rank of projected gradients"))
        flags.append(Flag(("--optim_target_modules", "all-linear"), "whose gradients are projected"))
    return flags
