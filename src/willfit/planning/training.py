"""Knobs of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.planning.knobs import Knob
from willfit.planning.solving import Furthest, furthest
from willfit.training.estimate import estimate_alone
from willfit.training.settings import TrainingSettings

BATCH = Knob("batch", "largest batch of a device", "sequences")
SEQUENCE = Knob("seq-len", "longest sequence", "tokens")
RANK = Knob("rank", "largest rank of adapters")

KNOBS = {knob.name: knob for knob in (BATCH, SEQUENCE, RANK)}
_OTHER_NAMES = {"micro-batch": "batch", "batch-size": "batch", "sequence": "seq-len", "lora-rank": "rank"}

#: Steps beyond these are not tried.
_LAST = {BATCH: 1 << 16, SEQUENCE: 1 << 24, RANK: 1 << 14}


def knob_named(name: str) -> Knob | None:
    """The knob of a training run that a word means; None if none does."""
    word = name.lower().replace("_", "-").lstrip("-")
    return KNOBS.get(_OTHER_NAMES.get(word, word))


def solved(knob: Knob, subject: Subject, machine: Machine, settings: TrainingSettings) -> Furthest:
    """Turn a knob of a training run as far as it goes.

    Raises
    ------
    BadInput
        If the run has no such knob, or nothing can be estimated.
    """
    if knob == RANK and settings.adapter is None:
        raise BadInput("there is no rank to solve for without an adapter", "use --method lora")
    return furthest(knob, _LAST[knob], steps(knob, subject, machine, settings))


def steps(
    knob: Knob, subject: Subject, machine: Machine, settings: TrainingSettings
) -> Callable[[int], Estimate]:
    """The estimate at each step of a knob."""

    def at(step: int) -> Estimate:
        return estimate_alone(subject, machine, _turned(settings, knob, step))

    return at


def _turned(settings: TrainingSettings, knob: Knob, step: int) -> TrainingSettings:
    if knob == BATCH:
        return replace(settings, micro_batch=step)
    if knob == SEQUENCE:
        return replace(settings, seq_len=step)
    assert settings.adapter is not None
    return replace(settings, adapter=replace(settings.adapter, rank=step))
