"""An allocator so small that its history is plain: a stand-in for the one that is replayed.

Blocks are multiples of 512 bytes, put into the first gap of a segment of their stream; a segment that is empty stays
until the end. Its records have the attributes that exports read.
"""

from __future__ import annotations

from typing import NamedTuple

from willfit.tracing.trace import Trace

ROUND, SEGMENT, BASE = 512, 4096, 0x7F00_0000_0000


class Entry(NamedTuple):
    action: str
    event: int
    address: int
    size: int
    stream: int
    storage: int = -1


class Block(NamedTuple):
    address: int
    size: int
    requested: int
    storage: int


class Segment(NamedTuple):
    address: int
    size: int
    stream: int
    small: bool
    expandable: bool
    blocks: list[Block]


def replayed(trace: Trace) -> tuple[list[Entry], list[Segment]]:
    """A trace's history, and what is held in the end."""
    entries: list[Entry] = []
    segments: list[tuple[int, int, int]] = []  # address, size, stream
    held: dict[int, tuple[int, int]] = {}  # storage: address, size
    for event, change in enumerate(trace.events):
        index = change if change >= 0 else ~change
        one = trace.storages[index]
        if not one.nbytes:
            continue
        if change < 0:
            entries.append(Entry("free", event, held.pop(index)[0], one.nbytes, one.cuda_stream, index))
            continue
        size = -(-one.nbytes // ROUND) * ROUND
        address = next((a for s in segments for a in _gaps(s, size, one.cuda_stream, held)), None)
        if address is None:
            address = segments[-1][0] + segments[-1][1] + SEGMENT if segments else BASE
            segments.append((address, max(size, SEGMENT), one.cuda_stream))
            entries.append(Entry("segment_alloc", event, address, max(size, SEGMENT), one.cuda_stream))
        held[index] = (address, size)
        entries.append(Entry("alloc", event, address, one.nbytes, one.cuda_stream, index))
    return entries, [Segment(*s, True, False, _blocks(s, held, trace)) for s in segments]


def _inside(segment: tuple[int, int, int], held: dict[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
    start, size, _ = segment
    return sorted((a, n, i) for i, (a, n) in held.items() if start <= a < start + size)


def _gaps(
    segment: tuple[int, int, int], size: int, stream: int, held: dict[int, tuple[int, int]]
) -> list[int]:
    if segment[2] != stream:
        return []
    free, found = segment[0], []
    for address, used, _ in [*_inside(segment, held), (segment[0] + segment[1], 0, -1)]:
        if address - free >= size:
            found.append(free)
        free = address + used
    return found


def _blocks(segment: tuple[int, int, int], held: dict[int, tuple[int, int]], trace: Trace) -> list[Block]:
    found, at = [], segment[0]
    for address, size, index in [*_inside(segment, held), (segment[0] + segment[1], 0, -1)]:
        if address > at:
            found.append(Block(at, address - at, 0, -1))
        if index >= 0:
            found.append(Block(address, size, trace.storages[index].nbytes, index))
        at = address + size
    return found
