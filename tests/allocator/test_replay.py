"""Whole programs: what is counted, written down, repeated, and how small a device may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.allocator.device import Device
from willfit.allocator.fitting import smallest_fitting
from willfit.allocator.history import History
from willfit.allocator.recorded import recorded
from willfit.allocator.repeating import repeated
from willfit.allocator.replay import replay
from willfit.allocator.settings import parse_settings
from willfit.errors import BadInput
from willfit.quantities import MIB

#: A buffer that grows while the one before is alive: each needs a segment of its own.
GROWING = [12 * MIB, 14 * MIB, 16 * MIB, 18 * MIB], [0, 1, ~0, 2, ~1, 3, ~2, ~3]


def test_what_is_counted() -> None:
    done = replay(*GROWING, series=True)
    assert (done.allocated, done.peak_allocated, done.peak_active) == (0, 34 * MIB, 34 * MIB)
    assert (done.reserved, done.peak_reserved, done.segments) == (60 * MIB, 60 * MIB, 4)
    assert (done.fits, done.retries, done.failure) == (True, 0, None)
    assert done.series is not None
    assert [size // MIB for size in done.series.allocated] == [12, 26, 14, 30, 16, 34, 18, 0]
    assert [size // MIB for size in done.series.reserved] == [12, 26, 26, 42, 42, 60, 60, 60]


def test_what_happened_is_written_down_with_addresses() -> None:
    history = History()
    done = replay([3 * MIB, 100, 0], [0, 1, 2, ~2, ~0], [0, 5, 0], emptied=[4, 5], history=history)
    told = [(entry.action, entry.event, entry.size, entry.stream, entry.storage) for entry in history.entries]
    assert told == [
        ("segment_alloc", 0, 20 * MIB, 0, -1),
        ("alloc", 0, 3 * MIB, 0, 0),
        ("segment_alloc", 1, 2 * MIB, 5, -1),
        ("alloc", 1, 100, 5, 1),
        ("free", 4, 3 * MIB, 0, 0),
        ("segment_free", 5, 20 * MIB, 0, -1),
    ]
    (held,) = history.segments
    assert (held.address, held.size, held.stream, held.small) == (
        history.entries[2].address,
        2 * MIB,
        5,
        True,
    )
    assert [(block.size, block.requested, block.storage) for block in held.blocks] == [
        (512, 100, 1),
        (2 * MIB - 512, 0, -1),
    ]
    assert done.reserved == 2 * MIB


def test_the_request_that_fails_ends_it() -> None:
    history = History()
    done = replay(*GROWING, device=Device(30 * MIB), history=history)
    assert (done.failed_event, done.fits) == (5, False)
    assert done.failure is not None
    assert (done.failure.size, done.failure.free) == (18 * MIB, 14 * MIB)
    assert history.entries[-1][:4] == ("oom", 5, 14 * MIB, 18 * MIB)
    assert done.failure.message.startswith(
        "CUDA out of memory. Tried to allocate 18.00 MiB. GPU 0 has a total"
    )


def test_the_smallest_device() -> None:
    # 16 and 18 at once; what was reserved before is given back. Without an end 60 are reserved.
    assert smallest_fitting(*GROWING) == 34 * MIB
    assert smallest_fitting(*GROWING, outside=500 * MIB) == 534 * MIB
    # One behind the other they reach to 42, mapped 20 at a time; the hole of 12 at the start is no whole part.
    assert smallest_fitting(*GROWING, settings=parse_settings("expandable_segments:True")) == 60 * MIB
    assert smallest_fitting(*GROWING, settings=parse_settings("per_process_memory_fraction:0.5")) == 68 * MIB
    assert smallest_fitting([0], [0]) == 0
    with pytest.raises(BadInput, match="no device is large enough"):
        smallest_fitting(*GROWING, settings=parse_settings("per_process_memory_fraction:0"))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50 * MIB)), max_size=40))
def test_the_smallest_device_fits_and_one_page_less_does_not(steps: list[tuple[bool, int]]) -> None:
    sizes, events, alive = [], [], []
    for frees, size in steps:
        if frees and alive:
            events.append(~alive.pop(size % len(alive)))
        else:
            alive.append(len(sizes))
            events.append(len(sizes))
            sizes.append(size)
    found = smallest_fitting(sizes, events)
    free = replay(sizes, events)
    assert free.peak_allocated <= free.peak_reserved
    assert free.peak_requested <= found <= free.peak_reserved
    assert replay(sizes, events, device=Device(found)).fits
    if events:
        assert not replay(sizes, events, device=Device(found - 2 * MIB)).fits


def test_a_step_again_renews_what_it_makes() -> None:
    # A weight, a gradient of step 1; step 2 frees it after making an activation, and leaves another gradient.
    sizes, events = [1, 7, 5, 7, 9], [0, 1, 2, ~1, ~2, 3, 4, ~3, ~4]
    more, again, streams = repeated(sizes, events, 2, 6, 2)
    assert more == [1, 7, 5, 7, 9, 5, 7, 5, 7]
    assert again == [0, 1, 2, ~1, ~2, 3, 5, ~3, ~5, 6, 7, ~6, ~7, 8, 4, ~8, ~4]
    assert streams == [0] * 9
    assert repeated(sizes, events, 2, 6, 0) == (sizes, events, [0] * 5)
    with pytest.raises(BadInput, match="cannot be repeated"):
        repeated(sizes, events, 3, 2, 1)


@pytest.mark.parametrize(
    ("sizes", "events", "streams", "said"),
    [
        ([1], [0, ~0, ~0], None, "event 2 frees storage 0"),
        ([1], [~0], None, "event 0 frees"),
        ([1], [1], None, "none of the 1"),
        ([1], [~1], None, "none of the 1"),
        ([1], [0, ~0, 0], None, "made twice"),
        ([-1], [0], None, "negative"),
        ([1], [0], [0, 0], "CUDA streams of 2"),
    ],
)
@pytest.mark.parametrize("told", [True, False])
def test_malformed_programs(
    sizes: list[int], events: list[int], streams: list[int] | None, said: str, told: bool
) -> None:
    with pytest.raises(BadInput, match=said):
        replay(sizes, events, streams, series=told)


def entry(action: str, addr: int, size: int, stream: int = 0) -> dict[str, object]:
    return {"action": action, "addr": addr, "size": size, "stream": stream}


def test_a_snapshot_as_a_program() -> None:
    stream = 94_000_123
    trace = [
        entry("segment_alloc", 4096, 20 * MIB),
        entry("alloc", 4096, 3 * MIB),
        entry("segment_alloc", 8192, 2 * MIB, stream),
        entry("alloc", 8192, 100, stream),
        entry("free_requested", 4096, 3 * MIB),
        entry("free_completed", 4096, 3 * MIB),
        entry("snapshot", 0, 0),
        entry("segment_free", 4096, 20 * MIB),
        entry("free_requested", 8192, 100, stream),  # waits for another stream
        entry("segment_alloc", 4096, 20 * MIB),
        entry("alloc", 4096, 9 * MIB),
        entry("free_completed", 8192, 100, stream),
        entry("segment_free", 8192, 2 * MIB, stream),
    ]
    found = recorded({"device_traces": [trace]})
    assert found.sizes == (3 * MIB, 100, 9 * MIB)
    assert found.events == (0, 1, ~0, 2, ~1)
    assert found.streams == (0, 1, 0)
    assert found.segments == (20 * MIB, 2 * MIB, -20 * MIB, 20 * MIB, -2 * MIB)
    assert found.emptied == (5,)  # the first time room was made for what followed
    done = replay(found.sizes, found.events, found.streams, emptied=found.emptied)
    assert (done.peak_reserved, done.reserved) == (22 * MIB, 20 * MIB)


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        ({}, "not a memory snapshot"),
        ({"device_traces": []}, "not a memory snapshot"),
        ({"device_traces": [[{"action": "alloc"}]]}, "not a memory snapshot"),
        ({"device_traces": [[entry("free_completed", 512, 100)]]}, "frees address 0x200"),
    ],
)
def test_what_is_no_snapshot(snapshot: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        recorded(snapshot)
