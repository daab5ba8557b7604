"""Giving free memory back to the device: all of it, the oversize blocks, or the oldest.

Source: `c10/cuda/CUDACachingAllocator.cpp: release_cached_blocks, release_available_cached_blocks,
garbage_collect_cached_blocks`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from willfit.allocator.blocks import Block, Pool
from willfit.allocator.growing import unmap

if TYPE_CHECKING:
    from willfit.allocator.caching import CachingAllocator


def release_all(memory: CachingAllocator) -> None:
    """Give back every segment of which nothing is in use, and all whole parts of expandable ones; large pools first."""
    for large in (True, False):
        growing = []
        for stream in sorted(memory.pools):
            for _, _, block in list(memory.pools[stream][large].blocks):
                if block.growing is not None:
                    growing.append(block)
                elif not block.is_split:
                    _release(memory, block)
        for block in growing:
            unmap(memory, block)


def release_oversize(memory: CachingAllocator, pool: Pool, needed: int) -> bool:
    """Give back one block that is not split and would have been large enough, or several, the largest first.

    Only where `max_split_size_mb` is set. Whether as much as is needed was given back.
    """
    limit = memory.settings.max_split
    if limit is None:
        return False
    needed = max(needed, limit)
    blocks = pool.blocks
    at = bisect_left(blocks, (needed,))
    if at < len(blocks) and blocks[at][2].growing is None:
        _release(memory, blocks[at][2])
        return True
    released = 0
    for size, _, block in reversed(blocks[:at]):
        if released >= needed or size < limit:
            break
        if block.growing is None:
            released += size
            _release(memory, block)
    return released >= needed


def collect_garbage(memory: CachingAllocator) -> None:
    """Give back large segments that were free for long, if more is reserved than the threshold allows.

    A block's age is the number of searches since it became free; those at least as old as the average go, until
    enough is given back.
    """
    assert memory.allowed is not None
    threshold = int(memory.settings.gc_threshold * memory.allowed)
    target = memory.reserved - threshold
    if target <= 0:
        return
    blocks = [
        block
        for stream in sorted(memory.pools)
        for _, _, block in memory.pools[stream][1].blocks
        if block.growing is None and not block.is_split
    ]
    total = sum(memory.searches - block.age for block in blocks)
    released = 0
    freed = True
    while released < target and freed and blocks:
        average = total / len(blocks)
        old = [block for block in blocks if memory.searches - block.age >= average]
        freed = bool(old)
        for block in old:
            released += block.size
            total -= memory.searches - block.age
            _release(memory, block)
        blocks = [block for block in blocks if block.free]


def _release(memory: CachingAllocator, block: Block) -> None:
    """Give one segment back."""
    pool = block.pool
    pool.remove(block)
    memory.reserve(-block.size)
    memory.segments -= 1
    memory.space.give(block.address, block.size)
    if memory.history is not None:
        memory.history.add("segment_free", block.address, block.size, pool.stream)
