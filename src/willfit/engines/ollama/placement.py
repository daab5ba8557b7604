"""Which layers Ollama puts on which device, by its own estimates (`llm/memory.go`, from 0.12.11 on `llm/server.go`).

The last of the layers counted here is the output layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: How closely `findBestFit` searches the share of each device that the layers take.
_CLOSENESS = 1e-6
#: What stands for endless memory where a number of layers was asked for.
_ENDLESS = 1000.0


@dataclass(frozen=True, slots=True)
class Room:
    """A device as the scheduler sees it.

    Attributes
    ----------
    index
        Its place among the machine's devices.
    free
        Free bytes; None where that is not known, taken for enough.
    minimum
        Bytes that are set aside for the driver.
    """

    index: int
    free: int | None
    minimum: int

    @property
    def bytes(self) -> int:
        """Free bytes as a number."""
        return 2**62 if self.free is None else self.free


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be placed.

    Attributes
    ----------
    layers
        Bytes of each layer with its cache.
    output
        Bytes of the output layer.
    full, partial
        Bytes of the graph with all layers on devices, and with some.
    buffer
        A layer's bytes in reserve on each device.
    first
        What the first device holds besides: a projector.
    last
        What goes with the output layer: an image encoder.
    requested
        Layers that were asked for; negative for as many as fit.
    """

    layers: tuple[int, ...]
    output: int
    full: int
    partial: int
    buffer: int = 0
    first: int = 0
    last: int = 0
    requested: int = -1


@dataclass(frozen=True, slots=True)
class Placed:
    """Where layers go, and what that is estimated to take.

    Attributes
    ----------
    counts
        Layers on each device, the output layer as one more.
    allocations
        Bytes on each device.
    overflow
        Bytes that stay on the host.
    graph
        Bytes of the graph on each device that has layers.
    full
        `memory.required.full`.
    """

    counts: tuple[int, ...]
    allocations: tuple[int, ...]
    overflow: int
    graph: int
    full: int

    @property
    def layers(self) -> int:
        """Layers on devices."""
        return sum(self.counts)

    @property
    def partial(self) -> int:
        """`memory.required.partial`, which is 0 where no layer fits on a device."""
        return sum(self.allocations) if self.layers else 0


def place_pooled(load: Load, rooms: Sequence[Room], set_aside: int) -> Placed:
    """All devices as one (`EstimateGPULayers` up to 0.1.44).

    Parameters
    ----------
    set_aside
        What is needed before the first layer.
    """
    free = sum(room.bytes for room in rooms)
    full_graph, partial_graph = load.full * max(1, len(rooms)), load.partial * max(1, len(rooms))
    total, partial, count = set_aside + full_graph, set_aside + partial_graph, 0
    for layer in load.layers:
        total += layer
        fits = count < load.requested if load.requested >= 0 else free > partial + layer
        if fits:
            partial += layer
            count += 1
    total += load.output
    if count < load.requested if load.requested >= 0 else free > total:
        count, partial = len(load.layers) + 1, total
    if partial > free:
        count = 0
    # llama.cpp then splits by what is free on each device.
    shares = [room.bytes * count // max(1, free) for room in rooms]
    if shares:
        shares[0] += count - sum(shares)
    allocations = tuple(partial * room.bytes // max(1, free) if count else 0 for room in rooms)
    graph = load.full if count > len(load.layers) else load.partial
    return Placed(tuple(shares), allocations, total - sum(allocations), graph, total)


def place_each(load: Load, rooms: Sequence[Room], overhead: int, from_last: bool) -> Placed:
    """Layers in turn on the devices that have room (`EstimateGPULayers` from 0.1.45 on).

    Parameters
    ----------
    overhead
        Bytes of each device that are not to be used.
    from_last
        See `Era.from_last`.
    """
    # Several devices always get the graph of a partial load.
    full = load.partial if len(rooms) > 1 else load.full
    graph = max(full, load.partial)
    buffer, layers = load.buffer, load.layers
    allocations, counts = [0] * len(rooms), [0] * len(rooms)
    open_rooms: list[int] = []
    for place, room in enumerate(rooms):
        first = 0 if open_rooms else load.first
        if room.bytes >= overhead + first + graph + room.minimum + 2 * buffer:
            open_rooms.append(place)
            allocations[place] += room.minimum + buffer
    overflow = 0
    if open_rooms:
        allocations[open_rooms[0]] += load.first
    elif from_last:
        overflow += load.first
    placed = 0
    for index in reversed(range(len(layers))) if from_last else range(len(layers)):
        layer = layers[index]
        if load.requested >= 0 and placed >= load.requested:
            overflow += layer if from_last else 0
            continue
        for count in range(len(open_rooms), 0, -1):
            place = open_rooms[index % count]
            if rooms[place].bytes > overhead + allocations[place] + graph + layer:
                allocations[place] += layer
                counts[place] += 1
                placed += 1
                break
            del open_rooms[index % count]
        if from_last and not open_rooms:
            overflow += layer
    whole = placed >= len(layers)
    if not from_last:
        overflow += (len(layers) - placed) * layers[-1]
    last = load.output + load.last
    if last:
        if load.requested < 0 or placed < load.requested:
            for count in range(len(open_rooms), 0, -1):
                place = open_rooms[placed % count]
                if rooms[place].bytes > overhead + allocations[place] + graph + last:
                    allocations[place] += last
                    counts[place] += 1
                    placed += 1
                    break
        if placed < len(layers) + 1:
            whole = False
            overflow += last
    graph = full if whole else load.partial
    for place, count in enumerate(counts):
        allocations[place] += graph if count else 0
    return Placed(tuple(counts), tuple(allocations), overflow, graph, sum(allocations) + overflow)


def lay_out(
    layers: Sequence[int],
    rooms: Sequence[Room],
    reserved: Sequence[int],
    requested: int = -1,
    spread: bool = False,
    first_used: int = 0,
    whole: bool = False,
) -> tuple[tuple[int, ...], ...]:
    """Layers on each device (`assignLayers`): as many as fit on as few devices as hold them, evenly.

    Parameters
    ----------
    layers
        Bytes of each layer, the output layer last.
    rooms
        The devices, those with most memory first.
    reserved
        Bytes of each that are not for layers.
    requested
        Layers that were asked for; negative for as many as fit.
    spread
        Use all devices.
    first_used
        At least the devices up to this one.
    whole
        What does not fit as a whole is not wanted.

    Returns
    -------
    tuple[tuple[int, ...], ...]
        Indices of the layers of each device. The output layer stays on the host where not all fit.
    """
    free = [max(0, room.bytes - kept) for room, kept in zip(rooms, reserved, strict=True)]
    found: list[list[int]] = [[] for _ in rooms]
    for count in (len(layers), len(layers) - 1):
        wanted = min(count, requested)
        for used in range(len(rooms) if spread else max(1, first_used + 1), len(rooms) + 1):
            forced = used == len(rooms) and not whole
            found = _best_fit(layers[:count], free[:used], wanted, forced)
            if _placed(found) in (count, wanted):
                break
        if _placed(found) == count:
            break
    found += [[] for _ in range(len(rooms) - len(found))]
    return tuple(tuple(indices) for indices in found)


def _placed(found: Sequence[Sequence[int]]) -> int:
    return sum(len(indices) for indices in found)


def _best_fit(layers: Sequence[int], free: Sequence[int], requested: int, forced: bool) -> list[list[int]]:
    """As many layers as fit, with the least share of each device (`findBestFit`)."""
    low, high = 0.0, _ENDLESS if requested >= 0 and forced else 1.0
    best = _greedy(layers, free, high, requested)
    most = _placed(best)
    while most and high - low > _CLOSENESS:
        middle = (low + high) / 2
        found = _greedy(layers, free, middle, requested)
        if _placed(found) == most:
            high, best = middle, found
        else:
            low = middle
    return best


def _greedy(layers: Sequence[int], free: Sequence[int], share: float, requested: int) -> list[list[int]]:
    """Layers from the last to the first, on the devices from the last to the first (`greedyFit`)."""
    found: list[list[int]] = [[] for _ in free]
    device = len(free) - 1
    left = int(free[device] * share)
    for index in reversed(range(len(layers))):
        if 0 <= requested <= len(layers) - 1 - index:
            break
        while layers[index] > left:
            device -= 1
            if device < 0:
                return found
            left = int(free[device] * share)
        found[device].insert(0, index)
        left -= layers[index]
    return found
