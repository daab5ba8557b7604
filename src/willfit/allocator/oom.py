"""The end of a program that asks for more than there is, and what torch says then."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.quantities import GIB, KIB, MIB


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The state in which a request failed.

    Attributes
    ----------
    asked
        Bytes that were asked for.
    size
        Bytes of the block that was needed.
    segment
        Bytes of the segment that it would have opened: what the message calls "tried to allocate".
    stream
        CUDA stream of the request.
    allocated, reserved
        Bytes of blocks in use, and of segments, once everything free was given back.
    capacity, free
        Bytes of the device, and what is left of it.
    in_use
        Bytes that this process has of the device, its context included.
    allowed
        Bytes that a memory fraction allows; None without one.
    rejected
        Whether `throw_on_cudamalloc_oom` refused it before anything was given back.
    """

    asked: int
    size: int
    segment: int
    stream: int
    allocated: int
    reserved: int
    capacity: int
    free: int
    in_use: int
    allowed: int | None = None
    rejected: bool = False

    @property
    def message(self) -> str:
        """What torch 2.13.0 says (`DeviceCachingAllocator::malloc`), word by word, for GPU 0."""
        if self.rejected:
            return (
                "CUDA out of memory. Allocation was preemptively rejected because it would exceed "
                f"per_process_memory_fraction limit. Requested size: {format_size(self.asked)}"
            )
        allowed = f"{format_size(self.allowed)} allowed; " if self.allowed is not None else ""
        return (
            f"CUDA out of memory. Tried to allocate {format_size(self.segment)}. GPU 0 has a total capacity of "
            f"{format_size(self.capacity)} of which {format_size(self.free)} is free. Including non-PyTorch memory, "
            f"this process has {format_size(self.in_use)} memory in use. {allowed}Of the allocated memory "
            f"{format_size(self.allocated)} is allocated by PyTorch, and "
            f"{format_size(self.reserved - self.allocated)} is reserved by PyTorch but unallocated. If reserved but "
            "unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
            "fragmentation.  See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/"
            "cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
        )


class DeviceFull(Exception):
    """The device has no room for a segment, even after all free ones were given back.

    Attributes
    ----------
    state
        What was asked for, and what there was.
    """

    def __init__(self, state: OutOfMemory) -> None:
        super().__init__(state.message)
        self.state = state


def format_size(size: int) -> str:
    """Bytes as torch writes them (`c10/core/CachingDeviceAllocator.cpp: format_size`)."""
    if size <= KIB:
        return f"{size} bytes"
    for unit, name in ((KIB, "KiB"), (MIB, "MiB")):
        if size <= unit * KIB:
            return f"{size / unit:.2f} {name}"
    return f"{size / GIB:.2f} GiB"
