"""What Ollama itself estimates before it loads a model: `required`, as its log prints it, and where layers go.

Up to 0.12.10 that is one line, `msg=offload` or `offload to cuda`; from 0.12.11 on the same sizes are logged as
weights, cache and graph of each device for models that llama.cpp runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.graph import Asked, Graph, graph_of, vision_graph
from willfit.engines.ollama.placement import Load, Placed, Room, lay_out, place_each, place_pooled
from willfit.engines.ollama.settings import Resolved, Settings
from willfit.estimate import Term, exact


@dataclass(frozen=True, slots=True)
class Estimated:
    """What Ollama estimates.

    Attributes
    ----------
    graph
        Cache and graph.
    placed
        Where layers go.
    rooms
        The devices that are used, in the order of `placed`.
    parallel
        Sequences at once.
    cells
        Tokens over all sequences.
    weights, repeating, nonrepeating
        `memory.weights.total`, `.repeating` and `.nonrepeating`.
    projector, projector_graph
        Bytes of an image encoder with its graph, in whichever file it is.
    load
        What was placed.
    """

    graph: Graph
    placed: Placed
    rooms: tuple[Room, ...]
    parallel: int
    cells: int
    weights: int
    repeating: int
    nonrepeating: int
    projector: int
    projector_graph: int
    load: Load

    @property
    def whole(self) -> bool:
        """All layers are on devices."""
        return self.placed.layers > len(self.load.layers)

    @property
    def satisfied(self) -> bool:
        """As many layers are on devices as there are, or as were asked for."""
        wanted = self.load.requested if self.load.requested >= 0 else len(self.load.layers) + 1
        return self.placed.layers > 0 and self.placed.layers >= wanted


def estimate_memory(
    facts: Facts, settings: Settings, resolved: Resolved, host_bytes: int | None = None
) -> Estimated:
    """What Ollama estimates for a model, on the devices that it chooses for it.

    Parameters
    ----------
    host_bytes
        Free RAM; None if it is not known.
    """
    tried = [(parallel, rooms) for rooms in _choices(resolved, settings) for parallel in resolved.parallel]
    if not resolved.era.packs_devices:
        # More sequences on one device come before fewer, and before more devices.
        tried.sort(key=lambda one: (len(one[1]) > 1, -one[0]))
    for parallel, rooms in tried:
        found = on_rooms(facts, settings, resolved, parallel, rooms)
        if found.satisfied:
            return found
    parallel = resolved.parallel[-1]
    if resolved.rooms and resolved.requested:
        as_listed = tuple(sorted(resolved.rooms, key=lambda room: room.index))
        found = on_rooms(facts, settings, resolved, parallel, as_listed)
        if found.placed.layers:
            return found
    return on_processor(
        facts, settings, resolved, parallel if resolved.rooms else resolved.parallel[0], host_bytes
    )


def _choices(resolved: Resolved, settings: Settings) -> list[tuple[Room, ...]]:
    """Sets of devices in the order in which they are tried, the one with most memory first."""
    rooms = resolved.rooms
    if not rooms or not resolved.requested:
        return []
    if settings.sched_spread or resolved.era.placing == "layout":
        return [rooms]
    if resolved.era.packs_devices:
        return [rooms[:count] for count in range(1, len(rooms) + 1)]
    return [(room,) for room in rooms] + ([rooms] if len(rooms) > 1 else [])


def asked_of(facts: Facts, resolved: Resolved, parallel: int) -> Asked:
    """What is asked of a model with so many sequences."""
    cells = resolved.context * parallel
    return Asked(
        cells, min(cells, resolved.batch), parallel, resolved.cache_type, flash=resolved.flash == "on"
    )


def on_rooms(
    facts: Facts, settings: Settings, resolved: Resolved, parallel: int, rooms: Sequence[Room]
) -> Estimated:
    """What Ollama estimates if a model goes to these devices."""
    asked = asked_of(facts, resolved, parallel)
    graph = graph_of(facts, asked, resolved.era, settings.version)
    load = _load(facts, settings, resolved, graph)
    era = resolved.era
    if era.placing == "pooled":
        # The device's minimum, the reserve and the projector come before everything else.
        minimum = rooms[0].minimum if rooms else 0
        placed = place_pooled(load, rooms, minimum + load.buffer + load.first)
    elif era.placing == "layout":
        placed = _laid_out(load, settings, resolved, rooms)
    else:
        placed = place_each(load, rooms, resolved.overhead, era.from_last)
    return _estimated(facts, settings, resolved, graph, load, placed, rooms, asked)


def on_processor(
    facts: Facts, settings: Settings, resolved: Resolved, parallel: int, host_bytes: int | None
) -> Estimated:
    """What Ollama estimates if a model stays on the host, which versions with a reserve treat like a device."""
    asked = asked_of(facts, resolved, parallel)
    graph = graph_of(facts, asked, resolved.era, settings.version)
    load = _load(facts, settings, resolved, graph)
    if resolved.era.cpu_reserve:
        room = Room(-1, host_bytes, 0)
        load = replace(load, requested=-1)
        if resolved.era.placing == "pooled":
            placed = place_pooled(load, (room,), load.buffer + load.first)
        else:
            placed = place_each(load, (room,), 0, resolved.era.from_last)
        full = placed.full
    else:
        full = sum(load.layers) + load.output + load.last + load.first
    placed = Placed((), (), full, 0, full)
    return _estimated(facts, settings, resolved, graph, load, placed, (), asked)


def _load(facts: Facts, settings: Settings, resolved: Resolved, graph: Graph) -> Load:
    era = resolved.era
    drawn = vision_graph(facts)[0]
    first = facts.projector_bytes + (drawn if facts.projector_bytes else 0)
    encoder = facts.inline.bytes if facts.inline else 0
    drawn = drawn if encoder else 0
    if era.inline_vision == "first":
        first, last = first + encoder + drawn, 0
    else:
        last = encoder + drawn if era.inline_vision == "output" else 0
    buffer = {
        "none": 0,
        "first": facts.layers[0],
        "largest": facts.largest_group,
    }[era.buffer_layer]
    if era.buffer_layer != "none" and era.placing != "pooled":
        buffer += graph.cache[0]
    return Load(
        layers=tuple(weights + cache for weights, cache in zip(facts.layers, graph.cache, strict=True)),
        output=facts.output_bytes,
        full=graph.full,
        # Metal pays nothing for a partial load.
        partial=graph.full if resolved.metal else graph.partial,
        buffer=buffer,
        first=first,
        last=last,
        requested=resolved.requested,
    )


def _laid_out(load: Load, settings: Settings, resolved: Resolved, rooms: Sequence[Room]) -> Placed:
    """Layers as `llm/server.go: llamaServer.Load` lays them out from 0.12.11 on."""
    graph = max(load.full, load.partial)
    layers = (*load.layers, load.output + load.last)
    used = 0
    while True:
        reserved = [
            room.minimum + resolved.overhead + load.buffer + (graph if place < used else 0)
            for place, room in enumerate(rooms)
        ]
        reserved = [kept + (0 if place else load.first) for place, kept in enumerate(reserved)]
        found = lay_out(
            layers, rooms, reserved, load.requested, settings.sched_spread, first_used=max(0, used - 1)
        )
        now = max((place + 1 for place, one in enumerate(found) if one), default=0)
        if now <= used:
            break
        used = now
    counts = tuple(len(one) for one in found)
    graph = load.full if sum(counts) == len(layers) else load.partial
    sizes = tuple(sum(layers[index] for index in one) + (graph if one else 0) for one in found)
    inside = {index for one in found for index in one}
    overflow = sum(size for index, size in enumerate(layers) if index not in inside)
    return Placed(counts, sizes, overflow, graph, sum(sizes) + overflow)


def _estimated(
    facts: Facts,
    settings: Settings,
    resolved: Resolved,
    graph: Graph,
    load: Load,
    placed: Placed,
    rooms: Sequence[Room],
    asked: Asked,
) -> Estimated:
    era = resolved.era
    layers, output = sum(facts.layers), facts.output_bytes
    if resolved.metal:
        graph = replace(graph, partial=graph.full, partial_formula=graph.full_formula)
    elif len(rooms) > 1 and era.placing == "each":
        graph = replace(graph, full=graph.partial, full_formula=graph.partial_formula)
    elif len(rooms) > 1 and era.placing == "pooled":
        graph = replace(
            graph,
            full=graph.full * len(rooms),
            full_formula=f"{len(rooms)} devices x ({graph.full_formula})",
            partial=graph.partial * len(rooms),
            partial_formula=f"{len(rooms)} devices x ({graph.partial_formula})",
        )
    total = {
        "weights": layers + output,
        "cached": layers + sum(graph.cache),
        "layers": layers,
    }[era.weights_logged]
    repeating = layers if era.weights_logged != "cached" else total - output
    projector = facts.projector_bytes
    if facts.inline and era.inline_vision:
        projector = facts.inline.bytes
    drawn = vision_graph(facts)[0] if projector else 0
    return Estimated(
        graph,
        placed,
        tuple(rooms),
        asked.parallel,
        asked.cells,
        total,
        repeating,
        output,
        projector,
        drawn,
        load,
    )


def terms_of(estimated: Estimated, reference: str) -> tuple[Term, ...]:
    """The parts of the estimate, each with its formula."""
    graph = estimated.graph
    count = len(estimated.load.layers)
    layers = sum(estimated.load.layers) - sum(graph.cache)
    used = graph.full if estimated.whole or not estimated.rooms else graph.partial
    formula = graph.full_formula if estimated.whole or not estimated.rooms else graph.partial_formula
    return (
        exact(
            "weights",
            layers + estimated.nonrepeating,
            f"{layers} B of {count} layers + {estimated.nonrepeating} B of the output layer",
            reference,
        ),
        exact("kv_cache", sum(graph.cache), graph.cache_formula, reference),
        exact("activations", used, formula, reference),
    )
