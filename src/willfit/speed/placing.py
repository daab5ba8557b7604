"""Where an estimate puts a model: which device, or the host, runs which share of the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from willfit.architectures.mixers import Attention
from willfit.engines.base import Machine, Subject
from willfit.estimate import DeviceEstimate, Estimate
from willfit.hardware.processors import beside
from willfit.quantities import DTYPE_BYTES
from willfit.speed.counting import work_of
from willfit.speed.habits import Habits, habits_of
from willfit.speed.planning import plan_from, with_habits
from willfit.speed.rates import Rates, host_rates, rates_of
from willfit.speed.serving import Plan, Stage

#: Terms of the host that are weights which its processor multiplies with, and those that are experts alone.
_HOST_WEIGHTS = frozenset({"weights", "repacked_weights", "mapped_weights"})
_HOST_EXPERTS = "experts"

#: Less than this share on the host is what every engine leaves there: tables, of which single rows are read.
_LITTLE = 0.02

#: Engines whose estimates have a term for the graphs that they capture.
_CAPTURING = frozenset({"vllm", "sglang"})

#: What engines call the tokens of a prompt that they run at once.
_CHUNKS = (
    "chunked_prefill_size",
    "max_num_batched_tokens",
    "prefill_step_size",
    "prefill_chunk_size",
    "chunk_size",
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A plan as an estimate has it.

    Attributes
    ----------
    plan
        Of one replica.
    replicas
        How many replicas share the users.
    on_host
        Whether the processor runs layers.
    """

    plan: Plan
    replicas: int
    on_host: bool


def placed(subject: Subject, machine: Machine, estimate: Estimate) -> Placed | None:
    """How the engine of an estimate runs the model; None if figures of a device are not known."""
    details = estimate.details
    tensor = _count(details, "tensor_parallel")
    pipeline = _count(details, "pipeline_parallel")
    cache = DTYPE_BYTES.get(str(details.get("kv_cache_dtype"))) or _element_bytes(subject, details)
    chunk = next((int(details[name]) for name in _CHUNKS if _is_count(details.get(name))), 0)
    dtype = details.get("dtype") if details.get("dtype") in DTYPE_BYTES else None
    habits = _habits(estimate)
    shares = _shares(subject, estimate)
    experts = _count(details, "expert_ranks")
    # Replicas share the experts where more ranks hold them than one replica has.
    data = max(1, experts // tensor)
    if tensor * pipeline * experts > 1 and not shares.on_host:
        work = work_of(subject, tensor, experts, dtype, cache)
        plan = plan_from(work, machine.devices, habits, pipeline, experts, data, chunk)
        if plan is None:
            return None
        return Placed(plan, max(1, len(estimate.devices) // (tensor * pipeline)), False)
    rates: list[Rates | None] = [
        rates_of(machine.devices[place.index], habits) for place, _ in shares.devices
    ]
    stages = [
        Stage(one, share, share if shares.host_experts is None else 1 - shares.host_experts)
        for one, (_, share) in zip(rates, shares.devices, strict=True)
        if one is not None
    ]
    if len(stages) < len(rates):
        return None
    if shares.on_host:
        host = host_rates(machine.processor or beside(machine.devices), habits)
        stages.append(
            Stage(host, shares.host, shares.host if shares.host_experts is None else shares.host_experts)
        )
    if not stages:
        return None
    # What runs last is closest to the head, which a device has if there is one.
    stages.sort(key=lambda stage: stage.rates.bandwidth)
    work = work_of(subject, tensor, dtype=dtype, cache_bytes=cache)
    plan = Plan(work, tuple(stages), pipelined=False, chunk=chunk or habits.chunk)
    return Placed(with_habits(plan, habits), 1, shares.on_host)


def _habits(estimate: Estimate) -> Habits:
    """What its engine does; without graphs where it captures them and this run has none (`enforce_eager`)."""
    habits = habits_of(estimate.engine, estimate.engine_version)
    graphs = any(term.name == "cuda_graphs" for place in estimate.devices for term in place.terms)
    if estimate.engine in _CAPTURING and not graphs:
        return replace(habits, graphs=False, captured_tokens=0)
    return habits


def _element_bytes(subject: Subject, details: Mapping[str, Any]) -> float | None:
    """Bytes of a cached element where an engine says what its cache takes (llama.cpp), whatever type it has.

    A window makes cells that are no tokens of its length, so that nothing is known then.
    """
    sizes, cells = details.get("kv"), details.get("n_ctx")
    mixers = [(mixer, times) for layer, times in subject.architecture.blocks for mixer in layer.mixers]
    plain = all(isinstance(mixer, Attention) and not (mixer.window or mixer.chunk) for mixer, _ in mixers)
    if not isinstance(sizes, dict) or not _is_count(cells) or not plain:
        return None
    elements = sum(times * int(mixer.cached_elements(cells)) for mixer, times in mixers)
    held = sum(int(size) for size in sizes.values())
    return held / elements if elements and held else None


@dataclass(frozen=True, slots=True)
class _Shares:
    """Shares of the layers by device, and of the host.

    Attributes
    ----------
    devices
        Those that have any, with their shares.
    host
        The host's share.
    host_experts
        Its share of routed experts where it has these and nothing else; None otherwise.
    """

    devices: tuple[tuple[DeviceEstimate, float], ...]
    host: float
    host_experts: float | None

    @property
    def on_host(self) -> bool:
        """Whether the processor runs anything."""
        return self.host > 0 or bool(self.host_experts)


def _shares(subject: Subject, estimate: Estimate) -> _Shares:
    held = [(place, _bytes(place, "weights")) for place in estimate.devices]
    table = sum(line.bytes for line in subject.lines if line.tensor.part == "embedding")
    experts = sum(line.bytes for line in subject.lines if line.tensor.part == "experts")
    outside = (*estimate.host.terms, *estimate.host.page_cache)
    host = sum(term.bytes for term in outside if term.name in _HOST_WEIGHTS)
    own_experts = sum(term.bytes for term in estimate.host.terms if term.name == _HOST_EXPERTS)
    on_devices = sum(size for _, size in held)
    if not on_devices:
        return _Shares((), 1.0, None)
    if own_experts and experts:
        kept = tuple((place, size / on_devices) for place, size in held if size)
        return _Shares(kept, 0.0, min(1.0, own_experts / experts))
    host = max(0, host - table)
    share = host / (host + on_devices)
    if share < _LITTLE:
        host, share = 0, 0.0
    kept = tuple((place, size / (host + on_devices)) for place, size in held if size)
    whole = _count(estimate.details, "n_gpu_layers") > len(subject.architecture.layers)
    if share and experts and whole:
        kept = tuple((place, size / on_devices) for place, size in held if size)
        return _Shares(kept, 0.0, min(1.0, host / experts))
    return _Shares(kept, share, None)


def _bytes(place: DeviceEstimate, name: str) -> int:
    return sum(term.bytes for term in place.terms if term.name == name)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(details: Mapping[str, Any], name: str) -> int:
    return int(details[name]) if _is_count(details.get(name)) else 1
