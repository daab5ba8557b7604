"""The scenarios that are traced: models with sizes that tell terms apart, and settings in willfit's own words.

A scenario is a `name`, a `model` (fields of the transformers config; `auto` is the class that makes it), `settings`
(fields of `willfit.training.settings.TrainingSettings` that are said) and `also`, what those have no word for:
`clipping` (default on, as in the Trainer).
"""

from __future__ import annotations

from typing import Any

from families import EAGER, MODELS, PUBLISHED

Settings = dict[str, Any]

BF16 = {"weights": "bfloat16"}
FP32 = {"weights": "float32"}
#: What `--bf16` of the Trainer does to a model that was loaded in float32.
AMP = {"weights": "float32", "compute": "bfloat16", "autocast": True}
#: The same with a frozen base that was loaded in bfloat16.
BF16_AMP = {"weights": "bfloat16", "compute": "bfloat16", "autocast": True}
PRECISIONS = {"bf16": BF16, "fp32": FP32, "amp": AMP}

CHECKPOINTED = {"kind": "full", "reentrant": False}
REENTRANT = {"kind": "full", "reentrant": True}

LORA = {"kind": "lora", "rank": 8, "targets": ["q_proj", "v_proj"]}
ALL_LINEAR = {"kind": "lora", "rank": 8, "targets": ["all-linear"]}
ADAPTERS: dict[str, Settings] = {
    "lora dropout": {**LORA, "dropout": 0.05},
    "lora all-linear": ALL_LINEAR,
    "lora all-linear dropout": {**ALL_LINEAR, "dropout": 0.05},
    "dora": {**LORA, "use_dora": True},
    "dora dropout": {**LORA, "use_dora": True, "dropout": 0.05},
    "lora head saved": {**LORA, "modules_to_save": ["lm_head"]},
    "lora embedding saved": {**LORA, "modules_to_save": ["embed_tokens", "lm_head"]},
    "lora bias": {**LORA, "bias": "all"},
    "ia3": {"kind": "ia3"},
    "prefix": {"kind": "prefix", "virtual_tokens": 20},
    "prompt": {"kind": "prompt", "virtual_tokens": 20},
}

OPTIMIZERS: dict[str, Settings] = {
    "adamw fused": {"name": "adamw", "implementation": "fused"},
    "adamw for-loop": {"name": "adamw", "implementation": "for-loop"},
    "sgd": {"name": "sgd", "implementation": "foreach"},
    "sgd momentum": {"name": "sgd", "implementation": "foreach", "momentum": True},
    "adafactor": {"name": "adafactor"},
    "lion": {"name": "lion"},
}

#: What is changed alone, beside a llama in bf16, with sdpa.
FACTORS: dict[str, Settings] = {
    "eager": {"attention": "eager"},
    "eager padded": {"attention": "eager", "padded": True},
    "eager checkpointed": {"attention": "eager", "checkpointing": CHECKPOINTED},
    "flash_attention_2": {"attention": "flash_attention_2"},
    "flash_attention_2 checkpointed": {"attention": "flash_attention_2", "checkpointing": CHECKPOINTED},
    "padded": {"padded": True},
    "padded checkpointed": {"padded": True, "checkpointing": CHECKPOINTED},
    "padded odd length": {"padded": True, "seq_len": 150},
    "odd length": {"seq_len": 149, "micro_batch": 3},
    "one sequence": {"micro_batch": 1, "seq_len": 288},
    "reentrant": {"checkpointing": REENTRANT},
    "lora reentrant": {"adapter": LORA, "checkpointing": REENTRANT},
    "lora dropout checkpointed": {"adapter": ADAPTERS["lora dropout"], "checkpointing": CHECKPOINTED},
    "lora all-linear checkpointed": {"adapter": ALL_LINEAR, "checkpointing": CHECKPOINTED},
    "accumulated": {"gradient_accumulation": 2},
    "accumulated checkpointed": {"gradient_accumulation": 2, "checkpointing": CHECKPOINTED},
    "accumulated lora": {"gradient_accumulation": 2, "adapter": LORA},
    "cache": {"use_cache": True},
    "cache checkpointed": {"use_cache": True, "checkpointing": CHECKPOINTED},
    "every second layer checkpointed": {"checkpointing": {**CHECKPOINTED, "every": 2}},
    "checkpoints offloaded": {"checkpointing": {**CHECKPOINTED, "offload": True}},
    "embedding frozen": {"frozen": ["embedding"]},
    "lower layers frozen": {"frozen": ["embedding", "layers.0-1"]},
    "logits kept": {"loss": {"keeps_logits": True}},
}

#: Scenarios of other families: a word, what is changed.
CROSSES: dict[str, Settings] = {
    "fp32": {"precision": FP32},
    "checkpointed": {"checkpointing": CHECKPOINTED},
    "amp checkpointed": {"precision": AMP, "checkpointing": CHECKPOINTED},
    "lora": {"adapter": LORA},
    "lora all-linear": {"adapter": ALL_LINEAR},
}

#: Models as they are published, with 2,048 tokens.
LONG: Settings = {"micro_batch": 1, "seq_len": 2048}


def base(**settings: Any) -> Settings:
    """Settings of a base scenario, with changes."""
    return {
        "framework": "transformers",
        "micro_batch": 2,
        "seq_len": 144,
        "precision": BF16,
        "optimizer": {"name": "adamw", "implementation": "foreach"},
        "attention": "sdpa",
        **settings,
    }


def scenario(name: str, model: str, also: Settings | None = None, **settings: Any) -> Settings:
    """One scenario."""
    family = {**MODELS, **PUBLISHED}[model]
    if model in EAGER or family["model_type"] in EAGER:
        settings.setdefault("attention", "eager")
    found = {"name": name, "model": family, "settings": base(**settings)}
    return {**found, "also": also} if also else found


def all_scenarios() -> list[Settings]:
    """Every scenario, in order."""
    return [*of_llama(), *of_families(), *of_published()]


def of_llama() -> list[Settings]:
    """One factor at a time."""
    found = []
    for word, precision in PRECISIONS.items():
        rows: dict[str, Settings] = {
            "": {},
            "checkpointed": {"checkpointing": CHECKPOINTED},
            "lora": {"adapter": LORA},
            "lora checkpointed": {"adapter": LORA, "checkpointing": CHECKPOINTED},
        }
        for row, settings in rows.items():
            found.append(scenario(f"llama {word} {row}".strip(), "llama", precision=precision, **settings))
    for word, settings in FACTORS.items():
        found.append(scenario(f"llama bf16 {word}", "llama", **settings))
    for word, adapter in ADAPTERS.items():
        model = "llama biased" if "bias" in adapter else "llama"
        found.append(scenario(f"llama bf16 {word}", model, adapter=adapter))
    for word in ("eager", "flash_attention_2", "padded", "reentrant", "accumulated", "logits kept"):
        found.append(scenario(f"llama amp {word}", "llama", precision=AMP, **FACTORS[word]))
    for word in ("eager", "padded", "accumulated"):
        found.append(scenario(f"llama fp32 {word}", "llama", precision=FP32, **FACTORS[word]))
    for word in ("lora dropout", "lora all-linear", "dora", "ia3", "prefix", "prompt"):
        found.append(scenario(f"llama amp {word}", "llama", precision=AMP, adapter=ADAPTERS[word]))
    for word in ("lora dropout", "lora all-linear"):
        found.append(scenario(f"llama bf16 amp {word}", "llama", precision=BF16_AMP, adapter=ADAPTERS[word]))
    found.append(scenario("llama bf16 amp", "llama", precision=BF16_AMP))
    for word, optimizer in OPTIMIZERS.items():
        found.append(scenario(f"llama bf16 {word}", "llama", optimizer=optimizer))
        found.append(scenario(f"llama fp32 {word}", "llama", precision=FP32, optimizer=optimizer))
    found.append(scenario("llama bf16 unclipped", "llama", {"clipping": False}))
    for word, precision in PRECISIONS.items():
        for row, settings in (("", {}), (" checkpointed", {"checkpointing": CHECKPOINTED})):
            name = f"llama small vocabulary {word}{row}"
            found.append(scenario(name, "llama small vocabulary", precision=precision, **settings))
    found.append(scenario("llama small vocabulary bf16 lora", "llama small vocabulary", adapter=LORA))
    found.append(scenario("llama tied bf16", "llama tied"))
    found.append(scenario("llama tied amp", "llama tied", precision=AMP))
    found.append(scenario("llama tied bf16 lora", "llama tied", adapter=LORA))
    found.append(scenario("llama biased bf16", "llama biased"))
    return found


def of_families() -> list[Settings]:
    """Each family in bf16 and under autocast, and a few with more."""
    found = []
    for family in MODELS:
        if not family.startswith("llama"):
            found.append(scenario(f"{family} bf16", family))
            found.append(scenario(f"{family} amp", family, precision=AMP))
    for family in ("qwen3", "gemma2", "gpt2", "mixtral"):
        for word, settings in CROSSES.items():
            if family == "gpt2" and "adapter" in settings:
                targets = ["c_attn"] if word == "lora" else ["all-linear"]
                settings = {"adapter": {**LORA, "targets": targets}}
            found.append(scenario(f"{family} {word}", family, **settings))
    for family in ("llama", "bert"):
        named = scenario(f"{family} classification", family, objective="classification", classes=5)
        named["model"] = {**named["model"], "auto": "AutoModelForSequenceClassification"}
        found.append(named)
    for family in ("qwen3", "gpt2", "mixtral", "bert", "phi3", "opt"):
        found.append(scenario(f"{family} bf16 eager", family, attention="eager"))
    for family in ("qwen3", "gpt2", "bert", "mistral sliding", "gemma3"):
        found.append(scenario(f"{family} bf16 padded", family, padded=True))
    for family in ("gemma2", "deepseek_v3", "mistral sliding"):
        found.append(scenario(f"{family} bf16 flash_attention_2", family, attention="flash_attention_2"))
    for family in ("qwen2_moe", "deepseek_v3", "qwen3_next", "mamba2", "bert", "t5", "gemma3", "falcon"):
        found.append(scenario(f"{family} bf16 checkpointed", family, checkpointing=CHECKPOINTED))
    for family in ("phi3", "deepseek_v3", "qwen3_moe", "falcon", "gpt_neox", "bert", "t5"):
        found.append(scenario(f"{family} bf16 lora all-linear", family, adapter=ALL_LINEAR))
    return found


def of_published() -> list[Settings]:
    """At full depth."""
    found = []
    for model in PUBLISHED:
        found.append(scenario(f"{model} bf16", model, **LONG))
        found.append(scenario(f"{model} bf16 checkpointed", model, checkpointing=CHECKPOINTED, **LONG))
    for model in ("Llama-3.1-8B", "Qwen3-8B"):
        fused = OPTIMIZERS["adamw fused"]
        found.append(scenario(f"{model} amp checkpointed fused", model, precision=AMP, optimizer=fused,
                              checkpointing=CHECKPOINTED, **LONG))  # fmt: skip
        found.append(scenario(f"{model} lora", model, adapter=LORA, **LONG))
        found.append(scenario(f"{model} lora all-linear checkpointed", model, adapter=ALL_LINEAR,
                              checkpointing=CHECKPOINTED, **LONG))  # fmt: skip
    return found
