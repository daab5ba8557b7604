"""Streams that were recorded on a GPU (`torch.cuda.memory._record_memory_history`), as programs to replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from willfit.errors import BadInput


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a program did, and what torch's allocator did with it.

    Attributes
    ----------
    sizes, events, streams, emptied
        As for `replay`. CUDA streams are numbered from 0, the default one, in the order in which they appear.
    segments
        Bytes of each segment that was opened or mapped, in order, negative where it was given back.
    """

    sizes: tuple[int, ...]
    events: tuple[int, ...]
    streams: tuple[int, ...]
    emptied: tuple[int, ...]
    segments: tuple[int, ...]


def recorded(snapshot: Mapping[str, Any], device: int = 0) -> Recorded:
    """The program in a snapshot, which must reach back to the program's first allocation.

    A block that waits for another CUDA stream is freed when that is through (`free_completed`). Segments that go
    without a request in between, or in the end, are taken for `empty_cache`.

    Parameters
    ----------
    snapshot
        Of `torch.cuda.memory._snapshot()`, or of the pickle that `_dump_snapshot` writes.
    device
        Whose trace.

    Raises
    ------
    BadInput
        If it has no trace of the device, frees what it never made, or ran out of entries.
    """
    try:
        entries: Sequence[Mapping[str, Any]] = snapshot["device_traces"][device]
        return _read(entries)
    except (KeyError, IndexError, TypeError) as error:
        raise BadInput(f"not a memory snapshot with a trace of device {device}: {error!r}") from None


def _read(entries: Sequence[Mapping[str, Any]]) -> Recorded:
    sizes: list[int] = []
    events: list[int] = []
    streams: list[int] = []
    emptied: list[int] = []
    segments: list[int] = []
    numbers: dict[int, int] = {0: 0}
    alive: dict[int, int] = {}
    given_back = False  # since the last request
    for entry in entries:
        action, address, size = entry["action"], entry["addr"], entry["size"]
        if action in ("segment_alloc", "segment_map"):
            segments.append(size)
            given_back = False  # it made room for this one
        elif action in ("segment_free", "segment_unmap"):
            segments.append(-size)
            given_back = True
        elif action == "alloc":
            if given_back:
                emptied.append(len(events))
                given_back = False
            alive[address] = len(sizes)
            events.append(len(sizes))
            sizes.append(size)
            streams.append(numbers.setdefault(entry["stream"], len(numbers)))
        elif action == "free_completed":
            if given_back:
                emptied.append(len(events))
                given_back = False
            if address not in alive:
                raise BadInput(
                    f"the snapshot's trace frees address {address:#x}, which it never gave out",
                    "record from the start of the program, with max_entries large enough",
                )
            events.append(~alive.pop(address))
    if given_back:
        emptied.append(len(events))
    return Recorded(tuple(sizes), tuple(events), tuple(streams), tuple(emptied), tuple(segments))
