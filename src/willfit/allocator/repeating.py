"""A program's last step, run again: what stays reserved settles after a few steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from willfit.errors import BadInput


def repeated(
    sizes: Sequence[int],
    events: Sequence[int],
    start: int,
    stop: int,
    times: int,
    streams: Sequence[int] | None = None,
) -> tuple[list[int], list[int], list[int]]:
    """Sizes, events and streams with the events from `start` to `stop` once more, `times` times.

    Storages that are made in the slice are made anew each time. Those that it frees, but that were there before, were
    made by the step before: in a repetition the slice frees what its own last run left behind, matched by size and
    CUDA stream in the order in which they were made. What has no match is freed only once.

    Parameters
    ----------
    sizes, events, streams
        As for `replay`; events after `stop` follow the repetitions as they are.
    start, stop
        The slice: a whole step.
    times
        How many more times.

    Raises
    ------
    BadInput
        If the slice is none, or the number is negative.
    """
    if not 0 <= start <= stop <= len(events) or times < 0:
        raise BadInput(f"events {start} to {stop} of {len(events)} cannot be repeated {times} times")
    sizes, streams = list(sizes), [0] * len(sizes) if streams is None else list(streams)
    part = events[start:stop]
    made = [event for event in part if event >= 0]
    freed = {~event for event in part if event < 0}
    own = set(made)
    left: dict[tuple[int, int], list[int]] = defaultdict(list)
    for storage in made:
        if storage not in freed:
            left[sizes[storage], streams[storage]].append(storage)
    order = {event: place for place, event in enumerate(events[:start]) if event >= 0}
    heirs: dict[int, int] = {}  # of a storage from before: what the slice leaves behind in its stead
    for storage in sorted(freed - own, key=lambda storage: order.get(storage, -1)):
        waiting = left[sizes[storage], streams[storage]]
        if waiting:
            heirs[storage] = waiting.pop(0)

    again: list[int] = []
    now = {storage: storage for storage in made}  # of the slice's storages: those of the run before
    for _ in range(times):
        before, now = now, {}
        for event in part:
            if event >= 0:
                now[event] = len(sizes)
                again.append(len(sizes))
                sizes.append(sizes[event])
                streams.append(streams[event])
            elif ~event in own:
                again.append(~now[~event])
            elif ~event in heirs:
                again.append(~before[heirs[~event]])
    renewed = {heir: now[heir] for heir in own - freed} if times else {}
    rest = [event if event >= 0 else ~renewed.get(~event, ~event) for event in events[stop:]]
    return sizes, [*events[:stop], *again, *rest], streams
