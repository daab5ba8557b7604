"""What a point answers: one row, the same whether it was asked alone or in columns."""

from __future__ import annotations

from typing import NamedTuple

from willfit.estimate import Estimate
from willfit.planning.binding import places
from willfit.speed.answer import Speed


class Row(NamedTuple):
    """The answer at one point. Bytes are those of the fullest device, the one with the least room left.

    Attributes
    ----------
    engine, engine_version
        Who would run it.
    verdict, probability
        As `Estimate` has them; None where there is an error.
    usable_bytes, peak_bytes, low_bytes, high_bytes
        The room of that device, what it holds at the peak, and the 90 % interval of that.
    pool_bytes, needed_bytes
        Of a pool that the engine sizes itself: what it has, and what the sequences that were asked for need.
    spare_bytes
        What is left where least is: of a pool, of a device, of the host if its RAM is known. Negative if that much
        is missing.
    host_bytes
        What the host holds at the peak.
    allocated_bytes, reserved_bytes
        Of training: what torch's counters say at the peak.
    refusal, error
        Why the engine would not start; why there is no answer.
    tokens_per_s, tokens_per_s_low, tokens_per_s_high
        Of all sequences together, with the 90 % interval; None unless asked for.
    """

    engine: str | None = None
    engine_version: str | None = None
    verdict: str | None = None
    probability: float | None = None
    usable_bytes: int | None = None
    peak_bytes: int | None = None
    low_bytes: int | None = None
    high_bytes: int | None = None
    pool_bytes: int | None = None
    needed_bytes: int | None = None
    spare_bytes: int | None = None
    host_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    refusal: str | None = None
    error: str | None = None
    tokens_per_s: float | None = None
    tokens_per_s_low: float | None = None
    tokens_per_s_high: float | None = None


def row_of(estimate: Estimate, speed: Speed | None = None) -> Row:
    """The row of an estimate."""
    device = max(estimate.devices, key=lambda one: one.peak_bytes - (one.usable_bytes or 0), default=None)
    low, high = device.interval_bytes if device else (None, None)
    demand = min(estimate.demands, key=lambda one: one.pool_bytes - one.needed_bytes, default=None)
    rate = speed.figures["tokens_per_s"] if speed else None
    allocated, reserved = _counters(estimate)
    return Row(
        engine=estimate.engine,
        engine_version=estimate.engine_version,
        verdict=estimate.verdict,
        probability=rounded(estimate.probability),
        usable_bytes=device.usable_bytes if device else None,
        peak_bytes=device.peak_bytes if device else None,
        low_bytes=low,
        high_bytes=high,
        pool_bytes=demand.pool_bytes if demand else None,
        needed_bytes=demand.needed_bytes if demand else None,
        spare_bytes=min((place.room_bytes - place.needed_bytes for place in places(estimate)), default=None),
        host_bytes=estimate.host.peak_bytes,
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        refusal=estimate.refusal or None,
        tokens_per_s=rate.value if rate else None,
        tokens_per_s_low=rate.low if rate else None,
        tokens_per_s_high=rate.high if rate else None,
    )


def _counters(estimate: Estimate) -> tuple[int | None, int | None]:
    """What torch's counters say at the peak of a step; None of what is no step."""
    if "trace" in estimate.details:
        trace = estimate.details["trace"]
        return trace["allocated_bytes"], trace["reserved_bytes"]
    if "training" in estimate.details:
        return estimate.details["allocated"][0], estimate.details["reserved"][0]
    return None, None


def error_row(message: str, engine: str | None) -> Row:
    """The row of a point that has no answer."""
    return Row(engine=engine, error=message)


def rounded(probability: float | None) -> float | None:
    """A probability as `--json` has it."""
    return None if probability is None else round(probability, 4)
