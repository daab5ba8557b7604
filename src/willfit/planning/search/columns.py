"""Many budgets on many devices at once: the verdicts of `Estimate`, in columns.

The same arithmetic as `engines/vllm/sizing.py: size_up` and `estimate.py: combined, verdict_of`, for arrays;
`tests/planning/test_columns.py` holds the two to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from willfit.engines.budget import Budget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[Any]

#: Verdicts in the order of `estimate.VERDICTS`.
FITS, TIGHT, DOES_NOT_FIT = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Judged:
    """Budgets on devices, a row for each pair.

    Attributes
    ----------
    verdict
        Index into `estimate.VERDICTS`.
    pool, pool_low, pool_high
        Bytes for the cache; negative if nothing is left.
    needed
        Bytes of it that the sequences need.
    room
        How many sequences it holds; as many as the engine runs without a cache.
    peak, low, high
        What the device holds in all.
    """

    verdict: Whole
    pool: Whole
    pool_low: Whole
    pool_high: Whole
    needed: Whole
    room: Whole
    peak: Whole
    low: Whole
    high: Whole


def judged(budgets: Sequence[Budget], rows: Whole, usable: Whole, sequences: Whole) -> Judged:
    """Judge budgets on devices.

    Parameters
    ----------
    budgets
        Of some engines, models and layouts.
    rows
        Which budget each row is of.
    usable
        Bytes of each row's device.
    sequences
        How many each row shall hold at once.
    """
    import numpy as np

    def of(read: Any, dtype: Any = np.int64) -> Whole:
        return np.array([read(one) for one in budgets], dtype)[rows]

    inside, outside = of(lambda one: one.inside.bytes), of(lambda one: one.outside.bytes)
    requested = np.ceil(usable * of(lambda one: one.share, np.float64)).astype(np.int64)
    below, above = of(lambda one: one.inside.below, np.float64), of(lambda one: one.inside.above, np.float64)
    inside_below, inside_above = below, above
    for index in range(max((len(one.spreads) for one in budgets), default=0)):
        less = of(lambda one, i=index: one.spreads[i][0] if i < len(one.spreads) else 0.0, np.float64)
        more = of(lambda one, i=index: one.spreads[i][1] if i < len(one.spreads) else 0.0, np.float64)
        below = below + (requested * more).astype(np.int64).astype(np.float64) ** 2
        above = above + (requested * less).astype(np.int64).astype(np.float64) ** 2
    pool = requested - inside
    pool_low = pool - np.sqrt(above).astype(np.int64)
    pool_high = pool + np.sqrt(below).astype(np.int64)
    block = of(lambda one: one.block_bytes)
    each, kept = of(lambda one: one.sequence_bytes), of(lambda one: one.kept_bytes)
    least_needed = of(lambda one: one.least_bytes)
    needed = np.maximum(each * sequences, least_needed) + kept
    cached = block > 0
    cache = np.where(cached, np.maximum(pool, 0) // np.maximum(block, 1) * block, 0)
    peak = inside + outside + cache
    # A cache takes what other terms leave, so that only what lies outside is uncertain; else all terms are.
    made_up = cached & (pool > 0)
    least = np.where(cached, cache - np.clip(np.minimum(pool_low, cache), 0, None), 0).astype(np.float64)
    most = np.where(cached, np.maximum(pool_high, cache) - cache, 0).astype(np.float64)
    out_below = of(lambda one: one.outside.below, np.float64)
    out_above = of(lambda one: one.outside.above, np.float64)
    low = peak - np.where(made_up, np.sqrt(out_below), np.sqrt(inside_below + least**2 + out_below)).astype(
        np.int64
    )
    high = peak + np.where(made_up, np.sqrt(out_above), np.sqrt(inside_above + most**2 + out_above)).astype(
        np.int64
    )
    verdict = np.maximum(
        _verdict(low, high, usable), np.where(cached, _verdict(-pool_high, -pool_low, -needed), FITS)
    )
    refused = of(lambda one: bool(one.refusal), np.bool_)
    most = of(lambda one: one.most_sequences)
    starts = cache >= least_needed + kept
    room = np.where(cached, np.where(starts, (cache - kept) // np.maximum(each, 1), 0), most)
    return Judged(
        np.where(refused, DOES_NOT_FIT, verdict), pool, pool_low, pool_high, needed, np.minimum(room, most),
        peak, low, high,
    )  # fmt: skip


def _verdict(low: Whole, high: Whole, limit: Whole) -> Whole:
    """`estimate.verdict_of`."""
    import numpy as np

    return np.where(high <= limit, FITS, np.where(low > limit, DOES_NOT_FIT, TIGHT))
