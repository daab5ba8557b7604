"""Solving backwards for one knob: the largest whole number at which something still fits."""

from __future__ import annotations

from collections.abc import Callable


def largest(excess: Callable[[int], float], limit: int) -> int:
    """The largest n from 0 to `limit` with `excess(n) <= 0`; 0 if there is none.

    Parameters
    ----------
    excess
        By how much n is too much; never falls as n grows. It is asked for as few n as possible: memory is nearly
        linear in what is solved for, so the next n is where the line through the ends crosses 0, and the middle
        every third time, in case it is not.
    limit
        The largest n that counts.
    """
    if limit < 1:
        return 0
    over = excess(limit)
    if over <= 0:
        return limit
    low, high = 1, limit
    under = excess(low)
    if under > 0:
        return 0
    turn = 0
    while high - low > 1:
        turn += 1
        guess = (low + high) // 2 if turn % 3 == 0 else low + int((high - low) * -under / (over - under))
        guess = min(max(guess, low + 1), high - 1)
        value = excess(guess)
        if value <= 0:
            low, under = guess, value
        else:
            high, over = guess, value
    return low
