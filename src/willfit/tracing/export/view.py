"""A trace cut down to what a chart can show, without losing its maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from willfit.errors import BadInput
from willfit.pictures.palette import CATEGORIES
from willfit.tracing.attribution import categories_at, check
from willfit.tracing.trace import Storage, Trace

#: A device's limit above so many times of what is used is not drawn.
SQUEEZED = 3


@dataclass(frozen=True, slots=True)
class Caption:
    """What a chart says beside its data.

    Attributes
    ----------
    title
        The model, as people call it.
    settings
        What was run, in one line.
    reserved
        Bytes that the allocator holds after each event of the trace; empty if it was not replayed. Where it has fewer
        values than the trace has events, the next event found no room.
    capacity
        Bytes that the device has for the allocator; 0 if that is not asked.
    """

    title: str
    settings: str = ""
    reserved: Sequence[int] = field(default=(), repr=False)
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class Band:
    """Events from `start` up to, not with, `end` that are one phase."""

    start: int
    end: int
    phase: str
    step: int
    micro: int


@dataclass(frozen=True, slots=True)
class View:
    """A trace at some of its events.

    Attributes
    ----------
    events
        Which, rising; a value holds from its event to the next one's.
    totals, series
        Bytes after each, in all and by category; categories that never have any are left out. In the order in which
        they are stacked.
    reserved
        The most that the allocator held around each of them, as far as it got; empty if it is not known.
    failed
        The event that found no room; None if all did.
    bands
        Phases.
    count
        How many events the trace has.
    peak
        Place of the peak in `events`.
    """

    events: list[int]
    totals: list[int]
    series: dict[str, list[int]]
    reserved: list[int]
    failed: int | None
    bands: list[Band]
    count: int
    peak: int


def view(trace: Trace, points: int, reserved: Sequence[int] = ()) -> View:
    """Cut a trace down to at most `points` events: of each of as many equal stretches the fullest.

    Raises
    ------
    BadInput
        If the trace is malformed, or `reserved` is not of it.
    """
    check(trace)
    count = len(trace.events)
    if len(reserved) > count:
        raise BadInput(
            f"{len(reserved)} values of reserved bytes for {count} events of the trace",
            "give at most one for each event of the same trace",
        )
    if points < 1:
        raise BadInput(f"a chart of {points} points shows nothing", "ask for one or more")
    totals = trace.totals
    chosen, held = [], []
    pieces = min(points, count)
    for piece in range(pieces):
        start, end = piece * count // pieces, (piece + 1) * count // pieces
        most = max(totals[start:end])
        chosen.append(totals.index(most, start, end))
        if start < len(reserved):
            held.append(max(reserved[start:end]))
    shares = categories_at(trace, chosen)
    series = {name: [share[name] for share in shares] for name in CATEGORIES}
    return View(
        chosen,
        [totals[event] for event in chosen],
        {name: sizes for name, sizes in series.items() if any(sizes)},
        held,
        len(reserved) if 0 < len(reserved) < count else None,
        bands(trace),
        count,
        chosen.index(trace.peak_event),
    )


def bands(trace: Trace) -> list[Band]:
    """A trace's phases that have events, in order; equal neighbours are one."""
    found: list[Band] = []
    ends = [*(phase.event for phase in trace.phases[1:]), len(trace.events)]
    for phase, end in zip(trace.phases, ends, strict=False):
        end = min(end, len(trace.events))
        if phase.event >= end:
            continue
        band = Band(phase.event, end, phase.phase, phase.step, phase.micro)
        if found and replace(found[-1], start=band.start, end=band.end) == band:
            band = replace(found.pop(), end=end)
        found.append(band)
    return found


def steps(found: Sequence[Band]) -> list[Band]:
    """The same by step: neighbours of one step are one band, without phase."""
    merged: list[Band] = []
    for band in found:
        if merged and merged[-1].step == band.step:
            merged[-1] = replace(merged[-1], end=band.end)
        else:
            merged.append(replace(band, phase="", micro=0))
    return merged


def top_of(seen: View, capacity: int) -> int:
    """The highest value of a chart: the device's limit counts unless the rest would be squeezed by it."""
    highest = max(1, *seen.totals, *seen.reserved)
    return max(highest, capacity) if capacity <= SQUEEZED * highest else highest


def step_word(trace: Trace) -> str:
    """What a step of the trace is called: of a program that generates, a token."""
    return "token" if any(phase.phase in ("prefill", "decode") for phase in trace.phases) else "step"


def words_of(storage: Storage) -> str:
    """Where a storage was made, in words: `mm in model.layers.3.mlp (modeling_llama.py:183)`."""
    place = storage.place
    words = storage.op + (f" in {place.module}" if place.module else "")
    return f"{words} ({place.source})" if place.source else words
