"""The smallest device on which a program runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from willfit.allocator.device import Device
from willfit.allocator.replay import replay
from willfit.allocator.settings import AllocatorSettings
from willfit.allocator.sizes import MOST, PAGE
from willfit.errors import BadInput
from willfit.quantities import round_up

_DEFAULT = AllocatorSettings()


def smallest_fitting(
    sizes: Sequence[int],
    events: Sequence[int],
    streams: Sequence[int] | None = None,
    *,
    settings: AllocatorSettings = _DEFAULT,
    outside: int = 0,
    emptied: Iterable[int] = (),
) -> int:
    """Bytes of the smallest device on which all requests are served, to a page of 2 MiB.

    What is reserved at most where there is no end overstates it: on a full device, free segments are given back and
    opened anew. By bisection: the device fits, and one that is a page smaller does not. Whether a larger one fits is
    no law for this allocator, though it is the rule.

    Parameters
    ----------
    sizes, events, streams, settings, emptied
        As for `replay`.
    outside
        Bytes that others take of the device (contexts, other processes); they are part of the answer.

    Raises
    ------
    BadInput
        If the events are malformed, or a memory fraction leaves nothing of any device.
    """
    emptied = tuple(emptied)

    def fits(pages: int) -> bool:
        device = Device(outside + pages * PAGE, outside)
        return replay(sizes, events, streams, settings=settings, device=device, emptied=emptied).fits

    free = replay(sizes, events, streams, settings=settings, emptied=emptied)
    if not free.peak_reserved:
        return outside
    high = round_up(free.peak_reserved, PAGE) // PAGE
    low = free.peak_requested // PAGE - 1  # what was asked for at once does not fit into less
    while not fits(high):  # a fraction is kept free, or garbage is collected
        low, high = high, 2 * high
        if high * PAGE > MOST:
            raise BadInput(f"no device is large enough with a memory fraction of {settings.fraction}")
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return outside + high * PAGE
