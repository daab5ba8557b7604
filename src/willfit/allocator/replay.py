"""A program's allocations, replayed."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from willfit.allocator.blocks import Block
from willfit.allocator.caching import CachingAllocator
from willfit.allocator.device import Device
from willfit.allocator.history import History, segments_of
from willfit.allocator.oom import DeviceFull, OutOfMemory
from willfit.allocator.settings import AllocatorSettings
from willfit.errors import BadInput

_DEFAULT = AllocatorSettings()


@dataclass(frozen=True, slots=True)
class Series:
    """Bytes after each event that was replayed: what is in use, and what is reserved."""

    allocated: array[int]
    reserved: array[int]


@dataclass(frozen=True, slots=True)
class Replay:
    """What the allocator counted, in bytes, as `torch.cuda.memory_stats` would.

    Attributes
    ----------
    allocated, peak_allocated
        Blocks in use, whole, with what was not worth splitting off: in the end, and at most (`allocated_bytes.all`).
    peak_requested
        What they were asked for, at most (`requested_bytes.all.peak`).
    reserved, peak_reserved
        Segments (`reserved_bytes.all`).
    split_free, peak_split_free
        Free blocks that share a segment with others (`inactive_split_bytes.all`).
    segments, peak_segments
        Number of segments of fixed size (`segment.all`).
    retries
        How often everything free was given back to make room (`num_alloc_retries`).
    failed_event
        Index of the event whose request found no room, which ends the replay; None if all did.
    failure
        What it found.
    series
        If asked for.
    """

    allocated: int
    peak_allocated: int
    peak_requested: int
    reserved: int
    peak_reserved: int
    split_free: int
    peak_split_free: int
    segments: int
    peak_segments: int
    retries: int
    failed_event: int | None = None
    failure: OutOfMemory | None = None
    series: Series | None = None

    @property
    def peak_active(self) -> int:
        """Blocks that are in use or wait for another CUDA stream, at most: none waits here."""
        return self.peak_allocated

    @property
    def fits(self) -> bool:
        """Whether all requests were served."""
        return self.failed_event is None


def replay(
    sizes: Sequence[int],
    events: Sequence[int],
    streams: Sequence[int] | None = None,
    *,
    settings: AllocatorSettings = _DEFAULT,
    device: Device | None = None,
    emptied: Iterable[int] = (),
    history: History | None = None,
    series: bool = False,
) -> Replay:
    """Replay what a program allocates and frees.

    Parameters
    ----------
    sizes
        Bytes of each storage, as asked for. One of 0 bytes takes nothing.
    events
        `i` where storage `i` is made, `~i` where it is freed, in order.
    streams
        CUDA stream of each storage; None if all are of the default one.
    settings
        What `PYTORCH_ALLOC_CONF` sets.
    device
        What there is to take; None for no end.
    emptied
        Indices of events before which the cache is emptied (`torch.cuda.empty_cache`).
    history
        Filled with what happens; None for nothing.
    series
        Whether to keep what is in use and reserved after each event.

    Raises
    ------
    BadInput
        If a storage is made twice, or freed without being there.
    """
    streams = [0] * len(sizes) if streams is None else streams
    _check(sizes, events, streams)
    memory = CachingAllocator(device, settings, history)
    kept = Series(array("q"), array("q")) if series else None
    held: dict[int, Block] = {}
    edges = sorted({edge for edge in emptied if 0 <= edge <= len(events)})
    failed, failure, begin = None, None, 0
    for end in (*edges, None):
        part = events if not edges else events[begin:end]
        if history is None and kept is None:
            failed, failure = _run(memory, sizes, part, streams, held, begin)
        else:
            failed, failure = _run_told(memory, sizes, part, streams, held, begin, history, kept)
        if failed is not None:
            failed += begin
            break
        if end is not None:
            if history is not None:
                history.event = end
            memory.empty_cache()
            begin = end
    if history is not None:
        history.segments = segments_of(memory, held)
    return Replay(
        allocated=memory.allocated,
        peak_allocated=memory.peak_allocated,
        peak_requested=memory.peak_requested,
        reserved=memory.reserved,
        peak_reserved=memory.peak_reserved,
        split_free=memory.split_free,
        peak_split_free=memory.peak_split_free,
        segments=memory.segments,
        peak_segments=memory.peak_segments,
        retries=memory.retries,
        failed_event=failed,
        failure=failure,
        series=kept,
    )


def _check(sizes: Sequence[int], events: Sequence[int], streams: Sequence[int]) -> None:
    if len(streams) != len(sizes):
        raise BadInput(f"{len(sizes)} storages, but CUDA streams of {len(streams)}")
    if sizes and min(sizes) < 0:
        raise BadInput("a storage of a negative size")
    if events and not -len(sizes) <= min(events) <= max(events) < len(sizes):
        raise BadInput(f"an event names a storage that is none of the {len(sizes)}")
    made = [event for event in events if event >= 0]
    if len(set(made)) != len(made):
        raise BadInput("a storage is made twice", "give each its own index")


def _run(
    memory: CachingAllocator,
    sizes: Sequence[int],
    events: Sequence[int],
    streams: Sequence[int],
    held: dict[int, Block],
    begin: int,
) -> tuple[int | None, OutOfMemory | None]:
    """Replay events; the index of the one that failed, and why."""
    malloc, free, give = memory.malloc, memory.free, held.pop
    index = event = 0
    try:
        for index, event in enumerate(events):  # noqa: B007 - both are told if it fails
            if event >= 0:
                size = sizes[event]
                if size:
                    held[event] = malloc(size, streams[event])
            elif sizes[~event]:
                free(give(~event))
    except DeviceFull as full:
        return index, full.state
    except KeyError:
        raise _missing(begin + index, ~event) from None
    return None, None


def _missing(index: int, storage: int) -> BadInput:
    return BadInput(f"event {index} frees storage {storage}, which is not there")


def _run_told(
    memory: CachingAllocator,
    sizes: Sequence[int],
    events: Sequence[int],
    streams: Sequence[int],
    held: dict[int, Block],
    begin: int,
    history: History | None,
    series: Series | None,
) -> tuple[int | None, OutOfMemory | None]:
    """The same, written down event by event."""
    for index, event in enumerate(events):
        storage = event if event >= 0 else ~event
        size, stream = sizes[storage], streams[storage]
        if event < 0 and size and storage not in held:
            raise _missing(begin + index, storage)
        if history is not None:
            history.event = begin + index
            if event < 0 and size:
                history.add("free", held[storage].address, size, stream, storage)
        _, failure = _run(memory, sizes, (event,), streams, held, begin + index)
        if failure is not None:
            if history is not None and not failure.rejected:
                history.add("oom", failure.free, failure.size, stream, storage)
            return index, failure
        if history is not None and event >= 0 and size:
            history.add("alloc", held[storage].address, size, stream, storage)
        if series is not None:
            series.allocated.append(memory.allocated)
            series.reserved.append(memory.reserved)
    return None, None
