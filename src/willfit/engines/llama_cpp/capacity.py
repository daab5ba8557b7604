"""The longest context and the most sequences that devices and host hold with the same offload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.solving import largest
from willfit.estimate import Capacity

#: Cells come in steps of this.
_STEP = 256
#: The longest sequence that is looked at where a model sets no limit.
_LONGEST = 2**20


def capacity(
    sizing: Sizing, limits: Sequence[int], measure: Callable[[Settings], Sequence[int]]
) -> Capacity | None:
    """What the devices and the host can hold.

    Slots that share a cache have its tokens between them; others each have a cache of their own, and a further one
    costs what each of them does.

    Parameters
    ----------
    limits
        Bytes of each device that weights, caches and compute buffers may take; behind them those of the host, if
        they are known.
    measure
        What they take with changed settings, in the same order.
    """
    if not limits or not (sizing.context.keys_values or sizing.context.states):
        return None
    settings, resolved = sizing.settings, sizing.resolved
    sequences, shared = resolved.sequences, resolved.unified and resolved.sequences > 1
    each = resolved.n_ctx // sequences
    end = sizing.model.architecture.max_positions or max(each, _LONGEST)

    def most(slots: Settings, tokens: int) -> int:
        """The largest context, in steps, up to so many tokens."""

        def excess(steps: int) -> int:
            used = measure(replace(slots, n_ctx=steps * _STEP))
            return max(taken - limit for taken, limit in zip(used, limits, strict=True))

        return min(largest(excess, max(1, -(-tokens // _STEP))) * _STEP, tokens)

    if shared:
        held = most(settings, end * sequences)
        return Capacity(held, min(held, end), held / resolved.n_ctx)
    longest = most(replace(settings, n_parallel=1), end)
    further = _further(sizing, limits, measure(settings))
    concurrency = longest / each if further is None else sequences * max(0.0, 1 + further)
    return Capacity(max(int(concurrency * each), longest), longest, concurrency)


def _further(sizing: Sizing, limits: Sequence[int], used: Sequence[int]) -> float | None:
    """How many times the caches could be there again; negative if there is not enough for those that are, None if they
    are where no limit is known.
    """
    context = sizing.context
    places = [backend.place for backend in sizing.model.backends[:-1]] if sizing.devices else []
    caches = [context.keys_values.get(place, 0) + context.states.get(place, 0) for place in (*places, "CPU")]
    if sizing.divided:
        caches = [*(one.keys_values + one.states for one in sizing.divided), caches[-1]]
    found = []
    for limit, taken, kept in zip(limits, used, caches, strict=False):
        if kept:
            found.append((limit - taken) / kept)
        elif taken > limit:
            found.append(-1.0)
    return min(found, default=None)
