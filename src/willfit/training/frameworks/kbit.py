"""What trainers make of a quantized base before adapters are put on it (`prepare_model_for_kbit_training`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.training.settings import TrainingSettings

#: Methods whose other parameters PEFT holds in float32 (`peft/utils/other.py: prepare_model_for_kbit_training`).
PREPARED = ("nf4", "fp4", "int8")


def bitsandbytes(settings: TrainingSettings) -> bool:
    """Whether the base is quantized as PEFT prepares it."""
    return settings.quantization is not None and settings.quantization.method in PREPARED


def sharded(settings: TrainingSettings) -> bool:
    """Whether ranks load a part each, so that the base is still on the host, and is left as it is.

    `trl/trainer/sft_trainer.py: is_sharded_qlora`; axolotl `loaders/model.py: _prepare_model_for_quantization`.
    """
    data = settings.layout.data or ""
    return data == "zero3" or (data.startswith("fsdp") and settings.layout.strategy != "no_shard")


def upcasting(settings: TrainingSettings, rule: str) -> TrainingSettings:
    """The settings, with what is held in float32 beside a quantized base.

    Parameters
    ----------
    settings
        What was asked.
    rule
        What the framework does with a base that is not sharded: `all`, `norms` or `none`.
    """
    found = settings.quantization
    if found is None or found.upcast is not None:
        return settings
    applies = bitsandbytes(settings) and settings.adapter is not None and not sharded(settings)
    return replace(settings, quantization=replace(found, upcast=rule if applies else "none"))
