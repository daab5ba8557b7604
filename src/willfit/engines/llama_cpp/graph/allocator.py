"""How ggml places a graph's tensors in compute buffers (`ggml-alloc.c`).

The graph is walked once in the order in which it will be computed. A tensor takes the smallest free block that holds
it, else grows the buffer at its end; operations that can work in place take over a parent's block; a block is free
again when its last reader has been computed. The buffer's size is the furthest end that was ever reached.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from willfit.engines.llama_cpp.graph.tensor import Node

#: `ggml_op_can_inplace`.
IN_PLACE = frozenset((
    "fill", "scale", "diag_mask_zero", "diag_mask_inf", "add", "add_id", "add1", "sub", "mul", "div", "sqr", "sqrt",
    "log", "unary", "rope", "rope_back", "rms_norm", "clamp", "soft_max",
))  # fmt: skip

#: What a buffer can grow to before anything limits it.
_ENDLESS = 2**62


class Blocks:
    """The free blocks of one buffer, which grows at its end, chunk by chunk where the backend limits one allocation.

    Attributes
    ----------
    alignment
        Sizes are rounded up to multiples of it.
    """

    def __init__(self, alignment: int, largest: int = _ENDLESS) -> None:
        self.alignment = alignment
        self._largest = largest
        self._free: list[list[list[int]]] = []
        self._ends: list[int] = []

    @property
    def bytes(self) -> int:
        """What the buffer must hold so far."""
        return sum(self._ends)

    @property
    def state(self) -> Hashable:
        """Equal where the buffer goes on in the same way."""
        free = tuple(tuple((offset, room) for offset, room in chunk) for chunk in self._free)
        return free, tuple(self._ends)

    def padded(self, size: int) -> int:
        """A size rounded up to the alignment."""
        return -(-size // self.alignment) * self.alignment

    def take(self, size: int) -> tuple[int, int]:
        """A block of that size: (chunk, offset). `bytes` grows if it lies beyond what was reached before."""
        size = self.padded(size)
        chunk = block = -1
        for index, free in enumerate(self._free):
            best = _ENDLESS
            for place in range(len(free) - 1):
                room = free[place][1]
                if size <= room <= best:
                    chunk, block, best = index, place, room
        if block < 0:
            chunk, block = self._at_end(size)
        found = self._free[chunk][block]
        offset = found[0]
        found[0] += size
        found[1] -= size
        if not found[1]:
            del self._free[chunk][block]
        self._ends[chunk] = max(self._ends[chunk], offset + size)
        return chunk, offset

    def _at_end(self, size: int) -> tuple[int, int]:
        """The last block of the chunk that would have to grow least, or a new chunk."""
        chunk, reuse = -1, -_ENDLESS
        for index, free in enumerate(self._free):
            if free and free[-1][1] >= size:
                spare = self._ends[index] - free[-1][0] - size
                if (reuse < 0 and spare > reuse) or 0 <= spare < reuse:
                    chunk, reuse = index, spare
        if chunk < 0:
            self._free.append([[0, max(size, self._largest)]])
            self._ends.append(0)
            return len(self._free) - 1, 0
        return chunk, len(self._free[chunk]) - 1

    def give_back(self, chunk: int, offset: int, size: int) -> None:
        """Free a block, joined with free neighbours."""
        size = self.padded(size)
        free = self._free[chunk]
        for index, block in enumerate(free):
            if block[0] + block[1] == offset:
                block[1] += size
                if index + 1 < len(free) and block[0] + block[1] == free[index + 1][0]:
                    block[1] += free[index + 1][1]
                    del free[index + 1]
                return
            if offset + size == block[0]:
                block[0] = offset
                block[1] += size
                if index and free[index - 1][0] + free[index - 1][1] == block[0]:
                    free[index - 1][1] += block[1]
                    del free[index]
                return
        place = next((index for index, block in enumerate(free) if block[0] >= offset), len(free))
        free.insert(place, [offset, size])


class Allocation:
    """One walk over a graph.

    Parameters
    ----------
    buffers
        The buffer of each backend, in the scheduler's order; backends may share one.
    size_of
        Bytes that a tensor takes in a backend's buffer.
    watched
        Layers before which the state is noted.
    reuses_views
        Operations that can work in place take over the memory behind a view, too.

    Attributes
    ----------
    peaks
        What lay in each backend's buffer when it last grew.
    states
        Of everything before each watched layer: equal where two go on in the same way if what they compute is the same.
    """

    def __init__(
        self,
        buffers: Sequence[Blocks],
        size_of: Callable[[int, Node], int],
        watched: frozenset[int] = frozenset(),
        reuses_views: bool = False,
    ) -> None:
        self._buffers = buffers
        self._size_of = size_of
        self._watched = watched
        self._reuses_views = reuses_views
        self._since = 0
        self.states: dict[int, Hashable] = {}
        self._live: dict[int, Node] = {}
        self.peaks: list[tuple[Node, ...]] = [()] * len(buffers)

    def place(self, nodes: Sequence[Node], leafs: Sequence[Node]) -> None:
        """Place all tensors of a graph; `Node.backend` says where each is computed.

        Parameters
        ----------
        nodes
            In the order of their computation.
        leafs
            What is not computed: inputs (which are placed before everything else), weights, caches.
        """
        for leaf in leafs:
            self._allocate(leaf, leaf.backend)
        for node in nodes:
            if node.view is not None and node.op != "none":
                node.view.views += 1
            if node.is_input:
                self._allocate(node, node.backend)
            for source in node.src:
                source.children += 1
                if source.is_input:
                    self._allocate(source, node.backend)
        for index, node in enumerate(nodes):
            if node.layer in self._watched and node.layer not in self.states:
                self.states[node.layer] = self._state(node.layer, nodes[self._since : index])
                self._since = index
            for source in node.src:
                self._allocate(source, node.backend)
            self._allocate(node, node.backend)
            for source in node.src:
                source.children -= 1
                if not source.children and not source.views:
                    self._release(source)

    def _state(self, layer: int, nodes: Sequence[Node]) -> Hashable:
        live = tuple(
            (
                node.layer - layer if node.layer >= 0 else id(node),
                node.op,
                node.type,
                node.ne,
                node.buffer_id,
                node.block,
            )
            for node in self._live.values()
        )
        computed = tuple((node.op, node.ne, node.backend) for node in nodes)
        return tuple(blocks.state for blocks in self._buffers), live, computed

    def _release(self, node: Node) -> None:
        """Free what nobody reads any more."""
        if node.view is not None:
            whole = node.view
            whole.views -= 1
            if not whole.views and not whole.children and whole.allocated:
                self._free(whole)
        elif node.allocated:
            self._free(node)

    def _free(self, node: Node) -> None:
        if node.is_output:
            return
        self._buffers[node.buffer_id].give_back(*node.block, self._size_of(node.buffer_id, node))
        node.allocated = False
        del self._live[id(node)]

    def _allocate(self, node: Node, backend: int) -> None:
        if node.allocated or node.view is not None or node.buffer is not None:
            return
        node.allocated = True
        if node.op in IN_PLACE and self._take_over(node):
            self._live[id(node)] = node
            return
        node.buffer_id = backend
        blocks = self._buffers[backend]
        before = blocks.bytes
        node.block = blocks.take(self._size_of(backend, node))
        self._live[id(node)] = node
        if blocks.bytes > before:
            self.peaks[backend] = tuple(self._live.values())

    def _take_over(self, node: Node) -> bool:
        """Use the block of a parent of the same layout that nobody else reads or views."""
        for source in node.src:
            if (
                source.children != 1
                or source.views
                or (source.type, source.ne, source.nb) != (node.type, node.ne, node.nb)
            ):
                continue
            parent = source
            if source.view is not None:
                # What is behind a view must have no other, and begin where the view does.
                parent = source.view
                alone = parent.views == 1 and not parent.children and not source.offset
                if not self._reuses_views or not alone:
                    continue
            if parent.allocated and not parent.is_output:
                buffer = parent.buffer_id
                node.buffer_id, node.block = buffer, parent.block
                parent.allocated = False
                del self._live[id(parent)]
                # What a backend adds to some operations' results is not needed by others.
                held = self._buffers[buffer].padded(self._size_of(buffer, parent))
                needed = self._buffers[buffer].padded(self._size_of(buffer, node))
                if held > needed:
                    chunk, offset = parent.block
                    self._buffers[buffer].give_back(chunk, offset + needed, held - needed)
                return True
        return False
