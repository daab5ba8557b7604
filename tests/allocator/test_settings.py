"""`PYTORCH_ALLOC_CONF`, read as torch does."""

import pytest

from willfit.allocator.settings import AllocatorSettings, parse_settings
from willfit.allocator.sizes import rounded, segment_bytes
from willfit.errors import BadInput
from willfit.quantities import GIB, KIB, MIB


def test_every_setting_that_changes_memory() -> None:
    text = (
        "max_non_split_rounding_mb:50, max_split_size_mb:64,large_segment_size_mb:40,expandable_segments:True,"
        "garbage_collection_threshold:0.8,roundup_power2_divisions:4,per_process_memory_fraction:0.5,"
        "throw_on_cudamalloc_oom:True,backend:native,pinned_use_background_threads:True,"
    )
    read = parse_settings(text)
    assert len(read.notes) == 2
    assert read == AllocatorSettings(
        True, 40 * MIB, 64 * MIB, 50 * MIB, (4,) * 16, 0.8, 0.5, refuses_early=True, notes=read.notes
    )
    assert parse_settings("") == AllocatorSettings()
    # It follows the segments where nothing else is said.
    assert parse_settings("large_segment_size_mb:40").max_non_split_rounding == 40 * MIB


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expandable_segment:True", "expandable_segment'"),
        ("expandable_segments=True", "key:value"),
        ("expandable_segments:true", "True or False"),
        ("backend:cudaMallocAsync", "cudaMallocAsync"),
        ("max_split_size_mb:19", "at least 20"),
        ("large_segment_size_mb:40,max_split_size_mb:39", "at least 40"),
        ("large_segment_size_mb:10", "at least 11"),
        ("large_segment_size_mb:21,expandable_segments:True", "2 MiB"),
        ("max_split_size_mb:", "key:value"),
        ("max_split_size_mb:1e3", "whole number"),
        ("garbage_collection_threshold:1.0", "between 0 and 1"),
        ("garbage_collection_threshold:nan", "between 0 and 1"),
        ("per_process_memory_fraction:1.5", "between 0 and 1"),
        ("roundup_power2_divisions:3", "power of two"),
        ("roundup_power2_divisions:[256:1,512:2", "key:value"),
        ("roundup_power2_divisions:[256]", "size:divisions"),
        ("roundup_power2_divisions:[300:2]", "power of two"),
    ],
)
def test_what_torch_refuses(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_settings(text)


@pytest.mark.parametrize(
    "text",
    ["expandable_segments:true", "max_split_size_mb:19", "large_segment_size_mb:10",
     "garbage_collection_threshold:1.0", "roundup_power2_divisions:3", "roundup_power2_divisions:[300:2]"],
)  # fmt: skip
def test_torch_refuses_it_too(text: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError):
        torch._C._accelerator_setAllocatorSettings(text)
    torch._C._accelerator_setAllocatorSettings("")


def test_divisions_by_size() -> None:
    read = parse_settings("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]")
    assert read.divisions == (*(1,) * 9, 2, 4, *(8,) * 5)
    assert rounded(300 * MIB + 1, read.divisions) == 300 * MIB + 512
    assert rounded(600 * MIB, read.divisions) == 768 * MIB  # halves of 512 MiB
    assert rounded(1100 * MIB, read.divisions) == 1280 * MIB
    assert rounded(5 * GIB, read.divisions) == 5 * GIB
    assert rounded(5 * GIB + 1, read.divisions) == 5 * GIB + 512 * MIB
    assert parse_settings("roundup_power2_divisions:[>:4]").divisions == (0, *(4,) * 15)


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (1, 512),
        (512, 512),
        (513, 1024),
        (1200, 1536),
        (4097, 4608),
        (9 * KIB, 9 * KIB),
        (8 * MIB + 1, 9 * MIB),
    ],
)
def test_eight_divisions(size: int, block: int) -> None:
    assert rounded(size, (8,) * 16) == block


def test_segments() -> None:
    assert segment_bytes(MIB) == 2 * MIB
    assert segment_bytes(MIB + 512) == 20 * MIB
    assert segment_bytes(10 * MIB - 512) == 20 * MIB
    assert segment_bytes(10 * MIB) == 10 * MIB
    assert segment_bytes(10 * MIB + 512) == 12 * MIB
    assert segment_bytes(5 * MIB, 40 * MIB) == 40 * MIB
