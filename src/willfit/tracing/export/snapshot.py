"""A memory snapshot as `torch.cuda.memory._dump_snapshot` writes it, for PyTorch's own viewer.

Keys are those of `torch._C._cuda_memorySnapshot` (torch/csrc/cuda/memory_snapshot.cpp and Module.cpp) that
`torch/cuda/_memory_viz.py` and `torch/utils/viz/MemoryViz.js` read, torch 2.6.0 to 2.13.0.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from willfit.errors import BadInput
from willfit.tracing.attribution import category_of, check
from willfit.tracing.export.history import Entry, Segment
from willfit.tracing.trace import Storage, Trace

#: The viewer reads pickles of protocols 2 to 4 (MemoryViz.js: `unpickle`); newer Pythons write 5 unless told otherwise.
PROTOCOL = 4
#: The pool that is nobody's own (CUDACachingAllocator.h: `MempoolId_t`).
DEFAULT_POOL = (0, 0)
#: What torch writes where nothing is compiled (CUDACachingAllocator.cpp: `getCompileContextString`).
NOT_COMPILED = "N/A"
#: The viewer fails on a snapshot that has categories, but not this one (MemoryViz.js: `annotate_snapshot`).
UNKNOWN = "unknown"

_SEGMENT_ACTIONS = ("segment_alloc", "segment_free", "segment_map", "segment_unmap")
#: A block that is freed on the stream that it is of can be used again at once.
_WRITTEN_AS = {"alloc": ("alloc",), "free": ("free_requested", "free_completed"), "oom": ("oom",)} | {
    action: (action,) for action in _SEGMENT_ACTIONS
}

Frame = dict[str, str | int]


def snapshot(
    trace: Trace,
    entries: Iterable[Entry],
    segments: Iterable[Segment],
    allocator_settings: Mapping[str, str | int | float | bool] | None = None,
) -> dict[str, Any]:
    """A snapshot of device 0, of builtin types only.

    A stack shows, from the inside: operation with shape and dtype, module with the line of its code, autograd node,
    category, and phase of the step. There are no clocks in a trace: `time_us` counts entries.

    Parameters
    ----------
    trace
        Whose storages the history names.
    entries, segments
        What the allocator did while the trace was replayed, and what it holds in the end.
    allocator_settings
        Copied as they are, under the names that torch gives them.

    Raises
    ------
    BadInput
        If the trace is malformed, or the history is not of it.
    """
    check(trace)
    stacks = _Stacks(trace)
    written: list[dict[str, Any]] = []
    opened: dict[int, list[Frame]] = {}  # stacks of segments by address
    for entry in entries:
        if entry.action not in _WRITTEN_AS:
            raise BadInput(
                f"the history has an unknown action {entry.action!r}", f"known: {', '.join(_WRITTEN_AS)}"
            )
        storage = stacks.storage(entry)
        frames, metadata = stacks.of(storage) if storage else ([], "")
        if entry.action in ("segment_alloc", "segment_map"):
            opened.setdefault(entry.address, frames)
        for action in _WRITTEN_AS[entry.action]:
            one: dict[str, Any] = {
                "action": action,
                "device_free" if action == "oom" else "addr": entry.address,
                "size": entry.size,
                "stream": entry.stream,
                "time_us": len(written),
                "compile_context": NOT_COMPILED,
                "user_metadata": metadata,
                "pool_id": DEFAULT_POOL,
                "frames": frames,
            }
            if action == "alloc" and storage:
                one["category"] = category_of(storage)
            elif action in _SEGMENT_ACTIONS:
                one["category"] = UNKNOWN
            written.append(one)
    return {
        "segments": [_segment(segment, stacks, opened) for segment in segments],
        "device_traces": [written],
        "allocator_settings": dict(allocator_settings or {}),
        "external_annotations": [],
    }


def snapshot_bytes(
    trace: Trace,
    entries: Iterable[Entry],
    segments: Iterable[Segment],
    allocator_settings: Mapping[str, str | int | float | bool] | None = None,
) -> bytes:
    """The same as a pickle: what to save as `snapshot.pickle`."""
    return pickle.dumps(snapshot(trace, entries, segments, allocator_settings), PROTOCOL)


def _segment(segment: Segment, stacks: _Stacks, opened: Mapping[int, list[Frame]]) -> dict[str, Any]:
    blocks, end = [], segment.address
    for block in segment.blocks:
        if block.address != end:
            raise BadInput(
                f"blocks of the segment at {segment.address:#x} do not touch", "replay the trace again"
            )
        used = block.storage >= 0
        blocks.append(
            {
                "address": block.address,
                "size": block.size,
                "requested_size": block.requested,
                "state": "active_allocated" if used else "inactive",
                "frames": stacks.of(stacks.known(block.storage))[0] if used else [],
            }
        )
        end += block.size
    if end != segment.address + segment.size:
        raise BadInput(f"blocks do not fill the segment at {segment.address:#x}", "replay the trace again")
    used_bytes = sum(block.size for block in segment.blocks if block.storage >= 0)
    return {
        "device": 0,
        "address": segment.address,
        "total_size": segment.size,
        "allocated_size": used_bytes,
        "active_size": used_bytes,
        "requested_size": sum(block.requested for block in segment.blocks if block.storage >= 0),
        "stream": segment.stream,
        "segment_type": "small" if segment.small else "large",
        "segment_pool_id": DEFAULT_POOL,
        "is_expandable": segment.expandable,
        "frames": opened.get(segment.address, []),
        "blocks": blocks,
    }


class _Stacks:
    """Stacks of storages, each made once: entries that share one share it in the pickle too."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._made: dict[tuple[object, ...], tuple[list[Frame], str]] = {}

    def storage(self, entry: Entry) -> Storage | None:
        """Whose an entry is: of segments, what was allocated then; none after the last event."""
        if entry.storage >= 0:
            return self.known(entry.storage)
        events = self._trace.events
        if not 0 <= entry.event < len(events):
            return None
        change = events[entry.event]
        return self._trace.storages[change if change >= 0 else ~change]

    def known(self, index: int) -> Storage:
        """A storage by its index."""
        if index >= len(self._trace.storages):
            raise BadInput(
                f"the history names storage {index}, which the trace does not have",
                "replay the same trace that is exported",
            )
        return self._trace.storages[index]

    def of(self, storage: Storage) -> tuple[list[Frame], str]:
        """A storage's stack, and its words."""
        key = (storage.op, storage.shape, storage.dtype, storage.place, storage.category, storage.name)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = _frames(storage), _metadata(storage)
        return found


def _frames(storage: Storage) -> list[Frame]:
    """From the inside out, as torch orders them."""
    place = storage.place
    source, _, line = place.source.rpartition(":")
    known = bool(source) and line.isdecimal()
    shape = ", ".join(map(str, storage.shape))
    frames: list[Frame] = [_frame("aten", f"{storage.op} [{shape}] {storage.dtype}")]
    path = storage.name or place.module
    if path or place.source:
        filename = source if known else place.source or "module"
        frames.append(_frame(filename, path or "program", int(line) if known else 0))
    if place.node:
        frames.append(_frame("autograd", place.node))
    frames.append(_frame("category", category_of(storage)))
    frames.append(_frame(_step(storage), place.phase + (" (recomputed)" if place.again else "")))
    return frames


def _frame(filename: str, name: str, line: int = 0) -> Frame:
    return {"filename": filename, "line": line, "name": name}


def _step(storage: Storage) -> str:
    place = storage.place
    if not place.step:
        return "before the first step"
    return f"step {place.step}" + (f", micro-batch {place.micro}" if place.micro else "")


def _metadata(storage: Storage) -> str:
    return f"{category_of(storage)}, {storage.place.phase}, {_step(storage)}"
