"""Modules that a framework adapts where none is named, if it does not leave that to PEFT."""

from __future__ import annotations

from willfit.engines.versions import Version, parse_version
from willfit.training.settings import TrainingSettings

_ALL = ("all-linear",)

#: ms-swift adapts every linear layer from here on (`swift/llm/argument/tuner_args.py: target_modules`); before,
#: queries, keys and values by the names that its list of models has (`swift/llm/utils/model.py: LoRATM`, 1.7.3).
_SWIFT_ALL: Version = (3, 0)
_SWIFT_DEFAULT = (
    "q_proj", "k_proj", "v_proj", "c_attn", "W_pack", "query_key_value", "Wqkv", "wqkv", "qkv_proj",
)  # fmt: skip

#: Kinds of adapters that these defaults are for.
_KINDS = ("lora", "qlora", "dora", "rslora", "adalora", "pissa")


def framework_targets(settings: TrainingSettings) -> tuple[str, ...]:
    """Targets that the framework fills in; empty where it asks PEFT.

    LLaMA-Factory: `hparams/finetuning_args.py: lora_target`, 0.7.1 to 0.9.5.
    """
    if settings.adapter is None or settings.adapter.kind not in _KINDS:
        return ()
    if settings.framework == "llamafactory":
        return _ALL
    if settings.framework == "ms-swift":
        version = settings.version or settings.versions.get("ms-swift")
        return _ALL if version is None or parse_version(version) >= _SWIFT_ALL else _SWIFT_DEFAULT
    return ()
