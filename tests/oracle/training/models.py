"""Building a scenario's model with transformers and peft, and putting it on the fake device."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

#: peft's word for what a class of transformers is for.
TASKS = {"AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM"}


def build(scenario: dict[str, Any]) -> torch.nn.Module:
    """The model of a scenario on the meta device, with adapters and checkpointing, ready to train."""
    import transformers

    settings = scenario["settings"]
    fields = copy.deepcopy(scenario["model"])
    kind = fields.pop("auto", "AutoModelForCausalLM")
    config = transformers.AutoConfig.for_model(**fields)
    if settings.get("classes"):
        config.num_labels = settings["classes"]
    config.use_cache = settings.get("use_cache", False)
    weights = DTYPES[settings["precision"]["weights"]]
    with torch.device("meta"):
        model = getattr(transformers, kind).from_config(
            config, dtype=weights, attn_implementation=settings.get("attention", "sdpa")
        )
    checkpointing = settings.get("checkpointing", {})
    if checkpointing.get("kind") == "full":
        model.activation_checkpointing_enable(
            {"use_reentrant": bool(checkpointing.get("reentrant"))},
            every_n_layers=checkpointing.get("every", 1),
            offload=checkpointing.get("offload", False),
        )
    freeze(model, settings.get("frozen", ()))
    adapter = settings.get("adapter")
    if adapter:
        with torch.device("meta"):
            model = adapted(model, adapter, TASKS.get(kind))
    return model.train()


def freeze(model: torch.nn.Module, patterns: Iterable[str]) -> None:
    """Train no parameter of the parts named: `embedding`, or the first layers as `layers.0-1`."""
    for pattern in patterns:
        parts = [model.get_input_embeddings()]
        if pattern != "embedding":
            first, last = map(int, pattern.removeprefix("layers.").split("-"))
            parts = list(model.base_model.layers[first : last + 1])
        for part in parts:
            part.requires_grad_(False)


def adapted(model: torch.nn.Module, adapter: dict[str, Any], task: str | None) -> torch.nn.Module:
    """With adapters, as `peft.get_peft_model` adds them."""
    import peft

    kind = adapter["kind"]
    targets: Any = list(adapter.get("targets", ())) or None
    if targets == ["all-linear"]:
        targets = "all-linear"
    if kind == "lora":
        config = peft.LoraConfig(
            task_type=task, r=adapter["rank"], lora_dropout=adapter.get("dropout", 0.0), target_modules=targets,
            use_dora=adapter.get("use_dora", False), use_rslora=adapter.get("use_rslora", False),
            bias=adapter.get("bias", "none"), modules_to_save=list(adapter.get("modules_to_save", ())) or None,
        )  # fmt: skip
    elif kind == "ia3":
        config = peft.IA3Config(task_type=task)
    elif kind == "prefix":
        config = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=adapter["virtual_tokens"])
    elif kind == "prompt":
        config = peft.PromptTuningConfig(task_type=task, num_virtual_tokens=adapter["virtual_tokens"])
    else:
        config = getattr(peft, adapter["options"]["config"])(task_type=task, target_modules=targets)
    return peft.get_peft_model(model, config)


def place(model: torch.nn.Module, device: str) -> list[tuple[str, str, torch.Tensor]]:
    """Replace parameters and buffers by fake ones on the device; ties stay. Call under the fake mode.

    Returns
    -------
    Label, name and tensor of each.
    """
    made: dict[int, torch.Tensor] = {}
    found = []
    for path, module in model.named_modules():
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                if old is None:
                    continue
                if id(old) not in made:
                    new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device=device)
                    trained = isinstance(old, torch.nn.Parameter)
                    made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if trained else new
                    label = "buffer" if not trained else "parameter"
                    found.append((label, f"{path}.{name}".strip("."), made[id(old)]))
                table[name] = made[id(old)]
    return found
