"""Tensors of a compute graph as ggml has them: dimensions, strides, what they view and what they are made from.

ggml lists dimensions with the contiguous one first (`ne`), and strides in bytes (`nb`). Only what decides about memory
is kept: no data, no parameters of operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.ggml_types import GGML_TYPES

Shape = tuple[int, int, int, int]

#: Operations that only look at another tensor in another way.
VIEW_OPS = frozenset(("view", "reshape", "permute", "transpose"))


#: `Node.kind` of products with experts whose rows must not be rounded, which CUDA cannot compute.
EXACT = "exact product"
#: `Node.kind` of products with one expert of each token.
ONE_EXPERT = "one expert"


#: Buffers of what the processor keeps in a form of its own: no other backend reads them.
AMX = "AMX"
OWN_BUFFERS = ("CPU_REPACK", "CPU_AARCH64", AMX)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that is allocated before the graph runs: weights, or a cache.

    Attributes
    ----------
    place
        Name of its buffer type: `CPU`, `CPU_Mapped`, `CUDA_Host`, `CUDA0`, ...
    device
        Index of the device; None on the host.
    weights
        It holds weights, not a cache.
    mapped
        It is part of a mapped file, with what else lies there.
    apart
        It is a range of the file of its own: ik_llama.cpp keeps what was sent to the processor by name from the rest.
    """

    place: str
    device: int | None
    weights: bool
    mapped: bool = False
    apart: bool = False


class Node:
    """One tensor of a graph.

    Attributes
    ----------
    op
        How it comes about, as ggml names it in lower case; `none` for weights, caches and inputs.
    type
        A key of `GGML_TYPES`.
    ne, nb
        Elements along each dimension, and bytes between two of them.
    src
        What it is made from.
    view
        The tensor whose memory it shares; None if it has its own.
    offset
        Where a view begins.
    buffer
        What holds it before the graph runs; None if the graph allocates it.
    is_input, is_output
        Flags that keep it apart from what can be overwritten.
    kind
        Which unary or gated operation, or what else the choice of a backend needs.
    name
        For weights: the GGUF name; else what helps a reader.
    layer
        The layer that it belongs to; -1 outside.
    backend
        Where it is computed; -1 while that is open.
    """

    __slots__ = (
        "allocated",
        "backend",
        "block",
        "buffer",
        "buffer_id",
        "children",
        "is_input",
        "is_output",
        "kind",
        "layer",
        "name",
        "nb",
        "ne",
        "offset",
        "op",
        "src",
        "type",
        "view",
        "views",
        "visited",
    )

    def __init__(
        self,
        op: str,
        type: str,
        ne: Shape,
        src: list[Node] | None = None,
        nb: Shape | None = None,
        view: Node | None = None,
        offset: int = 0,
        kind: str = "",
        name: str = "",
        buffer: Buffer | None = None,
    ) -> None:
        self.op: str = op
        self.type: str = type
        self.ne: Shape = ne
        self.nb: Shape = nb if nb is not None else strides(type, ne)
        self.src: list[Node] = src if src is not None else []
        # A view of a view looks at the tensor behind both.
        behind: Node | None = None if view is None else view.view
        if view is not None and behind is not None:
            offset += view.offset
            view = behind
        self.view: Node | None = view
        self.offset: int = offset
        self.buffer: Buffer | None = buffer if view is None else view.buffer
        self.kind = kind
        self.name = name
        self.is_input = False
        self.is_output = False
        self.layer = -1
        self.backend = -1
        self.visited = False
        self.children = 0
        self.views = 0
        self.buffer_id = -1
        self.block: tuple[int, int] = (0, 0)
        self.allocated = False

    def __repr__(self) -> str:
        return f"<{self.op} {self.name} {self.type} {self.ne}>"

    @property
    def elements(self) -> int:
        """Number of elements."""
        a, b, c, d = self.ne
        return a * b * c * d

    @property
    def bytes(self) -> int:
        """Bytes from the first element to the end of the last (`ggml_nbytes`)."""
        ne, nb = self.ne, self.nb
        if min(ne) <= 0:
            return 0
        kind = GGML_TYPES[self.type]
        size = kind.bytes + (ne[0] - 1) * nb[0] if kind.block == 1 else ne[0] * nb[0] // kind.block + kind.row
        return size + (ne[1] - 1) * nb[1] + (ne[2] - 1) * nb[2] + (ne[3] - 1) * nb[3]

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements follow each other without gaps; dimensions of one element have no stride that counts."""
        return self.contiguous_beyond(0)

    @property
    def has_plain_rows(self) -> bool:
        """Whether the elements of a row follow each other (`ggml_is_contiguous_rows`)."""
        kind = GGML_TYPES[self.type]
        return self.ne[0] == kind.block or self.nb[0] == kind.bytes

    def contiguous_beyond(self, count: int) -> bool:
        """Whether there are no gaps but in the first so many dimensions behind the rows (`ggml_is_contiguous_n`)."""
        ne, nb = self.ne, self.nb
        kind = GGML_TYPES[self.type]
        step = kind.bytes
        if ne[0] != kind.block and nb[0] != step:
            return False
        step = step * (ne[0] // kind.block) + kind.row
        for index in (1, 2, 3):
            if ne[index] != 1:
                if index > count:
                    if nb[index] != step:
                        return False
                    step *= ne[index]
                else:
                    step = ne[index] * nb[index]
        return True


def row_bytes(type: str, elements: int) -> int:
    """Bytes of a row (`ggml_row_size`)."""
    kind = GGML_TYPES[type]
    return elements // kind.block * kind.bytes + kind.row


def strides(type: str, ne: Shape) -> Shape:
    """Strides of a tensor without gaps."""
    kind = GGML_TYPES[type]
    first = kind.bytes * (ne[0] // kind.block) + kind.row
    return kind.bytes, first, first * ne[1], first * ne[1] * ne[2]
