"""Blocks of the caching allocator, by the rules of its source."""

import pytest

from willfit.engines.caching_allocator import block_bytes, cublas_workspace
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


@pytest.mark.parametrize(
    ("capability", "mib"), [("8.0", 8.125), ("8.9", 8.125), ("9.0", 32), ("12.0", 32), ("", 8.125)]
)
def test_cublas_workspace(capability: str, mib: float) -> None:
    assert cublas_workspace(capability) == mib * MIB
