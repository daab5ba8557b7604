"""Where ggml computes each operation, and what it copies between backends (`ggml-backend.cpp`).

Backends are listed by priority, the processor last. Operations go where their weights are; what has none joins its
neighbours. Where a backend must read what another holds, it gets a copy in its own compute buffer, which lives as long
as the run of operations that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from willfit.engines.llama_cpp.graph.allocator import Allocation, Blocks
from willfit.engines.llama_cpp.graph.folding import Run
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import OWN_BUFFERS, VIEW_OPS, Buffer, Node


class Backend(Protocol):
    """What the scheduler asks of a backend."""

    @property
    def place(self) -> str:
        """Name of the buffer that its results are in."""
        ...

    @property
    def alignment(self) -> int:
        """Alignment of tensors in that buffer."""
        ...

    @property
    def maps_files(self) -> bool:
        """Whether it reads weights where a mapped file has them."""
        ...

    @property
    def largest_buffer(self) -> int:
        """Most bytes of one allocation."""
        ...

    def supports(self, node: Node) -> bool:
        """Whether it can compute an operation."""
        ...

    def reads(self, buffer: Buffer) -> bool:
        """Whether it can read what lies in a buffer."""
        ...

    def takes_over(self, node: Node) -> bool:
        """Whether it would compute an operation although its weights lie on the host."""
        ...

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """In which order it computes a split's operations, and what it keeps for those that one kernel computes.

        `uses` is how often each tensor is read in the whole graph, by its identity.
        """
        ...

    def bytes(self, node: Node) -> int:
        """What a tensor takes in its buffer."""
        ...


#: Tensors that one can be made from (`GGML_MAX_SRC`).
_MAX_SOURCES = 10


@dataclass(slots=True)
class Split:
    """Operations in a row on one backend, with what is copied there for them."""

    backend: int
    start: int
    end: int = 0
    inputs: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a graph needs.

    Attributes
    ----------
    bytes
        Compute buffer of each backend.
    peaks
        What lies in each of them when it is fullest: bytes of each tensor with what it is.
    splits, nodes
        How often the computation changes place, and how many operations it has.
    kept
        How often patterns of layers must be built for these to be true, where that is not how often they were, by the
        layer that they start at.
    """

    bytes: tuple[int, ...]
    peaks: tuple[tuple[tuple[int, str], ...], ...]
    splits: int
    nodes: int
    kept: Mapping[int, int]


class Scheduler:
    """The scheduler of one graph.

    Parameters
    ----------
    backends
        By priority, the processor last.
    copies
        Copies of inputs that pipeline parallelism keeps; 1 without.
    op_offload
        Whether devices compute large products with weights on the host.
    copies_all
        Inputs that no operation reads directly have copies, too.
    ignores_sinks
        Attention is not placed where its sinks are.
    copies_first
        Copies lie in the buffers from the start, and what they are copies of is never given back.
    reuses_views
        See `Allocation`.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        copies: int = 1,
        op_offload: bool = True,
        copies_all: bool = True,
        ignores_sinks: bool = True,
        copies_first: bool = False,
        reuses_views: bool = False,
    ) -> None:
        self.backends = tuple(backends)
        self.copies = copies
        self.op_offload = op_offload
        self.copies_all = copies_all
        self.copies_first = copies_first
        self.reuses_views = reuses_views
        self._unplaced = ("rope", "flash_attn_ext") if ignores_sinks else ("rope",)
        self._last = len(self.backends) - 1
        self._own = tuple(
            Buffer(backend.place, None if index == self._last else index, weights=False)
            for index, backend in enumerate(self.backends)
        )
        self._copied: dict[tuple[int, int], list[Node]] = {}
        self._read: set[int] = set()

    def reserve(self, nodes: Sequence[Node], leafs: Sequence[Node], folds: Sequence[Run] = ()) -> Reserved:
        """What the graph's compute buffers must hold.

        Parameters
        ----------
        nodes, leafs
            Of a graph that was built for this, in its order; they are marked and their sources replaced.
        folds
            Which of its layers stand for several.
        """
        self._assign(nodes, leafs)
        uses: dict[int, int] = {}
        for node in nodes:
            for source in node.src:
                uses[id(source)] = uses.get(id(source), 0) + 1
        splits = self._split(nodes)
        order, first = self._with_copies(nodes, leafs, splits, uses)
        buffers: dict[str, Blocks] = {}
        of = [
            buffers.setdefault(backend.place, Blocks(backend.alignment, backend.largest_buffer))
            for backend in self.backends
        ]
        folded = [run for run in folds if run.kept < run.times]
        starts = frozenset(layer for run in folded for layer in run.starts)
        allocation = Allocation(
            of, lambda backend, node: self.backends[backend].bytes(node), starts, self.reuses_views
        )
        allocation.place(order, first)
        peaks = tuple(
            self._described(of, allocation.peaks[index], index) for index in range(len(self.backends))
        )
        times = {layer: count for run in folded for layer, count in run.layers.items() if count > 1}
        kept = {
            run.start: run.needed([allocation.states.get(layer) for layer in run.starts]) for run in folded
        }
        if self.copies > 1 or self.copies_first:
            # Copies for each split lie in the buffers from the start.
            shared = [split for split in splits if split.inputs and nodes[split.start].layer in times]
            kept |= {run.start: run.times for run in folded if shared}
        return Reserved(
            tuple(blocks.bytes for blocks in of),
            peaks,
            sum(times.get(nodes[split.start].layer, 1) for split in splits),
            sum(times.get(node.layer, 1) for node in nodes),
            {run.start: kept[run.start] for run in folded if kept[run.start] != run.kept},
        )

    def _described(
        self, buffers: Sequence[Blocks], nodes: Sequence[Node], backend: int
    ) -> tuple[tuple[int, str], ...]:
        """What tensors take of a backend's buffer, largest first."""
        here = [node for node in nodes if buffers[node.buffer_id] is buffers[backend]]
        sizes = [
            (buffers[backend].padded(self.backends[backend].bytes(node)), described(node)) for node in here
        ]
        return tuple(sorted(sizes, reverse=True))

    def assign(self, nodes: Sequence[Node], leafs: Sequence[Node]) -> None:
        """Mark each operation with its backend."""
        self._assign(nodes, leafs)

    def _assign(self, nodes: Sequence[Node], leafs: Sequence[Node]) -> None:
        for node in (*leafs, *nodes):
            if node.backend < 0:
                node.backend = self._by_buffers(node)
        working = [node for node in nodes if node.op not in VIEW_OPS]
        self._spread(working, devices_only=True)
        self._spread(working[::-1], devices_only=True)
        self._spread(working, devices_only=False)
        self._spread(working[::-1], devices_only=False)
        for node in working:
            if node.backend < 0:
                node.backend = self._most_inputs(node)
        for node in nodes:
            if node.view is not None and node.backend < 0:
                node.backend = node.view.backend
            for source in node.src:
                if source.backend < 0:
                    source.backend = node.backend if source.view is None else source.view.backend
            if node.backend < 0:
                node.backend = next(i for i, one in enumerate(self.backends) if one.supports(node))

    def _reading(self, buffer: Buffer, node: Node) -> int:
        """The first backend that reads a buffer and supports the operation; -1 if there is none."""
        for index, backend in enumerate(self.backends):
            if backend.reads(buffer) and backend.supports(node):
                return index
        return -1

    def _by_buffers(self, node: Node) -> int:
        """Where a tensor goes because of what is allocated already; -1 if nothing says."""
        if node.buffer is not None:
            found = self._reading(node.buffer, node)
            if found >= 0:
                return found
        if node.is_input:
            return self._last
        if node.op in self._unplaced:
            return -1  # their only weights are small
        for source in node.src:
            buffer = source.buffer
            if buffer is not None and buffer.weights and source.view is None:
                found = self._reading(buffer, node)
                if self.op_offload and found == self._last and is_host(buffer):
                    for index, backend in enumerate(self.backends[:-1]):
                        if backend.supports(node) and backend.takes_over(node):
                            return index
                return found
        return -1

    def _spread(self, nodes: Sequence[Node], devices_only: bool) -> None:
        """Give nodes without a place that of the one before; the processor's only where asked."""
        current = -1
        for node in nodes:
            if node.backend >= 0:
                current = -1 if devices_only and node.backend == self._last else node.backend
            elif current >= 0 and self.backends[current].supports(node):
                node.backend = current

    def _most_inputs(self, node: Node) -> int:
        """The backend that supports the operation and reads most of what it needs."""
        best, most = -1, -1
        for index, backend in enumerate(self.backends):
            if backend.supports(node):
                count = sum(
                    (source.backend >= 0 or (source.view is not None and source.view.backend >= 0))
                    and self._readable(source, index)
                    for source in node.src
                )
                if count > most:
                    best, most = index, count
        return best

    def _readable(self, node: Node, backend: int) -> bool:
        """Whether a backend can read a tensor where it is."""
        buffer = node.buffer
        if buffer is None:
            place = node.backend
            if place < 0 and node.view is not None:
                place = node.view.backend
            if place < 0:
                return False
            buffer = self._own[place]
        return self.backends[backend].reads(buffer)

    def _split(self, nodes: Sequence[Node]) -> list[Split]:
        splits: list[Split] = []
        current = -1
        for index, node in enumerate(nodes):
            if node.op in VIEW_OPS:
                continue
            anew = node.backend != current
            if not anew and splits[-1].inputs:
                # Memory of weights that were copied before can be used again.
                anew = any(
                    source.buffer is not None
                    and source.buffer.weights
                    and source.view is None
                    and source.backend != current
                    and not self._readable(source, current)
                    for source in node.src
                )
            if anew:
                if splits:
                    splits[-1].end = index
                current = node.backend
                splits.append(Split(current, index if splits else 0))
            for place, source in enumerate(node.src):
                self._read.add(id(source))
                if source.backend != current and not self._readable(source, current):
                    key = id(source), current
                    if key not in self._copied:
                        self._copied[key] = [self._copy(source) for _ in range(self.copies)]
                        splits[-1].inputs.append(source)
                    node.src[place] = self._copied[key][0]
        if splits:
            splits[-1].end = len(nodes)
        return splits

    def _copy(self, source: Node) -> Node:
        copy = Node("none", source.type, source.ne, nb=source.nb, name=source.name)
        copy.layer = source.layer
        copy.is_input = copy.is_output = self.copies > 1
        return copy

    def _with_copies(
        self, nodes: Sequence[Node], leafs: Sequence[Node], splits: Sequence[Split], uses: Mapping[int, int]
    ) -> tuple[list[Node], list[Node]]:
        """The graph with copies at the start of the splits that read them, and what is placed before everything."""
        order: list[Node] = []
        first: list[Node] = []
        if self.copies > 1:
            for leaf in leafs:
                if leaf.is_input and (self.copies_all or id(leaf) in self._read):
                    leaf.is_output = True
                    first.append(leaf)
                    for _ in range(self.copies - 1):
                        copy = self._copy(leaf)
                        copy.backend = leaf.backend
                        first.append(copy)
        for split in splits:
            for source in split.inputs:
                copies = self._copied[id(source), split.backend]
                for copy in copies:
                    copy.backend = split.backend
                # It must live until it is copied: something that reads it and is never computed.
                kept = Node("none", source.type, source.ne, [source], nb=source.nb, view=source)
                kept.backend = source.backend
                order += [kept, copies[0]]
                if self.copies > 1 or self.copies_first:
                    first += copies
                if self.copies_first:
                    behind = source if source.view is None else source.view
                    behind.is_output = True
            found = self.backends[split.backend].optimize(nodes[split.start : split.end], uses)
            kept_until = _by_operation(found.kept)
            for node in found.nodes:
                order.append(node)
                tensors = kept_until.get(id(node), ())
                for part in range(0, len(tensors), _MAX_SOURCES):
                    sources = list(tensors[part : part + _MAX_SOURCES])
                    keeper = Node("none", sources[0].type, sources[0].ne, sources, view=sources[0])
                    keeper.backend = split.backend
                    order.append(keeper)
        return order, [*first, *leafs]


def _by_operation(kept: Sequence[tuple[Node, Node]]) -> dict[int, list[Node]]:
    """What is kept until an operation has been computed, by its identity."""
    found: dict[int, list[Node]] = {}
    for tensor, until in kept:
        tensors = found.setdefault(id(until), [])
        if all(one is not tensor for one in tensors):
            tensors.append(tensor)
    return found


def described(node: Node) -> str:
    """What a tensor is, in words."""
    if node.op == "none":
        return node.name or "a copy"
    weight = next((source.name for source in node.src if source.buffer is not None and source.name), "")
    what = node.op if node.op == "rope" else node.kind or node.op
    where = f" in layer {node.layer}" if node.layer >= 0 and not weight.startswith("blk.") else ""
    return f"{what} with {weight}{where}" if weight else f"{what}{where}"


def is_host(buffer: Buffer) -> bool:
    """Whether a buffer is plain host memory, which the processor and pinned copies share."""
    return buffer.device is None and buffer.place not in OWN_BUFFERS
