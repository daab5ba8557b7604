"""Expandable segments: addresses are reserved once, and memory is put behind them as it is needed.

Source: `c10/cuda/CUDACachingAllocator.cpp: ExpandableSegment, find_expandable_block, map_block, unmap_block`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from willfit.allocator.blocks import Block, Pool
from willfit.allocator.device import reserved_addresses
from willfit.allocator.sizes import SMALL_SEGMENT
from willfit.quantities import round_up

if TYPE_CHECKING:
    from willfit.allocator.caching import CachingAllocator


def grown_size(block: Block) -> int:
    """Bytes of a free block and of the addresses without memory that follow it."""
    after = block.after
    return block.size + after.size if after is not None and not after.mapped else block.size


def grow(memory: CachingAllocator, pool: Pool, needed: int) -> Block | None:
    """A free block, not in its pool, at the lowest addresses that can hold it; None if the device is full.

    Memory that was mapped before the device was full stays, as a free block (`try_allocate_expandable_block`).
    """
    part = SMALL_SEGMENT if pool.small else memory.settings.large_segment
    block = _candidate(memory, pool, needed, part)
    if not block.mapped and not _map(memory, block, min(block.size, needed), part):
        return None
    while block.size < needed:
        rest = block.after
        assert rest is not None  # the candidate was chosen so
        if not _map(memory, rest, min(needed - block.size, rest.size), part):
            return None
        block = rest
    pool.remove(block)
    return block


def unmap(memory: CachingAllocator, block: Block) -> None:
    """Give the memory of all whole parts of a free block back; drop the segment if nothing is left of it."""
    pool, segment = block.pool, block.growing
    assert segment is not None
    part = SMALL_SEGMENT if pool.small else memory.settings.large_segment
    begin = segment[0] + round_up(block.place - segment[0], part)
    end = block.place + block.size
    end -= (end - segment[0]) % part
    if begin >= end:
        return
    pool.remove(block)
    if begin > block.place:
        rest = Block(block.place, begin - block.place, pool, segment)
        _link(block.before, rest, block)
        pool.insert(rest)
    if block.place + block.size > end:
        rest = Block(end, block.place + block.size - end, pool, segment)
        _link(block, rest, block.after)
        pool.insert(rest)
    block.place, block.size, block.mapped = begin, end - begin, False
    address = block.address
    _join(block)
    memory.reserve(begin - end)
    if memory.history is not None:
        memory.history.add("segment_unmap", address, end - begin, pool.stream)
    if block.is_split:
        pool.insert_unmapped(block)
    else:
        memory.space.give(block.address, block.size)


def _candidate(memory: CachingAllocator, pool: Pool, needed: int, part: int) -> Block:
    """The first of a row of free and unmapped blocks that is long enough."""
    for _, unmapped in pool.unmapped:
        before = unmapped.before
        first = before if before is not None and before.free else unmapped
        total, block = 0, first
        while total < needed and (block.free or not block.mapped):
            total += block.size
            if block.after is None:
                break
            block = block.after
        if total >= needed:
            return first
    size = reserved_addresses(memory.device, part)
    segment = memory.open_segment(size), size
    block = Block(*segment, pool, segment)
    block.mapped = False
    pool.insert_unmapped(block)
    return block


def _map(memory: CachingAllocator, block: Block, size: int, part: int) -> bool:
    """Put memory behind the first `size` bytes of a block, in whole parts, if the device has it."""
    size = round_up(size, part)
    if memory.room is not None and size > memory.room:
        return False
    pool, place, address = block.pool, block.place, block.address
    pool.remove_unmapped(block)
    block.mapped = True
    if size < block.size:
        rest = Block(place + size, block.size - size, pool, block.growing)
        rest.mapped = False
        _link(block, rest, block.after)
        pool.insert_unmapped(rest)
        block.size = size
    _join(block)
    pool.insert(block)
    memory.reserve(size)
    if memory.history is not None:
        memory.history.add("segment_map", address, size, pool.stream)
    return True


def _link(before: Block | None, block: Block, after: Block | None) -> None:
    """Put a block between two neighbours."""
    block.before, block.after = before, after
    if before is not None:
        before.after = block
    if after is not None:
        after.before = block


def _join(block: Block) -> None:
    """Join a block that is in no list with neighbours that are as it is: free, or without memory."""
    pool = block.pool
    for other in (block.before, block.after):
        if other is None or other.mapped != block.mapped or not (other.free or not other.mapped):
            continue
        if other.mapped:
            pool.remove(other)
        else:
            pool.remove_unmapped(other)
        if other is block.before:
            block.place = other.place
            _link(other.before, block, block.after)
        else:
            _link(block.before, block, other.after)
        block.size += other.size
        other.before = other.after = None  # or a cycle keeps it
