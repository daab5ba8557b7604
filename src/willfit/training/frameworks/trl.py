"""TRL's trainers: what they do beyond transformers' Trainer, by version."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.kbit import bitsandbytes, upcasting
from willfit.training.run import Run
from willfit.training.settings import LossSettings, TrainingSettings

NEWEST = "1.16.0"

#: From these versions on: bf16 is the default, checkpointing is; SFT, and preferences, never make whole logits.
_HALF, _CHECKPOINTS, _CHUNKED_SFT, _CHUNKED_OTHERS = (0, 19), (0, 22), (1, 7), (1, 14)

#: From this version on a quantized base stays as it is, and its adapters are bf16.
_HALF_ADAPTERS = (0, 26)

#: Tokens whose logits exist at once (`trainer/utils.py`).
_CHUNK = 256


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what TRL's trainers do (`trainer/base_config.py`, `sft_config.py`, `sft_trainer.py`)."""
    version = parse_version(settings.version or _version_beside(settings))
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


def _version_beside(settings: TrainingSettings) -> str:
    """The version that was current with a version of transformers, where only that is known."""
    beside = settings.versions.get("transformers")
    if beside is None:
        return NEWEST
    era = parse_version(beside)
    releases = (
        ((4, 45), "0.11.0"),
        ((4, 50), "0.16.0"),
        ((4, 55), "0.21.0"),
        ((5, 0), "0.25.0"),
        ((5, 15), "1.5.0"),
    )
    return next((release for until, release in releases if era < until), NEWEST)
