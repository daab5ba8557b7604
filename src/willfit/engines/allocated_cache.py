"""A cache of so many tokens that an engine allocates at once, whatever is asked of it later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from willfit.engines.solving import largest
from willfit.estimate import Capacity, Demand, DeviceEstimate
from willfit.hardware.device import Device
from willfit.quantities import round_up

#: A cache for more sequences of the longest kind is not asked for.
_MOST_AT_ONCE = 16


def demand_of(tokens: int, token_bytes: int, length: int, users: int, page: int) -> Demand | None:
    """What sequences take of a cache; None if layers keep no tokens.

    Parameters
    ----------
    tokens
        That the cache holds.
    token_bytes
        Of a token in all layers.
    length, users
        Tokens of each sequence, and how many run at once.
    page
        Tokens of which a sequence has whole multiples.
    """
    if not token_bytes:
        return None
    pool, need = tokens * token_bytes, users * round_up(length, page) * token_bytes
    what = f"{users} sequence{'s' if users > 1 else ''} of {length:,} tokens"
    return Demand(what, need, pool, pool, pool)


def capacity_of(excess: Callable[[int], float], most: int, length: int, limit: int, page: int) -> Capacity:
    """The largest cache that fits, and what it holds.

    Parameters
    ----------
    excess
        By how many bytes a cache of so many tokens would be too large.
    most
        Tokens beyond which nothing is asked.
    length, limit
        Tokens of a sequence, and the model's own limit; 0 without.
    page
        Tokens of which the cache has whole multiples.
    """
    tokens = largest(lambda pages: excess(pages * page), most // page) * page
    return Capacity(tokens, min(tokens, limit or tokens), tokens / round_up(length, page))


def capacity_on(
    devices: Sequence[Device],
    held: Callable[[int], Sequence[DeviceEstimate]],
    length: int,
    limit: int,
    users: int,
    page: int,
) -> Capacity | None:
    """The largest cache that some devices could have, and what it holds; None if the size of one is not known.

    Parameters
    ----------
    held
        What the devices hold with a cache of so many tokens.
    length, limit, page
        See `capacity_of`.
    users
        Sequences that shall run at once.
    """
    if any(device.usable_bytes is None for device in devices):
        return None

    def excess(tokens: int) -> float:
        return max(place.peak_bytes - (place.usable_bytes or 0) for place in held(tokens))

    return capacity_of(excess, max(limit, length) * max(users, _MOST_AT_ONCE), length, limit, page)


def is_short(places: Sequence[DeviceEstimate], demand: Demand | None) -> tuple[bool, bool]:
    """Whether a device is full, and whether the cache is too small for what is asked of it."""
    full = any(place.verdict in ("does_not_fit", "tight") for place in places)
    return full, demand is not None and demand.verdict != "fits"
