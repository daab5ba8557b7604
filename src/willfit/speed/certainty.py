"""How sure a speed is: the spread of measurements about predictions, wider where none are of that engine or card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.calibration import constant
from willfit.engines.versions import Version, parse_version
from willfit.hardware.device import Device

#: Cards that the constants of serving were fitted on, by the beginnings of their names.
_FITTED_CARDS = ("A100", "A800", "H20 ")

#: Versions from which on an engine's published speeds are not among the cases any more.
_FITTED_BEFORE: dict[str, Version] = {"vllm": (0, 8), "sglang": (0, 5)}


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


def certainty_of(engine: str, version: str, devices: Sequence[Device], users: int = 1) -> Certainty:
    """How sure a speed of serving is: as sure as those that were fitted only where the same runs on the same card.

    Parameters
    ----------
    users
        Sequences that run at once: published speeds are of one.
    """
    if engine == "transformers":
        return _certainty("speed.ratio.transformers", "")
    missing = []
    before = _FITTED_BEFORE.get(engine)
    if before is None or parse_version(version) >= before:
        missing.append(f"{engine} {version}".strip())
    missing += sorted({one.name for one in devices if not f"{one.name} ".startswith(_FITTED_CARDS)})
    if users > 1:
        missing.append("several users at once")
    if not missing:
        return _certainty("speed.ratio.measured", "")
    note = f"no constant was fitted to speeds of {', '.join(missing)}: general ones answer, with a wider interval"
    return _certainty("speed.ratio.other", note)


def certainty_of_training() -> Certainty:
    """How sure the speed of a training step is."""
    return _certainty("speed.ratio.train", "")


def _certainty(name: str, note: str) -> Certainty:
    found = constant(name)
    return Certainty(found.value, found.low, found.high, found.cases, note)
