"""Layers on devices, one device after another: what each layer takes, and where a device is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from willfit.architectures.model import Tensor
from willfit.engines.base import Subject
from willfit.engines.borrowed import library_terms
from willfit.engines.sharding import Sharding, rank_bytes
from willfit.estimate import DeviceEstimate, Term, exact
from willfit.hardware.device import Device
from willfit.quantities import GIB, MIB, at_least, ceil_div

#: Parts that no layer split loads: encoders of images and sound, and modules that predict further tokens.
BESIDE = ("vision", "audio", "mtp")


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of a model's parts.

    Attributes
    ----------
    layers
        Of each decoder layer, in order.
    embedding, head
        What stands before and after them.
    towers, mtp
        Encoders of images and sound, and modules that predict further tokens.
    experts
        Routed experts' part of each layer.
    """

    layers: tuple[int, ...]
    embedding: int
    head: int
    towers: int
    mtp: int
    experts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A layer, or a head, as a device holds it.

    Attributes
    ----------
    held
        Bytes that stay: weights and cache.
    work
        Bytes that it takes on top while it runs.
    """

    held: int
    work: int = 0


def stored_parts(subject: Subject, sharding: Sharding | None = None, dtype: str = "fp16") -> Stored:
    """Bytes of each layer and of what is around them. What belongs to no known layer is shared out alike.

    Parameters
    ----------
    sharding
        How every tensor is divided further; None for whole ones.
    dtype
        In which plain numbers are held.
    """
    architecture, sharding = subject.architecture, sharding or Sharding()
    sizes = [
        (line, rank_bytes(line, sharding, dtype)) for line in subject.lines if line.tensor.kind != "buffer"
    ]
    totals: dict[int, tuple[int, int]] = {}
    for line, own in sizes:
        size, times = totals.get(id(line.tensor), (0, 0))
        totals[id(line.tensor)] = size + own, times + line.times

    def of(tensors: Sequence[Tensor]) -> int:
        found = [totals[id(tensor)] for tensor in tensors if id(tensor) in totals]
        return sum(size // times for size, times in found)

    each = {id(layer): of(layer.tensors) for layer, _ in architecture.blocks}
    routed = {
        id(layer): of([tensor for tensor in layer.tensors if tensor.part == "experts"])
        for layer, _ in architecture.blocks
    }
    beside = {part: sum(own for line, own in sizes if line.tensor.part == part) for part in BESIDE}
    embedding, head = of(architecture.embeddings), of(architecture.head)
    known = sum(each[id(layer)] for layer in architecture.layers) + embedding + head + sum(beside.values())
    count = max(1, len(architecture.layers))
    more = max(0, sum(own for _, own in sizes) - known)
    shares = [more * (at + 1) // count - more * at // count for at in range(count)]
    return Stored(
        layers=tuple(
            each[id(layer)] + share for layer, share in zip(architecture.layers, shares, strict=False)
        ),
        embedding=embedding,
        head=head,
        towers=beside["vision"] + beside["audio"],
        mtp=beside["mtp"],
        experts=tuple(routed[id(layer)] for layer in architecture.layers),
    )


def tied_head_bytes(subject: Subject, ranks: int = 1) -> int:
    """Bytes of a head where the checkpoint names none: quantized, or the token table once more, on a card.

    ExLlama keeps the token table in RAM, so that a head which shares it is a tensor of its own.
    """
    architecture = subject.architecture
    if not architecture.tied:
        return 0
    shape = (architecture.vocab_size, architecture.hidden_size)
    stored = subject.recipe.format_of("lm_head.weight", Tensor("lm_head.weight", shape, "head"))
    return stored.bytes((ceil_div(shape[0], ranks), shape[1]))


def room(
    device: Device, at: int, split: Sequence[float] | None, reserve: Sequence[float], other: int
) -> int | None:
    """Bytes that a card may hold of a model; None if its size is not known.

    Parameters
    ----------
    at
        Which card it is.
    split
        GiB of each card that a user allows; None for all that is free.
    reserve, other
        MiB of each card that stay free, and bytes of those for which nothing is said.
    """
    if split is not None:
        return int(split[at] * GIB) if at < len(split) else 0
    if device.usable_bytes is None:
        return None
    free = int(reserve[at] * MIB) if at < len(reserve) else other
    return device.usable_bytes - sum(term.bytes for term in library_terms(device, 1)) - free


def filled(place: DeviceEstimate) -> DeviceEstimate:
    """A card that a loader fills up to its room: it puts less on it where layers turn out larger."""
    if place.usable_bytes is None or place.peak_bytes > place.usable_bytes:
        return place
    low, high = place.interval_bytes
    return replace(place, interval=(low, min(high, place.usable_bytes)))


def fill(blocks: Sequence[Block], limits: Sequence[int | None]) -> tuple[tuple[int, int], ...]:
    """Which blocks each device holds, as (first, last + 1): the next device begins where one is full.

    A device must hold its blocks beside what the hungriest of them takes while it runs. The last device gets what is
    left, whether it fits or not; a device of unknown size takes everything.
    """
    ranges, at = [], 0
    for index, limit in enumerate(limits):
        first, held, work = at, 0, 0
        last = index == len(limits) - 1
        while at < len(blocks):
            held += blocks[at].held
            work = max(work, blocks[at].work)
            if not last and limit is not None and held + work > limit:
                break
            at += 1
        ranges.append((first, at))
    return tuple(ranges)


def layer_ranges(
    ahead: int, layers: Sequence[Block], head: int, limits: Sequence[int | None], ranks: int
) -> tuple[tuple[int, int], ...]:
    """Which layers each device holds, as (first, last + 1); the head counts as one more.

    Parameters
    ----------
    ahead, head
        Bytes that the first device gets before the layers, and of the head behind them.
    limits
        See `fill`.
    ranks
        Devices that hold a part of each layer; 1 for whole layers.
    """
    if ranks > 1:
        return ((0, len(layers) + 1),) * ranks
    found = fill([Block(ahead), *layers, Block(head)], limits)
    return tuple((at_least(first - 1, 0), at_least(last - 1, 0)) for first, last in found)


def last_with_layers(ranges: Sequence[tuple[int, int]]) -> int:
    """The last device that holds a layer."""
    return max((at for at, (first, last) in enumerate(ranges) if last > first), default=0)


@dataclass(frozen=True, slots=True)
class Kept:
    """What layers keep alike.

    Attributes
    ----------
    term
        The term that it belongs to.
    count, word
        How many of something each layer keeps, and what: `tokens`, `sequences`.
    each
        Bytes of one.
    layers
        How many layers.
    """

    term: str
    count: int
    word: str
    each: int
    layers: int = 1

    @property
    def bytes(self) -> int:
        """All layers together."""
        return self.layers * self.count * self.each

    @property
    def formula(self) -> str:
        """How they come about."""
        return f"{self.layers} layers x {self.count} {self.word} x {self.each} B"


def alike(kept: Iterable[Kept]) -> tuple[Kept, ...]:
    """What layers keep, those alike together."""
    counts: Counter[Kept] = Counter()
    for one in kept:
        counts[replace(one, layers=1)] += one.layers
    return tuple(replace(one, layers=layers) for one, layers in counts.items())


def kept_terms(kept: Iterable[Kept], references: Mapping[str, str]) -> list[Term]:
    """One term for each kind of what layers keep.

    Parameters
    ----------
    references
        Where the rule of each term is.
    """
    found: dict[str, list[Kept]] = {}
    for one in alike(kept):
        if one.bytes:
            found.setdefault(one.term, []).append(one)
    return [
        exact(
            name, sum(one.bytes for one in parts), " + ".join(one.formula for one in parts), references[name]
        )
        for name, parts in found.items()
    ]
