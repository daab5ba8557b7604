"""What the usual counters would show: torch's two, and the driver's tool."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.context import context_term
from willfit.engines.transformers.loading import warm_up_bytes
from willfit.engines.transformers.plan import Place, Plan, plan
from willfit.engines.transformers.replay import Reserved, replay
from willfit.engines.transformers.settings import Settings
from willfit.engines.transformers.terms import passing, resident
from willfit.estimate import combined
from willfit.hardware.device import Device

#: A value with its 90 % interval: bytes, low, high.
Interval = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one device, each as bytes with its 90 % interval.

    Attributes
    ----------
    allocated, reserved
        `torch.cuda.max_memory_allocated` and `max_memory_reserved`.
    after
        `torch.cuda.memory_reserved` once the call is over.
    process, process_after
        What the driver's tool shows of the device if nothing else uses it: torch's segments, the CUDA context and
        what the driver keeps for itself; at most, and once the call is over.
    outside
        The part of that which is not torch's.
    full
        Whether the device was full, so that torch gave its free segments back.
    """

    allocated: Interval
    reserved: Interval
    after: Interval
    process: Interval
    process_after: Interval
    outside: Interval
    full: bool


def readings(subject: Subject, machine: Machine, settings: Settings) -> tuple[Reading, ...]:
    """What the counters would show, device by device. Replaying the allocator takes some milliseconds.

    Raises
    ------
    BadInput
        If a setting makes no sense.
    """
    laid_out = plan(subject, machine, settings)
    return tuple(_reading(laid_out, place) for place in laid_out.places)


def hidden_bytes(device: Device) -> int:
    """What the driver keeps of a device, which its tool counts as used."""
    return max((device.reported_bytes or 0) - (device.usable_bytes or 0), 0) if device.reported_bytes else 0


def _reading(laid_out: Plan, place: Place) -> Reading:
    run = laid_out.run
    worst = laid_out.worst(place)
    held = resident(laid_out, place, worst)
    fixed = sum(term.bytes for term in held)
    allocated = combined((*held, *passing(laid_out, place, worst, fixed)))
    context = context_term(place.device)
    usable = place.device.usable_bytes
    limit = None if usable is None else max(usable - context.bytes, fixed)
    share = place.share
    found = replay(run, fixed, share.layers, share.first, share.last, limit)
    threads = run.settings.threads
    at_once = int(warm_up_bytes(run.subject, run.era, run.dtype, run.loaded) * place.part)
    least = max(allocated[0], at_once)
    reserved = _spread(fixed + (found.peak - fixed) * threads, least, allocated, found, limit)
    after = _spread(fixed + (found.after - fixed) * threads, max(fixed, at_once), allocated, found, limit)
    hidden = hidden_bytes(place.device)
    outside = (context.bytes + hidden, context.low_bytes + hidden, context.high_bytes + hidden)
    return Reading(
        allocated,
        reserved,
        after,
        _shown(reserved, outside, found.full),
        _shown(after, outside, found.full),
        outside,
        found.full,
    )


def _spread(value: int, least: int, allocated: Interval, found: Reserved, limit: int | None) -> Interval:
    """A replayed size with its interval: what published figures show, and what the device has room for."""
    ratio = constant("transformers.reserved_ratio")
    value = max(value, least)
    low, high = int(value * ratio.low), max(int(value * ratio.high), value)
    if found.full:
        # Where in the saw-tooth a call ends is a matter of luck.
        low, high = min(low, least), max(high, limit or 0)
    high = max(high, allocated[2])
    if limit is not None:
        value, high = min(value, max(limit, least)), min(high, max(limit, value))
    return value, min(max(low, min(least, allocated[1])), value), max(high, value)


def _shown(torch: Interval, outside: Interval, full: bool) -> Interval:
    """What the driver's tool shows: published figures lie around torch's part and the rest together."""
    spread = constant("transformers.shown")
    value = torch[0] + outside[0]
    low, high = value + int(min(spread.low, 0)), value + int(max(spread.high, 0))
    if full:
        low, high = min(low, torch[1] + outside[1]), max(high, torch[2] + outside[2])
    return value, max(low, 0), high
