"""How sure a speed is: the spread of measurements about predictions, wider where none are of that engine or card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.calibration import constant
from willfit.hardware.device import Device
from willfit.speed.habits import habits_of

#: Generations of cards that the constants were fitted on (`cases/speed.jsonl`).
_FITTED_ARCHS = frozenset({"Ampere", "Hopper"})


@dataclass(frozen=True, slots=True)
class Certainty:
    """Factors on a predicted speed.

    Attributes
    ----------
    value, low, high
        What is expected, and between what nine of ten measurements lie.
    cases
        How many measurements say so.
    note
        What the speed does not rest on; empty where it rests on measurements of the same.
    """

    value: float
    low: float
    high: float
    cases: int
    note: str = ""


def certainty_of(engine: str, version: str, devices: Sequence[Device]) -> Certainty:
    """How sure a speed of serving is."""
    habits = habits_of(engine, version)
    if engine == "transformers":
        return _certainty("speed.ratio.transformers", "")
    strange = sorted({device.arch or device.name for device in devices} - _FITTED_ARCHS)
    missing = []
    if not habits.measured:
        missing.append(f"of {engine} at this version" if engine in ("vllm", "sglang") else f"of {engine}")
    if strange:
        missing.append(f"on {', '.join(strange)}")
    if not missing:
        return _certainty("speed.ratio.measured", "")
    note = f"no published speed {' or '.join(missing)} was fitted: the general shares answer, with a wider interval"
    return _certainty("speed.ratio.other", note)


def certainty_of_training() -> Certainty:
    """How sure the speed of a training step is."""
    return _certainty("speed.ratio.train", "")


def _certainty(name: str, note: str) -> Certainty:
    found = constant(name)
    return Certainty(found.value, found.low, found.high, found.cases, note)
