"""A cache of so many tokens that an engine allocates at once, whatever is asked of it later."""

from __future__ import annotations

from collections.abc import Callable

from willfit.engines.solving import largest
from willfit.estimate import Capacity, Demand
from willfit.quantities import round_up


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
