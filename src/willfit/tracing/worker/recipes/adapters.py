"""Adapters, as `peft.get_peft_model` adds them."""

from __future__ import annotations

from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.dtypes import dtype
from willfit.tracing.worker.stand_ins.packed.layers import PackedLinear
from willfit.training.settings import AdapterSettings

#: peft's word for what a class of transformers is for.
TASKS = {
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForImageTextToText": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
    "AutoModelForSequenceClassification": "SEQ_CLS",
}
#: peft's default ranks of LoRA and its kin stand in its configs; these are classes by our names.
CONFIGS = {
    "lora": "LoraConfig", "ia3": "IA3Config", "prefix": "PrefixTuningConfig", "prompt": "PromptTuningConfig",
    "p_tuning": "PromptEncoderConfig", "loha": "LoHaConfig", "lokr": "LoKrConfig", "adalora": "AdaLoraConfig",
    "oft": "OFTConfig", "boft": "BOFTConfig", "vera": "VeraConfig",
}  # fmt: skip
_VIRTUAL = ("prefix", "prompt", "p_tuning")
#: Parts of a layer by the words of `AdapterSettings.targets`.
_PARTS = {
    "attention": ("attn", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn"),
    "qkv": ("q_proj", "k_proj", "v_proj"),
}


def adapted(model: torch.nn.Module, adapter: AdapterSettings, made_by: str) -> torch.nn.Module:
    """The model with adapters.

    Parameters
    ----------
    made_by
        The class of transformers that made it.

    Raises
    ------
    BadInput
        If peft has no such method, or refuses it.
    """
    import peft

    if adapter.kind not in CONFIGS:
        raise BadInput(f"adapters of kind {adapter.kind!r} are not traced", f"known: {', '.join(CONFIGS)}")
    named: dict[str, Any] = {"task_type": TASKS.get(made_by), **adapter.options}
    if adapter.kind in _VIRTUAL:
        named["num_virtual_tokens"] = adapter.virtual_tokens
    else:
        named["target_modules"] = targets(model, adapter.targets)
        named["modules_to_save"] = list(adapter.modules_to_save) or None
    if adapter.rank is not None and adapter.kind not in (*_VIRTUAL, "ia3"):
        named["init_r" if adapter.kind == "adalora" else "r"] = adapter.rank
    if adapter.kind == "lora":
        named |= {
            "lora_dropout": adapter.dropout or 0.0, "use_dora": adapter.use_dora, "use_rslora": adapter.use_rslora,
            "bias": adapter.bias,
        }  # fmt: skip
    try:
        found = peft.get_peft_model(model, getattr(peft, CONFIGS[adapter.kind])(**named))
    except (ValueError, TypeError) as error:
        raise BadInput(f"peft refuses {adapter.kind}: {str(error).splitlines()[0]}") from None
    if adapter.dtype is not None:
        # Trainers that want another dtype than peft's cast what is trained afterwards.
        for name, parameter in found.named_parameters():
            if parameter.requires_grad and "modules_to_save" not in name:
                parameter.data = parameter.data.to(dtype(adapter.dtype))
    return found


def targets(model: torch.nn.Module, asked: tuple[str, ...]) -> str | list[str] | None:
    """peft's `target_modules`: names of linear layers, `all-linear`, or None for its default of the model type."""
    if not asked:
        return None
    packed = [path for path, module in model.named_modules() if isinstance(module, PackedLinear)]
    if "all-linear" in asked:
        # peft looks for `torch.nn.Linear`, which these are not: frameworks name them instead.
        return sorted({path.rsplit(".", 1)[-1] for path in packed}) or "all-linear"
    names: list[str] = []
    for word in asked:
        if word not in _PARTS:
            names.append(word)
            continue
        names += {
            path.rsplit(".", 1)[-1]
            for path, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, PackedLinear))
            and any(part in path for part in _PARTS[word])
        }
    return sorted(set(names))
