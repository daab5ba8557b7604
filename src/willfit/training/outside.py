"""What lies outside of torch's allocator, and what the allocator reserves beyond what is allocated."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.estimate import Term, between
from willfit.quantities import MIB

#: Bytes of a communicator between ranks, by how many there are (NVIDIA/nccl #964: 4 x A100).
_COMMUNICATOR_PAIR, _COMMUNICATOR = 544 * MIB, 688 * MIB

#: Holes as shares of what is allocated, that the smallest card on which traced steps of eight models went through had
#: beyond it: usual, least and most.
_HOLES = 0.02, 0.003, 0.06

#: Groups that NCCL's buffers were measured to take between these shares of that.
_LEAST, _MOST = 0.4, 2.5


def context() -> Term:
    """The driver's context with the kernels that were loaded."""
    found = constant("cuda.context")
    return between(
        "context", int(found.value), int(found.low), int(found.high), f"{int(found.value)} B of a driver context",
        "calibration: cuda.context",
    )  # fmt: skip


def communicators(groups: int, ranks: int) -> Term | None:
    """NCCL's buffers, outside of the allocator."""
    if not groups or ranks < 2:
        return None
    one = _COMMUNICATOR_PAIR if ranks == 2 else _COMMUNICATOR
    size = groups * one
    return between(
        "nccl",
        size,
        int(size * _LEAST),
        int(size * _MOST),
        f"{groups} communicators x {one} B",
        "NVIDIA/nccl #964",
    )


def fragmentation(allocated: int) -> Term:
    """Holes that the allocator cannot do without: it gives cached blocks back before it fails."""
    middle, low, high = (int(allocated * share) for share in _HOLES)
    return between(
        "fragmentation", middle, low, high, f"{middle} B of holes in {allocated} B that are allocated",
        "torch c10/cuda/CUDACachingAllocator.cpp: release_cached_blocks",
    )  # fmt: skip
