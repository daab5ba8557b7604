"""How the programs adjust what was left open to free memory (`common/fit.cpp`).

First the context shrinks, if none was asked for; then devices are filled with whole layers from the back. Of models
with experts all layers come first without their experts, and get them from the front as long as there is room; the last
one perhaps in part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from willfit.engines.llama_cpp.loading.offload import EXPERTS, Offload

#: Bytes to leave free on each device, and the least context, where nothing else is said.
TARGET_BYTES = 1024 * 2**20
LEAST_CONTEXT = 4096
#: Contexts are rounded down to this.
_STEP = 256
#: What of a layer goes to the host if it is on a device in part, from most to least.
_WITHOUT_ATTENTION = r"\.ffn_(gate|up|gate_up|down).*"
_WITHOUT_UP = r"\.ffn_(gate|gate_up|down).*"
_WITHOUT_GATE = r"\.ffn_down.*"


@dataclass(frozen=True, slots=True)
class Share:
    """What one device gets.

    Attributes
    ----------
    layers
        How many, the output included.
    partial
        How many of them without experts, or in part.
    overflow
        What of the first partial one goes elsewhere: a pattern behind the layer's name.
    overflows_to
        The buffer that it goes to.
    """

    layers: int = 0
    partial: int = 0
    overflow: str = EXPERTS
    overflows_to: str = "CPU"

    @property
    def full(self) -> int:
        """How many are there with everything."""
        return self.layers - self.partial


#: Bytes that a choice takes of each device: of a context, and of an offload or None for what was asked for.
Measure = Callable[[int, Offload | None], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is, and what must be left.

    Attributes
    ----------
    free
        Free bytes of each device.
    targets
        Bytes to leave free on each.
    layers
        Repeating layers.
    experts
        The model has experts.
    places
        Names of the devices' buffers.
    """

    free: tuple[int, ...]
    targets: tuple[int, ...]
    layers: int
    experts: bool
    places: tuple[str, ...]

    @property
    def most(self) -> tuple[int, ...]:
        """What may be taken of each device."""
        return tuple(free - target for free, target in zip(self.free, self.targets, strict=True))


def fit_context(limits: Limits, measure: Measure, trained: int, least: int, streams: int) -> int:
    """The context that a program takes if none was asked for.

    Parameters
    ----------
    trained
        Tokens that the model was trained for.
    least
        The least context.
    streams
        Sequences that do not share a cache: each gets the context.
    """
    most, low = trained * streams, least * streams
    used = measure(most, None)
    if all(u <= m for u, m in zip(used, limits.most, strict=True)) or most <= low:
        return most
    target = sum(limits.most)
    if sum(used) <= target:
        return most
    if len(limits.free) > 1:
        # Whole layers do not fill several devices evenly.
        each = sum(used) // (limits.layers + 1)
        target -= (len(limits.free) + 1) * each // (6 if limits.experts else 2)
    smallest = sum(measure(low, None))
    if target <= smallest:
        return low
    found = low + (most - low) * (target - smallest) // (sum(used) - smallest)
    step = _STEP * streams
    return max(found - found % step, low)


def fit_layers(limits: Limits, measure: Callable[[Offload], Sequence[int]]) -> Offload:
    """The layers that each device gets, so that its target is met."""
    count = len(limits.free)
    shares = [Share()] * count
    taken = list(measure(offload_for(shares, limits)))
    for device in reversed(range(count)):
        left = limits.layers + 1 - sum(share.layers for share in shares[device + 1 :])
        shares, taken = _fill(limits, measure, shares, taken, device, left)
    if not limits.experts:
        return offload_for(shares, limits)
    whole = Offload(
        limits.layers + 1, tuple(float(free) for free in limits.free), ((rf"blk\.\d+{EXPERTS}", "CPU"),)
    )
    if sum(limits.most) <= sum(measure(whole)):
        return offload_for(shares, limits)
    return offload_for(_with_experts(limits, measure, shares, taken), limits)


def offload_for(shares: Sequence[Share], limits: Limits) -> Offload:
    """The settings that give devices these shares."""
    total = sum(share.layers for share in shares)
    layer = limits.layers + 1 - total
    overrides: list[tuple[str, str]] = []
    for share in shares:
        layer += share.full
        for index in range(share.partial):
            first = index == 0
            pattern = share.overflow if first else EXPERTS
            overrides.append((rf"blk\.{layer + index}{pattern}", share.overflows_to if first else "CPU"))
        layer += share.partial
    split = tuple(float(share.layers) for share in shares)
    return Offload(total, split if any(split) else (1.0,) * len(shares), tuple(overrides))


def _fill(
    limits: Limits,
    measure: Callable[[Offload], Sequence[int]],
    shares: list[Share],
    taken: list[int],
    device: int,
    left: int,
) -> tuple[list[Share], list[int]]:
    """As many layers for one device as its target allows; of models with experts without these."""
    last = device == len(shares) - 1
    if not left:
        return shares, taken

    def given(layers: int) -> list[Share]:
        partial = (layers - 1 if last and layers else layers) if limits.experts else 0
        return [*shares[:device], Share(layers, partial), *shares[device + 1 :]]

    high = given(left)
    high_taken = list(measure(offload_for(high, limits)))
    if high_taken[device] <= limits.most[device]:
        return high, high_taken
    low, low_taken, delta = shares, taken, left
    while delta > 1:
        step = _step(delta, limits.most[device], low_taken[device], high_taken[device])
        tried = given(low[device].layers + step)
        tried_taken = list(measure(offload_for(tried, limits)))
        if tried_taken[device] <= limits.most[device]:
            low, low_taken = tried, tried_taken
        else:
            high, high_taken = tried, tried_taken
        delta = high[device].layers - low[device].layers
    return low, low_taken


def _step(delta: int, most: int, low: int, high: int) -> int:
    """Where a straight line through the two ends meets the target."""
    step = int(delta * (most - low) / (high - low)) if high != low else 1
    return min(max(step, 1), delta - 1)


def _with_experts(
    limits: Limits, measure: Callable[[Offload], Sequence[int]], shares: list[Share], taken: list[int]
) -> list[Share]:
    """Give layers their experts, from the first device on."""
    count = len(shares)
    start = next((device for device in range(count) if shares[device].layers), count - 1)
    for device in range(count):
        if device > start:
            break
        high, high_start = list(shares), count - 1
        for other in range(start, count):
            moved = high[other].layers - (other == count - 1)
            high[other] = replace(high[other], layers=high[other].layers - moved, partial=0)
            high[device] = replace(high[device], layers=high[device].layers + moved)
        high_taken = list(measure(offload_for(high, limits)))
        if high_taken[device] > limits.most[device]:
            delta = high[device].full - shares[device].full
            while delta > 1:
                step = _step(delta, limits.most[device], taken[device], high_taken[device])
                tried, tried_start = _converted(shares, device, start, step)
                tried_taken = list(measure(offload_for(tried, limits)))
                if tried_taken[device] <= limits.most[device]:
                    shares, taken, start = tried, tried_taken, tried_start
                else:
                    high, high_taken = tried, tried_taken
                delta = high[device].full - shares[device].full
        else:
            shares, taken, start = high, high_taken, high_start
        if start < count and shares[start].layers > (1 if device == count - 1 else 0):
            shares, taken, start = _in_part(limits, measure, shares, taken, device, start)
    return shares


def _converted(shares: Sequence[Share], device: int, start: int, step: int) -> tuple[list[Share], int]:
    """Layers without experts become whole ones of another device."""
    found, done = list(shares), 0
    while start < len(found):
        moved = min(step - done, found[start].partial)
        found[start] = replace(
            found[start], layers=found[start].layers - moved, partial=found[start].partial - moved
        )
        found[device] = replace(found[device], layers=found[device].layers + moved)
        done += moved
        if found[start].partial:
            break
        start += 1
    return found, start


def _in_part(
    limits: Limits,
    measure: Callable[[Offload], Sequence[int]],
    shares: list[Share],
    taken: list[int],
    device: int,
    start: int,
) -> tuple[list[Share], list[int], int]:
    """Try to hold one more layer in part; what does not fit goes to the next device, or the host."""
    tried = list(shares)
    tried[start] = replace(tried[start], layers=tried[start].layers - 1, partial=tried[start].partial - 1)
    tried[device] = replace(tried[device], layers=tried[device].layers + 1, partial=tried[device].partial + 1)
    tried_start = start + (tried[start].partial == 0)
    goes_to = limits.places[device + 1] if device + 1 < len(shares) else "CPU"

    def with_overflow(pattern: str) -> tuple[list[Share], list[int], bool]:
        one = list(tried)
        one[device] = replace(one[device], overflow=pattern, overflows_to=goes_to)
        used = list(measure(offload_for(one, limits)))
        fits = used[device] < limits.most[device]
        if device + 1 < len(shares):
            fits = fits and used[device + 1] < limits.most[device + 1]
        return one, used, fits

    one, used, fits = with_overflow(_WITHOUT_UP)
    if fits:
        more, more_used, more_fits = with_overflow(_WITHOUT_GATE)
        return (more, more_used, tried_start) if more_fits else (one, used, tried_start)
    one, used, fits = with_overflow(_WITHOUT_ATTENTION)
    return (one, used, tried_start) if fits else (shares, taken, start)
