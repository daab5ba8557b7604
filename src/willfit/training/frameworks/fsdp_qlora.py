"""AnswerDotAI's fsdp_qlora: a script of its own, all in bfloat16, on FSDP (`train.py`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.kbit import upcasting
from willfit.training.frameworks.opened import adapting, added_dtype, checkpointing, mixed, quantizing
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: `main`'s arguments; `lora_target_modules` is `all`, which leaves the output projection of attention out.
_RANK, _ALPHA, _DROPOUT, _LENGTH = 64, 16.0, 0.1, 512
_TARGETS = ("k_proj", "q_proj", "v_proj", "up_proj", "down_proj", "gate_proj")

#: The script was written on this version.
_TRANSFORMERS = "4.38.0"


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what the script does; `--precision bf16`, so that there is no mixed precision."""
    settings = adapting(settings, _RANK, _ALPHA, _DROPOUT, _TARGETS)
    precision = settings.precision
    settings = mixed(settings, precision.compute or "bf16", None, trainable=precision.compute or "bf16")
    weights = settings.precision.weights or "bf16"
    # 4-bit values are packed in the dtype of the weights, and adapters follow what they find.
    settings = added_dtype(settings, weights)
    # `Linear4bit`'s `compress_statistics` is on.
    settings = quantizing(settings, double=True, storage=weights)
    settings = checkpointing(settings, "full", reentrant=False)
    settings = replace(
        settings,
        versions={"transformers": _TRANSFORMERS, **settings.versions},
        seq_len=settings.seq_len or _LENGTH,
        attention=settings.attention or "sdpa",
        layout=replace(settings.layout, data=settings.layout.data or "fsdp1"),
        optimizer=replace(settings.optimizer, implementation=settings.optimizer.implementation or "foreach"),
    )
    return hugging_face.resolve(upcasting(settings, "none"), architecture)
