"""PyTorch's CUDA caching allocator: what a tensor really occupies, and what stays reserved.

Source: `c10/cuda/CUDACachingAllocator.cpp` (unchanged in this from torch 2.0 to 2.13). A block counts as
allocated with its whole size, and a block is split only if more than 1 MiB would remain of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from willfit.quantities import KIB, MIB, round_up

REFERENCE = "torch c10/cuda/CUDACachingAllocator.cpp"

#: `kMinBlockSize`, `kSmallSize`, `kSmallBuffer`, `kLargeBuffer`, `kMinLargeAlloc`, `kRoundLarge`.
MIN_BLOCK = 512
SMALL = MIB
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
MIN_LARGE = 10 * MIB
ROUND_LARGE = 2 * MIB


def block_bytes(size: int) -> int:
    """Bytes that a tensor counts for if it opens a segment of its own.

    From 10 MiB on a segment is rounded up to 2 MiB, and what remains of it is given back only if it is more
    than 1 MiB. Smaller tensors share segments and are taken as they are.
    """
    size = round_up(size, MIN_BLOCK)
    if size < MIN_LARGE:
        return size
    segment = round_up(size, ROUND_LARGE)
    return segment if segment - size <= SMALL else size


def block_slack(size: int) -> tuple[int, int]:
    """What a block is expected to hold beyond a tensor of this size, and the most, once blocks are reused.

    What remains of a block stays with it up to 1 MiB. In shared segments any such rest is as likely as
    another; from 10 MiB on, where segments end at multiples of 2 MiB, every other rest is given back.
    """
    if size <= SMALL:
        return 0, 0
    return (SMALL // 2 if size < MIN_LARGE else SMALL // 4), SMALL


def cublas_workspace(compute_capability: str) -> int:
    """Bytes of cuBLAS's workspace, which torch takes from the same allocator at the first matrix product.

    `aten/src/ATen/cuda/CublasHandlePool.cpp`: 32 MiB from compute capability 9.0 on, else 2 x 4 MiB and
    8 x 16 KiB.
    """
    major = compute_capability.split(".")[0]
    if major.isdigit() and int(major) >= 9:
        return 32 * MIB
    return 2 * 4096 * KIB + 8 * 16 * KIB


class DeviceFull(Exception):
    """The device has no room for a segment, even after all free ones were given back."""


@dataclass(slots=True)
class _Block:
    """A piece of a segment, with the pieces beside it."""

    size: int
    small: bool
    free: bool = False
    before: int | None = None
    after: int | None = None


class CachingAllocator:
    """Replays requests on one stream: which segments stay reserved.

    The block that fits best is taken and split; neighbours are joined when they are freed; if the device has no room
    for another segment, all wholly free segments are given back first (`malloc`, `get_free_block`, `should_split`,
    `release_cached_blocks`).

    Parameters
    ----------
    limit
        Bytes that the device has for segments; None for no end.

    Attributes
    ----------
    reserved, peak
        Bytes of the segments now, and at most so far.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.reserved = 0
        self.peak = 0
        self._blocks: dict[int, _Block] = {}
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._next = 0

    def malloc(self, size: int) -> int:
        """A block of at least `size` bytes.

        Raises
        ------
        DeviceFull
            If there is no room for it.
        """
        size = max(MIN_BLOCK, round_up(size, MIN_BLOCK))
        small = size <= SMALL
        pool = self._free[small]
        at = bisect_left(pool, (size, -1))
        key = pool.pop(at)[1] if at < len(pool) else self._segment(size, small)
        block = self._blocks[key]
        left = block.size - size
        if left >= MIN_BLOCK if small else left > SMALL:
            rest = self._add(_Block(left, small, True, key, block.after))
            if block.after is not None:
                self._blocks[block.after].before = rest
            block.after, block.size = rest, size
            insort(pool, (left, rest))
        block.free = False
        return key

    def free(self, key: int) -> None:
        """Give a block back to the allocator."""
        block = self._blocks[key]
        for other in (block.before, block.after):
            if other is not None and self._blocks[other].free:
                self._join(key, other)
        block.free = True
        insort(self._free[block.small], (block.size, key))

    def empty_cache(self) -> None:
        """Give all segments back to the device of which nothing is in use."""
        for pool in self._free.values():
            for entry in list(pool):
                block = self._blocks[entry[1]]
                if block.before is None and block.after is None:
                    pool.remove(entry)
                    del self._blocks[entry[1]]
                    self.reserved -= entry[0]

    def _segment(self, size: int, small: bool) -> int:
        whole = SMALL_SEGMENT if small else LARGE_SEGMENT if size < MIN_LARGE else round_up(size, ROUND_LARGE)
        if self.limit is not None and self.reserved + whole > self.limit:
            self.empty_cache()
            if self.reserved + whole > self.limit:
                raise DeviceFull
        self.reserved += whole
        self.peak = max(self.peak, self.reserved)
        return self._add(_Block(whole, small))

    def _add(self, block: _Block) -> int:
        self._next += 1
        self._blocks[self._next] = block
        return self._next

    def _join(self, key: int, other: int) -> None:
        """Take a free neighbour into a block."""
        block, joined = self._blocks[key], self._blocks.pop(other)
        pool = self._free[joined.small]
        del pool[bisect_left(pool, (joined.size, other))]
        block.size += joined.size
        if other == block.before:
            block.before = joined.before
            if joined.before is not None:
                self._blocks[joined.before].after = key
        else:
            block.after = joined.after
            if joined.after is not None:
                self._blocks[joined.after].before = key
