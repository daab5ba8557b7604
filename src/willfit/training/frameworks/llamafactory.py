"""LLaMA-Factory: what is trained is float32, and layers are checkpointed unless that is turned off."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.eras import dated
from willfit.training.frameworks.kbit import upcasting
from willfit.training.frameworks.opened import adapting, added_dtype, checkpointing, quantizing
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Releases, with the newest transformers that each admits (`requirements.txt`).
_RELEASES = (
    ("0.7.1", "4.40.0"), ("0.8.3", "4.42.0"), ("0.9.0", "4.44.0"), ("0.9.1", "4.46.0"), ("0.9.2", "4.49.0"),
    ("0.9.3", "4.52.4"), ("0.9.4", "4.57.1"), ("0.9.5", "5.6.0"),
)  # fmt: skip

#: From these versions on: sequences of 2048; a model is loaded as it is stored, and with FSDP
#: what is trained is float32 as well.
_LONGER, _AS_STORED = (0, 9, 1), (0, 9, 3)

#: `hparams/finetuning_args.py`: alpha is twice the rank.
_RANK = 8


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what LLaMA-Factory does (`model/patcher.py`, `adapter.py`, `model_utils/checkpointing.py`)."""
    version, settings = dated(settings, _RELEASES)
    rank = settings.adapter.rank if settings.adapter is not None else None
    settings = adapting(settings, _RANK, 2.0 * (rank or _RANK), 0.0, ("all-linear",))
    data = settings.layout.data or ""
    # `use_reentrant_gc`, which FSDP2 turns off.
    settings = checkpointing(settings, "full", reentrant=data != "fsdp2")
    settings = _dtypes(settings, version, architecture.dtype)
    settings = quantizing(settings, double=True, storage=settings.precision.compute)
    length = settings.seq_len or (2048 if version >= _LONGER else 1024)
    return hugging_face.resolve(upcasting(replace(settings, seq_len=length), "none"), architecture)


def _dtypes(settings: TrainingSettings, version: tuple[int, ...], stored: str) -> TrainingSettings:
    """Dtype on loading, and float32 for what is trained (`patcher.py: patch_config`, `adapter.py: init_adapter`).

    BAdam and `pure_bf16` (which is said) train in 16 bits, and ZeRO-3 (before 0.9.3 FSDP, too) what it loaded.
    """
    asked, data = settings.precision, settings.layout.data or ""
    if asked.recipe is not None:
        return settings
    before = version < _AS_STORED
    shards = settings.quantization is None and (data == "zero3" or (before and data.startswith("fsdp")))
    if before:
        inferred = asked.compute or ("bf16" if stored == "bf16" else "fp16")
        weights = asked.weights or ("fp32" if shards else inferred)
    else:
        weights = asked.weights or stored
    leaves = shards or settings.optimizer.name == "badam"
    trainable, compute = asked.trainable, asked.compute
    if settings.adapter is not None and (trainable is not None or not leaves):
        settings = added_dtype(settings, trainable or "fp32")
    elif settings.adapter is None and not leaves:
        trainable = trainable or "fp32"
        if compute is None and trainable == "fp32" and not data:
            # Without --bf16 there is no autocast, and float32 weights compute in float32.
            compute = "fp32"
    return replace(settings, precision=replace(asked, weights=weights, compute=compute, trainable=trainable))
