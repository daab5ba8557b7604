"""Filling in what a run leaves open: the rules that frameworks share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.training.precision import completed, filled
from willfit.training.run import Habits, Run
from willfit.training.settings import (
    CheckpointingSettings,
    LossSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a framework does where nothing is said.

    Attributes
    ----------
    precision
        Dtypes.
    optimizer, implementation
        The optimizer, and how torch runs it.
    checkpointing, loss, attention, kernels
        As in `TrainingSettings`.
    seq_len
        Tokens of the longest sequence.
    adapter_dtype
        Of added parameters.
    padded
        Batches of several sequences are padded, so that attention needs a mask.
    varied
        Batches that are not packed differ in length.
    expandable
        The allocator's segments grow as they are needed.
    """

    precision: PrecisionSettings
    optimizer: str = "adamw"
    implementation: str = "foreach"
    checkpointing: str = "none"
    loss: str = "hf"
    attention: str = "sdpa"
    kernels: tuple[str, ...] = ()
    seq_len: int = 1024
    adapter_dtype: str = "fp32"
    padded: bool = True
    reentrant: bool = True
    varied: bool = True
    expandable: bool = False


def fill(settings: TrainingSettings, defaults: Defaults, habits: Habits) -> Run:
    """A run, with everything open filled in.

    Parameters
    ----------
    settings
        What was asked.
    defaults, habits
        The framework's, of that version.
    """
    assumed = []
    precision = completed(filled(settings.precision), defaults.precision)
    precision = replace(
        precision,
        trainable=precision.trainable or precision.weights,
        compute=precision.compute or precision.weights,
    )
    trainable = precision.trainable
    if settings.adapter is not None:
        trainable = settings.adapter.dtype or defaults.adapter_dtype
        settings = replace(settings, adapter=replace(settings.adapter, dtype=trainable))
    precision = replace(
        precision, gradients=precision.gradients or trainable, states=precision.states or trainable
    )
    if settings.seq_len is None:
        assumed.append(f"sequences of {defaults.seq_len} tokens, as nothing is said")
    several = settings.micro_batch > 1 and not (settings.packed or settings.padding_free)
    return Run(
        replace(
            settings,
            seq_len=settings.seq_len or defaults.seq_len,
            precision=precision,
            optimizer=_optimizer(settings.optimizer, defaults),
            checkpointing=_checkpointing(settings.checkpointing, defaults),
            loss=_loss(settings.loss, defaults),
            attention=settings.attention or defaults.attention,
            kernels=settings.kernels or defaults.kernels,
            padded=(several and defaults.padded) if settings.padded is None else settings.padded,
            varied_lengths=(
                defaults.varied and not settings.packed
                if settings.varied_lengths is None
                else settings.varied_lengths
            ),
            expandable_segments=(
                defaults.expandable if settings.expandable_segments is None else settings.expandable_segments
            ),
        ),
        habits,
        tuple(assumed),
    )


def _optimizer(asked: OptimizerSettings, defaults: Defaults) -> OptimizerSettings:
    return replace(
        asked,
        name=asked.name or defaults.optimizer,
        implementation=asked.implementation or defaults.implementation,
    )


def _checkpointing(asked: CheckpointingSettings, defaults: Defaults) -> CheckpointingSettings:
    return replace(
        asked,
        kind=asked.kind or defaults.checkpointing,
        reentrant=defaults.reentrant if asked.reentrant is None else asked.reentrant,
    )


def _loss(asked: LossSettings, defaults: Defaults) -> LossSettings:
    return replace(asked, kind=asked.kind or defaults.loss)
