"""Solving backwards for one knob: the furthest value at which everything still fits, and not one step more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.engines.solving import largest
from willfit.estimate import Estimate
from willfit.planning.binding import EVERYWHERE, Place, excess_bytes, fullest
from willfit.planning.knobs import Knob


@dataclass(frozen=True, slots=True)
class Furthest:
    """How far a knob can be turned.

    Attributes
    ----------
    knob
        Which one.
    step
        The furthest step that surely fits, as the verdict `fits` means it; None if not even the first does.
    likely
        The furthest that most likely fits; None as above.
    last
        The furthest step that there is.
    estimate
        At `step`, or at the first one.
    beyond
        What is in the way one step further; None at `last`.
    """

    knob: Knob
    step: int | None
    likely: int | None
    last: int
    estimate: Estimate
    beyond: Place | None

    @property
    def value(self) -> float | None:
        """The knob's value at `step`."""
        return None if self.step is None else self.knob.value(self.step)

    @property
    def likely_value(self) -> float | None:
        """The knob's value at `likely`."""
        return None if self.likely is None else self.knob.value(self.likely)


def furthest(knob: Knob, last: int, at: Callable[[int], Estimate]) -> Furthest:
    """Turn a knob as far as it goes.

    Parameters
    ----------
    knob
        Its steps begin at 1; a further one never needs less of what counts.
    last
        The furthest step.
    at
        The estimate at a step.

    Raises
    ------
    BadInput
        If no device's memory is known, or the estimate raises it.
    """
    seen: dict[int, Estimate] = {}

    def known(step: int) -> Estimate:
        if step not in seen:
            seen[step] = at(step)
        return seen[step]

    def over(surely: bool) -> Callable[[int], float]:
        return lambda step: excess_bytes(known(step), surely, knob.fills)

    step, likely = largest(over(True), last), largest(over(False), last)
    if knob.fills != EVERYWHERE:
        # What a step sets free elsewhere was not asked so far: where that is too much, steps before have no less.
        step = step if step and excess_bytes(known(step), True) <= 0 else 0
        likely = likely if likely and excess_bytes(known(likely), False) <= 0 else 0
    beyond = fullest(known(step + 1)) if step < last else None
    return Furthest(knob, step or None, likely or None, last, known(step or 1), beyond)
