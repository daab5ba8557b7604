"""What the profiler saw of the allocator beside what the tracer saw of storages.

Both run at once. Where the tracer sees a storage it leaves a mark in the profiler's stream; the allocation that is
alive at the storage's address then is this storage. What remains no tensor ever showed: it is told apart by when it is
given back.

Looking on changes one thing: under any dispatch mode autograd's engine makes a new tensor for a sum of gradients that
it else makes in place. The tracer knows (`worker/sums.py`), and here the new allocation takes the old one's place too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._C._profiler import _EventType, _RecordFunctionFast

from willfit.tracing.question import Card
from willfit.tracing.worker.tracer import Tracer

#: Of a single number, which Python hands to an operation as a tensor.
SCALAR = 8
#: How the profiler calls the way into a dispatch mode: what is directly inside are the operations that it sees.
_MODE = "PythonDispatchMode"
#: Bytes of the state of the CPU's random numbers (`c10/core/CPUGeneratorImpl`), which checkpoints keep a copy of.
RANDOM_STATE = 5056
_MARK = "willfit storage "


class OnCpu(Tracer):
    """A tracer of what is there on the CPU: no kernels of CUDA take anything."""

    def __init__(self) -> None:
        super().__init__("cpu", Card())

    def _workspace(self, *what: Any) -> None:
        pass


class Addressed(OnCpu):
    """A tracer that says in the profiler's stream when it saw a storage, and where that is."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[tuple[int, int, int | None]] = []  # a storage, where it is, and where it was
        self.known: set[int] = set()

    def leave_alone(self, tensor: torch.Tensor) -> None:
        """Not to be followed, as it is there before."""
        self.known.add(tensor.untyped_storage()._cdata)

    def _see(self, tensor: torch.Tensor, op: str) -> bool:
        before = len(self.trace.storages)
        if tensor.untyped_storage()._cdata in self.known:
            return True
        found = super()._see(tensor, op)
        if len(self.trace.storages) > before:
            self._say(before, tensor, None)
        return found

    def _take_place(self, made: torch.Tensor, held: torch.Tensor) -> None:
        index, _ = self._alive[held.untyped_storage()._cdata]
        super()._take_place(made, held)
        self._say(index, made, held.untyped_storage().data_ptr())

    def _say(self, index: int, tensor: torch.Tensor, was: int | None) -> None:
        self.addresses.append((index, tensor.untyped_storage().data_ptr(), was))
        with _RecordFunctionFast(f"{_MARK}{len(self.addresses) - 1}"):
            pass


@dataclass
class Allocation:
    """One call to the allocator.

    Attributes
    ----------
    op
        The operation, of those that a mode sees, that made it; empty outside of all.
    until
        When that operation ends.
    freed
        When it was given back; none if never.
    storage
        The tracer's, if it is one.
    watched
        It is only made because someone looks on: a sum of gradients.
    """

    nbytes: int
    op: str
    until: int
    freed: int | None = None
    storage: int | None = None
    watched: bool = False

    @property
    def kind(self) -> str:
        """`storage`; `scratch` of an operation, given back before it returns; `scalar`; `random state`; `unknown`."""
        if self.watched:
            return "watched"
        if self.storage is not None:
            return "storage"
        if self.op and self.freed is not None and self.freed <= self.until:
            return "scratch"
        if self.nbytes <= SCALAR:
            return "scalar"
        return "random state" if self.nbytes == RANDOM_STATE else "unknown"


@dataclass
class Comparison:
    """What came of it, in bytes.

    Attributes
    ----------
    profiler
        The peak of all allocations but those that are only made because someone looks on.
    storages
        The peak of those alone that are storages which the tracer saw.
    lower
        By how much storages are below that at the peak of all allocations.
    beside
        What else is alive there, by kind.
    scratch
        The largest scratch of any operation, and which.
    unseen
        Storages that are no allocation, and allocations of unknown kind.
    calls, seen
        Calls to the allocator, and storages that the tracer saw.
    """

    profiler: int = 0
    storages: int = 0
    lower: int = 0
    beside: dict[str, int] = field(default_factory=dict)
    scratch: tuple[int, str] = (0, "")
    unseen: list[str] = field(default_factory=list)
    calls: int = 0
    seen: int = 0


def compared(profiler: Any, tracer: Addressed) -> Comparison:
    """Go through the profiler's stream in the order of time."""
    found = Comparison()
    made, alive, order = [], {}, []
    for time, event, op, until in sorted(
        _flat(profiler.profiler.kineto_results.experimental_event_tree()), key=lambda entry: entry[0]
    ):
        kind, fields = event.typed
        if kind == _EventType.Allocation and fields.alloc_size > 0:
            alive[fields.ptr] = len(made)
            made.append(Allocation(fields.alloc_size, op, until))
            order.append(len(made) - 1)
        elif kind == _EventType.Allocation and fields.ptr in alive:
            index = alive.pop(fields.ptr)
            made[index].freed = time
            order.append(~index)
        elif kind == _EventType.TorchOp and event.name.startswith(_MARK):
            storage, address, was = tracer.addresses[int(event.name.removeprefix(_MARK))]
            here = alive.get(address)
            if was is not None and here is not None and was in alive:
                made[here].watched = True
                alive[address], alive[was] = alive[was], here
            elif here is not None and made[here].nbytes == tracer.trace.storages[storage].nbytes:
                made[here].storage = storage
            elif tracer.trace.storages[storage].nbytes:
                found.unseen.append(f"storage of {tracer.trace.storages[storage]}")
    found.calls = sum(step >= 0 for step in order)
    found.seen = sum(allocation.storage is not None for allocation in made)
    _peaks(found, made, order)
    scratch = [allocation for allocation in made if allocation.kind == "scratch"]
    if scratch:
        largest = max(scratch, key=lambda allocation: allocation.nbytes)
        found.scratch = largest.nbytes, largest.op
    found.unseen += [str(allocation) for allocation in made if allocation.kind == "unknown"]
    return found


def _peaks(found: Comparison, made: list[Allocation], order: list[int]) -> None:
    now: Counter[str] = Counter()
    total = 0
    at_peak: dict[str, int] = {}
    for step in order:
        allocation = made[step if step >= 0 else ~step]
        if allocation.watched:
            continue
        change = allocation.nbytes if step >= 0 else -allocation.nbytes
        total += change
        now[allocation.kind] += change
        found.storages = max(found.storages, now["storage"])
        if total > found.profiler:
            found.profiler, at_peak = total, dict(now)
    found.lower = found.storages - at_peak.pop("storage", 0)
    found.beside = {kind: size for kind, size in at_peak.items() if size}


def _flat(
    events: list[Any], op: str = "", until: int = 0, directly: bool = False
) -> Iterator[tuple[int, Any, str, int]]:
    """Events with the operation around them, of those that a mode sees, and its end."""
    for event in events:
        yield event.start_time_ns, event, op, until
        if event.typed[0] == _EventType.TorchOp and (directly or event.name == _MODE):
            yield from _flat(event.children, event.name, event.end_time_ns, event.name == _MODE)
        else:
            yield from _flat(event.children, op, until)
