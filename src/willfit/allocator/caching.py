"""The allocator: requests are served from free blocks, and from new segments where none fits.

Source: `c10/cuda/CUDACachingAllocator.cpp: DeviceCachingAllocator`, torch 2.13.0; `tests/oracle/allocator` compares it
with that, address by address.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from willfit.allocator import growing, releasing
from willfit.allocator.blocks import Block, Pool, placed
from willfit.allocator.device import AddressSpace, Device
from willfit.allocator.history import History
from willfit.allocator.oom import DeviceFull, OutOfMemory
from willfit.allocator.settings import AllocatorSettings
from willfit.allocator.sizes import MIN_BLOCK, PAGE, SMALL, rounded, segment_bytes
from willfit.quantities import round_up

_DEFAULT = AllocatorSettings()


class CachingAllocator:
    """One device's allocator.

    Parameters
    ----------
    device
        What it may take; None for no end.
    settings
        What `PYTORCH_ALLOC_CONF` sets.
    history
        Where segments that come and go are written down; None for nowhere.

    Attributes
    ----------
    allocated, peak_allocated
        Bytes of blocks in use (whole blocks, with what was not worth splitting off), now and at most.
    requested, peak_requested
        Bytes that these were asked for.
    reserved, peak_reserved
        Bytes of segments.
    split_free, peak_split_free
        Bytes of free blocks that share a segment with others, so that it cannot be given back (torch's
        `inactive_split_bytes`); expandable segments do not count.
    segments, peak_segments
        How many segments of fixed size there are.
    retries
        How often everything free was given back to make room (`num_alloc_retries`).
    room
        Bytes that the device has left; None for no end.
    """

    def __init__(
        self,
        device: Device | None = None,
        settings: AllocatorSettings = _DEFAULT,
        history: History | None = None,
    ) -> None:
        self.device, self.settings, self.history = device, settings, history
        self.allocated = self.peak_allocated = 0
        self.requested = self.peak_requested = 0
        self.reserved = self.peak_reserved = 0
        self.split_free = self.peak_split_free = 0
        self.segments = self.peak_segments = 0
        self.retries = 0
        self.searches = 0  # in large pools, while garbage is collected
        self.space = AddressSpace()
        self._opened = 0
        self.pools: dict[int, tuple[Pool, Pool]] = {}
        self.room: int | None = None
        self.allowed: int | None = None
        self._limit: int | None = None
        if device is not None:
            self.room = device.capacity - device.outside
            fraction = device.fraction if device.fraction < 1 else settings.fraction
            self.allowed = round(fraction * device.capacity) if fraction < 1 else None
            self._limit = int(settings.fraction * device.capacity) if settings.refuses_early else None
        self.collects = self.allowed is not None and settings.gc_threshold > 0
        self._plain = not (settings.expandable or self.collects) and settings.max_split is None
        self._divisions = settings.divisions

    def malloc(self, size: int, stream: int = 0) -> Block:
        """A block of at least `size` bytes for a CUDA stream.

        Raises
        ------
        DeviceFull
            If there is no room for it.
        """
        needed = (
            rounded(size, self._divisions)
            if self._divisions
            else (size + MIN_BLOCK - 1) & -MIN_BLOCK or MIN_BLOCK
        )
        pools = self.pools.get(stream) or self._open(stream)
        small = needed <= SMALL
        pool = pools[not small]
        blocks = pool.blocks
        if self._plain:
            at = bisect_left(blocks, (needed,))
            found = blocks.pop(at)[2] if at < len(blocks) else None
        else:
            found = self._find(pool, needed)
        block = self._obtain(pool, needed, size) if found is None else found
        block.free = False

        left = block.size - needed
        fixed = block.growing is None
        if left >= MIN_BLOCK and (small or not fixed or (left > SMALL and self._may_split(needed))):
            rest = Block(block.place + needed, left, pool, block.growing)
            rest.free = True
            rest.age = self.searches
            rest.before = block
            after = rest.after = block.after
            if fixed:
                if after is not None or block.before is not None:
                    self.split_free -= needed
                else:
                    self.split_free += left
                    if self.split_free > self.peak_split_free:
                        self.peak_split_free = self.split_free
            if after is not None:
                after.before = rest
            block.after = rest
            block.size = needed
            insort(blocks, (left, rest.place, rest))
        else:
            needed += left
            if fixed and (block.before is not None or block.after is not None):
                self.split_free -= needed

        block.requested = size
        self.requested += size
        if self.requested > self.peak_requested:
            self.peak_requested = self.requested
        self.allocated += needed
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return block

    def free(self, block: Block) -> None:
        """Take a block back, and join it with its free neighbours."""
        size = block.size
        self.allocated -= size
        self.requested -= block.requested
        blocks = block.pool.blocks
        change = 0
        before, after = block.before, block.after
        if before is not None and before.free:
            joined = before.size
            del blocks[bisect_left(blocks, (joined, before.place))]
            change -= joined
            size += joined
            block.place = before.place
            before.after = None  # or a cycle keeps it
            before = block.before = before.before
            if before is not None:
                before.after = block
        if after is not None and after.free:
            joined = after.size
            del blocks[bisect_left(blocks, (joined, after.place))]
            change -= joined
            size += joined
            after.before = None
            after = block.after = after.after
            if after is not None:
                after.before = block
        block.size = size
        block.free = True
        block.age = self.searches
        insort(blocks, (size, block.place, block))
        if block.growing is None:
            if before is not None or after is not None:
                change += size
            self.split_free += change
            if self.split_free > self.peak_split_free:
                self.peak_split_free = self.split_free

    def empty_cache(self) -> None:
        """Give everything back to the device of which nothing is in use (`torch.cuda.empty_cache`)."""
        releasing.release_all(self)

    def open_segment(self, size: int) -> int:
        """Addresses for a segment: its place."""
        self._opened += 1
        return placed(self._opened, self.space.take(size))

    def reserve(self, change: int) -> None:
        """Count bytes that were taken from the device, or given back if negative."""
        self.reserved += change
        if self.reserved > self.peak_reserved:
            self.peak_reserved = self.reserved
        if self.room is not None:
            self.room -= round_up(change, PAGE) if change > 0 else -round_up(-change, PAGE)

    def _open(self, stream: int) -> tuple[Pool, Pool]:
        pools = self.pools[stream] = Pool(stream, small=True), Pool(stream, small=False)
        return pools

    def _may_split(self, needed: int) -> bool:
        return self.settings.max_split is None or needed < self.settings.max_split

    def _find(self, pool: Pool, needed: int) -> Block | None:
        """The free block that fits best, under the rules for settings (`get_free_block`)."""
        if self.collects and not pool.small:
            self.searches += 1
        blocks = pool.blocks
        at = bisect_left(blocks, (needed,))
        if at == len(blocks):
            return None
        if self.settings.expandable:
            # What can still grow counts with all that it can grow to, so that others are taken first.
            while at + 1 < len(blocks) and growing.grown_size(blocks[at + 1][2]) < growing.grown_size(
                blocks[at][2]
            ):
                at += 1
        limit, size = self.settings.max_split, blocks[at][0]
        if limit is not None:
            if needed < limit <= size:
                return None
            if needed >= limit and size >= needed + self.settings.max_non_split_rounding:
                return None
        return blocks.pop(at)[2]

    def _obtain(self, pool: Pool, needed: int, asked: int) -> Block:
        """A free block, not in its pool, from new memory; what can be given back makes room for it."""
        segment = segment_bytes(needed, self.settings.large_segment)
        if self.collects:
            releasing.collect_garbage(self)
        block = self._new(pool, needed, asked, segment)
        if block is None and releasing.release_oversize(self, pool, needed):
            block = self._new(pool, needed, asked, segment)
        if block is None:
            releasing.release_all(self)
            self.retries += 1
            block = self._new(pool, needed, asked, segment)
        if block is None:
            raise DeviceFull(self._state(pool, needed, asked, segment, rejected=False))
        return block

    def _new(self, pool: Pool, needed: int, asked: int, segment: int) -> Block | None:
        """New memory, if there is room for it (`alloc_block`)."""
        if self.allowed is not None and self.reserved + segment > self.allowed:
            return None
        if self._limit is not None and self.reserved + segment > self._limit:
            raise DeviceFull(self._state(pool, needed, asked, segment, rejected=True))
        if self.settings.expandable:
            return growing.grow(self, pool, needed)
        if self.room is not None and segment > self.room:
            return None
        self.reserve(segment)
        self.segments += 1
        self.peak_segments = max(self.peak_segments, self.segments)
        block = Block(self.open_segment(segment), segment, pool)
        if self.history is not None:
            self.history.add("segment_alloc", block.address, segment, pool.stream)
        return block

    def _state(self, pool: Pool, needed: int, asked: int, segment: int, rejected: bool) -> OutOfMemory:
        assert self.device is not None
        assert self.room is not None
        capacity, outside = self.device.capacity, self.device.outside
        return OutOfMemory(
            asked=asked,
            size=needed,
            segment=segment,
            stream=pool.stream,
            allocated=self.allocated,
            reserved=self.reserved,
            capacity=capacity,
            free=max(self.room, 0),
            in_use=capacity - outside - self.room + self.device.own_context,
            allowed=self.allowed,
            rejected=rejected,
        )
