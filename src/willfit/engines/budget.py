"""An engine that takes a share of a device and gives what is left of it to a cache: all that decides, as plain numbers.

Everything here is the same for devices that differ in their memory only, so that a planner works it out once and asks
about many of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from willfit.estimate import Term


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms added up.

    Attributes
    ----------
    bytes
        Of all.
    below, above
        The squares of how far each interval reaches to either side, added up (`estimate.combined`).
    """

    bytes: int
    below: float
    above: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What an engine takes of a device whatever its size.

    Attributes
    ----------
    share
        Of usable memory, that it allows itself.
    inside, outside
        What counts against that, and what comes on top.
    spreads
        By what shares of the budget less and more of it may be seen than the device's memory says.
    block_bytes
        Of a block of the cache; 0 without a cache.
    needed_bytes
        What the sequences that are asked for need of it.
    refusal
        Why the engine would not start; empty otherwise.
    """

    share: float
    inside: Sum
    outside: Sum
    spreads: tuple[tuple[float, float], ...]
    block_bytes: int
    needed_bytes: int
    refusal: str = ""


def summed(terms: Iterable[Term]) -> Sum:
    """Terms added up."""
    total, below, above = 0, 0.0, 0.0
    for term in terms:
        total += term.bytes
        below += float(term.bytes - term.low_bytes) ** 2
        above += float(term.high_bytes - term.bytes) ** 2
    return Sum(total, below, above)
