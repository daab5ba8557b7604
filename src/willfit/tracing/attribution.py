"""What is alive at an event of a trace, and whose it is.

Everything here reads a `Trace` and returns plain records. A storage that nobody labelled counts as `temporary`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from willfit.errors import BadInput
from willfit.tracing.trace import CATEGORIES, Storage, Trace

#: The category of a storage that has none.
UNLABELLED = "temporary"
#: A number that stands alone in a path of modules: a layer, or an expert.
_NUMBER = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Group:
    """Storages that are alike: same category, phase, operation, shape and place in the code.

    Attributes
    ----------
    category, phase, op, shape, dtype, source
        As their storages and places have it.
    again
        They were made in a checkpoint's second forward pass.
    state
        Kind of an optimizer state (`exp_avg`); else empty.
    paths
        Of the modules that made them; of parameters and buffers, their own.
    count, nbytes
        How many they are, and their bytes.
    """

    category: str
    phase: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    source: str
    again: bool
    state: str
    paths: frozenset[str]
    count: int
    nbytes: int

    @property
    def module(self) -> str:
        """The path that is all of theirs; where there are several, with `*` for numbers that differ."""
        return common_path(self.paths)


@dataclass(frozen=True, slots=True)
class ModuleShare:
    """What an operation of like modules holds: `module` with `*` for numbers, `modules` of them."""

    module: str
    op: str
    modules: int
    count: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class LayerShare:
    """What a layer holds by category; for what is outside of layers, a module; empty for the program's own."""

    layer: str
    by_category: dict[str, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all categories."""
        return sum(self.by_category.values())


@dataclass(frozen=True, slots=True)
class PhasePeak:
    """The fullest event of a phase, in the last step that has it."""

    phase: str
    step: int
    event: int
    nbytes: int
    by_category: dict[str, int]


def check(trace: Trace) -> None:
    """Raise if a trace cannot be read in order.

    Raises
    ------
    BadInput
        If it has no events, if one names a storage that is not there or not alive, or a category is unknown.
    """
    if not trace.events:
        raise BadInput(
            "the trace is empty: nothing was allocated", "trace a program that allocates on the device"
        )
    alive = bytearray(len(trace.storages))
    for event, change in enumerate(trace.events):
        index = change if change >= 0 else ~change
        if index >= len(alive) or alive[index] != (change < 0):
            what = (
                "is not in the trace"
                if index >= len(alive)
                else "is made twice"
                if change >= 0
                else "is not alive"
            )
            raise BadInput(f"the trace is malformed: storage {index} of event {event} {what}", "trace again")
        alive[index] = change >= 0
    known = {*CATEGORIES, ""}
    for storage in trace.storages:
        if storage.category not in known:
            raise BadInput(
                f"the trace has an unknown category {storage.category!r}", f"known: {', '.join(CATEGORIES)}"
            )


def category_of(storage: Storage) -> str:
    """What a storage is for; `temporary` where nobody said."""
    return storage.category or UNLABELLED


def alive_at(trace: Trace, event: int | None = None) -> list[Storage]:
    """Storages that are alive after an event, oldest first; by default at the peak.

    Raises
    ------
    BadInput
        If the trace is malformed or has no such event.
    """
    check(trace)
    if event is None:
        event = trace.peak_event
    if not 0 <= event < len(trace.events):
        raise BadInput(f"the trace has no event {event}", f"events are 0 to {len(trace.events) - 1}")
    return [trace.storages[index] for index in trace.alive_at(event)]


def by_category(storages: Iterable[Storage]) -> dict[str, int]:
    """Bytes by category, in the order of `CATEGORIES`; those without bytes are left out."""
    sums: dict[str, int] = defaultdict(int)
    for storage in storages:
        sums[category_of(storage)] += storage.nbytes
    return {category: sums[category] for category in CATEGORIES if sums[category]}


def by_state(storages: Iterable[Storage]) -> dict[str, int]:
    """Bytes of the optimizer's states by kind (`exp_avg`), most first."""
    sums: dict[str, int] = defaultdict(int)
    for storage in storages:
        if storage.category == "optimizer_state":
            sums[storage.name] += storage.nbytes
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def groups(storages: Iterable[Storage]) -> list[Group]:
    """Storages that are alike, together; most bytes first."""
    found: dict[tuple[object, ...], tuple[Storage, list[int], set[str]]] = {}
    for storage in storages:
        place, path = storage.place, path_of(storage)
        key = (
            category_of(storage), place.phase, storage.op, folded(path), storage.shape, storage.dtype, place.source,
            place.again, state_of(storage),
        )  # fmt: skip
        entry = found.get(key)
        if entry is None:
            entry = found[key] = (storage, [0, 0], set())
        entry[1][0] += 1
        entry[1][1] += storage.nbytes
        entry[2].add(path)
    made = [
        Group(
            category_of(first), first.place.phase, first.op, first.shape, first.dtype, first.place.source,
            first.place.again, state_of(first), frozenset(paths), count, nbytes,
        )
        for first, (count, nbytes), paths in found.values()
    ]  # fmt: skip
    return sorted(made, key=lambda group: -group.nbytes)


def by_module(storages: Iterable[Storage], categories: Sequence[str] = ("activation",)) -> list[ModuleShare]:
    """What operations of like modules hold of some categories, most bytes first."""
    wanted, found = set(categories), dict[tuple[str, str], tuple[list[int], set[str]]]()
    for storage in storages:
        if category_of(storage) in wanted:
            path = path_of(storage)
            sums, paths = found.setdefault((folded(path), storage.op), ([0, 0], set()))
            sums[0] += 1
            sums[1] += storage.nbytes
            paths.add(path)
    shares = [
        ModuleShare(common_path(paths), op, len(paths), count, nbytes)
        for (_, op), ((count, nbytes), paths) in found.items()
    ]
    return sorted(shares, key=lambda share: -share.nbytes)


def by_layer(storages: Iterable[Storage]) -> list[LayerShare]:
    """What each layer holds; layers in their order, then the rest by module.

    A layer is a path up to its first number. Optimizer states name no layer and count to the program's own.
    """
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for storage in storages:
        sums[layer_of(module_of(storage))][category_of(storage)] += storage.nbytes
    return [
        LayerShare(layer, {name: sums[layer][name] for name in CATEGORIES if sums[layer][name]})
        for layer in sorted(sums, key=_layer_order)
    ]


def phase_peaks(trace: Trace) -> list[PhasePeak]:
    """The fullest event of every phase, in the last step that has it, in the order of the program.

    Raises
    ------
    BadInput
        If the trace is malformed.
    """
    check(trace)
    best: dict[str, tuple[int, int]] = {}  # phase: its last step, its fullest event
    ends = [*(phase.event for phase in trace.phases[1:]), len(trace.events)]
    for phase, end in zip(trace.phases, ends, strict=False):
        # What was there when it began counts: a fused optimizer's step allocates nothing.
        begin = max(0, phase.event - 1)
        event = max(range(begin, max(end, begin + 1)), key=lambda e: (trace.totals[e], -e))
        step, held = best.get(phase.phase, (-1, 0))
        if phase.step > step or (phase.step == step and trace.totals[event] > trace.totals[held]):
            best[phase.phase] = phase.step, event
    order = sorted(best.items(), key=lambda item: item[1][1])
    shares = categories_at(trace, [event for _, (_, event) in order])
    return [
        PhasePeak(
            phase, step, event, trace.totals[event], {name: size for name, size in share.items() if size}
        )
        for (phase, (step, event)), share in zip(order, shares, strict=True)
    ]


def categories_at(trace: Trace, events: Sequence[int]) -> list[dict[str, int]]:
    """Bytes by category after each of some events, which must rise; every category is named. One pass."""
    now = dict.fromkeys(CATEGORIES, 0)
    storages, found, done = trace.storages, [], 0
    for event in events:
        for change in trace.events[done : event + 1]:
            if change >= 0:
                storage = storages[change]
                now[storage.category or UNLABELLED] += storage.nbytes
            else:
                storage = storages[~change]
                now[storage.category or UNLABELLED] -= storage.nbytes
        done = event + 1
        found.append(dict(now))
    return found


def state_of(storage: Storage) -> str:
    """Kind of an optimizer state (`exp_avg`); empty for anything else."""
    return storage.name if storage.category == "optimizer_state" else ""


def path_of(storage: Storage) -> str:
    """Path of the module that made a storage; of a parameter or buffer, its own."""
    return (
        storage.name if storage.name and storage.category in ("parameter", "buffer") else storage.place.module
    )


def module_of(storage: Storage) -> str:
    """Path of the module that made a storage; of a parameter or buffer, the one that owns it."""
    path = path_of(storage)
    return path if path == storage.place.module else path.rpartition(".")[0]


@lru_cache(maxsize=65536)
def folded(path: str) -> str:
    """A path of modules with `*` for each number: `model.layers.*.mlp`."""
    return _NUMBER.sub("*", path)


def common_path(paths: Iterable[str]) -> str:
    """A path that stands for some that are alike: what they share, with `*` for the numbers that differ."""
    parts = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(found[0] if len(set(found)) == 1 else "*" for found in parts)


@lru_cache(maxsize=65536)
def layer_of(path: str) -> str:
    """A path up to its first number (`model.layers.3`); the whole path where it has none."""
    found = _NUMBER.search(path)
    return path[: found.end()] if found else path


def _layer_order(layer: str) -> tuple[bool, str, int, str]:
    found = _NUMBER.search(layer)
    return (not found, layer[: found.start()], int(found.group()), "") if found else (True, "", 0, layer)
