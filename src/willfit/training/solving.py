"""Solving backwards: the largest batch, sequence or rank with which a run fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.training.estimate import estimate
from willfit.training.settings import TrainingSettings

#: No batch, sequence or rank beyond these is tried.
_MOST = {"batch": 1 << 16, "seq-len": 1 << 24, "rank": 1 << 14}


def largest(subject: Subject, machine: Machine, settings: TrainingSettings, knob: str) -> Estimate:
    """The estimate with the largest value of a knob at which the run fits, surely.

    Parameters
    ----------
    subject, machine, settings
        As in `estimate`.
    knob
        `batch`, `seq-len` or `rank`.

    Returns
    -------
    Estimate
        With a note that says the value and that the next one does not fit; the estimate of 1 if not even that fits.

    Raises
    ------
    BadInput
        If the knob is none of the run's, or the devices' memory is not known.
    """
    if knob == "rank" and settings.adapter is None:
        raise BadInput("there is no rank to solve for without an adapter", "use --method lora")
    if any(device.usable_bytes is None for device in machine.devices):
        raise BadInput("the memory of the devices is not known, so nothing can be solved for")

    def at(value: int) -> Estimate:
        return estimate(subject, machine, _with(settings, knob, value))

    value = most_that(lambda one: at(one).verdict == "fits", _MOST[knob])
    if value == 0:
        answer = at(1)
        return replace(answer, notes=(f"not even a {knob} of 1 fits", *answer.notes))
    answer = at(value)
    note = f"the largest {knob} that fits is {value:,}"
    training = {**answer.details["training"], "largest": {"of": knob, "value": value}}
    return replace(answer, notes=(note, *answer.notes), details={**answer.details, "training": training})


def most_that(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` for which something holds that holds for all below it; 0 if for none."""
    if not holds(1):
        return 0
    low, high = 1, 2
    while high <= limit and holds(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _with(settings: TrainingSettings, knob: str, value: int) -> TrainingSettings:
    if knob == "batch":
        return replace(settings, micro_batch=value)
    if knob == "seq-len":
        return replace(settings, seq_len=value)
    assert settings.adapter is not None
    return replace(settings, adapter=replace(settings.adapter, rank=value))
