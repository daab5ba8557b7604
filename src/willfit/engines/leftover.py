"""A cache that takes a share of what is left: shared by engines that read free memory at start-up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from willfit.calibration import constant
from willfit.estimate import Term, between, combined


@dataclass(frozen=True, slots=True)
class Free:
    """What is free on a device beside some terms; `low` and `high` bound it."""

    bytes: int
    low: int
    high: int


def free_beside(total: int, terms: Iterable[Term]) -> Free:
    """What a device of `total` bytes has left, as far as the terms and what drivers show of a card are known."""
    spread = constant("device.visible_ratio")
    visible = between("visible", 0, -int(total * (spread.high - 1)), -int(total * (spread.low - 1)))
    taken, low, high = combined((*terms, visible))
    return Free(total - taken, total - high, total - low)


def device_interval(
    terms: Sequence[Term], before: Sequence[Term], after: Sequence[Term], share: float
) -> tuple[int, int]:
    """Interval of a device whose cache takes up most of what the terms before it leave.

    Parameters
    ----------
    terms
        All terms, the cache included.
    before, after
        Those that exist when free memory is read, and those that come later.
    share
        By how many bytes the cache shrinks for each byte that is taken before it.
    """
    rest = 1 - share
    size, low, high = combined(before)
    later, later_low, later_high = combined(after)
    peak = sum(term.bytes for term in terms)
    below = ((size - low) * rest) ** 2 + float(later - later_low) ** 2
    above = ((high - size) * rest) ** 2 + float(later_high - later) ** 2
    return peak - int(below**0.5), peak + int(above**0.5)
