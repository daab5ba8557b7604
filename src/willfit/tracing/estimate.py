"""From a trace to an estimate: what is alive at the peak, what the allocator makes of it, and whether it fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from willfit.allocator.device import Device as Memory
from willfit.allocator.fitting import smallest_fitting
from willfit.allocator.repeating import repeated
from willfit.allocator.replay import Replay, replay
from willfit.allocator.settings import AllocatorSettings
from willfit.calibration import constant
from willfit.estimate import DeviceEstimate, Estimate, Term, between, combined, exact
from willfit.hardware.device import Device
from willfit.tracing.attribution import by_category, by_state, groups, phase_peaks
from willfit.tracing.trace import PHASES, Storage, Trace
from willfit.training.outside import communicators, context

#: Terms by the categories of storages.
TERMS = {
    "parameter": "weights", "buffer": "module_buffers", "input": "inputs", "gradient": "gradients",
    "optimizer_state": "optimizer_state", "activation": "activations", "logits": "logits", "kv_cache": "kv_cache",
    "communication": "communication", "workspace": "workspace", "temporary": "temporaries",
}  # fmt: skip

#: Phases of an optimizer step.
_STEP = ("input", "forward", "backward", "clip", "optimizer", "between")

#: From the second step on all states are there. After so many more, no traced model reserved more.
_REPEATED_FROM, _MORE_STEPS = 2, 3

#: Groups of like storages that a reader is told of.
_TOLD = 25


@dataclass(frozen=True, slots=True)
class Told:
    """What was traced, in words.

    Attributes
    ----------
    model
        How to call it.
    engine, kind
        Whose code ran (its version is the trace's), and `train` or `generate`.
    ranks
        Processes; the trace is one's.
    notes
        What a reader should know of how it was read.
    """

    model: str
    engine: str
    kind: str
    ranks: int = 1
    notes: tuple[str, ...] = ()


def estimate(trace: Trace, told: Told, devices: Sequence[Device], settings: AllocatorSettings) -> Estimate:
    """The estimate of a trace on devices that all run the same.

    Parameters
    ----------
    trace
        Of one rank.
    devices
        One for each rank.
    settings
        What `PYTORCH_ALLOC_CONF` sets.
    """
    run = steady(trace)
    free = run.on(settings)
    smallest = smallest_fitting(run.sizes, run.events, run.streams, settings=settings, emptied=run.emptied)
    alive = [trace.storages[index] for index in trace.alive_at(trace.peak_event)]
    outside = outside_of(told.ranks)
    terms = (*_terms(alive, free, smallest), *outside)
    memory = memory_of(devices[0], told.ranks)
    limited = None if memory is None else run.on(settings, memory)
    interval = _interval(free.peak_allocated, smallest, outside)
    places = tuple(
        DeviceEstimate(one.name, index, one.usable_bytes, terms, interval)
        for index, one in enumerate(devices)
    )
    return Estimate(
        told.model,
        told.engine,
        trace.versions.get("torch" if told.engine == "torch" else "transformers", ""),
        "train" if told.kind == "train" else "generate",
        places,
        DeviceEstimate("host", 0, None, ()),
        notes=(*told.notes, *_notes(trace), *settings.notes, *_said(limited)),
        details={"trace": _details(trace, alive, free, smallest, limited, outside)},
    )


@dataclass(frozen=True, slots=True)
class Run:
    """What is replayed: sizes and CUDA streams of storages, events, and where the cache was emptied."""

    sizes: Sequence[int]
    events: Sequence[int]
    streams: Sequence[int]
    emptied: Sequence[int]

    def on(self, settings: AllocatorSettings, memory: Memory | None = None) -> Replay:
        """The replay on a device; None for one without end."""
        return replay(
            self.sizes, self.events, self.streams, settings=settings, device=memory, emptied=self.emptied
        )


def steady(trace: Trace) -> Run:
    """A run in which the last step was taken a few times more.

    What is allocated is the same from the second step on; what stays reserved settles a little later.
    """
    last = max((phase.step for phase in trace.phases), default=0)
    starts = [phase.event for phase in trace.phases if phase.step == last and phase.phase in _STEP]
    if last < _REPEATED_FROM or not starts:
        return Run(trace.sizes, trace.events, trace.streams, trace.emptied)
    start, stop = starts[0], len(trace.events)
    sizes, events, streams = repeated(trace.sizes, trace.events, start, stop, _MORE_STEPS, trace.streams)
    again = [
        event + times * (stop - start)
        for times in range(1, _MORE_STEPS + 1)
        for event in trace.emptied
        if event > start
    ]
    return Run(sizes, events, streams, [*trace.emptied, *again])


def _terms(alive: Sequence[Storage], free: Replay, smallest: int) -> list[Term]:
    """What is alive at the peak by category, and what the allocator needs beside."""
    counts = Counter(storage.category for storage in alive)
    found = []
    for category, size in by_category(alive).items():
        if size:
            formula = f"{counts[category]} storages of {size} B in all"
            found.append(
                exact(TERMS[category], size, formula, "traced: every allocation of a step, replayed")
            )
    requested = sum(storage.nbytes for storage in alive)
    whole = max(0, smallest - requested)
    found.append(
        exact(
            "fragmentation",
            whole,
            f"{smallest} B is the smallest device that the step runs on - {requested} B alive at its peak",
            "torch c10/cuda/CUDACachingAllocator.cpp, replayed",
        )
    )
    return found


def _interval(allocated: int, smallest: int, outside: Sequence[Term]) -> tuple[int, int]:
    """The smallest capacity, as far as published peaks lie around traced ones, and what lies outside."""
    spread = constant("training.allocated_ratio")
    inside = between("inside", smallest, int(smallest * spread.low), int(smallest * spread.high))
    _, low, high = combined([inside, *outside])
    return low, high


def memory_of(device: Device, ranks: int) -> Memory | None:
    """What a device has for the allocator beside contexts; None if its memory is not known."""
    if device.usable_bytes is None:
        return None
    own = sum(term.bytes for term in outside_of(ranks))
    capacity = max(device.reported_bytes or 0, device.usable_bytes)
    taken = min(capacity, capacity - device.usable_bytes + own)
    return Memory(capacity, taken, min(own, taken))


def outside_of(ranks: int) -> list[Term]:
    """What a process holds of a device outside of the allocator."""
    sent = communicators(1, ranks) if ranks > 1 else None
    return [context(), *([sent] if sent is not None else [])]


def _notes(trace: Trace) -> list[str]:
    path = {
        "fake-cuda": "traced on fake CUDA tensors: kernels are those that a CUDA build would take",
        "fake-cpu": "traced on fake CPU tensors with CUDA's choice of attention: this torch takes no fake CUDA tensors",
    }
    return [path[trace.path], *trace.notes]


def _said(limited: Replay | None) -> list[str]:
    """What PyTorch would say on the device."""
    if limited is None:
        return []
    if limited.failure is not None:
        return [f"PyTorch would say: {limited.failure.message}"]
    if limited.retries:
        return [f"cached blocks are given back {limited.retries} times to make room, which takes time"]
    return []


def _details(
    trace: Trace,
    alive: Sequence[Storage],
    free: Replay,
    smallest: int,
    limited: Replay | None,
    outside: Sequence[Term],
) -> dict[str, object]:
    peak = trace.storages[max(0, trace.events[trace.peak_event])].place
    own = sum(term.bytes for term in outside)
    reserved = free.peak_reserved if limited is None else limited.peak_reserved
    return {
        "path": trace.path,
        "versions": dict(trace.versions),
        "kernels": dict(trace.kernels),
        "events": len(trace.events),
        "storages": len(trace.storages),
        "peak": {
            "event": trace.peak_event, "step": peak.step, "phase": peak.phase, "module": peak.module,
            "op": trace.storages[max(0, trace.events[trace.peak_event])].op, "source": peak.source,
        },
        "allocated_bytes": free.peak_allocated,
        "requested_bytes": free.peak_requested,
        "reserved_bytes": reserved,
        "unlimited_reserved_bytes": free.peak_reserved,
        "shown_bytes": reserved + own,
        "smallest_bytes": smallest,
        "retries": 0 if limited is None else limited.retries,
        "out_of_memory": None if limited is None or limited.failure is None else limited.failure.message,
        "optimizer_states": by_state(alive),
        "phases": [
            {"step": one.step, "phase": one.phase, "bytes": one.nbytes}
            for one in sorted(phase_peaks(trace), key=lambda one: PHASES.index(one.phase))
        ],
        "contributors": [
            {
                "bytes": one.nbytes, "count": one.count, "category": one.category, "phase": one.phase,
                "op": one.op, "module": one.module, "shape": list(one.shape), "dtype": one.dtype, "source": one.source,
            }
            for one in groups(alive)[:_TOLD]
        ],
    }  # fmt: skip
