"""What the allocator did, entry by entry, and what it holds in the end: for exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from willfit.allocator.blocks import Block

if TYPE_CHECKING:
    from willfit.allocator.caching import CachingAllocator


class Entry(NamedTuple):
    """One thing that happened.

    Attributes
    ----------
    action
        `alloc`, `free`, `segment_alloc`, `segment_free`, `segment_map`, `segment_unmap` or `oom`, as torch's snapshots
        name them; a `free` is both requested and completed there.
    event
        Index of the event of the program during which it happened.
    address
        Where; of an `oom`, bytes that the device had left.
    size
        Bytes: of an `alloc` or `free` those that were asked for, of an `oom` those of the block that was needed.
    stream
        CUDA stream.
    storage
        Index of the storage; -1 for segments.
    """

    action: str
    event: int
    address: int
    size: int
    stream: int
    storage: int = -1


class HeldBlock(NamedTuple):
    """A block of a segment: address, size, bytes asked for, and the storage in it or -1 if it is free."""

    address: int
    size: int
    requested: int
    storage: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that is reserved, or a connected part of an expandable one, with its blocks by address."""

    address: int
    size: int
    stream: int
    small: bool
    expandable: bool
    blocks: tuple[HeldBlock, ...]


@dataclass(slots=True)
class History:
    """Filled by a replay that is given one.

    Attributes
    ----------
    entries
        What happened, in order.
    segments
        What is reserved in the end, by address.
    event
        Index of the event that is replayed.
    """

    entries: list[Entry] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    event: int = 0

    def add(self, action: str, address: int, size: int, stream: int, storage: int = -1) -> None:
        """Write down what happened."""
        self.entries.append(Entry(action, self.event, address, size, stream, storage))


def segments_of(memory: CachingAllocator, held: Mapping[int, Block]) -> list[Segment]:
    """What an allocator has reserved, by address; `held` are the blocks in use by storage."""
    storages = {id(block): storage for storage, block in held.items()}
    blocks = {id(block): block for block in held.values()}
    for pools in memory.pools.values():
        for pool in pools:
            blocks |= {id(block): block for _, _, block in pool.blocks}
    found = []
    for first in blocks.values():
        if first.before is not None and first.before.mapped:
            continue
        row: list[Block] = []
        block: Block | None = first
        while block is not None and block.mapped:
            row.append(block)
            block = block.after
        found.append(
            Segment(
                first.address,
                sum(block.size for block in row),
                first.pool.stream,
                first.pool.small,
                first.growing is not None,
                tuple(
                    HeldBlock(
                        block.address,
                        block.size,
                        0 if block.free else block.requested,
                        storages.get(id(block), -1),
                    )
                    for block in row
                ),
            )
        )
    return sorted(found, key=lambda segment: segment.address)
