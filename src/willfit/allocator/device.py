"""The device that segments are taken from: how much it has, and at which addresses."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from willfit.allocator.sizes import PAGE
from willfit.errors import BadInput
from willfit.quantities import GIB, round_up

#: Where the first segment lies: an address as drivers give them to 64-bit processes.
FIRST_ADDRESS = 0x7F00_0000_0000

#: Address space of an expandable segment where the device's size is not known.
_ENDLESS = 1024 * GIB


@dataclass(frozen=True, slots=True)
class Device:
    """What the allocator may take.

    Attributes
    ----------
    capacity
        The device's whole memory in bytes, as `cudaMemGetInfo` and the error's message tell it.
    outside
        Bytes of it that are taken by others: contexts, other processes.
    own_context
        Bytes of `outside` that are this process's own: the error's message tells them.
    fraction
        Of `set_per_process_memory_fraction`; a fraction in `PYTORCH_ALLOC_CONF` is used if this is 1.

    Raises
    ------
    BadInput
        If a number is negative or a fraction is not between 0 and 1.
    """

    capacity: int
    outside: int = 0
    own_context: int = 0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.capacity < 0 or self.outside < 0 or not 0 <= self.own_context <= self.outside:
            raise BadInput(
                f"a device of {self.capacity} bytes, of which {self.outside} are taken by others "
                f"and {self.own_context} of these by this process, cannot be",
            )
        if not 0 <= self.fraction <= 1:
            raise BadInput(f"a memory fraction is between 0 and 1, not {self.fraction}")


def reserved_addresses(device: Device | None, part: int) -> int:
    """Bytes of address space of an expandable segment: 9/8 of the device, in whole parts (`ExpandableSegment`)."""
    size = _ENDLESS if device is None else device.capacity + device.capacity // 8
    return round_up(size, part)


class AddressSpace:
    """Addresses that are given out: the lowest that are free, at multiples of a page."""

    def __init__(self) -> None:
        self._holes: list[tuple[int, int]] = []  # address and end, in order
        self._top = FIRST_ADDRESS

    def take(self, size: int) -> int:
        """The address of `size` bytes."""
        size = round_up(size, PAGE)
        for place, (address, end) in enumerate(self._holes):
            if end - address >= size:
                self._holes[place : place + 1] = [(address + size, end)] if end - address > size else []
                return address
        self._top += size
        return self._top - size

    def give(self, address: int, size: int) -> None:
        """Give `size` bytes back."""
        holes, end = self._holes, address + round_up(size, PAGE)
        place = bisect_left(holes, (address, 0))
        if place < len(holes) and holes[place][0] == end:
            end = holes.pop(place)[1]
        if place and holes[place - 1][1] == address:
            place -= 1
            address = holes.pop(place)[0]
        if end == self._top:
            self._top = address
        else:
            holes.insert(place, (address, end))
