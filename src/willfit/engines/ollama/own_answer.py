"""The answer for models in Ollama's own engine: terms per device and on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.context import context_term
from willfit.engines.llama_cpp.backends.table import backend_name, backends_of
from willfit.engines.llama_cpp.eras import era_for as llama_cpp_era
from willfit.engines.llama_cpp.sizing import header_of
from willfit.engines.ollama.eras import era_for
from willfit.engines.ollama.estimating import Estimated
from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.narrow import Narrow
from willfit.engines.ollama.own_engine import Graphs, Layout, OwnEngine, Sizes, by_counts
from willfit.engines.ollama.placement import Room
from willfit.engines.ollama.settings import Resolved, Settings
from willfit.engines.ollama.sources import SOURCES
from willfit.estimate import DeviceEstimate, Estimate, Term, between, exact
from willfit.hardware.device import Device

#: What the engine's graphs differ by is not established.
NOTE = (
    "Ollama's own engine builds graphs of its own and counts kernels' work space with them; llama.cpp's graph of the "
    "same model stands for them, which widens the interval of the compute buffer"
)
UNKNOWN = "how llama.cpp builds {} is not known: the compute buffer is an approximation"
#: A graph that is only approximated may need this many times less or more.
_UNKNOWN_GRAPH = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """A model in Ollama's own engine with its layers on devices.

    Attributes
    ----------
    engine, sizes, layout
        The model, what it takes, and where its layers are.
    rooms, devices
        The devices that may be used, in the layout's order.
    """

    engine: OwnEngine
    sizes: Sizes
    layout: Layout
    rooms: tuple[Room, ...]
    devices: tuple[Device, ...]


def place(
    subject: Subject,
    machine: Machine,
    facts: Facts,
    settings: Settings,
    resolved: Resolved,
    estimated: Estimated | None,
) -> Placed:
    """Lay a model out on the devices.

    Parameters
    ----------
    estimated
        What decides about the layout; None where that is measured.
    """
    rooms = estimated.rooms if estimated is not None else resolved.rooms
    listed = [device for device in machine.devices if not device.is_cpu]
    devices = tuple(listed[room.index] for room in rooms)
    build = llama_cpp_era(resolved.era.llama_cpp)
    backends = backends_of(devices, backend_name(devices, None), build)
    if not resolved.era.wide_flash:
        backends = (*map(Narrow, backends[:-1]), backends[-1])
    parallel = estimated.parallel if estimated is not None else resolved.parallel[0]
    engine = OwnEngine(header_of(subject), subject.architecture, facts, backends, resolved, parallel)
    sizes = engine.sizes()
    if estimated is not None:
        layers = by_counts(estimated.placed.counts, len(sizes.layers))
        layout = Layout(layers, engine.graphs(layers))
    elif rooms:
        layout = engine.layout(rooms, settings, sizes)
    else:
        layout = Layout((), engine.graphs(()))
    return Placed(engine, sizes, layout, rooms, devices)


def own_answer(
    subject: Subject,
    machine: Machine,
    facts: Facts,
    settings: Settings,
    resolved: Resolved,
    estimated: Estimated | None,
) -> tuple[Estimate, tuple[int, ...]]:
    """What Ollama's own engine allocates, and the machine's devices that it uses."""
    placed = place(subject, machine, facts, settings, resolved, estimated)
    engine, sizes, layout = placed.engine, placed.sizes, placed.layout
    rooms, devices, total = placed.rooms, placed.devices, len(placed.sizes.layers)
    version = settings.version
    used = [place for place, one in enumerate(layout.layers) if one]
    found = [
        DeviceEstimate(
            devices[place].name,
            rooms[place].index,
            devices[place].usable_bytes,
            (
                *_layer_terms(engine, sizes, layout.layers[place], version, on_host=False),
                _compute(layout.graphs, layout.graphs.devices[place], layout.graphs.formulas[place], version),
                context_term(devices[place]),
            ),
        )
        for place in used
    ]
    inside = {layer for one in layout.layers for layer in one}
    outside = [layer for layer in range(total) if layer not in inside]
    host = DeviceEstimate(
        "host",
        0,
        machine.host_bytes,
        (
            *_layer_terms(engine, sizes, outside, version, on_host=True),
            _host_graph(layout, bool(used), version),
        ),
    )
    notes = list(subject.notes)
    if rooms and layout.count < total:
        notes.append(f"{layout.count} of {total} layers are on the devices, the rest is in RAM")
    estimate = Estimate(
        model=subject.model,
        engine="ollama",
        engine_version=version,
        kind="serve",
        devices=tuple(found),
        host=host,
        notes=(*notes, NOTE, *([] if layout.graphs.known else [UNKNOWN.format(facts.architecture)])),
        details={
            "flash_attn": engine.flash,
            "n_gpu_layers": layout.count,
            "buffers": _buffers(
                [*zip((engine.backends[place].place for place in used), found, strict=True), ("CPU", host)]
            ),
        },
    )
    return estimate, tuple(rooms[place].index for place in used)


def _layer_terms(
    engine: OwnEngine, sizes: Sizes, layers: Sequence[int], version: str, on_host: bool
) -> list[Term]:
    """Weights, caches and states of some layers."""
    weights = sizes.host_weights if on_host else sizes.weights
    size = sum(weights[layer] for layer in layers)
    last = len(weights) - 1
    parts = []
    repeating = [layer for layer in layers if layer != last]
    if repeating:
        parts.append(f"{sum(weights[layer] for layer in repeating)} B of {len(repeating)} layers")
    if last in layers:
        parts.append(f"{weights[last]} B of the output layer")
    if on_host:
        size += sizes.inputs
        parts.append(f"{sizes.inputs} B of token tables")
    terms = [exact("weights", size, " + ".join(parts), SOURCES.cite("weights", version))]
    cached = [layer for layer in repeating if sizes.cache[layer]]
    if cached:
        words = [sizes.cache_formulas[layer] for layer in cached]
        formula = " + ".join(f"{words.count(one)} layers x {one}" for one in dict.fromkeys(words))
        held = sum(sizes.cache[layer] for layer in cached)
        terms.append(exact("kv_cache", held, formula, SOURCES.cite("keys and values", version)))
    numbers = engine.state_numbers(repeating)
    if numbers:
        held = sum(sizes.states[layer] for layer in repeating)
        formula = sizes.state_formula.format(numbers)
        terms.append(exact("recurrent_state", held, formula, SOURCES.cite("states", version)))
    return terms


def _compute(graphs: Graphs, size: int, formula: str, version: str) -> Term:
    """A compute graph; since kernels' work space is counted with it, more than llama.cpp's."""
    ratio = constant("ollama.graph_ratio")
    counted = era_for(version).counts_pool
    beyond = 1 if graphs.known else _UNKNOWN_GRAPH
    return between(
        "compute",
        int(size * ratio.value) if counted else size,
        int(size * min(1, ratio.low) / beyond),
        int(size * ratio.high * beyond),
        f"{ratio.value:g} x ({formula})" if counted else formula,
        f"{SOURCES.cite('compute', version)}; ratio: {ratio.reference}",
    )


def _host_graph(layout: Layout, on_devices: bool, version: str) -> Term:
    """The graph on the host: beside a model that devices compute, the rows of embeddings."""
    graphs = layout.graphs
    if on_devices and graphs.rows_only:
        return exact("compute", graphs.host, graphs.host_formula, SOURCES.cite("compute", version))
    return _compute(graphs, graphs.host, graphs.host_formula, version)


def _buffers(places: Sequence[tuple[str, DeviceEstimate]]) -> dict[str, dict[str, int]]:
    """Sizes as the engine logs them, by place; it counts recurrent states as cache."""
    kinds = {"model": ("weights",), "kv": ("kv_cache", "recurrent_state"), "compute": ("compute",)}
    return {
        kind: {place: sum(term.bytes for term in one.terms if term.name in names) for place, one in places}
        for kind, names in kinds.items()
    }
