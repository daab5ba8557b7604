"""Arguments of TRL's and transformers' scripts for what is asked of a run."""

from __future__ import annotations

from dataclasses import fields

from willfit.errors import BadInput
from willfit.launch.training.trl_settings import PROMPT
from willfit.launch.writing.rows import text_of
from willfit.launch.writing.written import Flag
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

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


def arguments(settings: TrainingSettings) -> list[Flag]:
    """What a script is told of a run beside its model, its data and its batch.

    Raises
    ------
    BadInput
        For settings that no argument stands for.
    """
    flags = _rollout(settings)
    flags += _precision(settings.precision)
    flags += _adapter(settings.adapter) + _quantization(settings)
    flags += _kernels(settings)
    flags += _checkpointing(settings.checkpointing)
    return flags + _optimizer(settings.optimizer)


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
