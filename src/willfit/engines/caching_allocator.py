"""What a tensor is expected to occupy in PyTorch's CUDA caching allocator (`willfit.allocator` replays it).

A block counts as allocated with its whole size, and a block is split only if more than 1 MiB would remain of it.
"""

from __future__ import annotations

from willfit.allocator.sizes import MIN_BLOCK, MIN_LARGE, REFERENCE, ROUND_LARGE, SMALL
from willfit.quantities import KIB, MIB, round_up

__all__ = ["REFERENCE", "block_bytes", "block_slack", "cublas_workspace"]


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
