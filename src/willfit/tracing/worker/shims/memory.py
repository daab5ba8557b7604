"""What `torch.cuda.memory_allocated()` and its like say, from the events that were traced so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from willfit.allocator.replay import replay
from willfit.tracing.question import Card
from willfit.tracing.trace import Trace


class Meter:
    """Bytes in use and reserved, as PyTorch's caching allocator would count them.

    Parameters
    ----------
    trace
        What happened so far; it grows.
    card
        Its size.
    """

    def __init__(self, trace: Trace, card: Card) -> None:
        self._trace, self._card = trace, card
        self._since = 0
        self._last: tuple[int, int, dict[str, int]] = (-1, -1, {})

    def stats(self, device: object = None) -> dict[str, int]:
        """`torch.cuda.memory_stats`, of which allocated, requested and reserved bytes are known."""
        events = len(self._trace.events)
        if self._last[:2] != (events, len(self._trace.emptied)):
            trace = self._trace
            found = replay(trace.sizes, trace.events, trace.streams, emptied=trace.emptied, series=True)
            assert found.series is not None
            stats: dict[str, int] = defaultdict(int, num_alloc_retries=0, num_ooms=0)
            for name, now, series in (
                ("allocated_bytes", found.allocated, found.series.allocated),
                ("active_bytes", found.allocated, found.series.allocated),
                ("reserved_bytes", found.reserved, found.series.reserved),
            ):
                stats[f"{name}.all.current"] = now
                stats[f"{name}.all.peak"] = max([now, *series[max(0, self._since - 1) :]])
            stats["requested_bytes.all.current"] = found.requested
            stats["inactive_split_bytes.all.current"] = found.split_free
            stats["segment.all.current"] = found.segments
            self._last = events, len(self._trace.emptied), stats
        return self._last[2]

    def _of(self, name: str) -> Callable[..., int]:
        return lambda device=None: self.stats()[name]

    def free(self, device: object = None) -> tuple[int, int]:
        """`torch.cuda.mem_get_info`."""
        return self._card.total_bytes - self.stats()["reserved_bytes.all.current"], self._card.total_bytes

    def reset(self, device: object = None) -> None:
        """Peaks begin here."""
        self._since = len(self._trace.events)
        self._last = (-1, -1, {})

    def empty(self) -> None:
        """`torch.cuda.empty_cache`."""
        self._trace.emptied.append(len(self._trace.events))

    def install(self) -> None:
        """Let `torch.cuda`, its `memory` and `torch.accelerator` ask here."""
        ways: dict[str, Callable[..., Any]] = {
            "memory_stats": self.stats,
            "mem_get_info": self.free,
            "empty_cache": self.empty,
            "memory_allocated": self._of("allocated_bytes.all.current"),
            "max_memory_allocated": self._of("allocated_bytes.all.peak"),
            "memory_reserved": self._of("reserved_bytes.all.current"),
            "max_memory_reserved": self._of("reserved_bytes.all.peak"),
            "memory_cached": self._of("reserved_bytes.all.current"),
            "max_memory_cached": self._of("reserved_bytes.all.peak"),
            "device_memory_used": self._of("reserved_bytes.all.current"),
            "memory_snapshot": lambda *_, **__: [],
            **dict.fromkeys(_RESETS, self.reset),
            **dict.fromkeys(_RECORDS, lambda *_, **__: None),
        }
        for owner in (torch.cuda, torch.cuda.memory):
            for name, way in ways.items():
                setattr(owner, name, way)
        for name in _OF_ACCELERATOR:
            for place in (torch.accelerator, torch.accelerator.memory):
                setattr(place, name, ways[name.replace("get_memory_info", "mem_get_info")])


_RESETS = (
    "reset_peak_memory_stats", "reset_accumulated_memory_stats", "reset_max_memory_allocated",
    "reset_max_memory_cached",
)  # fmt: skip
#: A snapshot of what is not there: the trace has one of its own.
_RECORDS = ("_record_memory_history", "_dump_snapshot", "_snapshot", "set_per_process_memory_fraction")
_OF_ACCELERATOR = (
    "memory_stats", "empty_cache", "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved",
    "reset_peak_memory_stats", "reset_accumulated_memory_stats", "get_memory_info",
)  # fmt: skip
