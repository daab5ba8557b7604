"""What would make a workload fit: remedies that engines with a paged cache share."""

from __future__ import annotations

from collections.abc import Iterable

from willfit.engines.paged import PagedCache
from willfit.estimate import Term

#: Rounding of a suggested context, so that it is a number that people would type.
CONTEXT_STEP = 256


def shorter_or_fewer(cache: PagedCache, pool: int, length: int, users: int, flag: str) -> list[str]:
    """A shorter context for all users, and as many users as fit at the length that is asked for.

    Parameters
    ----------
    pool
        Bytes that the cache has.
    flag
        How the engine calls the longest sequence.
    """
    remedies = []
    longest = cache.longest(pool, length, users) // CONTEXT_STEP * CONTEXT_STEP
    if 0 < longest < length:
        each = f" for each of {users} users" if users > 1 else ""
        remedies.append(f"a context of {longest:,} tokens{each} ({flag} {longest})")
    fitting = int(cache.concurrency(pool, length))
    if 1 <= fitting < users:
        remedies.append(f"{fitting} user{'s' if fitting > 1 else ''} at {length:,} tokens")
    return remedies


def weights_fit(terms: Iterable[Term], total: int) -> bool:
    """Whether the weights alone leave room on a device: otherwise smaller batches and contexts change nothing."""
    return sum(term.bytes for term in terms if term.name == "weights") < total
