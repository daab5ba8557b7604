"""Blocks, and the pools of free ones."""

from __future__ import annotations

from bisect import bisect_left, insort

#: Addresses have no more bits than this.
_ADDRESS_BITS = 48


def placed(segment: int, address: int) -> int:
    """The place of an address in the n-th segment that was opened: where blocks are of one size, the lowest is taken.

    Source: `BlockComparatorSizeCounterAddress` (torch 2.13.0): size, then the segments' order, then addresses.
    """
    return (segment << _ADDRESS_BITS) + address


class Block:
    """A piece of a segment, with the pieces beside it.

    Attributes
    ----------
    place, size
        Where it lies, as `placed`, and how many bytes it has.
    requested
        Bytes that were asked for when it was given out last.
    free
        Whether it is in its pool's list of free blocks.
    mapped
        Whether there is memory behind its addresses: not so for parts of an expandable segment.
    before, after
        Neighbours in the segment.
    pool
        Whom it belongs to.
    growing
        The expandable segment's place and size; None for a segment of fixed size.
    age
        The pool's count of searches when the block became free, for garbage collection.
    """

    __slots__ = (
        "after",
        "age",
        "before",
        "free",
        "growing",
        "mapped",
        "place",
        "pool",
        "requested",
        "size",
    )

    def __init__(self, place: int, size: int, pool: Pool, growing: tuple[int, int] | None = None) -> None:
        self.place = place
        self.size = size
        self.requested = 0
        self.free = False
        self.mapped = True
        self.before: Block | None = None
        self.after: Block | None = None
        self.pool = pool
        self.growing = growing
        self.age = 0

    @property
    def address(self) -> int:
        """Where it lies."""
        return self.place & ((1 << _ADDRESS_BITS) - 1)

    @property
    def is_split(self) -> bool:
        """Whether it is not the whole segment."""
        return self.before is not None or self.after is not None


class Pool:
    """Free blocks of one CUDA stream, small or large, by size and place.

    Attributes
    ----------
    stream, small
        Whose they are.
    blocks
        Size, place and block of those with memory, in order.
    unmapped
        Address and block of those without, in order.
    """

    __slots__ = ("blocks", "small", "stream", "unmapped")

    def __init__(self, stream: int, small: bool) -> None:
        self.stream = stream
        self.small = small
        self.blocks: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []

    def insert(self, block: Block) -> None:
        """Add a free block."""
        block.free = True
        insort(self.blocks, (block.size, block.place, block))

    def remove(self, block: Block) -> None:
        """Take a free block out."""
        block.free = False
        del self.blocks[bisect_left(self.blocks, (block.size, block.place))]

    def insert_unmapped(self, block: Block) -> None:
        """Add addresses without memory."""
        insort(self.unmapped, (block.address, block))

    def remove_unmapped(self, block: Block) -> None:
        """Take addresses out."""
        del self.unmapped[bisect_left(self.unmapped, (block.address,))]
