"""The longest context and the most sequences that the devices hold with the same offload."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.solving import largest
from willfit.estimate import Capacity

#: Cells come in steps of this.
_STEP = 256
#: The longest sequence that is looked at where a model sets no limit.
_LONGEST = 2**20


def capacity(
    sizing: Sizing, limits: Sequence[int], with_context: Callable[[int, int], Sequence[int]]
) -> Capacity | None:
    """What the devices can hold.

    Parameters
    ----------
    limits
        Bytes of each device that weights, caches and compute buffers may take.
    with_context
        Bytes of each device for so many tokens of each of so many sequences.
    """
    architecture = sizing.model.architecture
    if not limits or not (sizing.context.keys_values or sizing.context.states):
        return None
    # Slots that share their cells can each have the whole context.
    sequences = 1 if sizing.resolved.unified else sizing.resolved.sequences
    each = sizing.resolved.n_ctx // sequences

    def excess(tokens: int, count: int) -> int:
        used = with_context(tokens, count)
        return max(taken - limit for taken, limit in zip(used, limits, strict=True))

    end = architecture.max_positions or max(each, _LONGEST)
    steps = max(1, -(-end // _STEP))
    longest = min(largest(lambda n: excess(n * _STEP, 1), steps) * _STEP, end)
    free = min(limit - taken for limit, taken in zip(limits, sizing.device_bytes, strict=True))
    kept = _on_fullest(sizing, limits)
    concurrency = sequences * (1 + free / kept) if kept else float(sequences)
    concurrency = max(0.0, concurrency)
    return Capacity(int(concurrency * each), longest, concurrency)


def _on_fullest(sizing: Sizing, limits: Sequence[int]) -> int:
    """Caches of the device with least room."""
    used = sizing.device_bytes
    index = min(range(len(limits)), key=lambda device: limits[device] - used[device])
    place = sizing.model.backends[index].place
    context = sizing.context
    return context.keys_values.get(place, 0) + context.states.get(place, 0)
