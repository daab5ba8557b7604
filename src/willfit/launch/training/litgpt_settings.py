"""From LitGPT's keys to a training run's settings, and to its model."""

from __future__ import annotations

import re
from typing import Any

from willfit.checkpoints.catalogue import find
from willfit.errors import BadInput
from willfit.launch.training.keys import Keys
from willfit.launch.training.optimizer_classes import of_class
from willfit.training.settings import (
    AdapterSettings,
    LayoutSettings,
    OptimizerSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)  # fmt: skip

METHODS = ("lora", "full", "adapter", "adapter_v2")

#: Sequences of a device and of a step if nothing is said (`finetune/*.py`, `pretrain.py`, 0.4 and 0.5).
_BATCHES = {"pretrain": (4, 512)}
_FINETUNING = (1, 16)

#: `finetune/lora.py: setup`.
_LORA = {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "lora_query": True, "lora_value": True}

#: `--precision` of Lightning Fabric: weights, what layers compute in, and whether by autocast.
_PRECISIONS: dict[str, tuple[str, str | None, bool]] = {
    "bf16-true": ("bfloat16", None, False),
    "16-true": ("float16", None, False),
    "32-true": ("float32", None, False),
    "64-true": ("float64", None, False),
    "bf16-mixed": ("float32", "bfloat16", True),
    "16-mixed": ("float32", "float16", True),
    "32": ("float32", None, False),
    "bf16": ("float32", "bfloat16", True),
    "transformer-engine": ("bfloat16", None, False),
}

#: Organisations of the models whose names pretraining takes (`litgpt/config.py`).
_ORGANISATIONS = (
    ("pythia", "EleutherAI"), ("tiny-llama-1.1b", "TinyLlama"), ("Llama", "meta-llama"), ("Meta-Llama", "meta-llama"),
    ("Qwen", "Qwen"), ("gemma", "google"), ("phi", "microsoft"), ("Phi", "microsoft"), ("Mistral", "mistralai"),
    ("falcon", "tiiuae"), ("SmolLM", "HuggingFaceTB"), ("stablelm", "stabilityai"), ("OLMo", "allenai"),
)  # fmt: skip
_OTHER_NAMES = {
    "tiny-llama-1.1b": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    "tiny-llama-1.1b-chat": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "micro-llama-300M": "keeeeenw/MicroLlama",
}


def model_of_keys(keys: Keys, method: str) -> tuple[str, dict[str, Any] | None]:
    """The model, and its config where the keys describe one.

    Raises
    ------
    BadInput
        If none is named.
    """
    if keys.has("model_config.n_layer"):
        return _described(keys)
    name = keys.word("model_name" if method == "pretrain" else "checkpoint_dir")
    if not name:
        what = "MODEL" if method == "pretrain" else "CHECKPOINT"
        raise BadInput(f"{keys.program}: no model is named", f"write {keys.program} {what}")
    bare = re.sub(r"^(\./)?checkpoints/", "", name.rstrip("/"))
    if "/" in bare or bare.startswith("."):
        return bare, None
    if bare in _OTHER_NAMES:
        return _OTHER_NAMES[bare], None
    entry = find(bare)
    if entry is not None:
        return entry.id, None
    organisation = next((owner for start, owner in _ORGANISATIONS if bare.startswith(start)), None)
    return f"{organisation}/{bare}" if organisation else bare, None


def _described(keys: Keys) -> tuple[str, dict[str, Any]]:
    """A model that a file describes by LitGPT's own sizes (`litgpt/config.py: Config`)."""
    inside = Keys(keys.program, keys.under("model_config"))
    layers, width, heads = inside.whole("n_layer"), inside.whole("n_embd"), inside.whole("n_head")
    if layers is None or width is None or heads is None:
        raise BadInput(f"{keys.program}: model_config needs n_layer, n_embd and n_head")
    vocabulary = inside.whole("padded_vocab_size")
    if vocabulary is None:
        multiple = inside.whole("padding_multiple") or 512
        vocabulary = multiple * -(-(inside.whole("vocab_size") or 50254) // multiple)
    gated = (inside.word("mlp_class_name") or "GptNeoxMLP") in ("LLaMAMLP", "GemmaMLP")
    config: dict[str, Any] = {
        "model_type": "llama" if gated else "gpt_neox",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": inside.whole("n_query_groups") or heads,
        "intermediate_size": inside.whole("intermediate_size") or 4 * width,
        "vocab_size": vocabulary,
        "max_position_embeddings": inside.whole("block_size") or 4096,
        "tie_word_embeddings": bool(keys.flag("train.tie_embeddings")),
    }
    if gated:
        config["head_dim"] = inside.whole("head_size") or width // heads
    keys.see("model_name")
    return inside.word("name") or f"{layers} layers of LitGPT", config


def settings_of(
    keys: Keys, method: str, version: str | None, expandable: bool | None
) -> tuple[TrainingSettings, int | None, list[str]]:
    """The settings, how many devices they take (None for all that there are), and notes.

    Parameters
    ----------
    keys
        Files and flags together.
    method
        `pretrain` or one of `METHODS`.
    version
        Version of LitGPT.
    expandable
        Whether the allocator's segments can grow, as the variables say.
    """
    text = keys.word("devices") or ("auto" if method == "pretrain" else "1")
    nodes = keys.whole("num_nodes") or 1
    devices = None
    if text not in ("auto", "-1"):
        devices = (keys.whole("devices") or 1) * nodes
    micro, total = _BATCHES.get(method, _FINETUNING)
    micro = keys.whole("train.micro_batch_size") or micro
    total = keys.whole("train.global_batch_size") or total
    accumulation = max(1, total // (devices or 1) // micro)
    quantization = _quantization(keys)
    if quantization is not None and (devices or 1) > 1:
        raise BadInput(
            f"{keys.program}: quantization is not supported on several devices", "leave --quantize out"
        )
    notes = []
    if devices is None and accumulation > 1:
        notes.append(
            f"micro-batches of a step ({accumulation}) are those of one device; all that there are share them"
        )
    keys.see("train.tie_embeddings")
    single = devices == 1
    settings = TrainingSettings(
        framework="litgpt",
        version=version,
        objective="pretrain" if method == "pretrain" else "sft",
        micro_batch=micro,
        seq_len=keys.whole("train.max_seq_length"),
        gradient_accumulation=accumulation,
        adapter=_adapter(keys, method),
        quantization=quantization,
        precision=_precision(keys),
        optimizer=_optimizer(keys),
        layout=LayoutSettings(data="none" if single else None),
        packed=method == "pretrain",
        compile=method == "pretrain",
        expandable_segments=expandable,
    )
    return settings, devices, notes


def _precision(keys: Keys) -> PrecisionSettings:
    text = keys.word("precision", _PRECISIONS)
    if text is None:
        return PrecisionSettings()
    weights, compute, autocast = _PRECISIONS[text]
    return PrecisionSettings(weights=weights, compute=compute, autocast=autocast)


def _quantization(keys: Keys) -> QuantizationSettings | None:
    text = keys.word(
        "quantize", ("bnb.nf4", "bnb.nf4-dq", "bnb.fp4", "bnb.fp4-dq", "bnb.int8-training", "bnb.int8")
    )
    if text is None:
        return None
    if "mixed" in (keys.word("precision") or ""):
        raise BadInput(
            f"{keys.program}: quantization and mixed precision is not supported",
            "write --precision bf16-true",
        )
    name = text.removeprefix("bnb.")
    return QuantizationSettings(
        "int8" if name.startswith("int8") else name[:3], double_quant=name.endswith("-dq")
    )


def _optimizer(keys: Keys) -> OptimizerSettings:
    path = keys.word("optimizer.class_path") or keys.word("optimizer")
    options = {key.removeprefix("init_args."): value for key, value in keys.under("optimizer").items()}
    return of_class(path, options) if path else OptimizerSettings()


def _adapter(keys: Keys, method: str) -> AdapterSettings | None:
    if method in ("adapter", "adapter_v2"):
        # LLaMA-Adapter: prompts of ten tokens from the third layer on (`litgpt/adapter.py: Config`).
        options = {"adapter_start_layer": 2, "version": 2 if method == "adapter_v2" else 1}
        return AdapterSettings(kind="adaption_prompt", virtual_tokens=10, options=options)
    if method != "lora":
        keys.see(*_LORA, "lora_key", "lora_projection", "lora_mlp", "lora_head")
        return None

    def on(name: str) -> bool:
        value = keys.flag(name)
        return bool(_LORA.get(name)) if value is None else value

    sections = [
        short for short, name in (("q", "lora_query"), ("k", "lora_key"), ("v", "lora_value")) if on(name)
    ]
    targets = ["qkv-fused:" + ",".join(sections)] if sections else []
    targets += ["proj"] if on("lora_projection") else []
    targets += ["mlp"] if on("lora_mlp") else []
    targets += ["head"] if on("lora_head") else []
    alpha, dropout = keys.number("lora_alpha"), keys.number("lora_dropout")
    return AdapterSettings(
        rank=keys.whole("lora_r") or int(_LORA["lora_r"]),
        alpha=float(_LORA["lora_alpha"]) if alpha is None else alpha,
        dropout=_LORA["lora_dropout"] if dropout is None else dropout,
        targets=tuple(targets),
    )
