"""TRL's trainers: what they do beyond transformers' Trainer, by version."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.eras import dated
from willfit.training.frameworks.kbit import bitsandbytes, upcasting
from willfit.training.run import Run
from willfit.training.settings import LossSettings, TrainingSettings

#: Releases, with transformers' of their time.
_RELEASES = (
    ("0.7.11", "4.36.0"), ("0.8.6", "4.40.0"), ("0.9.6", "4.42.0"), ("0.11.4", "4.44.0"), ("0.12.2", "4.46.0"),
    ("0.14.0", "4.48.0"), ("0.16.1", "4.50.0"), ("0.18.2", "4.52.0"), ("0.20.0", "4.54.0"), ("0.22.2", "4.56.0"),
    ("0.25.1", "4.57.0"), ("0.27.2", "5.0.0"), ("1.0.0", "5.4.0"), ("1.5.1", "5.8.0"), ("1.9.0", "5.12.0"),
    ("1.14.2", "5.16.0"), ("1.16.0", "5.23.0"),
)  # fmt: skip

NEWEST = _RELEASES[-1][0]

#: From these versions on: bf16 is the default, checkpointing is; SFT, and preferences, never make whole logits.
_HALF, _CHECKPOINTS, _CHUNKED_SFT, _CHUNKED_OTHERS = (0, 19), (0, 22), (1, 7), (1, 14)

#: From this version on a quantized base stays as it is, and its adapters are bf16.
_HALF_ADAPTERS = (0, 26)

#: Tokens whose logits exist at once (`trainer/utils.py`).
_CHUNK = 256


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what TRL's trainers do (`trainer/base_config.py`, `sft_config.py`, `sft_trainer.py`)."""
    version, settings = dated(settings, _RELEASES)
    checkpointing, precision, loss = settings.checkpointing, settings.precision, settings.loss
    if version >= _CHECKPOINTS and checkpointing.kind is None:
        checkpointing = replace(checkpointing, kind="full")
    if version >= _HALF and precision.compute is None and precision.recipe is None:
        # A model that is named by its id is loaded in float32, and runs under autocast.
        held = precision.weights or ("fp32" if settings.quantization is None else "bf16")
        precision = replace(precision, weights=held, compute="bf16")
    if loss.kind is None and version >= (_CHUNKED_SFT if settings.objective == "sft" else _CHUNKED_OTHERS):
        loss = LossSettings("chunked-head", chunk_tokens=_CHUNK)
    adapter = settings.adapter
    if adapter is not None and bitsandbytes(settings) and version >= _HALF_ADAPTERS:
        adapter = replace(adapter, dtype=adapter.dtype or "bf16")
    changed = replace(settings, checkpointing=checkpointing, precision=precision, loss=loss, adapter=adapter)
    return hugging_face.resolve(upcasting(changed, _upcast(changed, version)), architecture)


def _upcast(settings: TrainingSettings, version: tuple[int, ...]) -> str:
    """What is held in float32 beside a quantized base (`sft_trainer.py`, `models/utils.py: prepare_peft_model`).

    After `prepare_model_for_kbit_training`, `peft_module_casting_to_bf16` takes embedding and head of a 4-bit base
    back.
    """
    if version >= _HALF_ADAPTERS:
        return "none"
    quantization, compute = settings.quantization, settings.precision.compute
    four_bits = quantization is not None and quantization.method in ("nf4", "fp4")
    return "norms" if four_bits and compute == "bf16" else "all"
