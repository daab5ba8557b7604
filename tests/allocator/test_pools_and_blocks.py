"""The allocator's rules, worked by hand."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from willfit.allocator.blocks import Block
from willfit.allocator.caching import CachingAllocator
from willfit.allocator.device import Device
from willfit.allocator.history import segments_of
from willfit.allocator.oom import DeviceFull
from willfit.allocator.settings import AllocatorSettings, parse_settings
from willfit.quantities import GIB, KIB, MIB


def test_small_requests_share_two_mebibytes() -> None:
    memory = CachingAllocator()
    first, second = memory.malloc(1), memory.malloc(MIB)
    assert (memory.reserved, memory.allocated, memory.requested) == (2 * MIB, MIB + 512, MIB + 1)
    assert second.address == first.address + 512
    memory.malloc(MIB)  # 512 bytes too few are left
    assert (memory.reserved, memory.segments) == (4 * MIB, 2)
    assert memory.split_free == 2 * (MIB - 512) + 512 - 512 + 512


def test_what_is_not_split_off_counts() -> None:
    memory = CachingAllocator()
    memory.malloc(43 * MIB)  # of 44: no more than 1 MiB would be left
    assert (memory.allocated, memory.requested, memory.reserved) == (44 * MIB, 43 * MIB, 44 * MIB)
    memory.malloc(43 * MIB - 512)
    assert memory.allocated == 44 * MIB + 43 * MIB - 512
    assert memory.split_free == MIB + 512


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


def test_the_smallest_that_fits_is_taken_and_of_equals_the_oldest_segment() -> None:
    memory = CachingAllocator()
    blocks = [memory.malloc(size * MIB) for size in (30, 24, 24, 40)]
    for block in reversed(blocks):
        memory.free(block)
    assert memory.malloc(23 * MIB).address == blocks[1].address
    assert memory.malloc(24 * MIB).address == blocks[2].address
    assert memory.malloc(24 * MIB).address == blocks[0].address


def test_each_stream_has_its_own() -> None:
    memory = CachingAllocator()
    memory.free(memory.malloc(MIB, 0))
    memory.malloc(MIB, 7)
    assert memory.reserved == 4 * MIB
    memory.empty_cache()
    assert memory.reserved == 2 * MIB


def test_an_outgrown_segment_stays_reserved() -> None:
    memory = CachingAllocator()
    block = memory.malloc(11 * MIB)
    for size in (11 * MIB + 64 * KIB, 12 * MIB, 12 * MIB + 64 * KIB, 13 * MIB):
        grown = memory.malloc(size)
        memory.free(block)
        block = grown
    # Old and new tensor in two segments of 12 MiB, then in two of 14.
    assert memory.reserved == memory.peak_reserved == (12 + 12 + 14 + 14) * MIB
    memory.empty_cache()
    assert (memory.reserved, memory.peak_reserved) == (14 * MIB, 52 * MIB)


def test_a_full_device_gives_back_what_is_free() -> None:
    memory = CachingAllocator(Device(40 * MIB))
    kept = memory.malloc(16 * MIB)
    memory.free(memory.malloc(20 * MIB))
    memory.malloc(22 * MIB)
    assert (memory.reserved, memory.peak_reserved, memory.retries) == (38 * MIB, 38 * MIB, 1)
    failure = failed(memory, 12 * MIB)
    assert (failure.state.free, failure.state.reserved, memory.retries) == (2 * MIB, 38 * MIB, 2)
    memory.free(kept)
    memory.malloc(16 * MIB)
    assert memory.reserved == 38 * MIB


def test_large_blocks_are_neither_split_nor_lent_to_smaller_ones() -> None:
    memory = CachingAllocator(Device(GIB), parse_settings("max_split_size_mb:64"))
    memory.free(memory.malloc(100 * MIB))
    memory.malloc(30 * MIB)  # smaller than 64 MiB: not out of the large block
    assert memory.reserved == 130 * MIB
    kept = memory.malloc(81 * MIB)  # 19 MiB larger: taken whole
    assert (memory.reserved, kept.size) == (130 * MIB, 100 * MIB)
    memory.free(kept)
    memory.malloc(80 * MIB)  # 20 MiB are too much
    assert memory.reserved == 210 * MIB


def test_only_as_many_large_blocks_go_as_are_needed() -> None:
    memory = CachingAllocator(Device(302 * MIB), parse_settings("max_split_size_mb:20"))
    for block in [memory.malloc(size * MIB) for size in (60, 70, 80, 90)]:
        memory.free(block)
    memory.free(memory.malloc(MIB))
    memory.malloc(110 * MIB)  # 90 and 80 go, 60, 70 and the small segment stay
    assert (memory.reserved, memory.retries) == ((60 + 70 + 2 + 110) * MIB, 0)
    memory.free(memory.malloc(40 * MIB))
    memory.malloc(66 * MIB)  # 70 serves it, unsplit
    assert memory.reserved == (60 + 70 + 2 + 110 + 40) * MIB


def test_garbage_is_what_is_older_than_average() -> None:
    settings = parse_settings("garbage_collection_threshold:0.5,per_process_memory_fraction:0.5")
    memory = CachingAllocator(Device(400 * MIB), settings)  # 200 MiB may be taken, 100 without a collection
    memory.free(memory.malloc(60 * MIB))
    for size in (20, 22, 24):
        memory.malloc(size * MIB)  # out of the 60, but for the last
    assert memory.reserved == (60 + 24) * MIB
    old = memory.malloc(40 * MIB)
    memory.free(old)
    for _ in range(5):
        memory.free(memory.malloc(18 * MIB))  # the 18 MiB that are left of the 60: the 40 grow old
    memory.malloc(70 * MIB)
    assert memory.reserved == (60 + 24 + 70) * MIB
    assert memory.retries == 0


def test_an_expandable_segment_grows_and_shrinks() -> None:
    memory = CachingAllocator(Device(GIB), AllocatorSettings(expandable=True))
    first, second = memory.malloc(30 * MIB), memory.malloc(5 * MIB + 100)
    # Mapped 20 MiB at a time, and split to 512 bytes.
    assert (memory.reserved, memory.allocated, memory.segments) == (40 * MIB, 35 * MIB + 512, 0)
    assert second.address == first.address + 30 * MIB
    third = memory.malloc(50 * MIB)  # the rest of 5 MiB, and 60 more: 45 and a bit in 20s
    assert third.address == second.address + second.size
    assert memory.reserved == 100 * MIB
    memory.malloc(100)
    assert memory.reserved == 102 * MIB  # small ones in a segment of their own, 2 MiB at a time
    memory.free(second)
    memory.empty_cache()  # 30 to 35: no whole 20 MiB; 85 to 100: neither
    assert memory.reserved == 102 * MIB
    memory.free(first)
    memory.empty_cache()
    assert memory.reserved == 82 * MIB  # the first 20 MiB
    assert memory.malloc(33 * MIB).address == first.address  # and mapped again, at the lowest address
    assert (memory.reserved, memory.split_free) == (102 * MIB, 0)


def test_what_was_mapped_before_the_device_was_full_stays() -> None:
    memory = CachingAllocator(Device(90 * MIB), AllocatorSettings(expandable=True))
    blocks = [memory.malloc(20 * MIB) for _ in range(4)]
    memory.free(blocks[0])
    memory.free(blocks[2])
    failure = failed(memory, 60 * MIB)
    assert (memory.reserved, failure.state.allocated) == (40 * MIB, 40 * MIB)
    memory.malloc(20 * MIB)
    assert memory.reserved == 60 * MIB


def test_the_words_of_the_error() -> None:
    memory = CachingAllocator(Device(80 * GIB, 2 * GIB, GIB, fraction=0.9))
    memory.malloc(50 * 10**9)
    memory.malloc(3 * 10**6)
    assert str(failed(memory, 60 * 10**9)) == (
        "CUDA out of memory. Tried to allocate 55.88 GiB. GPU 0 has a total capacity of 80.00 GiB of which 31.41 GiB "
        "is free. Including non-PyTorch memory, this process has 47.59 GiB memory in use. 72.00 GiB allowed; Of the "
        "allocated memory 46.57 GiB is allocated by PyTorch, and 17.14 MiB is reserved by PyTorch but unallocated. If "
        "reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to "
        "avoid fragmentation.  See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html"
        "#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
    )


def failed(memory: CachingAllocator, size: int) -> DeviceFull:
    """How a request fails."""
    try:
        memory.malloc(size)
    except DeviceFull as full:
        return full
    raise AssertionError(f"{size} bytes were found")


SETTINGS = st.sampled_from(
    ["", "expandable_segments:True", "max_split_size_mb:20", "roundup_power2_divisions:4",
     "garbage_collection_threshold:0.4,per_process_memory_fraction:0.9",
     "expandable_segments:True,max_split_size_mb:32"]
)  # fmt: skip


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60 * MIB), st.integers(0, 2)), max_size=80),
    SETTINGS,
    st.sampled_from([None, Device(150 * MIB), Device(400 * MIB)]),
)
def test_whatever_is_asked_the_books_are_in_order(
    steps: list[tuple[bool, int, int]], text: str, device: Device | None
) -> None:
    memory = CachingAllocator(device, parse_settings(text))
    held: dict[int, Block] = {}
    for number, (frees, size, stream) in enumerate(steps):
        if frees and held:
            memory.free(held.pop(list(held)[size % len(held)]))
        else:
            try:
                held[number] = memory.malloc(size, stream)
            except DeviceFull:
                assert device is not None
        check(memory, held)
    for block in held.values():
        memory.free(block)
    assert (memory.allocated, memory.requested, memory.split_free) == (0, 0, 0)
    memory.empty_cache()
    assert (memory.reserved, memory.segments) == (0, 0)
    assert segments_of(memory, {}) == []


def check(memory: CachingAllocator, held: dict[int, Block]) -> None:
    """All blocks lie end to end in segments that do not overlap, and the sums are theirs."""
    segments = segments_of(memory, held)
    assert memory.requested <= memory.allocated <= memory.reserved == sum(one.size for one in segments)
    assert memory.allocated == sum(block.size for block in held.values())
    if memory.room is not None and memory.device is not None:
        assert 0 <= memory.room == memory.device.capacity - memory.reserved
    used = []
    for before, after in pairwise(segments):
        assert before.address + before.size <= after.address
    for one in segments:
        at = one.address
        for block in one.blocks:
            assert (block.address, block.size % 512) == (at, 0)
            assert block.requested <= block.size
            at += block.size
            used.append(block.storage)
        assert at == one.address + one.size
        # Two free blocks side by side would have been joined.
        assert all(a.storage >= 0 or b.storage >= 0 for a, b in pairwise(one.blocks))
    assert sorted(storage for storage in used if storage >= 0) == sorted(held)
    for pools in memory.pools.values():
        for pool in pools:
            assert pool.blocks == sorted(pool.blocks, key=lambda entry: entry[:2])
            assert all((block.size, block.place) == (size, place) for size, place, block in pool.blocks)
            assert all(block.free and block.mapped for _, _, block in pool.blocks)
