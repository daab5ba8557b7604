"""Filling in single fields of a run that were left open, as frameworks on top of the Trainer do."""

from __future__ import annotations

from dataclasses import replace

from willfit.training.settings import TrainingSettings

#: Frameworks that have a rank and targets of their own.
ADAPTING = ("ms-swift", "llamafactory", "unsloth", "fsdp_qlora")

#: Kinds of adapters that take LoRA's arguments.
_LOW_RANK = ("lora", "dora", "adalora")


def adapting(
    settings: TrainingSettings,
    rank: int | None = None,
    alpha: float | None = None,
    dropout: float | None = None,
    targets: tuple[str, ...] = (),
) -> TrainingSettings:
    """The settings with a framework's defaults of low-rank adapters; other kinds are left alone.

    Parameters
    ----------
    settings
        What was asked.
    rank, alpha, dropout, targets
        The framework's; None and empty for PEFT's.
    """
    asked = settings.adapter
    if asked is None or asked.kind not in _LOW_RANK:
        return settings
    filled = replace(
        asked,
        rank=asked.rank or rank,
        alpha=alpha if asked.alpha is None else asked.alpha,
        dropout=dropout if asked.dropout is None else asked.dropout,
        targets=asked.targets or targets,
    )
    return replace(settings, adapter=filled)


def added_dtype(settings: TrainingSettings, dtype: str) -> TrainingSettings:
    """The settings with the dtype that a framework makes added parameters in, unless DeepSpeed casts them."""
    asked = settings.adapter
    if asked is None or asked.dtype is not None or (settings.layout.data or "").startswith("zero"):
        return settings
    return replace(settings, adapter=replace(asked, dtype=dtype))


def checkpointing(
    settings: TrainingSettings, kind: str, reentrant: bool | None = None, offload: bool = False
) -> TrainingSettings:
    """The settings with a framework's checkpoints where nothing is said of them.

    Parameters
    ----------
    settings
        What was asked.
    kind, reentrant
        The framework's; `reentrant` None for transformers'.
    offload
        Kept inputs go to the host, if the framework chose the checkpoints.
    """
    asked = settings.checkpointing
    return replace(
        settings,
        checkpointing=replace(
            asked,
            kind=asked.kind or kind,
            reentrant=reentrant if asked.reentrant is None else asked.reentrant,
            offload=asked.offload or (offload and asked.kind is None),
        ),
    )


def quantizing(settings: TrainingSettings, double: bool, storage: str | None = None) -> TrainingSettings:
    """The settings with a framework's 4-bit base where nothing is said of its constants and its packing."""
    asked = settings.quantization
    if asked is None or asked.method not in ("nf4", "fp4"):
        return settings
    twice = double if asked.double_quant is None else asked.double_quant
    return replace(
        settings, quantization=replace(asked, double_quant=twice, storage=asked.storage or storage)
    )


def mixed(
    settings: TrainingSettings, weights: str, compute: str | None, trainable: str | None = None
) -> TrainingSettings:
    """The settings with the dtype that a model is loaded in, and that of autocast, where nothing is said.

    Parameters
    ----------
    settings
        What was asked; a recipe by name stays as it is.
    weights, trainable
        Of the model, and of its own parameters where these are trained.
    compute
        Of autocast; None if there is none, so that layers run in the dtype of their weights.
    """
    asked = settings.precision
    if asked.recipe is not None:
        return settings
    filled = replace(
        asked,
        weights=asked.weights or weights,
        compute=asked.compute or compute,
        trainable=asked.trainable or trainable,
        autocast=compute is not None if asked.autocast is None else asked.autocast,
    )
    return replace(settings, precision=filled)
