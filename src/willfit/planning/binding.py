"""By how much an estimate is too much, and what is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Literal

from willfit.errors import BadInput
from willfit.estimate import Estimate

#: Where bytes must fit: an engine's pool, a device, the host.
Kind = Literal["pool", "device", "host", "refusal"]
EVERYWHERE: frozenset[Kind] = frozenset(("pool", "device", "host"))


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes that must fit somewhere.

    Attributes
    ----------
    kind, name
        What it is, and how to call it.
    needed_bytes, surely_bytes
        What is needed, and what may be at most (of a pool: with what it may lack).
    room_bytes
        What there is.
    """

    kind: Kind
    name: str
    needed_bytes: int
    surely_bytes: int
    room_bytes: int


def places(estimate: Estimate) -> Iterator[Place]:
    """Everywhere that an estimate needs bytes and the room is known."""
    for demand in estimate.demands:
        lacking = demand.pool_bytes - demand.pool_low_bytes
        yield Place(
            "pool", demand.what, demand.needed_bytes, demand.needed_bytes + lacking, demand.pool_bytes
        )
    for device in estimate.devices:
        if device.usable_bytes is not None:
            _, high = device.interval_bytes
            yield Place("device", device.name, device.peak_bytes, high, device.usable_bytes)
    host = estimate.host
    if host.usable_bytes is not None:
        yield Place("host", "the host's RAM", host.peak_bytes, host.interval_bytes[1], host.usable_bytes)


def excess_bytes(estimate: Estimate, surely: bool, where: frozenset[Kind] = EVERYWHERE) -> float:
    """By how much the fullest place is too full, negative where there is room left.

    Parameters
    ----------
    surely
        With what the estimate may be at most, so that 0 or less is the verdict `fits`; else as it is most likely.
    where
        Kinds of places that count.

    Returns
    -------
    float
        Bytes; infinite if the engine refuses.

    Raises
    ------
    BadInput
        If no room is known.
    """
    if estimate.refusal:
        return inf
    over = [
        (place.surely_bytes if surely else place.needed_bytes) - place.room_bytes
        for place in places(estimate)
        if place.kind in where
    ]
    if not over:
        raise BadInput("the memory of the devices is not known, so nothing can be solved for")
    return max(over)


def fullest(estimate: Estimate) -> Place:
    """The place that lacks most, surely; for a refusal the engine's own words.

    Raises
    ------
    BadInput
        If no room is known.
    """
    if estimate.refusal:
        return Place("refusal", estimate.refusal, 0, 0, 0)
    found = max(places(estimate), key=lambda place: place.surely_bytes - place.room_bytes, default=None)
    if found is None:
        raise BadInput("the memory of the devices is not known, so nothing can be solved for")
    return found
