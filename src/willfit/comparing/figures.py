"""Why the cache that is needed, and the room that there is, differ."""

from __future__ import annotations

from dataclasses import replace

from willfit.comparing.held import held_by, held_reasons
from willfit.comparing.records import Figure, Reason, whole
from willfit.comparing.sides import Side
from willfit.comparing.terms import Known
from willfit.estimate import Capacity
from willfit.quantities import format_bytes

#: What engines take for sequences beyond what these must hold.
_BEYOND = "blocks, groups, padding and dtypes of states"

#: Less of a sequence than this is no reason of its own.
_LEAST = 0.005


def figures_of(known: Known) -> tuple[Figure, ...]:
    """The figures of both sides, with the reasons."""
    a, b = known.a, known.b
    figures = []
    if a.pool_bytes is not None or b.pool_bytes is not None:
        figures.append(Figure("cache_needed_bytes", a.needed_bytes, b.needed_bytes, _of_need(known)))
    capacities = (a.estimate.capacity, b.estimate.capacity)
    if capacities != (None, None):
        tokens, longest, sequences = (
            Figure(name, _of(capacities[0], name), _of(capacities[1], name))
            for name in ("kv_cache_tokens", "max_context", "max_concurrency")
        )
        figures += [
            replace(tokens, reasons=_of_tokens(tokens, known)),
            replace(longest, reasons=_of_longest(longest, known)),
            replace(sequences, reasons=_of_sequences(sequences, known)),
        ]
    return tuple(figure if figure.difference else replace(figure, reasons=()) for figure in figures)


def _of(capacity: Capacity | None, name: str) -> float | None:
    value: float | None = getattr(capacity, name, None)
    return value


def _of_need(known: Known) -> tuple[Reason, ...]:
    """What the asked sequences must hold, and what the engines take beyond that."""
    a, b = known.a, known.b
    if a.needed_bytes is None or b.needed_bytes is None:
        return ()
    needs = a.needed_bytes, b.needed_bytes
    causes = [change.words for change in known.entering("needed")]
    reasons = held_reasons(held_by(a), held_by(b), needs, _BEYOND, causes)
    return whole(reasons, needs[1] - needs[0])


def _of_tokens(figure: Figure, known: Known) -> tuple[Reason, ...]:
    """More room at A's bytes a token, then B's bytes a token."""
    a, b = figure.a, figure.b
    if a is None or b is None or a == b:
        return ()
    pools = known.a.room_bytes, known.b.room_bytes
    if min(*pools, a, b) <= 0:
        return (Reason(_room(*pools), b - a),)
    room = (pools[1] - pools[0]) * a / pools[0]
    reasons = [Reason(_room(pools[0], pools[1]), room)]
    each = pools[0] / a, pools[1] / b
    if format_bytes(each[0]) != format_bytes(each[1]):
        words = f"a token takes {format_bytes(each[0])} → {format_bytes(each[1])} of it"
        causes = [change.words for change in known.entering("reported")] if _reports_otherwise(known) else []
        reasons.append(Reason("; ".join((words, *causes)), (b - a) - room))
    return whole(reasons, int(b - a))


def _of_sequences(figure: Figure, known: Known) -> tuple[Reason, ...]:
    """More room at A's size of a sequence, then B's size."""
    a, b = figure.a, figure.b
    if a is None or b is None or a == b:
        return ()
    pools = known.a.room_bytes, known.b.room_bytes
    if min(*pools, a, b) <= 0:
        return (Reason(_room(*pools), b - a),)
    room = (pools[1] - pools[0]) * a / pools[0]
    each = pools[0] / a, pools[1] / b
    if abs(each[0] - each[1]) < 1e-3 * each[0]:
        return (Reason(_room(pools[0], pools[1]), b - a),)
    lengths = [f"{side.context:,} tokens" for side in (known.a, known.b)]
    length = lengths[0] if lengths[0] == lengths[1] else " → ".join(lengths)
    sizes = " → ".join(format_bytes(size) for size in each)
    reasons = [
        Reason(_room(pools[0], pools[1]), room),
        Reason(f"a sequence of {length} takes {sizes}", b - a - room),
    ]
    reasons.sort(key=lambda reason: -abs(reason.difference))
    if abs(reasons[1].difference) < _LEAST:
        return (replace(reasons[0], difference=b - a),)
    return tuple(reasons)


def _of_longest(figure: Figure, known: Known) -> tuple[Reason, ...]:
    """The model's own limit, or what the memory holds."""
    a, b = figure.a, figure.b
    if a is None or b is None or a == b:
        return ()
    words = [
        f"{letter}: {longest:,} tokens are "
        + ("the model's own limit" if longest == side.architecture.max_positions else "what the memory holds")
        for letter, side, longest in zip("AB", (known.a, known.b), (a, b), strict=True)
    ]
    return (Reason("; ".join(words), b - a),)


def _room(a: int, b: int) -> str:
    return f"room for the cache {format_bytes(a)} → {format_bytes(b)}"


def _reports_otherwise(known: Known) -> bool:
    """Whether reported tokens are not just those of all blocks, so that the rule of the version shows."""

    def otherwise(side: Side) -> bool:
        details, capacity = side.details, side.estimate.capacity
        if capacity is None or "num_gpu_blocks" not in details:
            return False
        return bool(capacity.kv_cache_tokens != details["num_gpu_blocks"] * details["block_size"])

    return otherwise(known.a) or otherwise(known.b)
