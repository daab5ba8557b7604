"""Blocks of the caching allocator, by the rules of its source."""

import pytest

from willfit.engines.caching_allocator import block_bytes, cublas_workspace, size_classes
from willfit.quantities import MIB


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


def test_outgrown_segments_add_up() -> None:
    # From 11 to 17 MiB a tensor passes through segments of 12, 14, 16 and 18 MiB.
    assert size_classes(11 * MIB, 17 * MIB) == (12 + 14 + 16 + 18) * MIB
    assert size_classes(1 * MIB, 9 * MIB) == 0
    assert size_classes(12 * MIB, 12 * MIB) == 12 * MIB


@pytest.mark.parametrize(
    ("capability", "mib"), [("8.0", 8.125), ("8.9", 8.125), ("9.0", 32), ("12.0", 32), ("", 8.125)]
)
def test_cublas_workspace(capability: str, mib: float) -> None:
    assert cublas_workspace(capability) == mib * MIB
