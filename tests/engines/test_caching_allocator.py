"""Blocks of the caching allocator, by the rules of its source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.engines.caching_allocator import CachingAllocator, DeviceFull, block_bytes, cublas_workspace
from willfit.quantities import KIB, MIB


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (1, 512),
        (513, 1024),
        (3 * MIB + MIB // 2, 3 * MIB + MIB // 2),  # shares a segment of 20 MiB
        (10 * MIB, 10 * MIB),
        (43 * MIB, 44 * MIB),  # 1 MiB left: not more than kSmallSize, so it stays
        (43 * MIB - 512, 43 * MIB - 512),  # 1 MiB and 512 B left: given back
        (129 * MIB + MIB // 2, 130 * MIB),
        (136 * MIB, 136 * MIB),
    ],
)
def test_block_of_a_fresh_segment(size: int, block: int) -> None:
    assert block_bytes(size) == block


def test_a_block_is_split_and_joined_again() -> None:
    memory = CachingAllocator()
    first, second = memory.malloc(8 * MIB), memory.malloc(8 * MIB)
    assert memory.reserved == 20 * MIB  # one segment, of which 4 MiB are left
    memory.malloc(3 * MIB + MIB // 2)  # half a MiB would remain: it stays with the block
    memory.malloc(512)
    assert memory.reserved == 22 * MIB  # the small one is in a segment of 2 MiB
    memory.free(first)
    memory.free(second)
    memory.malloc(16 * MIB)  # both halves, joined
    assert memory.reserved == 22 * MIB


def test_an_outgrown_segment_stays_reserved() -> None:
    memory = CachingAllocator()
    block = memory.malloc(11 * MIB)
    for size in (11 * MIB + 64 * KIB, 12 * MIB, 12 * MIB + 64 * KIB, 13 * MIB):
        grown = memory.malloc(size)
        memory.free(block)
        block = grown
    # Old and new tensor in two segments of 12 MiB, then in two of 14.
    assert memory.reserved == memory.peak == (12 + 12 + 14 + 14) * MIB
    memory.empty_cache()
    assert (memory.reserved, memory.peak) == (14 * MIB, 52 * MIB)


def test_a_full_device_gives_back_what_is_free() -> None:
    memory = CachingAllocator(limit=40 * MIB)
    kept = memory.malloc(16 * MIB)
    memory.free(memory.malloc(20 * MIB))
    memory.malloc(22 * MIB)
    assert (memory.reserved, memory.peak) == (38 * MIB, 38 * MIB)
    with pytest.raises(DeviceFull):
        memory.malloc(12 * MIB)
    memory.free(kept)
    memory.malloc(16 * MIB)
    assert memory.reserved == 38 * MIB


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40 * MIB)), max_size=60))
def test_whatever_is_asked_it_holds_all_blocks_and_gives_all_back(steps: list[tuple[bool, int]]) -> None:
    memory = CachingAllocator()
    held: list[tuple[int, int]] = []
    for frees, size in steps:
        if frees and held:
            memory.free(held.pop(size % len(held))[0])
        else:
            held.append((memory.malloc(size), size))
        assert sum(size for _, size in held) <= memory.reserved <= memory.peak
    for block, _ in held:
        memory.free(block)
    memory.empty_cache()
    assert memory.reserved == 0


@pytest.mark.parametrize(
    ("capability", "mib"), [("8.0", 8.125), ("8.9", 8.125), ("9.0", 32), ("12.0", 32), ("", 8.125)]
)
def test_cublas_workspace(capability: str, mib: float) -> None:
    assert cublas_workspace(capability) == mib * MIB
