"""The options of a training run, and the settings that they make."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from willfit.errors import BadInput
from willfit.quantities import parse_tokens
from willfit.surfaces.cli.parsing import Parser, if_given, whole
from willfit.training.frameworks.opened import ADAPTING
from willfit.training.settings import (
    OBJECTIVES,
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
)

#: Methods that train a model's own parameters; any other is an adapter by PEFT's name.
_OWN = ("full", "freeze", "galore", "apollo", "badam", "lisa", "lomo")

#: The newer of PyTorch's two ways to shard.
_FSDP2 = 2

#: Attention by the names that people write.
_ATTENTION = {"flash": "flash_attention_2", "flash2": "flash_attention_2", "flash3": "flash_attention_3"}

#: What a rank is where none is given, as tutorials of PEFT and TRL have it.
_RANK = 16


def declare_training(parser: Parser) -> None:
    """Add the options, in groups."""
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "-m",
        "--method",
        default="full",
        help="full, lora, qlora, dora, ia3, prefix, prompt, ... (PEFT's names); galore, apollo, badam, lisa, lomo",
    )
    what.add_argument(
        "--rank",
        type=whole("--rank"),
        help=f"rank of low-rank adapters ({_RANK}, or the engine's own) and of GaLore, APOLLO",
    )
    what.add_argument("--targets", help="modules that are adapted, with commas: q_proj,v_proj (all-linear)")
    what.add_argument(
        "--lora",
        metavar="SPEC",
        help="--method lora in one word: r=16,targets=all-linear,dropout=0.05",
    )
    what.add_argument("--lora-dropout", type=float, help="dropout of adapters (0, or the engine's own)")
    what.add_argument(
        "--modules-to-save", help="modules that are trained whole beside adapters: embed_tokens,lm_head"
    )
    what.add_argument(
        "--virtual-tokens",
        metavar="N",
        type=whole("--virtual-tokens"),
        default=20,
        help="of prefix and prompt tuning (20)",
    )
    what.add_argument(
        "--quantize",
        "--quantization",
        metavar="METHOD",
        help="a frozen base stored so: nf4, fp4, int8, gptq, awq, ...",
    )
    what.add_argument("--train-only", help="parts or patterns of names that alone are trained")
    what.add_argument("--freeze", help="parts or patterns of names that are not trained: embedding,vision")
    what.add_argument("--objective", choices=OBJECTIVES, default="sft", help="what the loss compares (sft)")
    work = parser.add_argument_group("the work")
    work.add_argument(
        "-s", "--seq-len", metavar="TOKENS", help="tokens of the longest sequence, such as 4096 or 8k"
    )
    work.add_argument(
        "-b", "--batch", type=whole("--batch"), default=1, help="sequences of a device at once (1)"
    )
    work.add_argument(
        "--grad-accum", type=whole("--grad-accum"), default=1, help="micro-batches before a step (1)"
    )
    work.add_argument("--packed", action="store_true", help="sequences are packed, so that nothing is padded")
    work.add_argument(
        "--images", type=whole("--images", 0), help="images of a sequence, for models that see (1)"
    )
    work.add_argument(
        "--image-tokens", type=whole("--image-tokens"), help="tokens that an image becomes (the most it can)"
    )
    numbers = parser.add_argument_group("numbers and kernels")
    numbers.add_argument(
        "--recipe", help="fp32, amp-bf16, amp-fp16, pure-bf16, deepspeed-bf16, megatron-bf16, fsdp-mixed, ..."
    )
    numbers.add_argument(
        "--optimizer", help="as the Trainer names it: adamw, adamw_8bit, adafactor, lion, muon, ..."
    )
    numbers.add_argument(
        "--optimizer-impl", choices=("foreach", "fused", "for-loop"), help="how torch runs it"
    )
    numbers.add_argument(
        "--attention",
        "--attn",
        help="eager, sdpa, flash (flash_attention_2), flash_attention_3, flex_attention",
    )
    numbers.add_argument("--loss", help="hf, chunked, chunked-head, fused, liger, cut, vocab-parallel")
    numbers.add_argument(
        "--kernels",
        help="fused kernels: liger, unsloth, foak, te, rms_norm,rope,swiglu, mamba_ssm,causal_conv1d,fla; torch: none",
    )
    numbers.add_argument("--compile", action="store_true", help="layers run under torch.compile")
    numbers.add_argument(
        "--checkpointing",
        nargs="?",
        const="full",
        help="none, full (meant where nothing follows), selective-op, selective-core-attn, every-2, ...",
    )
    spread = parser.add_argument_group("the layout")
    spread.add_argument(
        "--fsdp",
        metavar="N",
        type=whole("--fsdp"),
        help="fully sharded data parallel: 1 or 2, which one; more: FSDP2 over so many ranks",
    )
    spread.add_argument("--zero", choices=("1", "2", "3"), help="DeepSpeed's ZeRO stage")
    spread.add_argument(
        "--ddp", action="store_true", help="DistributedDataParallel, as several devices do by default"
    )
    spread.add_argument(
        "--distributed-optimizer",
        action="store_true",
        help="Megatron's: data-parallel ranks share optimizer states",
    )
    for name, words in (
        ("tp", "tensor"), ("pp", "pipeline"), ("cp", "context"), ("ulysses", "Ulysses sequence"), ("ep", "expert"),
    ):  # fmt: skip
        spread.add_argument(
            f"--{name}", type=whole(f"--{name}"), default=1, help=f"{words} parallel ranks (1)"
        )
    spread.add_argument("--sp", action="store_true", help="sequence parallel beside tensor parallel")
    spread.add_argument("--schedule", help="gpipe, 1f1b, interleaved, zero-bubble, dualpipe")
    spread.add_argument("--offload", help="to the host: optimizer,params,activations")
    spread.add_argument("--rollout", help="the engine of an RL objective: vllm, sglang, transformers")
    program = parser.add_argument_group("the program")
    program.add_argument(
        "-e",
        "--engine",
        help="transformers, trl, torchtune, torchtitan, megatron, ...; default: the one that has the recipe or the "
        "layout asked for, transformers else",
    )
    program.add_argument("--engine-version", metavar="VERSION", help="default: the newest that is known")


def ranks_asked(given: Namespace, devices: int) -> int | None:
    """How many processes the options speak of; None if the devices say it.

    Parameters
    ----------
    devices
        How many were named: a single one is meant for each process.
    """
    model = given.tp * given.pp * given.cp * given.ulysses
    if given.fsdp is not None and given.fsdp > _FSDP2:
        return int(given.fsdp * model)
    return int(model) if devices == 1 else None


def training_settings(given: Namespace, framework: str | None = None) -> TrainingSettings:
    """The settings that the options make.

    Parameters
    ----------
    framework
        The one that is meant where none is named; None for one that has what is asked for.

    Raises
    ------
    BadInput
        If options contradict each other.
    """
    if given.lora is not None:
        _take_lora(given)
    method = given.method.lower()
    quantization = _quantization(given, method)
    return TrainingSettings(
        framework=given.engine or framework or _framework(given),
        version=given.engine_version,
        objective=given.objective,
        micro_batch=given.batch,
        seq_len=if_given(given.seq_len, parse_tokens),
        gradient_accumulation=given.grad_accum,
        packed=given.packed,
        adapter=_adapter(given, method),
        quantization=quantization,
        precision=PrecisionSettings(recipe=given.recipe),
        optimizer=_optimizer(given, method),
        checkpointing=_checkpointing(given),
        loss=LossSettings(given.loss),
        layout=_layout(given),
        offload=_offload(given),
        rollout=RolloutSettings(given.rollout) if given.rollout else None,
        images=given.images,
        image_tokens=given.image_tokens,
        frozen=_words(given.freeze),
        trained=_words(given.train_only),
        attention=_ATTENTION.get(given.attention, given.attention),
        kernels=_words(given.kernels),
        compile=given.compile,
    )


def _framework(given: Namespace) -> str:
    """The framework that has what is asked for, where none is named."""
    recipe = given.recipe or ""
    if (
        recipe.startswith("megatron")
        or given.distributed_optimizer
        or given.pp > 1
        or given.ep > 1
        or given.sp
        or given.schedule
    ):
        return "megatron"
    if given.fsdp is not None and given.fsdp >= _FSDP2 and (given.tp > 1 or given.cp > 1):
        return "torchtitan"
    if given.tp > 1 or given.cp > 1:
        return "megatron"
    return (
        "deepspeed" if recipe.startswith("deepspeed") or given.zero or given.ulysses > 1 else "transformers"
    )


def _take_lora(given: Namespace) -> None:
    """Put what `--lora` says where the options of adapters are."""
    given.method = "lora" if given.method == "full" else given.method
    key = ""
    found: dict[str, list[str]] = {}
    for part in _words(given.lora):
        name, equals, value = part.partition("=")
        if equals:
            key = name.strip()
            found[key] = [value.strip()]
        elif key == "targets":
            found[key].append(part)
        else:
            raise BadInput(f"--lora has {part!r}, expected name=value", "--lora r=16,targets=all-linear")
    for key, values in found.items():
        if key not in _LORA:
            raise BadInput(f"--lora has no {key!r}", f"known: {', '.join(_LORA)}")
        option, read = _LORA[key]
        setattr(given, option, read(",".join(values)))


def _dropout(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"--lora dropout is {text[:40]!r}, expected a number") from None


#: What `--lora` may say: the option that it stands for, and how its value is read.
_LORA: dict[str, tuple[str, Callable[[str], object]]] = {
    "r": ("rank", whole("--lora r")), "targets": ("targets", str), "dropout": ("lora_dropout", _dropout),
}  # fmt: skip


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _quantization(given: Namespace, method: str) -> QuantizationSettings | None:
    name = given.quantize or ("nf4" if method == "qlora" else None)
    if name is None:
        return None
    if method in _OWN:
        raise BadInput(
            f"a base in {name} is frozen, so --method {method} cannot train it", "use --method lora"
        )
    double = None if given.engine in ADAPTING else method == "qlora" and name in ("nf4", "fp4")
    return QuantizationSettings(name, double_quant=double)


def _adapter(given: Namespace, method: str) -> AdapterSettings | None:
    if method in _OWN:
        for option, value in (("--targets", given.targets), ("--modules-to-save", given.modules_to_save)):
            if value:
                raise BadInput(f"{option} belongs to adapters, and --method {method} has none")
        return None
    low = method in ("lora", "qlora", "dora")
    usual = low and given.engine not in ADAPTING
    return AdapterSettings(
        kind="lora" if low else method,
        rank=given.rank or (_RANK if usual else None),
        dropout=given.lora_dropout,
        targets=_words(given.targets) or (("all-linear",) if usual else ()),
        modules_to_save=_words(given.modules_to_save),
        use_dora=method == "dora",
        virtual_tokens=given.virtual_tokens if not low else 0,
    )


def _optimizer(given: Namespace, method: str) -> OptimizerSettings:
    name = given.optimizer
    if method in ("galore", "apollo", "badam", "lisa", "lomo"):
        name = {"galore": "galore_adamw", "apollo": "apollo_adamw"}.get(method, method)
    return OptimizerSettings(name, given.optimizer_impl, rank=given.rank)


def _checkpointing(given: Namespace) -> CheckpointingSettings:
    kind, every = given.checkpointing, 1
    if kind and kind.startswith("every-"):
        kind, text = "full", kind.removeprefix("every-")
        every = whole("--checkpointing every-")(text)
    return CheckpointingSettings(kind, every, offload="activations" in _words(given.offload))


def _layout(given: Namespace) -> LayoutSettings:
    asked = [f"fsdp{min(given.fsdp, _FSDP2)}"] if given.fsdp else []
    asked += [f"zero{given.zero}"] if given.zero else []
    asked += ["ddp"] if given.ddp else []
    asked += ["distributed-optimizer"] if given.distributed_optimizer else []
    if len(asked) > 1:
        raise BadInput(
            f"{' and '.join(asked)} exclude each other",
            "name one of --fsdp, --zero, --ddp and --distributed-optimizer",
        )
    return LayoutSettings(
        data=asked[0] if asked else None,
        tp=given.tp,
        sp=given.sp,
        pp=given.pp,
        cp=given.cp,
        ulysses=given.ulysses,
        ep=given.ep,
        schedule=given.schedule,
    )


def _offload(given: Namespace) -> OffloadSettings:
    words = _words(given.offload)
    strange = [word for word in words if word not in ("optimizer", "params", "activations", "gradients")]
    if strange:
        raise BadInput(
            f"--offload {strange[0]} is not known", "known: optimizer, params, gradients, activations"
        )
    return OffloadSettings("params" in words, "gradients" in words, "optimizer" in words)
