"""`megatron sft` of ms-swift: Megatron Core's flags with ms-swift's own defaults, and a model of the hub."""

from __future__ import annotations

from dataclasses import replace

from willfit.checkpoints.catalogue import find
from willfit.launch.training import megatron_settings as megatron
from willfit.launch.training.keys import Keys
from willfit.launch.training.swift_settings import adapter_of, further, generates, rollout_of, towers_of
from willfit.training.frameworks.opened import adapting
from willfit.training.frameworks.swift import ADAPTERS
from willfit.training.settings import TrainingSettings

#: What ms-swift says where Megatron-LM says something else (`swift/megatron/arguments/megatron_args.py`, 3.0 to 4.6).
_DEFAULTS = {
    "micro_batch_size": 1, "global_batch_size": 16, "recompute_granularity": "selective",
    "use_distributed_optimizer": True, "attention_backend": "flash", "attention_dropout": 0.0, "hidden_dropout": 0.0,
}  # fmt: skip

_OBJECTIVES = {"dpo": "dpo", "kto": "kto", "rm": "reward", "grpo": "grpo", "gkd": "sft"}


def megatron_settings(
    keys: Keys, model: str, method: str, devices: int | None, version: str | None, expandable: bool | None
) -> tuple[TrainingSettings, list[str]]:
    """The settings that the flags say, and notes.

    Parameters
    ----------
    keys
        The flags.
    model
        The model, whose number of layers decides over pipeline stages.
    method
        `sft`, `pt` or `rlhf`.
    devices
        All processes; None if not known.
    version
        Version of ms-swift.
    expandable
        Whether the allocator's segments can grow, as the variables say.
    """
    for name, value in _DEFAULTS.items():
        keys.values.setdefault(name, value)
    if keys.get("recompute_granularity") == "none":
        del keys.values["recompute_granularity"]
    dtype = keys.word("torch_dtype")
    if not keys.flag("fp16") and dtype not in ("float32", "float16"):
        keys.values.setdefault("bf16", True)
    layers = keys.whole("num_layers") or _layers(model)
    settings, notes = megatron.settings_of(keys, devices, layers, None, expandable)
    if layers is None and settings.layout.pp > 1:
        notes.append(f"how many layers {model} has is not known here: pipeline stages are taken for even")
    kind = keys.word("tuner_type") or keys.word("train_type") or "full"
    rlhf = keys.word("rlhf_type")
    objective = (
        _OBJECTIVES.get(rlhf or "dpo", "dpo") if method == "rlhf" else "pretrain" if method == "pt" else "sft"
    )
    length = keys.whole("max_length", -1) or settings.seq_len
    packed = bool(keys.flag("packing"))
    keys.see("padding_free", "model_type", "load", "mcore_model", "vit_gradient_checkpointing")
    settings = replace(settings, adapter=adapter_of(keys, kind, megatron=True))
    return (
        replace(
            adapting(settings, *ADAPTERS, targets=("all-linear",)),
            version=None,
            versions={"ms-swift": version} if version else {},
            objective=objective,
            seq_len=length,
            packed=packed,
            padding_free=packed or keys.flag("padding_free") is not False,
            trained=towers_of(keys),
            rollout=rollout_of(keys) if objective == "grpo" or generates(keys) else None,
        ),
        [*notes, *further(keys)],
    )


def _layers(model: str) -> int | None:
    entry = find(model)
    config = dict(entry.config) if entry else {}
    inner = config.get("text_config")
    found = config.get("num_hidden_layers") or (
        inner.get("num_hidden_layers") if isinstance(inner, dict) else None
    )
    return found if isinstance(found, int) else None
