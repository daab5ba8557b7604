"""Training scripts that many people use, and what they do when nothing is said.

A script is known by its name, and by arguments that only it has. Others are a user's own: their arguments are read by
the names that scripts share, and what has no such name is named in a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any, NamedTuple


class Script(NamedTuple):
    """A script, or a family of them.

    Attributes
    ----------
    framework
        `transformers` (its Trainer), `trl`, `accelerate` (a loop of its own) or `deepspeed`.
    names
        Its names, as a pattern; empty for any.
    marks
        Arguments one of which must be there; empty if the name is enough.
    objective
        What it trains for; None if that follows from its name.
    defaults
        Arguments and the values that they have if nothing is said.
    adapter
        `always`, or `asked` for where an argument turns it on; `given` where arguments of an adapter are enough.
    weights
        Dtype in which it loads the model if nothing is said: `compute` is that of `bf16` or `fp16`, `half` that of
        `bf16` alone, `storage` that in which 4-bit values are packed; else float32.
    adapter_dtype
        Dtype of adapters: `half` as above; None for PEFT's rule.
    packed
        Texts are joined and cut to the full length.
    spread
        One process spreads the layers over the devices that it sees (`device_map: auto`).
    attention
        The implementation that it always uses.
    source
        Where these defaults stand.
    """

    framework: str
    names: str = ""
    marks: tuple[str, ...] = ()
    objective: str | None = None
    defaults: Mapping[str, Any] = {}
    adapter: str = "given"
    weights: str | None = None
    adapter_dtype: str | None = None
    packed: bool = False
    spread: bool = False
    attention: str | None = None
    source: str = ""


_QV = ["q_proj", "v_proj"]
_ALL_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"]

#: The Trainer's own (`TrainingArguments`).
_TRAINER = {"per_device_train_batch_size": 8}

#: TRL's `ModelConfig` (`trainer/model_config.py`).
_TRL = _TRAINER | {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05}

SCRIPTS: tuple[Script, ...] = (
    Script(
        "transformers", r"qlora\.py", (), "sft",
        {
            "bits": 4, "double_quant": True, "quant_type": "nf4", "lora_r": 64, "lora_alpha": 16,
            "lora_target_modules": ["all-linear"], "optim": "paged_adamw_32bit", "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 16, "gradient_checkpointing": True, "source_max_len": 1024,
            "target_max_len": 256,
        },
        adapter="always", weights="half", adapter_dtype="half", spread=True, source="artidoro/qlora qlora.py",
    ),
    Script(
        "transformers", r"finetune\.py", ("--base_model",), "sft",
        {
            "micro_batch_size": 4, "batch_size": 128, "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05,
            "lora_target_modules": _QV, "cutoff_len": 256, "load_in_8bit": True, "fp16": True,
        },
        adapter="always", weights="fp16", spread=True, source="tloen/alpaca-lora finetune.py",
    ),
    Script(
        "accelerate", r"finetune\w*\.py|dpo_tune\w*\.py",
        ("--use_qlora", "--dataset_mixer_list", "--use_slow_tokenizer", "--with_tracking"), None,
        _TRAINER
        | {
            "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.1, "lora_target_modules": _ALL_SEVEN,
            "use_flash_attn": True,
        },
        adapter="asked", weights="bf16", source="allenai/open-instruct open_instruct/finetune.py",
    ),
    Script(
        "transformers", r"finetune\.py", ("--q_lora", "--use_lora", "--lazy_preprocess"), "sft",
        _TRAINER
        | {
            "lora_r": 64, "lora_alpha": 16, "lora_dropout": 0.05, "model_max_length": 8192,
            "lora_target_modules": ["c_attn", "c_proj", "w1", "w2"],
        },
        adapter="asked", source="QwenLM/Qwen finetune.py",
    ),
    Script(
        "transformers", r"train_lora\.py", ("--lora_r", "--q_lora", "--data_path"), "sft",
        _TRAINER
        | {
            "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_modules": _QV, "model_max_length": 512,
        },
        adapter="always", weights="compute", source="lm-sys/FastChat fastchat/train/train_lora.py",
    ),
    Script(
        "transformers", r"train_mem\.py|train_flash_attn\w*\.py", ("--data_path",), "sft",
        _TRAINER | {"model_max_length": 512}, attention="flash_attention_2",
        source="lm-sys/FastChat fastchat/train/train_mem.py",
    ),
    Script(
        "transformers", r"train\w*\.py", ("--data_path",), "sft", _TRAINER | {"model_max_length": 512},
        source="tatsu-lab/stanford_alpaca train.py, lm-sys/FastChat fastchat/train/train.py",
    ),
    Script(
        "trl", r"train\.py", ("--use_peft_lora", "--use_4bit_quantization", "--chat_template_format"), "sft",
        _TRAINER
        | {"lora_r": 64, "lora_alpha": 16, "lora_dropout": 0.1, "lora_target_modules": _ALL_SEVEN},
        adapter="asked", weights="storage", source="huggingface/peft examples/sft",
    ),
    Script(
        "deepspeed", r"main\.py", ("--zero_stage",), "sft",
        {"per_device_train_batch_size": 16, "max_seq_len": 512, "dtype": "fp16", "zero_stage": 0},
        adapter="asked", source="microsoft/DeepSpeedExamples DeepSpeed-Chat step1_supervised_finetuning/main.py",
    ),
    Script(
        "accelerate", r"finetuning\.py", ("--peft_method", "--enable_fsdp", "--batch_size_training"), "sft",
        {
            "batch_size_training": 4, "context_length": 4096, "lora_r": 8, "lora_alpha": 32, "lora_dropout": 0.05,
            "lora_target_modules": _QV, "mixed_precision": True,
        },
        adapter="asked", weights="bf16", packed=True, source="meta-llama/llama-cookbook finetuning.py",
    ),
    Script(
        "transformers", r"run_clm\.py|run_plm\.py|run_mlm\.py|run_fim\.py", (), "pretrain",
        _TRAINER | {"block_size": 1024}, packed=True, source="transformers examples/pytorch/language-modeling",
    ),
    Script(
        "accelerate", r"run_(clm|mlm|fim)_no_trainer\.py", (), "pretrain", _TRAINER | {"block_size": 1024},
        packed=True, source="transformers examples/pytorch/language-modeling",
    ),
    Script(
        "transformers", r"run_(glue|xnli|classification|text_classification|swag)\.py", (), "classification",
        _TRAINER | {"max_seq_length": 128, "classes": 2}, source="transformers examples/pytorch/text-classification",
    ),
    Script(
        "accelerate", r"run_(glue|swag)_no_trainer\.py", (), "classification",
        _TRAINER | {"max_length": 128, "classes": 2}, source="transformers examples/pytorch/text-classification",
    ),
)  # fmt: skip

#: TRL's scripts, and those of repositories that are made of its trainers (alignment-handbook, open-r1).
_TRL_NAMES = re.compile(
    r"(?:run_)?(sft|dpo|kto|orpo|cpo|simpo|grpo|gspo|rloo|reward|rm|ppo|bco|gkd|online_dpo|nash_md|xpo|prm|"
    r"distillation)(?:_\w+)?\.py"
)

_OTHER_TRL = {"reward_modeling": "reward", "rm": "reward", "gspo": "grpo", "simpo": "cpo"}

#: Any other script.
OWN = Script("transformers", defaults=_TRAINER)


def known(script: str, flags: Sequence[str]) -> tuple[Script, str | None]:
    """The script, and the name of TRL's trainer that it makes.

    Parameters
    ----------
    script
        Its path, or the name of a module.
    flags
        The arguments that it is given, as `--name`, with underscores.
    """
    name = basename(script)
    name = name if name.endswith(".py") else name.rpartition(".")[2] + ".py"
    for one in SCRIPTS:
        if re.fullmatch(one.names, name) and (not one.marks or any(mark in flags for mark in one.marks)):
            return one, None
    found = _TRL_NAMES.fullmatch(name)
    if found is not None:
        trainer = _OTHER_TRL.get(found[1], found[1])
        return Script("trl", defaults=_TRL, adapter="asked"), trainer
    return OWN, None
