"""What a request is rounded to, and how large a segment is.

Source of the numbers: `c10/core/AllocatorConfig.h` and `c10/cuda/CUDACachingAllocator.cpp`, torch 2.13.0 (the numbers
are the same from torch 2.0 on; the large segment's size became a setting in 2.9).
"""

from __future__ import annotations

from willfit.quantities import MIB, round_up

REFERENCE = "torch c10/cuda/CUDACachingAllocator.cpp"

#: `kMinBlockSize`: every block is a multiple of it.
MIN_BLOCK = 512

#: `kSmallSize`: the largest request that the small pools serve.
SMALL = MIB

#: `kSmallBuffer`: size of their segments.
SMALL_SEGMENT = 2 * MIB

#: `large_segment_size_`: a segment for requests below `MIN_LARGE`, unless `large_segment_size_mb` says otherwise.
LARGE_SEGMENT = 20 * MIB

#: `kMinLargeAlloc`: from here on a request opens a segment of its own size, ...
MIN_LARGE = 10 * MIB

#: `kRoundLarge`: ... rounded up to this.
ROUND_LARGE = 2 * MIB

#: Physical memory is given out in pages of this size (`cuMemGetAllocationGranularity` of present GPUs).
PAGE = 2 * MIB

#: `allocate`: more than this is refused before anything is tried.
MOST = 2**60

#: `kRoundUpPowerOfTwoStart`, `kRoundUpPowerOfTwoIntervals` (`c10/core/AllocatorConfig.cpp`): rounding to parts of a
#: power of two is set for each power from 1 MiB on, in so many intervals; what is smaller belongs to the first.
FIRST_INTERVAL = MIB.bit_length() - 1
INTERVALS = 16


def rounded(size: int, divisions: tuple[int, ...] = ()) -> int:
    """Bytes of the block that a request needs (`round_size`).

    Parameters
    ----------
    size
        Bytes that are asked for.
    divisions
        Into how many parts each power of two is divided, by interval (`roundup_power2_divisions`); empty for none.
    """
    if size < MIN_BLOCK:
        return MIN_BLOCK
    if divisions:
        power = size.bit_length() - 1
        parts = divisions[min(max(power - FIRST_INTERVAL, 0), INTERVALS - 1)]
        if parts > 1 and size > MIN_BLOCK * parts:
            return round_up(size, (1 << power) // parts)
    return round_up(size, MIN_BLOCK)


def segment_bytes(size: int, large_segment: int = LARGE_SEGMENT) -> int:
    """Bytes of the segment that a rounded request opens if no free block serves it (`get_allocation_size`)."""
    if size <= SMALL:
        return SMALL_SEGMENT
    if size < MIN_LARGE:
        return large_segment
    return round_up(size, ROUND_LARGE)
