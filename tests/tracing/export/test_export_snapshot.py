"""Snapshots that torch's own tools open, and that its viewer can walk back event by event."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_traces import storage, traces
from small_allocator import Block, Entry, Segment, replayed

from willfit.errors import BadInput
from willfit.tracing.export.snapshot import snapshot, snapshot_bytes
from willfit.tracing.trace import Trace

#: What the viewer's reader of pickles knows (torch/utils/viz/MemoryViz.js: `unpickle`, torch 2.6.0).
READ_BY_VIEWER = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT", "BINUNICODE", "DICT",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "FRAME", "LIST", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK",
    "MEMOIZE", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "SETITEM", "SETITEMS", "SHORT_BINUNICODE", "STOP", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
ENTRY_KEYS = {"action", "size", "stream", "time_us", "compile_context", "user_metadata", "pool_id", "frames"}
SEGMENT_KEYS = {
    "device", "address", "total_size", "allocated_size", "active_size", "requested_size", "stream", "segment_type",
    "segment_pool_id", "is_expandable", "frames", "blocks",
}  # fmt: skip


def of(trace: Trace) -> dict[str, Any]:
    return pickle.loads(snapshot_bytes(trace, *replayed(trace)))


def on_streams(trace: Trace, streams: list[int]) -> Trace:
    storages = [replace(s, cuda_stream=streams[i % len(streams)]) for i, s in enumerate(trace.storages)]
    return Trace(storages, trace.events, phases=trace.phases)


@given(traces(), st.lists(st.sampled_from([0, 7]), min_size=1, max_size=3))
def test_torch_opens_it(trace: Trace, streams: list[int]) -> None:
    viz = pytest.importorskip("torch.cuda._memory_viz")
    found = of(on_streams(trace, streams))
    alive = [trace.storages[i].nbytes for i in trace.alive_at(len(trace.events) - 1)]
    alive = [size for size in alive if size]  # what has no bytes is nowhere
    assert f"total_allocated: {viz.Bytes(sum(alive))}" in viz.segsum(
        found
    )  # it checks the accounts of blocks as well
    assert viz.trace(found).count(" = cudaMalloc") == len(found["segments"])
    assert "snapshot.pickle" in viz.trace_plot(found)
    assert "snapshot.pickle" in viz.trace_plot(found, plot_segments=True)
    assert "Allocator State History" in viz.segment_plot(found)
    lines: list[str] = []
    keep: Callable[[str], None] = lines.append
    viz.memory(found, keep)
    held = [line for line in lines[0].splitlines() if ";active_allocated;" in line and ";<gaps>" not in line]
    assert len(held) == len(alive)
    viz.segments(found, keep)
    viz.compare(found["segments"], found["segments"], keep)
    kept = viz.filter_alloc_free_pairs(found)["device_traces"][0]
    assert sum(entry["action"] == "alloc" for entry in kept) == len(alive)


@given(traces())
def test_the_viewer_can_walk_back(trace: Trace) -> None:
    """From what is held in the end, entry by entry to the start: as the viewer draws any moment."""
    found = of(trace)
    blocks = {
        b["address"]: b for s in found["segments"] for b in s["blocks"] if b["state"] == "active_allocated"
    }
    segments = {s["address"]: s["total_size"] for s in found["segments"]}
    totals = {0, *trace.totals}
    waiting: set[int] = set()
    for entry in reversed(found["device_traces"][0]):
        assert sum(b["requested_size"] for b in blocks.values()) in totals
        assert all(any(s <= at < s + size for s, size in segments.items()) for at in blocks)
        match entry["action"]:
            case "free_completed":
                assert entry["addr"] not in blocks
                blocks[entry["addr"]] = {"requested_size": entry["size"], "frames": entry["frames"]}
                waiting.add(entry["addr"])
            case "free_requested":
                waiting.remove(entry["addr"])
            case "alloc":
                block = blocks.pop(entry["addr"])
                assert (block["requested_size"], block["frames"]) == (entry["size"], entry["frames"])
            case "segment_alloc":
                assert segments.pop(entry["addr"]) == entry["size"]
    assert not blocks
    assert not segments
    assert not waiting


@given(traces())
def test_it_has_every_key_and_no_class(trace: Trace) -> None:
    written = snapshot_bytes(
        trace, *replayed(trace), {"expandable_segments": False, "garbage_collection_threshold": 0.5}
    )
    assert {opcode.name for opcode, _, _ in pickletools.genops(io.BytesIO(written))} <= READ_BY_VIEWER
    assert written[:2] == b"\x80\x04"
    found = pickle.loads(written)
    assert set(found) == {"segments", "device_traces", "allocator_settings", "external_annotations"}
    (entries,) = found["device_traces"]
    for entry in entries:
        assert set(entry) - {"addr", "category"} == ENTRY_KEYS
        assert entry["frames"]
        assert all(set(frame) == {"filename", "line", "name"} for frame in entry["frames"])
    assert all(a["time_us"] < b["time_us"] for a, b in pairwise(entries))
    categories = {entry["category"] for entry in entries if "category" in entry}
    assert "unknown" in categories or not entries  # or the viewer stops
    for segment in found["segments"]:
        assert set(segment) == SEGMENT_KEYS
        assert segment["requested_size"] <= segment["allocated_size"] <= segment["total_size"]
        ends = [block["address"] + block["size"] for block in segment["blocks"]]
        assert [segment["address"], *ends[:-1]] == [block["address"] for block in segment["blocks"]]
        assert ends[-1] == segment["address"] + segment["total_size"]


def test_a_stack_says_what_how_where_and_when() -> None:
    made = storage(
        600,
        "activation",
        "model.layers.3.mlp",
        op="silu",
        shape=(2, 300),
        source="modeling.py:41",
        at=(2, 1, "forward"),
    )
    found = of(Trace([made], [0]))
    opened, taken = found["device_traces"][0]
    assert (opened["action"], taken["action"], taken["category"]) == ("segment_alloc", "alloc", "activation")
    assert [(f["filename"], f["line"], f["name"]) for f in taken["frames"]] == [
        ("aten", 0, "silu [2, 300] uint8"),
        ("modeling.py", 41, "model.layers.3.mlp"),
        ("category", 0, "activation"),
        ("step 2, micro-batch 1", 0, "forward"),
    ]
    assert opened["frames"] == taken["frames"] == found["segments"][0]["frames"]
    assert found["segments"][0]["blocks"][0]["frames"] == taken["frames"]
    assert found["segments"][0]["blocks"][1]["state"] == "inactive"


def test_out_of_memory_and_segments_that_grow() -> None:
    viz = pytest.importorskip("torch.cuda._memory_viz")
    trace = Trace([storage(512), storage(9000)], [0, 1])
    entries = [
        Entry("segment_map", 0, 4096, 2048, 0),
        Entry("alloc", 0, 4096, 512, 0, 0),
        Entry("segment_unmap", 1, 5120, 1024, 0),
        Entry("oom", 1, 100, 9216, 0, 1),
    ]
    blocks = [Block(4096, 512, 512, 0), Block(4608, 512, 0, -1)]
    found = snapshot(trace, entries, [Segment(4096, 1024, 0, True, True, blocks)])
    assert [e["action"] for e in found["device_traces"][0]] == [
        "segment_map",
        "alloc",
        "segment_unmap",
        "oom",
    ]
    last = found["device_traces"][0][-1]
    assert (last["device_free"], last["size"], "addr" in last) == (100, 9216, False)
    assert "raise OutOfMemoryError # 9.0KiB requested, 100.0B free in CUDA" in viz.trace(found)
    assert "total_reserved: 1.0KiB" in viz.segsum(found)
    assert found["segments"][0]["is_expandable"]


@pytest.mark.parametrize(
    ("entries", "segments", "words"),
    [
        ([Entry("malloc", 0, 0, 1, 0)], [], "unknown action 'malloc'"),
        ([Entry("alloc", 0, 0, 1, 0, 5)], [], "names storage 5"),
        ([], [Segment(0, 1024, 0, True, False, [Block(0, 512, 1, 0)])], "do not fill the segment at 0x0"),
        ([], [Segment(0, 1024, 0, True, False, [Block(512, 512, 1, 0)])], "do not touch"),
        ([], [Segment(0, 512, 0, True, False, [Block(0, 512, 1, 9)])], "names storage 9"),
    ],
)
def test_a_history_of_another_trace_is_refused(
    entries: list[Entry], segments: list[Segment], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        snapshot(Trace([storage(1)], [0]), entries, segments)


def test_an_empty_trace_is_refused() -> None:
    with pytest.raises(BadInput, match="trace is empty"):
        snapshot(Trace(), [], [])
