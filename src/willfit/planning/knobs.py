"""What can be solved for: one number of a run, in steps from the first to the last."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.planning.binding import EVERYWHERE, Kind


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of a run.

    Attributes
    ----------
    name
        As it is typed.
    what
        In words, of its furthest value: `longest context`.
    unit
        Of its values; empty for a plain number.
    first, size
        The value of step 1, and what a step adds; negative where less is harder, so that the least is the furthest.
    values
        Those of the steps, where they are no such row.
    fills
        Where a further step never needs less. Elsewhere it may set bytes free, so that only these say how far it goes.
    """

    name: str
    what: str
    unit: str = ""
    first: float = 1
    size: float = 1
    fills: frozenset[Kind] = EVERYWHERE
    values: tuple[float, ...] = ()

    def value(self, step: int) -> float:
        """The value at a step."""
        if self.values:
            return self.values[step - 1]
        return round(self.first + (step - 1) * self.size, 6)
