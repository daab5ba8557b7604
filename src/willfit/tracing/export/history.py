"""What an export must know of the allocator: what it did, and what it holds in the end.

These are the shapes of the records that `willfit.allocator` writes; any that have the same attributes will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Entry(Protocol):
    """One thing that happened."""

    @property
    def action(self) -> str:
        """`alloc`, `free`, `segment_alloc`, `segment_free`, `segment_map`, `segment_unmap` or `oom`."""

    @property
    def event(self) -> int:
        """Index of the event of the trace during which it happened."""

    @property
    def address(self) -> int:
        """Where; of an `oom`, bytes that the device had left."""

    @property
    def size(self) -> int:
        """Bytes: of blocks those that were asked for, of segments all."""

    @property
    def stream(self) -> int:
        """CUDA stream."""

    @property
    def storage(self) -> int:
        """Index of the storage in the trace; -1 for segments."""


class HeldBlock(Protocol):
    """A piece of a segment."""

    @property
    def address(self) -> int:
        """Where."""

    @property
    def size(self) -> int:
        """All its bytes."""

    @property
    def requested(self) -> int:
        """Bytes that were asked for."""

    @property
    def storage(self) -> int:
        """The storage in it; -1 if it is free."""


class Segment(Protocol):
    """What is reserved as one piece; of an expandable segment, a part that has memory throughout."""

    @property
    def address(self) -> int:
        """Where."""

    @property
    def size(self) -> int:
        """All its bytes."""

    @property
    def stream(self) -> int:
        """CUDA stream."""

    @property
    def small(self) -> bool:
        """Whether it is of the pool for small blocks."""

    @property
    def expandable(self) -> bool:
        """Whether it can grow."""

    @property
    def blocks(self) -> Sequence[HeldBlock]:
        """Its blocks, by address, without gaps."""
